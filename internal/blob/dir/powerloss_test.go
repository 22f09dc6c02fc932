package dir

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// recorder logs what is done to the disk by the seam in ops.go. From any step of
// the log it makes the folders that a power loss may leave:
//
//   - a file has what it was flushed with; of what was written since: nothing, all,
//     a beginning, or all of its length with zeros or rubbish in places;
//   - a name that was made, moved or removed since its folder was flushed is there
//     or not, each for itself: of a move between two folders either half.
type recorder struct {
	root  string // the folder above blobs
	real  ops
	log   []step
	inode map[string]int
	n     int
	deaf  string // a kind of flush that this disk lies about
}

type step struct {
	kind  string // create, write, truncate, sync, link, unlink, syncDir, ack
	inode int
	path  string // below root
	size  int64
	data  []byte
	ack   func(*expectation)
}

// expectation is what callers were told.
type expectation struct {
	must    map[fleet.Digest]bool // acknowledged
	mustNot map[fleet.Digest]bool // its removal was
	damaged map[fleet.Digest]bool // it was so before we came
}

func (r *recorder) add(s step) { r.log = append(r.log, s) }

func (r *recorder) rel(path string) string {
	p, err := filepath.Rel(r.root, path)
	if err != nil {
		panic(err)
	}
	return p
}

func (r *recorder) ack(f func(*expectation)) { r.add(step{kind: "ack", ack: f}) }

func (r *recorder) ops() ops {
	return ops{
		create: func(dir string) (file, string, error) {
			f, path, err := r.real.create(dir)
			if err != nil {
				return f, path, err
			}
			r.n++
			r.inode[r.rel(path)] = r.n
			r.add(step{kind: "create", inode: r.n})
			r.add(step{kind: "link", inode: r.n, path: r.rel(path)})
			return &recorded{f, r, r.n}, path, nil
		},
		rename: func(from, to string) error {
			err := r.real.rename(from, to)
			if err == nil {
				a, b := r.rel(from), r.rel(to)
				r.inode[b] = r.inode[a]
				delete(r.inode, a)
				r.add(step{kind: "link", inode: r.inode[b], path: b})
				r.add(step{kind: "unlink", path: a})
			}
			return err
		},
		remove: func(path string) error {
			err := r.real.remove(path)
			if err == nil {
				delete(r.inode, r.rel(path))
				r.add(step{kind: "unlink", path: r.rel(path)})
			}
			return err
		},
		syncDir: func(path string) error {
			err := r.real.syncDir(path)
			if err == nil && r.deaf != "syncDir" {
				r.add(step{kind: "syncDir", path: r.rel(path)})
			}
			return err
		},
		free: r.real.free,
	}
}

type recorded struct {
	file
	r     *recorder
	inode int
}

func (f *recorded) Write(b []byte) (int, error) {
	n, err := f.file.Write(b)
	f.r.add(step{kind: "write", inode: f.inode, data: bytes.Clone(b[:n])})
	return n, err
}

func (f *recorded) Truncate(n int64) error {
	err := f.file.Truncate(n)
	if err == nil {
		f.r.add(step{kind: "truncate", inode: f.inode, size: n})
	}
	return err
}

func (f *recorded) Allocate(n int64) error {
	err := f.file.Allocate(n)
	if err == nil {
		f.r.add(step{kind: "allocate", inode: f.inode, size: n})
	}
	return err
}

func (f *recorded) Sync() error {
	err := f.file.Sync()
	if err == nil && f.r.deaf != "sync" {
		f.r.add(step{kind: "sync", inode: f.inode})
	}
	return err
}

// content is a file: what is flushed, and what is there.
type content struct {
	flushed, now []byte
	written      int
}

// left are the contents that a file may have after a power loss.
func (c *content) left(rnd *rand.Rand) [][]byte {
	if bytes.Equal(c.flushed, c.now) {
		return [][]byte{c.now}
	}
	torn := bytes.Clone(c.now)
	for i := 0; i < len(torn); i += 512 {
		switch rnd.IntN(3) {
		case 0:
			clear(torn[i:min(i+512, len(torn))])
		case 1:
			torn[i] ^= byte(1 + rnd.IntN(255))
		}
	}
	return [][]byte{c.flushed, c.now, c.now[:rnd.IntN(len(c.now)+1)], torn}
}

// states calls check with each folder that may be left when the power goes behind
// n steps: every subset of the names, every combination of contents up to a bound.
func (r *recorder) states(n int, rnd *rand.Rand, check func(files map[string][]byte, e *expectation)) {
	files := map[int]*content{}
	names := map[string]int{}
	var waiting []step
	e := &expectation{map[fleet.Digest]bool{}, map[fleet.Digest]bool{}, map[fleet.Digest]bool{}}
	for _, s := range r.log[:n] {
		c := files[s.inode]
		switch s.kind {
		case "create":
			files[s.inode] = &content{}
		case "write":
			c.now = append(c.now[:c.written:c.written], append(s.data, c.now[min(len(c.now), c.written+len(s.data)):]...)...)
			c.written += len(s.data)
		case "allocate":
			c.now = append(c.now, make([]byte, max(0, s.size-int64(len(c.now))))...)
		case "truncate":
			c.now = c.now[:s.size]
		case "sync":
			c.flushed = bytes.Clone(c.now)
		case "link", "unlink":
			waiting = append(waiting, s)
		case "syncDir":
			var later []step
			for _, w := range waiting {
				if filepath.Dir(w.path) != s.path {
					later = append(later, w)
					continue
				}
				w.rename(names)
			}
			waiting = later
		case "ack":
			s.ack(e)
		}
	}
	// The folder of unfinished files is never flushed, and nothing in it counts: all of its names or none.
	tmp := slices.DeleteFunc(slices.Clone(waiting), func(s step) bool { return filepath.Base(filepath.Dir(s.path)) != tmpName })
	waiting = slices.DeleteFunc(waiting, func(s step) bool { return filepath.Base(filepath.Dir(s.path)) == tmpName })
	waiting = waiting[max(0, len(waiting)-5):] // 32 subsets are enough of a disk that never flushes
	for subset := range 2 << len(waiting) {
		there := maps.Clone(names)
		for i, w := range waiting {
			if subset>>(i+1)&1 == 1 {
				w.rename(there)
			}
		}
		for _, w := range tmp {
			if subset&1 == 1 {
				w.rename(there)
			}
		}
		choices := 1
		for _, i := range there {
			choices = max(choices, len(files[i].left(rnd)))
		}
		for k := range choices {
			state := map[string][]byte{}
			for _, path := range slices.Sorted(maps.Keys(there)) {
				l := files[there[path]].left(rnd)
				state[path] = l[(k+rnd.IntN(2)*rnd.IntN(len(l)))%len(l)]
			}
			check(state, e)
		}
	}
}

func (s step) rename(names map[string]int) {
	if s.kind == "link" {
		names[s.path] = s.inode
	} else {
		delete(names, s.path)
	}
}

// lives is a store's life on the recorder's disk.
func (r *recorder) lives(t *testing.T) {
	t.Helper()
	path := filepath.Join(r.root, "blobs")
	bad := blobtest.Content(3, 5000)
	badDigest := fleet.Digest(sha256.Sum256(bad))
	if err := os.MkdirAll(path, 0o700); err != nil {
		t.Fatal(err)
	}
	spoilt := append(bytes.Clone(bad[:4999]), ^bad[4999])
	if err := os.WriteFile(filepath.Join(path, badDigest.String()), spoilt, 0o400); err != nil {
		t.Fatal(err)
	}
	r.add(step{kind: "create"}) // inode 0
	r.add(step{kind: "write", data: spoilt})
	r.add(step{kind: "sync"})
	r.add(step{kind: "link", path: filepath.Join("blobs", badDigest.String())})
	r.add(step{kind: "syncDir", path: "blobs"})
	r.ack(func(e *expectation) { e.damaged[badDigest] = true })
	d, err := open(Options{Path: path, Reserve: -1}, r.ops())
	if err != nil {
		t.Fatal(err)
	}
	put := func(b []byte, size int64) {
		digest, _, err := d.Put(ctx, bytes.NewReader(b), size)
		if err != nil {
			t.Fatal(err)
		}
		r.ack(func(e *expectation) { e.must[digest] = true; delete(e.mustNot, digest); delete(e.damaged, digest) })
	}
	a, b, c := blobtest.Content(1, 9000), blobtest.Content(2, 140_000), blobtest.Content(4, 7000)
	put(a, int64(len(a)))
	put(b, -1)
	put(a, -1) // again
	put(bad, int64(len(bad)))
	digest := fleet.Digest(sha256.Sum256(a))
	r.ack(func(e *expectation) { delete(e.must, digest) }) // from now on it may go
	if err := d.Delete(ctx, digest); err != nil {
		t.Fatal(err)
	}
	r.ack(func(e *expectation) { e.mustNot[digest] = true })
	if _, err := stagePut(d, c); err != nil {
		t.Fatal(err)
	}
	cDigest := fleet.Digest(sha256.Sum256(c))
	r.ack(func(e *expectation) { e.must[cDigest] = true })
	if s, err := d.Stage(ctx, 100); err != nil {
		t.Fatal(err)
	} else if _, err := s.Write(a[:50]); err != nil {
		t.Fatal(err)
	} // and the power goes
	// Deleted, it comes again.
	r.ack(func(e *expectation) { delete(e.mustNot, digest) })
	put(a, int64(len(a)))
}

// wrongWith says what a start finds wrong in a folder that a power loss left.
func wrongWith(t *testing.T, root string, files map[string][]byte, e *expectation) string {
	t.Helper()
	path := filepath.Join(root, "blobs")
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(path, tmpName), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := os.WriteFile(filepath.Join(root, name), b, 0o400); err != nil {
			t.Fatal(err)
		}
	}
	quick := system
	quick.syncDir = func(string) error { return nil } // this start loses no power
	d, err := open(Options{Path: path, Reserve: -1}, quick)
	if err != nil {
		return err.Error()
	}
	if left, _ := os.ReadDir(filepath.Join(path, tmpName)); len(left) != 0 {
		return fmt.Sprintf("%d files are left half-written", len(left))
	}
	list, err := d.List(ctx)
	if err != nil {
		return err.Error()
	}
	there := map[fleet.Digest]bool{}
	for _, digest := range list {
		there[digest] = true
		if err := d.Verify(ctx, digest); err != nil && !e.damaged[digest] {
			return "half there: " + err.Error()
		}
		if e.mustNot[digest] {
			return digest.String() + " was deleted, and is there"
		}
	}
	for digest := range e.must {
		if !there[digest] {
			return digest.String() + " was acknowledged, and is gone"
		}
	}
	for digest := range e.damaged {
		if !there[digest] {
			return digest.String() + " was damaged, and is gone: somebody may refer to it"
		}
	}
	return ""
}

// Whenever the power goes, and whatever of what was not flushed is left: each blob
// that was acknowledged is there and whole, none is half there, none is there
// again. A disk that lies about its flushes shows that the test sees it.
func TestPowerLoss(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	for lie, wants := range map[string]string{"": "", "sync": "half there", "syncDir": "is gone"} {
		rnd := rand.New(rand.NewPCG(seed, 0))
		r := &recorder{root: t.TempDir(), real: system, inode: map[string]int{}, deaf: lie}
		r.lives(t)
		scratch := t.TempDir()
		states, found := 0, map[string]int{}
		for n := 6; n <= len(r.log); n++ { // behind what was there before
			r.states(n, rnd, func(files map[string][]byte, e *expectation) {
				states++
				if wrong := wrongWith(t, scratch, files, e); wrong != "" {
					if found[wrong]++; lie == "" {
						t.Errorf("the power goes after step %d of %d, %s: %s", n, len(r.log), r.log[n-1].kind, wrong)
					}
				}
			})
			if t.Failed() || lie != "" && seen(found, wants) {
				break
			}
		}
		t.Logf("%q: %d steps, %d states", lie, len(r.log), states)
		if lie == "" && states < 100 {
			t.Errorf("only %d states", states)
		}
		if lie != "" && !seen(found, wants) {
			t.Errorf("a disk that does not do its %s: %v, and not %q", lie, found, wants)
		}
	}
}

func seen(found map[string]int, part string) bool {
	for what := range found {
		if strings.Contains(what, part) {
			return true
		}
	}
	return false
}
