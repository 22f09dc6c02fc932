package checked

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/internal/blob"
	"github.com/runnel-fota/runnel/internal/blob/blobtest"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
)

var ctx = context.Background()

func openAt(t testing.TB, path string, log *slog.Logger) *Store {
	t.Helper()
	d, err := dir.Open(dir.Options{Path: filepath.Join(path, "blobs"), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	return New(d, log)
}

// It is a store as any other.
func TestStore(t *testing.T) {
	blobtest.Run(t, func(t testing.TB, path string) blob.Store { return openAt(t, path, nil) })
	blobtest.RunStager(t, func(t testing.TB, path string) blob.Store { return openAt(t, path, nil) })
}

// What was damaged before the start is served to nobody, and is there again once
// it was pushed again.
func TestDamagedIsNotServed(t *testing.T) {
	path := t.TempDir()
	content := blobtest.Content(1, 300_000)
	digest, _, err := openAt(t, path, nil).Put(ctx, bytes.NewReader(content), -1)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "blobs", digest.String())
	bad := bytes.Clone(content)
	bad[123_456] ^= 1
	if err := errors.Join(os.Chmod(file, 0o600), os.WriteFile(file, bad, 0o600)); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	s := openAt(t, path, slog.New(slog.NewTextHandler(&log, nil)))
	for range 3 {
		if f, err := s.Open(ctx, digest); fleet.CodeOf(err) != fleet.CodeInternal || !errors.Is(err, blob.ErrDamaged) || f != nil {
			t.Errorf("%v", err)
		}
		if f, err := s.OpenBlob(ctx, digest); fleet.CodeOf(err) != fleet.CodeInternal || f != nil {
			t.Errorf("%v", err)
		}
	}
	if n := strings.Count(log.String(), digest.String()); n != 1 || !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), "hint=") {
		t.Errorf("logged %d times: %s", n, log.String())
	}
	if _, _, err := s.Put(ctx, bytes.NewReader(content), -1); err != nil {
		t.Fatal(err)
	}
	f, err := s.Open(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, content) {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if f, err := s.Open(ctx, fleet.Digest{}); f != nil || fleet.CodeOf(err) != fleet.CodeNotFound {
		t.Errorf("%v", err)
	}
}

// fake is files whose looks are counted, and wait where the test says so.
type fake struct {
	mu    sync.Mutex
	looks []fleet.Digest
	size  map[fleet.Digest]int
	err   map[fleet.Digest]error
	gate  chan struct{} // nil: no waiting
}

func (f *fake) Open(context.Context, fleet.Digest) (*os.File, error) { return nil, nil }

func (f *fake) Check(ctx context.Context, d fleet.Digest, each func(int) error) (int64, error) {
	f.mu.Lock()
	f.looks = append(f.looks, d)
	size, err, gate := f.size[d], f.err[d], f.gate
	f.mu.Unlock()
	if gate != nil {
		<-gate
	}
	for at := 0; at < size && each != nil; at += 1 << 17 {
		if err := each(min(1<<17, size-at)); err != nil {
			return int64(at), err
		}
	}
	return int64(size), err
}

func (f *fake) List(context.Context) (list []fleet.Digest, err error) {
	for d := range f.size {
		list = append(list, d)
	}
	slices.SortFunc(list, func(a, b fleet.Digest) int { return bytes.Compare(a[:], b[:]) })
	return list, nil
}

func (f *fake) set(d fleet.Digest, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.err[d] = err
}

func (f *fake) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.looks)
}

// later is on the virtual clock, and behind all that happens until then.
func later(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func newFake(sizes ...int) *fake {
	f := &fake{size: map[fleet.Digest]int{}, err: map[fleet.Digest]error{}}
	for i, n := range sizes {
		f.size[fleet.Digest{byte(i + 1)}] = n
	}
	return f
}

var errDamaged = fmt.Errorf("test: %w", blob.ErrDamaged)

// A whole fleet that asks at once waits for one look; who gives up takes nobody with him.
func TestOneLookForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1000)
		f.gate = make(chan struct{})
		v := newVerdicts(f, nil)
		d := fleet.Digest{1}
		impatient, cancel := context.WithCancel(ctx)
		gaveUp := make(chan error, 1)
		go func() { gaveUp <- v.verified(impatient, d) }()
		synctest.Wait()
		var wg sync.WaitGroup
		errs := make([]error, 1000)
		for i := range errs {
			wg.Go(func() { errs[i] = v.verified(ctx, d) })
		}
		synctest.Wait()
		cancel()
		if err := <-gaveUp; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
		close(f.gate)
		wg.Wait()
		if err := errors.Join(errs...); err != nil || f.count() != 1 {
			t.Errorf("%v, %d looks", err, f.count())
		}
		if err := v.verified(ctx, d); err != nil || f.count() != 1 {
			t.Errorf("later: %v, %d looks", err, f.count())
		}
	})
}

// A damaged blob is looked at again after a while, not at each request; another
// trouble says nothing of the blob.
func TestRefusedForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(1000)
		v := newVerdicts(f, nil)
		d := fleet.Digest{1}
		f.set(d, errors.New("too many open files"))
		if err := v.verified(ctx, d); err == nil || v.refused(d) != nil {
			t.Errorf("%v", err)
		}
		f.set(d, errDamaged)
		for range 10 {
			if err := v.verified(ctx, d); fleet.CodeOf(err) != fleet.CodeInternal {
				t.Errorf("%v", err)
			}
		}
		if f.count() != 2 {
			t.Errorf("%d looks", f.count())
		}
		f.set(d, nil) // somebody brought the file back
		if err := v.verified(ctx, d); err == nil {
			t.Error("served without a look")
		}
		later(retryAfter)
		if err := v.verified(ctx, d); err != nil || f.count() != 3 {
			t.Errorf("%v, %d looks", err, f.count())
		}
	})
}

// What a look says of bytes that were replaced while it read them is not believed.
func TestReplacedMeanwhile(t *testing.T) {
	for _, c := range []struct {
		found error
		then  func(*verdicts, fleet.Digest)
		looks int // that the next one who asks has to wait for, the first included
	}{
		{errDamaged, (*verdicts).good, 1},
		{nil, (*verdicts).forget, 2},
	} {
		synctest.Test(t, func(t *testing.T) {
			f := newFake(1000)
			f.gate = make(chan struct{})
			v := newVerdicts(f, nil)
			d := fleet.Digest{1}
			f.set(d, c.found)
			done := make(chan error, 1)
			go func() { done <- v.verified(ctx, d) }()
			synctest.Wait()
			c.then(v, d)
			close(f.gate)
			<-done
			f.set(d, nil)
			if err := v.verified(ctx, d); err != nil || f.count() != c.looks {
				t.Errorf("%v, %d looks, not %d", err, f.count(), c.looks)
			}
		})
	}
}

// The first pass begins with what is wanted, and is quick; later ones keep to the
// rate. What they find is refused from then on.
func TestScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size = 64 << 20
		f := newFake(size, size, size)
		var log bytes.Buffer
		v := newVerdicts(f, slog.New(slog.NewTextHandler(&log, nil)))
		scrubbing, stop := context.WithCancel(ctx)
		ended := make(chan error, 1)
		begun := time.Now()
		go func() {
			ended <- v.scrub(scrubbing, 1<<20, true, func(context.Context) ([]fleet.Digest, error) { return []fleet.Digest{{3}, {9}, {2}}, nil })
		}()
		later(3*size/firstRate*time.Second + time.Second)
		want := []fleet.Digest{{3}, {9}, {2}, {1}}
		if !slices.Equal(f.looks, want) {
			t.Errorf("%v", f.looks)
		}
		if strings.Count(log.String(), "were checked") != 1 {
			t.Errorf("%s", log.String())
		}
		// A device that asks now waits for nothing.
		if err := v.verified(ctx, fleet.Digest{1}); err != nil || f.count() != 4 {
			t.Errorf("%v", err)
		}
		f.set(fleet.Digest{2}, errDamaged)
		later(time.Until(begun.Add(between)) + time.Second)
		if f.count() != 5 {
			t.Errorf("the second pass: %d looks", f.count())
		}
		later(size/(1<<20)*time.Second - 2*time.Second) // a second before the first of them is read
		if f.count() != 5 {
			t.Errorf("faster than the rate: %d looks", f.count())
		}
		later(2 * time.Second)
		if f.count() != 7 { // there is no third one
			t.Errorf("slower than the rate: %d looks", f.count())
		}
		later(time.Hour)
		if err := v.verified(ctx, fleet.Digest{2}); fleet.CodeOf(err) != fleet.CodeInternal {
			t.Errorf("%v", err)
		}
		if err := v.verified(ctx, fleet.Digest{1}); err != nil {
			t.Errorf("%v", err)
		}
		if !strings.Contains(log.String(), "damaged=1") {
			t.Errorf("%s", log.String())
		}
		stop()
		if err := <-ended; !errors.Is(err, context.Canceled) {
			t.Errorf("%v", err)
		}
	})
}

// Without a rate there is the first pass alone.
func TestNoScrub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(10, 10)
		v := newVerdicts(f, nil)
		scrubbing, stop := context.WithTimeout(ctx, 240*time.Hour)
		defer stop()
		err := v.scrub(scrubbing, 0, true, func(context.Context) ([]fleet.Digest, error) { return nil, nil })
		if !errors.Is(err, context.DeadlineExceeded) || f.count() != 2 {
			t.Errorf("%v, %d looks", err, f.count())
		}
	})
}

// What the first device that asks for the largest image waits for.
func BenchmarkFirstLook(b *testing.B) {
	path := b.TempDir()
	content := blobtest.Content(1, 16<<20)
	d, _, err := openAt(b, path, nil).Put(ctx, bytes.NewReader(content), -1)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		f, err := New(openAt(b, path, nil).Files, nil).Open(ctx, d)
		if err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
}

// proven are files that compare what they open.
type proven struct {
	*fake
	*dir.Dir
	opens int
	err   error
}

func (p *proven) Open(ctx context.Context, d fleet.Digest) (*os.File, error) {
	p.opens++
	if p.err != nil {
		return nil, p.err
	}
	return p.Dir.Open(ctx, d)
}

func (p *proven) Check(ctx context.Context, d fleet.Digest, each func(int) error) (int64, error) {
	return p.fake.Check(ctx, d, each)
}

func (p *proven) List(ctx context.Context) ([]fleet.Digest, error) { return p.fake.List(ctx) }

// Files that compare by themselves are not read before, nor fast behind the start:
// that is another's network. What they find damaged is refused for a while.
func TestProven(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d, err := dir.Open(dir.Options{Path: t.TempDir(), Reserve: -1})
		if err != nil {
			t.Fatal(err)
		}
		digest, _, err := d.Put(ctx, bytes.NewReader(blobtest.Content(1, 1000)), -1)
		if err != nil {
			t.Fatal(err)
		}
		p := &proven{fake: newFake(3<<20, 3<<20), Dir: d}
		s := NewProven(p, nil)
		f, err := s.Open(ctx, digest)
		if err != nil || p.count() != 0 {
			t.Fatalf("%v, %d looks", err, p.count())
		}
		f.Close()
		p.err = errDamaged
		for range 5 {
			if _, err := s.Open(ctx, digest); fleet.CodeOf(err) != fleet.CodeInternal || !errors.Is(err, blob.ErrDamaged) {
				t.Errorf("%v", err)
			}
		}
		if p.opens != 2 {
			t.Errorf("opened %d times", p.opens)
		}
		p.err = nil
		later(retryAfter)
		if f, err = s.Open(ctx, digest); err != nil {
			t.Fatal(err)
		}
		f.Close()

		none := func(context.Context) ([]fleet.Digest, error) { return nil, nil }
		for rate, want := range map[int64]int{0: 0, 1 << 20: 2} {
			p.fake = newFake(3<<20, 3<<20)
			scrubbing, stop := context.WithCancel(ctx)
			ended := make(chan error, 1)
			begun := time.Now()
			go func() { ended <- NewProven(p, nil).Scrub(scrubbing, rate, none) }()
			synctest.Wait()
			for p.count() < want {
				later(time.Second)
			}
			if took := time.Since(begun); want > 0 && took < 3*time.Second {
				t.Errorf("the first pass was fast: %s", took)
			}
			stop()
			if err := <-ended; !errors.Is(err, context.Canceled) || p.count() != want {
				t.Errorf("rate %d: %v, %d looks", rate, err, p.count())
			}
		}
	})
}
