package cache

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func isDamaged(err error) bool { return errors.Is(err, blob.ErrDamaged) }

var ctx = context.Background()

// remote is a store in memory that does as it is told.
type remote struct {
	mu      sync.Mutex
	blobs   map[fleet.Digest][]byte
	fetches map[fleet.Digest]int
	err     error                     // of every call
	body    func(io.Reader) io.Reader // around what is fetched
	hold    chan struct{}             // a fetch waits for it
}

func newRemote() *remote {
	return &remote{blobs: map[fleet.Digest][]byte{}, fetches: map[fleet.Digest]int{}}
}

// add stores content past the cache.
func (r *remote) add(content []byte) fleet.Digest {
	d := fleet.Digest(sha256.Sum256(content))
	r.mu.Lock()
	defer r.mu.Unlock()
	r.blobs[d] = content
	return d
}

func (r *remote) fetched(d fleet.Digest) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.fetches[d]
}

func (r *remote) Fetch(_ context.Context, d fleet.Digest) (io.ReadCloser, int64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fetches[d]++
	b, ok := r.blobs[d]
	if r.err != nil {
		return nil, 0, r.err
	}
	if !ok {
		return nil, 0, fleet.Errorf(fleet.CodeNotFound, "none")
	}
	var body io.Reader = bytes.NewReader(b)
	if r.body != nil {
		body = r.body(body)
	}
	if hold := r.hold; hold != nil {
		body = io.MultiReader(waiter{hold}, body)
	}
	return io.NopCloser(body), int64(len(b)), nil
}

type waiter struct{ c chan struct{} }

func (w waiter) Read([]byte) (int, error) { <-w.c; return 0, io.EOF }

func (r *remote) Upload(_ context.Context, d fleet.Digest, src io.ReadSeeker, size int64) (bool, error) {
	b, err := io.ReadAll(src)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.err != nil {
		return false, errors.Join(err, r.err)
	}
	_, was := r.blobs[d]
	if int64(len(b)) != size || fleet.Digest(sha256.Sum256(b)) != d {
		return false, errors.New("other bytes than were announced")
	}
	r.blobs[d] = b
	return !was, nil
}

func (r *remote) Check(ctx context.Context, d fleet.Digest, each func(int) error) (int64, error) {
	body, size, err := r.Fetch(ctx, d)
	if err == nil {
		_, err = io.Copy(io.Discard, blob.Prove(body, d))
	}
	return size, err
}

func (r *remote) List(ctx context.Context) ([]fleet.Digest, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	list := []fleet.Digest{}
	for d := range r.blobs {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b fleet.Digest) int { return bytes.Compare(a[:], b[:]) })
	return list, errors.Join(r.err, ctx.Err())
}

func (r *remote) Delete(_ context.Context, d fleet.Digest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.blobs[d]; !ok {
		return fleet.Errorf(fleet.CodeNotFound, "none")
	}
	delete(r.blobs, d)
	return r.err
}

func openCache(t testing.TB, o Options) *Store {
	t.Helper()
	if o.Path == "" {
		o.Path = t.TempDir()
	}
	c, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// want opens a blob and compares it.
func want(t *testing.T, c *Store, d fleet.Digest, content []byte) {
	t.Helper()
	f, err := c.Open(ctx, d)
	if err != nil {
		t.Errorf("%v: %v", d, err)
		return
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%v: %d other bytes, %v", d, len(got), err)
	}
}

// files are what is in the folder beside the lock, and how many bytes they take.
func files(t *testing.T, dir string) (names []string, bytes int64) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || e.IsDir() || e.Name() == lockName {
			return err
		}
		st, err := e.Info()
		names = append(names, e.Name())
		bytes += st.Size()
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return names, bytes
}

// The suites, without a network.
func TestStore(t *testing.T) {
	type opened struct {
		r *remote
		c *Store
	}
	all := map[string]*opened{}
	open := func(t testing.TB, dir string) blob.Store {
		o := all[dir]
		if o == nil {
			o = &opened{r: newRemote()}
			all[dir] = o
		} else if err := o.c.Close(); err != nil {
			t.Fatal(err)
		}
		o.c = openCache(t, Options{Remote: o.r, Path: filepath.Join(dir, "cache")})
		return o.c
	}
	t.Run("Store", func(t *testing.T) { blobtest.Run(t, open) })
	t.Run("Stager", func(t *testing.T) { blobtest.RunStager(t, open) })
}

// However many want a blob at once, it is fetched once (C3), and who goes away does
// not end it for the others.
func TestOneFetch(t *testing.T) {
	r := newRemote()
	content := blobtest.Content(1, 400_000)
	d := r.add(content)
	r.hold = make(chan struct{})
	c := openCache(t, Options{Remote: r})
	gone, cancel := context.WithCancel(ctx)
	first := make(chan error, 1)
	go func() { _, err := c.Open(gone, d); first <- err }()
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() { want(t, c, d, content) })
	}
	cancel()
	if err := <-first; !errors.Is(err, context.Canceled) {
		t.Errorf("who went away: %v", err)
	}
	close(r.hold)
	wg.Wait()
	want(t, c, d, content)
	if n := r.fetched(d); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// Who waits too long is told to come again; the fetch goes on without him.
func TestSlowRemote(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newRemote()
		content := blobtest.Content(1, 1000)
		d := r.add(content)
		r.hold = make(chan struct{})
		c := openCache(t, Options{Remote: r})
		begun := time.Now()
		if _, err := c.Open(ctx, d); fleet.CodeOf(err) != fleet.CodeBusy || time.Since(begun) != DefaultWait {
			t.Errorf("after %s: %v", time.Since(begun), err)
		}
		close(r.hold)
		synctest.Wait()
		want(t, c, d, content)
		if n := r.fetched(d); n != 1 {
			t.Errorf("fetched %d times", n)
		}
	})
}

// The folder stays within its bound (C2), and who was used last stays in it, over a
// start too.
func TestLeastRecentlyUsed(t *testing.T) {
	r := newRemote()
	dir := t.TempDir()
	now := time.Unix(1_900_000_000, 0)
	o := Options{Remote: r, Path: dir, Limit: 1_000_000, Now: func() time.Time { return now }}
	c := openCache(t, o)
	var contents [][]byte
	var ds []fleet.Digest
	use := func(i int) {
		t.Helper()
		now = now.Add(2 * touchEvery)
		want(t, c, ds[i], contents[i])
		if _, n := files(t, dir); n > o.Limit {
			t.Errorf("%d bytes, bound %d", n, o.Limit)
		}
	}
	for i := range 6 {
		contents = append(contents, blobtest.Content(uint64(i), 240_000))
		ds = append(ds, r.add(contents[i]))
	}
	for _, i := range []int{0, 1, 2, 3, 0, 4, 1, 5} {
		use(i) // four have room: 4 removes 1, 1 removes 2, 5 removes 3
	}
	count := func(what string, wants ...int) {
		t.Helper()
		for i, n := range wants {
			if got := r.fetched(ds[i]); got != n {
				t.Errorf("%s: %d was fetched %d times, not %d", what, i, got, n)
			}
		}
	}
	count("running", 1, 2, 1, 1, 1, 1)
	use(0)
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	o.Limit = 500_000 // the newest two have room: 5 and 0
	c = openCache(t, o)
	if n, used := c.Usage(); n != 2 || used != 480_000 {
		t.Errorf("%d copies of %d bytes after a start with less room", n, used)
	}
	use(0)
	use(5)
	count("started again", 1, 2, 1, 1, 1, 1)

	// What is pushed is a copy too, and makes room.
	if _, _, err := c.Put(ctx, bytes.NewReader(blobtest.Content(9, 300_000)), -1); err != nil {
		t.Fatal(err)
	}
	if _, n := files(t, dir); n > o.Limit {
		t.Errorf("%d bytes after a push, bound %d", n, o.Limit)
	}
	// One that has no room at all is refused before its first byte.
	big := r.add(make([]byte, 500_001))
	if _, err := c.Open(ctx, big); fleet.CodeOf(err) != fleet.CodeTooLarge {
		t.Errorf("%v", err)
	}
}

// A copy that is not what it was is found before its first byte is served, and
// fetched again (C1): after a start, a day later, and at once where its length tells.
func TestDamagedCopy(t *testing.T) {
	spoil := map[string]func(path string) error{
		"a bit": func(path string) error {
			b, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			b[len(b)/2] ^= 4
			return errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600))
		},
		"cut":     func(path string) error { return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 1000)) },
		"removed": os.Remove,
	}
	for name, f := range spoil {
		for _, when := range []string{"start", "a day", "at once"} {
			if name == "a bit" && when == "at once" {
				continue // a day at most: C1
			}
			t.Run(name+" "+when, func(t *testing.T) {
				r := newRemote()
				content := blobtest.Content(1, 100_000)
				d := r.add(content)
				now := time.Unix(1_900_000_000, 0)
				o := Options{Remote: r, Path: t.TempDir(), Now: func() time.Time { return now }}
				c := openCache(t, o)
				want(t, c, d, content)
				if when == "start" {
					c.Close()
				}
				if err := f(c.path(d)); err != nil {
					t.Fatal(err)
				}
				switch when {
				case "start":
					c = openCache(t, o)
				case "a day":
					now = now.Add(provenFor)
				}
				want(t, c, d, content)
				if n := r.fetched(d); n != 2 {
					t.Errorf("fetched %d times", n)
				}
				if n, used := c.Usage(); n != 1 || used != 100_000 {
					t.Errorf("%d copies of %d bytes", n, used)
				}
			})
		}
	}
}

// What comes damaged, cut, too long or not to its end leaves nothing behind.
func TestBadFetch(t *testing.T) {
	broken := errors.New("the line broke")
	for name, c := range map[string]struct {
		body func(io.Reader) io.Reader
		is   func(error) bool
	}{
		"damaged": {func(r io.Reader) io.Reader {
			return io.MultiReader(io.LimitReader(r, 99_999), bytes.NewReader([]byte{0}))
		}, isDamaged},
		"cut":       {func(r io.Reader) io.Reader { return io.LimitReader(r, 99_000) }, isDamaged},
		"empty":     {func(io.Reader) io.Reader { return bytes.NewReader(nil) }, isDamaged},
		"too long":  {func(r io.Reader) io.Reader { return io.MultiReader(r, bytes.NewReader([]byte{1})) }, func(err error) bool { return err != nil }},
		"broken":    {func(r io.Reader) io.Reader { return io.MultiReader(io.LimitReader(r, 5), iotest.ErrReader(broken)) }, func(err error) bool { return errors.Is(err, broken) }},
		"in halves": {iotest.HalfReader, func(err error) bool { return err == nil }},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRemote()
			d := r.add(blobtest.Content(1, 100_000))
			r.body = c.body
			s := openCache(t, Options{Remote: r})
			f, err := s.Open(ctx, d)
			if !c.is(err) {
				t.Errorf("%v", err)
			}
			if err == nil {
				f.Close()
				return
			}
			if names, _ := files(t, s.o.Path); len(names) != 0 {
				t.Errorf("left behind: %v", names)
			}
			if n, used := s.Usage(); n != 0 || used != 0 {
				t.Errorf("%d copies of %d bytes are counted", n, used)
			}
			r.body = nil
			want(t, s, d, blobtest.Content(1, 100_000))
		})
	}
}

// A full disk is an error, and copies go for what is wanted now.
func TestFullDisk(t *testing.T) {
	r := newRemote()
	d := r.add(blobtest.Content(1, 100_000))
	c := openCache(t, Options{Remote: r, Reserve: 1 << 60}) // bytes: no disk has so many free
	if _, err := c.Open(ctx, d); fleet.CodeOf(err) != fleet.CodeNoSpace {
		t.Errorf("fetched: %v", err)
	}
	if _, _, err := c.Put(ctx, bytes.NewReader([]byte("x")), 1); fleet.CodeOf(err) != fleet.CodeNoSpace {
		t.Errorf("put: %v", err)
	}
	if _, err := c.Stage(ctx, 1); fleet.CodeOf(err) != fleet.CodeNoSpace {
		t.Errorf("staged: %v", err)
	}
	if names, _ := files(t, c.o.Path); len(names) != 0 {
		t.Errorf("left behind: %v", names)
	}
	if n, used := c.Usage(); n != 0 || used != 0 {
		t.Errorf("%d copies of %d bytes are counted", n, used)
	}
}

// A server that is killed at any moment leaves whole copies, and what is half
// written goes at the next start. (That a copy is flushed before it has its name is
// the folder's: blob/dir's power loss.)
func TestLeftovers(t *testing.T) {
	r := newRemote()
	content := blobtest.Content(1, 50_000)
	d := r.add(content)
	o := Options{Remote: r, Path: t.TempDir()}
	c := openCache(t, o)
	want(t, c, d, content)
	if err := os.WriteFile(filepath.Join(o.Path, "tmp", "put-1"), content[:7], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("a second server on the folder: %v", err)
	}
	c.Close() // as the end of its process does
	c = openCache(t, o)
	if names, _ := files(t, o.Path); len(names) != 1 || names[0] != d.String() {
		t.Errorf("%v", names)
	}
	want(t, c, d, content)
	if n := r.fetched(d); n != 1 {
		t.Errorf("fetched %d times", n)
	}
}

// Blobs by many at once, in a folder that has room for a few: no byte is wrong,
// nothing is lost, the bound holds at the end.
func TestManyInLittleRoom(t *testing.T) {
	r := newRemote()
	var contents [][]byte
	var ds []fleet.Digest
	for i := range 12 {
		contents = append(contents, blobtest.Content(uint64(i), 50_000+i))
		ds = append(ds, r.add(contents[i]))
	}
	c := openCache(t, Options{Remote: r, Limit: 300_000})
	var wg sync.WaitGroup
	for k := range 8 {
		wg.Go(func() {
			for n := range 40 {
				i := (n*7 + k*5) % len(ds)
				f, err := c.Open(ctx, ds[i])
				if fleet.CodeOf(err) == fleet.CodeBusy {
					continue
				}
				if err != nil {
					t.Errorf("%d: %v", i, err)
					continue
				}
				if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, contents[i]) {
					t.Errorf("%d: %d other bytes, %v", i, len(got), err)
				}
				f.Close()
			}
		})
	}
	wg.Wait()
	names, n := files(t, c.o.Path)
	copies, used := c.Usage()
	if n > 300_000 || used != n || copies != len(names) {
		t.Errorf("%d files of %d bytes, counted %d of %d", len(names), n, copies, used)
	}
}
