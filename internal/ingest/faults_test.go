package ingest

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

// A full disk is an error before the file is read.
func TestReleaseFullDisk(t *testing.T) {
	w := signedWorld(t)
	full, err := dir.Open(dir.Options{Path: filepath.Join(w.path, "blobs"), Reserve: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	w.stage = func(ctx context.Context, room int64) (Staged, error) { return full.Stage(ctx, room) }
	_, file := pump(t, 1, nil)
	r := bytes.NewReader(file)
	if _, _, err := w.PublishRelease(ctx, r, int64(len(file)), fleet.Publication{}); fleet.CodeOf(err) != fleet.CodeNoSpace || r.Len() != len(file) {
		t.Errorf("%v, %d bytes left", err, r.Len())
	}
	w.keeps(0, 0, 1)
	if _, _, err := w.PublishRelease(ctx, r, MaxRelease+1, fleet.Publication{}); fleet.CodeOf(err) != fleet.CodeTooLarge {
		t.Errorf("%v", err)
	}
}

// The disk fills up at any of the places that a release takes, or the caller goes
// away there: nothing is left.
func TestReleaseStagesFail(t *testing.T) {
	image := build(t, "1.1", 64<<10)
	m := releasetest.Manifest(t, product, "1.1", image)
	w := signedWorld(t) // one for all: each failure leaves it as it was
	for k := 0; ; k++ {
		file := releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("d"), 3000))})
		for _, at := range []string{"stage", "write", "commit"} {
			n, failed := 0, false
			full := fleet.Errorf(fleet.CodeNoSpace, "the disk is full")
			w.stage = func(ctx context.Context, room int64) (Staged, error) {
				n++
				if n-1 == k && at == "stage" {
					failed = true
					return nil, full
				}
				s, err := w.dir.Stage(ctx, room)
				return &failingStage{s, n-1 == k, at, full, &failed}, err
			}
			_, _, err := w.push(file)
			if k == 3 && at == "commit" && !failed {
				if err != nil {
					t.Error(err)
				}
				w.keeps(3, 1, 1)
				return
			}
			if k < 3 && (!failed || fleet.CodeOf(err) != fleet.CodeNoSpace) {
				t.Errorf("place %d, %s: failed %v, %v", k, at, failed, err)
			}
			if failed {
				w.keeps(0, 0, 1)
			}
		}
	}
}

type failingStage struct {
	Staged
	on     bool
	at     string
	err    error
	failed *bool
}

func (f *failingStage) Write(b []byte) (int, error) {
	if f.on && f.at == "write" {
		*f.failed = true
		return 0, f.err
	}
	return f.Staged.Write(b)
}

func (f *failingStage) Commit(ctx context.Context) (fleet.Digest, bool, error) {
	if f.on && f.at == "commit" {
		*f.failed = true
		f.Abort()
		return fleet.Digest{}, false, f.err
	}
	return f.Staged.Commit(ctx)
}

// failingSigned is a store that fails at its end.
type failingSigned struct {
	Signed
	err error
}

func (f failingSigned) PublishSigned(context.Context, fleet.Release, []byte, []fleet.Stream, uint32, time.Time) (fleet.Release, bool, error) {
	return fleet.Release{}, false, f.err
}

// Where it is not certain that there is no release, the blobs stay until Sweep.
// That is what a kill between blobs and rows leaves too.
func TestSignedStoreFails(t *testing.T) {
	for _, c := range []struct {
		err   error
		blobs int
	}{
		{fleet.Errorf(fleet.CodeBusy, "stopping"), 0},
		{fleet.Errorf(fleet.CodeNoSpace, "full"), 0},
		{context.Canceled, 0},
		{errors.New("the disk failed at the commit"), 2},
	} {
		w := signedWorld(t)
		w.signed = failingSigned{w.store, c.err}
		_, file := pump(t, 1, nil)
		if _, _, err := w.push(file); !errors.Is(err, c.err) {
			t.Errorf("%v", err)
		}
		w.keeps(c.blobs, 0, 1)
		w.Service = New(w.options()) // the next start
		if n, faults, err := w.Sweep(ctx); n != c.blobs || len(faults) != 0 || err != nil {
			t.Errorf("%d %v %v", n, faults, err)
		}
		w.keeps(0, 0, 1)
		if _, created, err := w.push(file); err != nil || !created {
			t.Errorf("%v %v", created, err)
		}
	}
}

// Blobs are on the disk with their names before the rows that refer to them.
func TestBlobsBeforeRows(t *testing.T) {
	w := signedWorld(t)
	asked := false
	w.signed = lookingSigned{w.store, func(r fleet.Release, streams []fleet.Stream) {
		asked = true
		for _, d := range append([]fleet.Digest{r.Image.Digest}, streams[0].Digest) {
			if err := w.dir.Verify(ctx, d); err != nil {
				t.Errorf("the rows are stored and the blob is not: %v", err)
			}
		}
	}}
	_, file := pump(t, 1, nil)
	if _, _, err := w.push(file); err != nil || !asked {
		t.Errorf("%v, asked: %v", err, asked)
	}
}

type lookingSigned struct {
	Signed
	look func(fleet.Release, []fleet.Stream)
}

func (l lookingSigned) PublishSigned(c context.Context, r fleet.Release, e []byte, s []fleet.Stream, judged uint32, now time.Time) (fleet.Release, bool, error) {
	l.look(r, s)
	return l.Signed.PublishSigned(c, r, e, s, judged, now)
}

// Uploads at once, of the same file and of others that want its sequence: one
// wins, and nobody's blobs go.
func TestReleasesAtOnce(t *testing.T) {
	w := signedWorld(t)
	for round := range uint32(5) {
		_, same := pump(t, round+1, nil)
		var wg sync.WaitGroup
		var mu sync.Mutex
		made := 0
		for i := range 6 {
			file := same
			if i%3 == 2 {
				_, file = pump(t, round+1, func(m *release.Manifest) { m.SecurityVersion = uint32(i) })
			}
			wg.Go(func() {
				_, created, err := w.PublishRelease(ctx, iotest.HalfReader(bytes.NewReader(file)), 0, fleet.Publication{})
				if err != nil && fleet.CodeOf(err) != fleet.CodeConflict {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if created {
					made++
				}
			})
		}
		wg.Wait()
		if made != 1 {
			t.Errorf("round %d: created %d times", round, made)
		}
		w.keeps(2*int(round+1), int(round+1), 1)
	}
	if n, faults, err := w.Check(ctx); n != 15 || len(faults) != 0 || err != nil {
		t.Errorf("%d %v %v", n, faults, err)
	}
}

// What is missing or damaged is named, whatever it is; pushed again, it is whole.
func TestFaultsAreNamed(t *testing.T) {
	w := signedWorld(t)
	_, file := pump(t, 1, nil)
	r, _, err := w.push(file)
	if err != nil {
		t.Fatal(err)
	}
	streams, err := w.store.Streams(ctx, r.ID)
	if err != nil {
		t.Fatal(err)
	}
	damage := func(d fleet.Digest) {
		path := filepath.Join(w.path, "blobs", d.String())
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		b[len(b)/2] ^= 1
		os.Chmod(path, 0o600)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		what string
		d    fleet.Digest
	}{{"image", r.Image.Digest}, {"stream", streams[0].Digest}} {
		damage(c.d)
		if _, faults, err := w.Check(ctx); err != nil || len(faults) != 1 || faults[0].What != c.what || faults[0].Missing || faults[0].Digest != c.d ||
			!strings.Contains(faults[0].String(), "acme/pump 1.1 (release 1) is damaged") {
			t.Errorf("damaged %s: %v %v", c.what, faults, err)
		}
		if err := w.dir.Delete(ctx, c.d); err != nil {
			t.Fatal(err)
		}
		for name, look := range map[string]func(context.Context) (int, []Fault, error){"sweep": w.Sweep, "check": w.Check} {
			if _, faults, err := look(ctx); err != nil || len(faults) != 1 || faults[0].What != c.what || !faults[0].Missing || faults[0].Digest != c.d || faults[0].Release.ID != r.ID {
				t.Errorf("%s, missing %s: %v %v", name, c.what, faults, err)
			}
		}
		if _, created, err := w.push(file); created || err != nil {
			t.Errorf("%v %v", created, err)
		}
		if _, faults, err := w.Check(ctx); err != nil || len(faults) != 0 {
			t.Errorf("pushed again: %v %v", faults, err)
		}
	}
	w.signed = otherManifest{w.store}
	if _, faults, err := w.Sweep(ctx); err != nil || len(faults) != 1 || faults[0].What != "manifest" || faults[0].Digest != r.ManifestDigest {
		t.Errorf("%v %v", faults, err)
	}
}

type otherManifest struct{ Signed }

func (o otherManifest) Manifest(ctx context.Context, d fleet.Digest) (fleet.Manifest, error) {
	m, err := o.Signed.Manifest(ctx, d)
	m.Envelope = append(bytes.Clone(m.Envelope), 0)
	return m, err
}

// A product that is signed takes no unsigned image, on either way, and leaves no
// blob of one; an operator can allow them.
func TestPolicyHoldsForImages(t *testing.T) {
	w := signedWorld(t)
	image := build(t, "1.0", 64<<10)
	ways := map[string]func() error{
		"images": func() error {
			return second3(w.PublishImage(ctx, product, "1.0", 1024, nil, bytes.NewReader(image), fleet.Publication{}))
		},
		"any board": func() error {
			return second3(w.AnyBoard().PublishImage(ctx, product, "1.0", 1024, nil, bytes.NewReader(image)))
		},
		"other bits": func() error {
			return second3(w.AnyBoard().PublishImage(ctx, product, "1.0", 1024, nil, strings.NewReader("elf")))
		},
	}
	for name, push := range ways {
		var e *fleet.Error
		if err := push(); !errors.As(err, &e) || e.Code != fleet.CodeForbidden || e.Hint == "" || !strings.Contains(e.Message, product) {
			t.Errorf("%s: %v", name, err)
		}
		w.keeps(0, 0, 1)
	}
	if _, _, err := w.PublishImage(ctx, "acme/other", "1.0", 1024, nil, bytes.NewReader(image), fleet.Publication{}); err != nil {
		t.Errorf("another product: %v", err)
	}
	if err := w.store.SetPolicy(ctx, product, false, t0); err != nil {
		t.Fatal(err)
	}
	if err := ways["images"](); err != nil {
		t.Errorf("allowed: %v", err)
	}
}

// What a release takes of memory does not grow with it, but for the 32 bytes that
// a record's hash has.
func TestReleaseMemory(t *testing.T) {
	w := signedWorld(t)
	publish := func(version string, size int) uint64 {
		image := bytes.Repeat([]byte(version), size/len(version))
		m := releasetest.Manifest(t, product, version, image)
		m.Sequence = uint32(size >> 20)
		file := releasetest.File(t, nil, m, image, nil)
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		if _, _, err := w.PublishRelease(ctx, bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil {
			t.Fatal(err)
		}
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	publish("0.0", 1<<20) // statements are prepared once
	small, large := publish("1.0", 2<<20), publish("2.0", 8<<20)
	t.Logf("2 MiB: %d bytes allocated, 8 MiB: %d", small, large)
	// Twice for the stream that is checked and built: 6 MiB in chunks of 1,024 have 6,144 records.
	if large > small+3*32*6144+(256<<10) {
		t.Errorf("2 MiB: %d bytes allocated, 8 MiB: %d", small, large)
	}
}

// A disk that answers other bytes than it was given, after they were checked: no
// stream is made of those.
func TestImageChangesMeanwhile(t *testing.T) {
	w := signedWorld(t)
	_, file := pump(t, 1, nil)
	stage := w.stage
	places := 0
	w.stage = func(ctx context.Context, room int64) (Staged, error) {
		places++
		s, err := stage(ctx, room)
		if places == 1 {
			s = &changing{Staged: s, after: 64 << 10} // once the root was checked
		}
		return s, err
	}
	if _, _, err := w.push(file); fleet.CodeOf(err) != fleet.CodeInternal || !strings.Contains(err.Error(), "another root") {
		t.Errorf("%v", err)
	}
	w.keeps(0, 0, 1)
}

// changing flips a bit of all that is read after so many bytes.
type changing struct {
	Staged
	after int
}

func (c *changing) ReadAt(p []byte, off int64) (int, error) {
	n, err := c.Staged.ReadAt(p, off)
	if c.after -= n; c.after < -headBytes && n > 0 {
		p[0] ^= 1
	}
	return n, err
}

// What no release refers to may be what another server is about to publish: it
// stays while Keep says so, after a failure here too, and goes afterwards.
func TestKept(t *testing.T) {
	w := newWorld(t)
	kept, asked := true, 0
	o := w.options()
	o.Keep = func(context.Context, fleet.Digest) (bool, error) { asked++; return kept, nil }
	w.Service = New(o)
	if _, _, err := w.dir.Put(ctx, strings.NewReader("of another server"), -1); err != nil {
		t.Fatal(err)
	}
	count := func(want int) {
		t.Helper()
		if list, err := w.dir.List(ctx); err != nil || len(list) != want {
			t.Errorf("%d blobs, not %d, %v", len(list), want, err)
		}
	}
	if n, faults, err := w.Sweep(ctx); n != 0 || len(faults) != 0 || err != nil || asked != 1 {
		t.Errorf("%d %v %v, asked %d times", n, faults, err, asked)
	}
	count(1)
	// A release that is refused for sure, once its image is stored.
	im := build(t, "1.0", 64<<10)
	if _, _, err := w.Publish(ctx, bytes.NewReader(im), meta("1")); err != nil {
		t.Fatal(err)
	}
	other := build(t, "2.0", 64<<10)
	if _, _, err := w.Publish(ctx, bytes.NewReader(other), meta("1")); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Fatal(err)
	}
	count(3)
	kept = false
	if n, _, err := w.Sweep(ctx); n != 2 || err != nil {
		t.Errorf("%d %v", n, err)
	}
	count(1)
}
