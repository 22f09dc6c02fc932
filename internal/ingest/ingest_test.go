package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/sim/board"
)

var (
	ctx = context.Background()
	t0  = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
)

// world is the service on a real disk and a real database.
type world struct {
	*Service
	t     testing.TB
	path  string
	store *sqlite.Store
	dir   *dir.Dir
}

func newWorld(t testing.TB) *world {
	t.Helper()
	w := &world{t: t, path: t.TempDir()}
	var err error
	if w.store, err = sqlite.Open(ctx, sqlite.Options{Path: filepath.Join(w.path, "runnel.db")}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.store.Close() })
	if w.dir, err = dir.Open(dir.Options{Path: filepath.Join(w.path, "blobs"), Reserve: -1}); err != nil {
		t.Fatal(err)
	}
	w.Service = New(w.options())
	return w
}

func (w *world) options() Options {
	return Options{Blobs: w.dir, Releases: w.store, Signed: w.store, Derivations: w.store, Now: func() time.Time { return t0 },
		Stage: func(ctx context.Context, room int64) (Staged, error) { return w.dir.Stage(ctx, room) }}
}

// holds wants so many blobs and releases, and nothing half-written.
func (w *world) holds(blobs, releases int) {
	w.t.Helper()
	var files []string
	filepath.WalkDir(filepath.Join(w.path, "blobs"), func(path string, e os.DirEntry, _ error) error {
		if e != nil && !e.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	list, err := w.store.ListReleases(ctx, "")
	if err != nil || len(files) != blobs || len(list) != releases {
		w.t.Errorf("%d files, not %d; %d releases, not %d; %v", len(files), blobs, len(list), releases, err)
	}
	if _, total, _ := w.store.Events(ctx, "", 1); total != 3*releases {
		w.t.Errorf("%d events", total)
	}
	if len(w.pinned) != 0 {
		w.t.Errorf("still pinned: %v", w.pinned)
	}
}

func build(t testing.TB, version string, size int) []byte {
	t.Helper()
	b, err := board.BuildImage(board.ImageSpec{Size: size, Chip: esp32.ChipESP32C3, Project: "pump", Version: version, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func meta(version string) Meta { return Meta{Product: "acme/pump", Version: version, ChunkSize: 1024} }

func TestPublish(t *testing.T) {
	w := newWorld(t)
	image := build(t, "1.2.3", 1068032)
	digest := fleet.Digest(sha256.Sum256(image))
	m := meta("1.2.3")
	m.Digest, m.Size = &digest, int64(len(image))
	r, created, err := w.Publish(ctx, iotest.HalfReader(bytes.NewReader(image)), m)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	want := fleet.Release{ID: r.ID, Product: "acme/pump", Version: "1.2.3", ChunkSize: 1024, State: fleet.ReleasePublished, PublishedAt: t0,
		Image: fleet.Image{Digest: digest, Size: 1068032, Chip: "ESP32-C3", Project: "pump", AppVersion: "1.2.3", IDFVersion: r.Image.IDFVersion}}
	if r != want || r.Chunks() != 1043 || r.Image.IDFVersion == "" {
		t.Errorf("%+v", r)
	}
	f, err := w.dir.Open(ctx, digest)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if got, err := io.ReadAll(f); err != nil || !bytes.Equal(got, image) {
		t.Errorf("%d bytes stored, %v", len(got), err)
	}
	w.holds(1, 1)
	// The same again, and the same image under another version.
	if again, created, err := w.PublishImage(ctx, "acme/pump", "1.2.3", 1024, nil, bytes.NewReader(image), fleet.Publication{}); again != want || created || err != nil {
		t.Errorf("%v %v %v", again, created, err)
	}
	w.holds(1, 1)
	if _, created, err := w.PublishImage(ctx, "acme/pump", "1.2.4", 1024, &digest, bytes.NewReader(image), fleet.Publication{}); !created || err != nil {
		t.Errorf("%v %v", created, err)
	}
	w.holds(1, 2)
}

// What is refused leaves nothing behind, and the message says what and where.
func TestPublishRefuses(t *testing.T) {
	good := build(t, "1.0", 64<<10)
	digest := fleet.Digest(sha256.Sum256(good))
	other := digest
	other[0]++
	own := errors.New("the connection broke")
	reseal := func(b []byte) []byte { // a right checksum and hash over altered content
		sum := sha256.Sum256(b[:len(b)-32])
		copy(b[len(b)-32:], sum[:])
		return b
	}
	alter := func(at int, x byte) []byte { b := bytes.Clone(good); b[at] ^= x; return b }
	dump := bytes.Repeat([]byte{0xFF}, 128<<10)
	copy(dump, build(t, "boot", 20<<10))
	copy(dump[0x8000:], []byte{0xAA, 0x50, 1, 0})

	for _, c := range []struct {
		name  string
		image io.Reader
		f     func(*Meta)
		code  fleet.Code
		parts string // of the message
	}{
		{"no product", bytes.NewReader(good), func(m *Meta) { m.Product = "" }, fleet.CodeInvalid, "product"},
		{"bad version", bytes.NewReader(good), func(m *Meta) { m.Version = "\n" }, fleet.CodeInvalid, "version"},
		{"bad chunk size", bytes.NewReader(good), func(m *Meta) { m.ChunkSize = 1 }, fleet.CodeInvalid, "chunk size"},
		{"negative size", bytes.NewReader(good), func(m *Meta) { m.Size = -1 }, fleet.CodeInvalid, "-1 bytes"},
		{"announced too large", bytes.NewReader(good), func(m *Meta) { m.Size = DefaultMaxImage + 1 }, fleet.CodeTooLarge, "16777216"},
		{"shorter than announced", bytes.NewReader(good), func(m *Meta) { m.Size = 65537 }, fleet.CodeInvalid, "65537 bytes were announced, 65536 came"},
		{"longer than announced", bytes.NewReader(good), func(m *Meta) { m.Size = 65535 }, fleet.CodeInvalid, "more than the announced 65535 bytes"},
		{"another digest", bytes.NewReader(good), func(m *Meta) { m.Digest = &other }, fleet.CodeInvalid, digest.String()},
		{"empty", strings.NewReader(""), nil, fleet.CodeInvalid, "empty"},
		{"one byte", bytes.NewReader(good[:1]), nil, fleet.CodeInvalid, "cut short, at byte 1 "},
		{"no image", strings.NewReader("#!/bin/sh\nexit 0\n#################"), nil, fleet.CodeInvalid, "magic byte|at byte 0 (0x0)"},
		{"short and no image", strings.NewReader("hello"), nil, fleet.CodeInvalid, "magic byte|at byte 0 (0x0)"},
		{"no segments", bytes.NewReader(alter(1, good[1])), nil, fleet.CodeInvalid, "segment count, at byte 1 "},
		{"too many segments", bytes.NewReader(alter(1, 0x10)), nil, fleet.CodeInvalid, "segment count, at byte 1 "},
		{"odd segment", bytes.NewReader(alter(28, 1)), nil, fleet.CodeInvalid, "segment length, at byte 28 "},
		{"unmappable segment", bytes.NewReader(alter(24, 0x40)), nil, fleet.CodeInvalid, "address|at byte 24 "},
		{"one bit of the content", bytes.NewReader(alter(5000, 4)), nil, fleet.CodeInvalid, fmt.Sprint("checksum|at byte ", len(good)-33)},
		{"one bit of the hash", bytes.NewReader(alter(len(good)-1, 1)), nil, fleet.CodeInvalid, fmt.Sprint("SHA-256|at byte ", len(good)-32)},
		{"one bit of the header", bytes.NewReader(alter(4, 1)), nil, fleet.CodeInvalid, fmt.Sprint("SHA-256|at byte ", len(good)-32)},
		{"checksum alone", bytes.NewReader(reseal(alter(len(good)-33, 1))), nil, fleet.CodeInvalid, "checksum"},
		{"a byte is missing at the end", bytes.NewReader(good[:len(good)-1]), nil, fleet.CodeInvalid, fmt.Sprint("cut short, at byte ", len(good)-1)},
		{"cut in the middle", bytes.NewReader(good[:30000]), nil, fleet.CodeInvalid, "cut short, at byte 30000"},
		{"a whole flash", bytes.NewReader(dump), nil, fleet.CodeInvalid, "whole flash|20480 bytes"},
		{"too large", io.LimitReader(endless{good}, DefaultMaxImage+1), nil, fleet.CodeTooLarge, "16777216"},
		{"a source that breaks", io.MultiReader(bytes.NewReader(good[:40000]), iotest.ErrReader(own)), nil, fleet.CodeInternal, "broke"},
		{"a source that breaks at the end", io.MultiReader(bytes.NewReader(good), iotest.ErrReader(own)), nil, fleet.CodeInternal, "broke"},
		{"a source that times out", iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(good))), nil, fleet.CodeInternal, "timeout"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			m := meta("1.0")
			if c.f != nil {
				c.f(&m)
			}
			r, created, err := w.Publish(ctx, c.image, m)
			if created || r != (fleet.Release{}) || fleet.CodeOf(err) != c.code {
				t.Fatalf("%+v %v (%s)", r, err, fleet.CodeOf(err))
			}
			for _, part := range strings.Split(c.parts, "|") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q says nothing of %q", err, part)
				}
			}
			w.holds(0, 0)
		})
	}
}

// endless goes on after an image for ever.
type endless struct{ image []byte }

func (e endless) Read(p []byte) (int, error) {
	return copy(p, e.image), nil
}

// What may follow an image is taken with it: a signature sector, padding.
func TestPublishTakesWhatFollows(t *testing.T) {
	w := newWorld(t)
	image := append(build(t, "1.0", 64<<10), bytes.Repeat([]byte{0xFF}, 4096)...)
	r, _, err := w.Publish(ctx, bytes.NewReader(image), meta("1.0"))
	if err != nil || r.Image.Size != int64(len(image)) || r.Image.Digest != sha256.Sum256(image) {
		t.Errorf("%+v %v", r, err)
	}
}

// A conflict removes the blob, unless a release refers to it.
func TestConflict(t *testing.T) {
	w := newWorld(t)
	a, b := build(t, "a", 64<<10), build(t, "b", 64<<10)
	for i, c := range []struct {
		image   []byte
		version string
		ok      bool
		blobs   int
	}{
		{a, "1.0", true, 1},
		{b, "1.0", false, 1},
		{b, "2.0", true, 2},
		{a, "2.0", false, 2},
	} {
		_, _, err := w.Publish(ctx, bytes.NewReader(c.image), meta(c.version))
		if (err == nil) != c.ok || err != nil && fleet.CodeOf(err) != fleet.CodeConflict {
			t.Errorf("%d: %v", i, err)
		}
		w.holds(c.blobs, (i+2)/2)
	}
	list, _ := w.store.ListReleases(ctx, "")
	for _, r := range list {
		if _, err := w.store.Withdraw(ctx, r.ID, t0); err != nil {
			t.Fatal(err)
		}
	}
	// Withdrawn ones still refer to it.
	if _, _, err := w.Publish(ctx, bytes.NewReader(a), meta("1.0")); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("%v", err)
	}
	if err := w.dir.Verify(ctx, sha256.Sum256(a)); err != nil {
		t.Error(err)
	}
}

// Many publish the same image at once, some under a version that is taken by
// another: nobody takes the blob away from who got a release for it.
func TestConcurrentConflicts(t *testing.T) {
	w := newWorld(t)
	shared, other := build(t, "shared", 64<<10), build(t, "other", 64<<10)
	if _, _, err := w.Publish(ctx, bytes.NewReader(other), meta("taken")); err != nil {
		t.Fatal(err)
	}
	for round := range 10 {
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				version := "taken"
				if i == 0 && round%2 == 1 {
					version = fmt.Sprint("round ", round)
				}
				_, _, err := w.Publish(ctx, iotest.HalfReader(bytes.NewReader(shared)), meta(version))
				if version == "taken" && fleet.CodeOf(err) != fleet.CodeConflict || version != "taken" && err != nil {
					t.Errorf("%s: %v", version, err)
				}
			}()
		}
		wg.Wait()
		err := w.dir.Verify(ctx, sha256.Sum256(shared))
		if round == 0 && fleet.CodeOf(err) != fleet.CodeNotFound {
			t.Errorf("nobody published it: %v", err)
		}
		if round > 0 && err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
}

// failing is a store of releases that fails at its end.
type failing struct {
	fleet.Releases
	err error
}

func (f failing) Publish(context.Context, fleet.Release, time.Time) (fleet.Release, bool, error) {
	return fleet.Release{}, false, f.err
}

// Where it is not certain that there is no release, the blob stays until Sweep.
func TestStoreFails(t *testing.T) {
	image := build(t, "1.0", 64<<10)
	for _, c := range []struct {
		err   error
		blobs int
	}{
		{fleet.Errorf(fleet.CodeBusy, "stopping"), 0},
		{fleet.Errorf(fleet.CodeNoSpace, "full"), 0},
		{context.Canceled, 0},
		{errors.New("the disk failed at the commit"), 1},
	} {
		w := newWorld(t)
		w.releases = failing{w.store, c.err}
		if _, _, err := w.Publish(ctx, bytes.NewReader(image), meta("1.0")); !errors.Is(err, c.err) {
			t.Errorf("%v", err)
		}
		w.holds(c.blobs, 0)
		if n, missing, err := w.Sweep(ctx); n != c.blobs || len(missing) != 0 || err != nil {
			t.Errorf("%d %v %v", n, missing, err)
		}
		w.holds(0, 0)
	}
}

func TestSweep(t *testing.T) {
	w := newWorld(t)
	var digests []fleet.Digest
	for _, v := range []string{"1.0", "2.0"} {
		r, _, err := w.Publish(ctx, bytes.NewReader(build(t, v, 64<<10)), meta(v))
		if err != nil {
			t.Fatal(err)
		}
		digests = append(digests, r.Image.Digest)
	}
	// A crash between the blob and its release; and a blob that somebody deleted.
	if _, _, err := w.dir.Put(ctx, strings.NewReader("orphan"), -1); err != nil {
		t.Fatal(err)
	}
	if err := w.dir.Delete(ctx, digests[0]); err != nil {
		t.Fatal(err)
	}
	removed, missing, err := w.Sweep(ctx)
	if removed != 1 || len(missing) != 1 || missing[0].Release.Version != "1.0" || !missing[0].Missing || missing[0].What != "image" || err != nil {
		t.Errorf("%d %v %v", removed, missing, err)
	}
	if err := w.dir.Verify(ctx, digests[1]); err != nil {
		t.Error(err)
	}
	// Published again, it is whole again.
	if _, created, err := w.Publish(ctx, bytes.NewReader(build(t, "1.0", 64<<10)), meta("1.0")); created || err != nil {
		t.Errorf("%v %v", created, err)
	}
	if removed, missing, err := w.Sweep(ctx); removed != 0 || len(missing) != 0 || err != nil {
		t.Errorf("%d %v %v", removed, missing, err)
	}
	w.holds(2, 2)
}

// A full disk is an error before the image is read.
func TestFullDisk(t *testing.T) {
	w := newWorld(t)
	full, err := dir.Open(dir.Options{Path: filepath.Join(w.path, "blobs"), Reserve: 1 << 62})
	if err != nil {
		t.Fatal(err)
	}
	w.blobs = full
	r := bytes.NewReader(build(t, "1.0", 64<<10))
	if _, _, err := w.Publish(ctx, r, meta("1.0")); fleet.CodeOf(err) != fleet.CodeNoSpace || r.Len() != 64<<10 {
		t.Errorf("%v, %d bytes left", err, r.Len())
	}
	w.holds(0, 0)
}

// Every real image is taken, with its own words; each with one bit flipped is not.
func TestRealImages(t *testing.T) {
	root := testenv.Shared(t, "firmware")
	files, _ := filepath.Glob(filepath.Join(root, "*esp32*", "*", "*.bin"))
	taken := 0
	for _, path := range files {
		base := filepath.Base(path)
		if base != "firmware.bin" && base != "MicroPython.bin" {
			continue
		}
		taken++
		image, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		r, _, err := w.Publish(ctx, bytes.NewReader(image), meta(filepath.Base(filepath.Dir(path))))
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		hasDesc := binary.LittleEndian.Uint32(image[0x20:]) == descMagic
		if (r.Image.IDFVersion != "") != hasDesc || !strings.HasPrefix(r.Image.Chip, "ESP32") {
			t.Errorf("%s: %+v", path, r.Image)
		}
		t.Logf("%s: %s, %q %q, IDF %q", r.Version, r.Image.Chip, r.Image.Project, r.Image.AppVersion, r.Image.IDFVersion)
		image[len(image)/2] ^= 1
		if _, _, err := w.Publish(ctx, bytes.NewReader(image), meta("bad")); fleet.CodeOf(err) != fleet.CodeInvalid {
			t.Errorf("%s with a flipped bit: %v", path, err)
		}
		w.holds(1, 1)
	}
	if taken < 10 {
		t.Errorf("only %d images found", taken)
	}
}

// FuzzIntake: whatever comes, in whatever pieces, it ends well only where the
// image check, asked alone, says so.
func FuzzIntake(f *testing.F) {
	good := build(f, "1.0", 1024)
	f.Add(good, uint16(100))
	f.Add(append(bytes.Clone(good), 1, 2, 3), uint16(1))
	f.Add(good[:500], uint16(7))
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0xE9}, uint16(1))
	f.Fuzz(func(t *testing.T, image []byte, piece uint16) {
		const limit = 1 << 16
		in := newIntake(&pieces{image, int(piece)}, meta("1.0"), limit)
		pinned := false
		in.atEnd = func(d fleet.Digest) { pinned = d == sha256.Sum256(image) }
		got, err := io.ReadAll(in)

		var alone esp32.ImageCheck
		alone.Begin(esp32.AnyChip, limit)
		sound := alone.Write(image) == nil && alone.End() == nil && len(image) <= limit
		dump := len(image) > tableOffset+1 && image[tableOffset] == 0xAA && image[tableOffset+1] == 0x50 && alone.Length() <= tableOffset
		if (err == nil) != (sound && !dump) || in.ended != (err == nil) || pinned != in.ended {
			t.Fatalf("%v, but sound %v, dump %v; ended %v, pinned %v", err, sound, dump, in.ended, pinned)
		}
		if err == nil && !bytes.Equal(got, image) {
			t.Fatal("other bytes came out")
		}
		if err != nil && fleet.CodeOf(err) == fleet.CodeInternal {
			t.Fatalf("%v", err)
		}
		im := in.image()
		for _, s := range []string{im.Project, im.AppVersion, im.IDFVersion} {
			if fleet.CleanText(s, descText) != s {
				t.Fatalf("%q", s)
			}
		}
	})
}

// pieces gives n bytes at a time.
type pieces struct {
	rest []byte
	n    int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(b, p.rest[:min(len(p.rest), p.n+1)])
	p.rest = p.rest[n:]
	return n, nil
}

func BenchmarkPublish(b *testing.B) {
	w := newWorld(b)
	image := build(b, "bench", 1068032)
	b.SetBytes(int64(len(image)))
	for i := 0; b.Loop(); i++ {
		if _, _, err := w.Publish(ctx, bytes.NewReader(image), meta(fmt.Sprint("v", i))); err != nil {
			b.Fatal(err)
		}
	}
}

// Boards that are no ESP32: their bytes are taken as they are, on the way that says
// so, and leave nothing behind either where they are refused.
func TestOtherBytes(t *testing.T) {
	w := newWorld(t)
	elf := append([]byte("\x7fELF"), bytes.Repeat([]byte{1, 2, 3}, 5000)...)
	sum := fleet.Digest(sha256.Sum256(elf))
	publish := func(version string, chunk int, d *fleet.Digest, image []byte) (fleet.Release, error) {
		r, _, err := w.AnyBoard().PublishImage(ctx, "acme/pump", version, chunk, d, bytes.NewReader(image))
		return r, err
	}
	wrong := fleet.Digest{1}
	cut := build(t, "1.0", 70_000)
	cut = cut[:len(cut)-40]
	for name, err := range map[string]error{
		"chunk size": second(publish("1.0", 7, &sum, elf)),
		"version":    second(publish("", 1024, &sum, elf)),
		"digest":     second(publish("1.0", 1024, &wrong, elf)),
		"empty":      second(publish("1.0", 1024, nil, nil)),
		"ESP, cut":   second(publish("1.0", 1024, nil, cut)),
		"not asked":  second3(w.PublishImage(ctx, "acme/pump", "1.0", 1024, &sum, bytes.NewReader(elf), fleet.Publication{})),
	} {
		if fleet.CodeOf(err) != fleet.CodeInvalid {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.holds(0, 0)
	r, err := publish("1.0", 1024, &sum, elf)
	if err != nil || r.Image.Digest != sum || r.Image.Size != int64(len(elf)) || r.Image.Chip != "" {
		t.Errorf("%+v, %v", r, err)
	}
	if _, err := publish("1.0", 1024, nil, elf[1:]); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("the same version again: %v", err)
	}
	w.holds(1, 1)
	if r, err := publish("2.0", 1024, nil, build(t, "2.0", 70_000)); err != nil || r.Image.Chip == "" {
		t.Errorf("an ESP image: %+v, %v", r, err)
	}
	w.holds(2, 2)
}

func second[T any](_ T, err error) error          { return err }
func second3[T, U any](_ T, _ U, err error) error { return err }

// A blob is on the disk with its name before the release that refers to it: else a
// power loss could leave a release without an image.
func TestBlobBeforeRelease(t *testing.T) {
	w := newWorld(t)
	image := build(t, "1.0", 70_000)
	digest := fleet.Digest(sha256.Sum256(image))
	asked := false
	w.Service = New(Options{Blobs: w.dir, Now: func() time.Time { return t0 }, Releases: looking{w.store, func() {
		asked = true
		if err := w.dir.Verify(ctx, digest); err != nil {
			t.Errorf("the release is stored and the blob is not: %v", err)
		}
	}}})
	if _, _, err := w.Publish(ctx, bytes.NewReader(image), meta("1.0")); err != nil || !asked {
		t.Errorf("%v, asked: %v", err, asked)
	}
}

type looking struct {
	fleet.Releases
	look func()
}

func (l looking) Publish(c context.Context, r fleet.Release, now time.Time) (fleet.Release, bool, error) {
	l.look()
	return l.Releases.Publish(c, r, now)
}
