package fsck

import (
	"bytes"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
)

const product = "acme/pump"

var ctx = context.Background()

// world is a data folder with a signed release, of an image, a raw stream and a
// patch, and an unsigned one.
type world struct {
	t      *testing.T
	path   string
	secret [32]byte

	signed, plain fleet.Release
	raw, patch    fleet.Stream
}

func build(t *testing.T, version string, size int) []byte {
	t.Helper()
	image, err := board.BuildImage(board.ImageSpec{Size: size, Chip: esp32.ChipESP32C3, Project: "pump", Version: version, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, path: t.TempDir()}
	store, err := sqlite.Open(ctx, sqlite.Options{Path: w.db(), Secret: w.secret, Random: rand.Reader})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d, err := dir.Open(dir.Options{Path: w.blobs(), Reserve: -1})
	if err != nil {
		t.Fatal(err)
	}
	in := ingest.New(ingest.Options{Blobs: d, Releases: store, Signed: store, Now: time.Now,
		Stage: func(ctx context.Context, room int64) (ingest.Staged, error) { return d.Stage(ctx, room) }})
	if _, _, err := in.AddKeyList(ctx, releasetest.SealList(t, releasetest.List(1, product))); err != nil {
		t.Fatal(err)
	}
	image := build(t, "1.0", 64<<10)
	m := releasetest.Manifest(t, product, "1.0", image)
	file := releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("d"), 3000))})
	if w.signed, _, err = in.PublishRelease(ctx, bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil {
		t.Fatal(err)
	}
	if w.plain, _, err = in.Publish(ctx, bytes.NewReader(build(t, "2.0", 32<<10)), ingest.Meta{Product: "other", Version: "2.0", ChunkSize: 1024}); err != nil {
		t.Fatal(err)
	}
	streams, err := store.AllStreams(ctx)
	if err != nil || len(streams) != 2 {
		t.Fatal(streams, err)
	}
	for _, s := range streams {
		if s.Kind == fleet.StreamRaw {
			w.raw = s
		} else {
			w.patch = s
		}
	}
	return w
}

func (w *world) db() string                  { return filepath.Join(w.path, "runnel.db") }
func (w *world) blobs() string               { return filepath.Join(w.path, "blobs") }
func (w *world) blob(d fleet.Digest) string  { return filepath.Join(w.blobs(), d.String()) }
func (w *world) remove(d fleet.Digest) error { return os.Remove(w.blob(d)) }

// flip turns one bit of a blob.
func (w *world) flip(d fleet.Digest) error {
	b, err := os.ReadFile(w.blob(d))
	if err != nil {
		return err
	}
	b[len(b)/2] ^= 4
	return errors.Join(os.Chmod(w.blob(d), 0o600), os.WriteFile(w.blob(d), b, 0o400))
}

func (w *world) sql(statement string, args ...any) error {
	db, err := sql.Open("sqlite", w.db())
	if err != nil {
		return err
	}
	defer db.Close()
	db.SetMaxOpenConns(1)
	if _, err := db.Exec("DROP TRIGGER manifests_stay"); err != nil { // what keeps the program from it does not keep a bad disk
		return err
	}
	_, err = db.Exec(statement, args...)
	return err
}

func (w *world) run(progress func(done, total int64)) (Result, error) {
	w.t.Helper()
	store, err := sqlite.OpenToCheck(ctx, sqlite.Options{Path: w.db(), Secret: w.secret})
	if err != nil {
		w.t.Fatal(err)
	}
	defer store.Close()
	d, err := dir.OpenAsIs(dir.Options{Path: w.blobs()})
	if err != nil {
		w.t.Fatal(err)
	}
	return Run(ctx, Config{Releases: store, Signed: store, Blobs: d, Progress: progress})
}

func TestNothingWrong(t *testing.T) {
	w := newWorld(t)
	var last, total int64
	r, err := w.run(func(d, n int64) { last, total = max(last, d), n })
	want := w.signed.Image.Size + w.plain.Image.Size + w.raw.Length + w.patch.Length
	if err != nil || len(r.Findings) != 0 || r.Checked != 5 || r.Bytes != want || last != want || total != want {
		t.Errorf("%+v %v; %d of %d bytes, not %d", r, err, last, total, want)
	}
}

// Each thing that can be wrong is named once, with its release and what to do.
func TestFindings(t *testing.T) {
	other := fleet.Digest{1, 2, 3}
	for name, c := range map[string]struct {
		spoil func(w *world) error
		what  string
		part  string
	}{
		"image missing":   {func(w *world) error { return w.remove(w.plain.Image.Digest) }, Image, "is missing"},
		"image damaged":   {func(w *world) error { return w.flip(w.signed.Image.Digest) }, Image, "is damaged"},
		"image cut":       {func(w *world) error { return cut(w.blob(w.plain.Image.Digest)) }, Image, "is damaged"},
		"stream missing":  {func(w *world) error { return w.remove(w.raw.Digest) }, Stream, "is missing"},
		"stream damaged":  {func(w *world) error { return w.flip(w.patch.Digest) }, Stream, "is damaged"},
		"image's length":  {func(w *world) error { return w.sql("UPDATE releases SET size = size + 1 WHERE product = 'other'") }, Image, "and the database says"},
		"stream's length": {func(w *world) error { return w.sql("UPDATE streams SET length = length - 1 WHERE kind = 'patch'") }, Stream, "and the database says"},
		"stream's chunk":  {func(w *world) error { return w.sql("UPDATE streams SET chunk = 1000 WHERE kind = 'patch'") }, Stream, "can't have"},
		"stream's root":   {func(w *world) error { return w.sql("UPDATE streams SET root = ? WHERE kind = 'patch'", other[:]) }, Stream, "does not have the root"},
		"sheet altered":   {func(w *world) error { return w.sql("UPDATE streams SET sheet = x'00' WHERE kind = 'patch'") }, Stream, "a stream sheet that can't be read"},
		"another's sheet": {func(w *world) error { return w.sql("UPDATE streams SET kind = 'compressed' WHERE kind = 'patch'") }, Stream, "speaks of another stream"},
		"manifest altered": {func(w *world) error {
			return w.sql("UPDATE manifests SET envelope = x'00' WHERE kind = 'manifest'")
		}, Manifest, "not the one that was signed"},
		"manifest's slot": {func(w *world) error { return w.sql("UPDATE releases SET slot = 0 WHERE sequence = 1") }, Manifest, "something else"},
		"manifest's word": {func(w *world) error { return w.sql("UPDATE releases SET sequence = 9 WHERE sequence = 1") }, Manifest, "something else"},
		"stream's row gone": {func(w *world) error {
			return errors.Join(w.remove(w.raw.Digest), w.sql("DELETE FROM streams WHERE kind = 'raw'"))
		}, Manifest, "names a stream"},
		"orphan": {func(w *world) error { _, err := addBlob(w.blobs()); return err }, Orphan, "no release refers"},
	} {
		w := newWorld(t)
		if err := c.spoil(w); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		r, err := w.run(nil)
		if err != nil || len(r.Findings) != 1 {
			t.Errorf("%s: %+v %v", name, r.Findings, err)
			continue
		}
		f := r.Findings[0]
		if f.What != c.what || !strings.Contains(f.Message, c.part) || f.Hint == "" || f.Missing != strings.Contains(f.Message, "is missing") ||
			f.Harmless != (c.what == Orphan) || (f.ReleaseID == 0) != (c.what == Orphan) || len(f.Digest) != 64 || (len(r.Orphans) == 1) != (c.what == Orphan) {
			t.Errorf("%s: %+v", name, f)
		}
	}
}

// addBlob stores a blob that nobody refers to.
func addBlob(path string) (fleet.Digest, error) {
	d, err := dir.Open(dir.Options{Path: path, Reserve: -1})
	if err != nil {
		return fleet.Digest{}, err
	}
	digest, _, err := d.Put(ctx, strings.NewReader(fmt.Sprint("nobody's ", path)), -1)
	return digest, err
}

func cut(path string) error {
	return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, 100))
}

func TestEnds(t *testing.T) {
	w := newWorld(t)
	store, err := sqlite.OpenToCheck(ctx, sqlite.Options{Path: w.db(), Secret: w.secret})
	if err != nil {
		t.Fatal(err)
	}
	defer store.Close()
	d, err := dir.OpenAsIs(dir.Options{Path: w.blobs()})
	if err != nil {
		t.Fatal(err)
	}
	ended, cancel := context.WithCancel(ctx)
	_, err = Run(ended, Config{Releases: store, Signed: store, Blobs: d, Progress: func(int64, int64) { cancel() }})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

// What a stream's length says is the payload that it was made from.
func TestPayload(t *testing.T) {
	for _, chunk := range []uint32{256, 1024} {
		for _, size := range []uint32{1, chunk - 1, chunk, chunk + 1, 3 * chunk, 3*chunk + 7} {
			length := int64(size) + 32*int64((size-1)/chunk)
			if got, ok := payload(&fleet.Stream{Chunk: chunk, Length: length}); !ok || got != size {
				t.Errorf("%d bytes in chunks of %d: %d %v", size, chunk, got, ok)
			}
		}
	}
}
