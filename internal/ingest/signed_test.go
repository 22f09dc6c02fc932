package ingest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
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

const product = "acme/pump"

// signedWorld holds key list 1, by an operator's word.
func signedWorld(t testing.TB) *world {
	t.Helper()
	w := newWorld(t)
	if _, created, err := w.AddKeyList(ctx, releasetest.SealList(t, releasetest.List(1, product))); err != nil || !created {
		t.Fatal(created, err)
	}
	return w
}

// keeps wants so many blobs and releases, the newest key list, nothing half-written and nothing pinned.
func (w *world) keeps(blobs, releases int, list uint32) {
	w.t.Helper()
	var files []string
	filepath.WalkDir(filepath.Join(w.path, "blobs"), func(path string, e os.DirEntry, _ error) error {
		if e != nil && !e.IsDir() {
			files = append(files, path)
		}
		return nil
	})
	all, err := w.store.ListReleases(ctx, "")
	if err != nil || len(files) != blobs || len(all) != releases {
		w.t.Errorf("%d files, not %d; %d releases, not %d; %v", len(files), blobs, len(all), releases, err)
	}
	if l, err := w.store.NewestKeyList(ctx); list > 0 && (err != nil || l.Version != list) || list == 0 && fleet.CodeOf(err) != fleet.CodeNotFound {
		w.t.Errorf("key list %d, not %d: %v", l.Version, list, err)
	}
	if len(w.pinned) != 0 {
		w.t.Errorf("still pinned: %v", w.pinned)
	}
}

func (w *world) push(file []byte) (fleet.Release, bool, error) {
	return w.PublishRelease(ctx, bytes.NewReader(file), int64(len(file)))
}

// pump is a release of version 1.<sequence>, with its file.
func pump(t testing.TB, sequence uint32, change func(*release.Manifest)) (*release.Manifest, []byte) {
	t.Helper()
	image := build(t, fmt.Sprint("1.", sequence), 64<<10)
	m := releasetest.Manifest(t, product, fmt.Sprint("1.", sequence), image)
	m.Sequence = sequence
	if change != nil {
		change(m)
	}
	return m, releasetest.File(t, nil, m, image, nil)
}

func TestPublishRelease(t *testing.T) {
	w := signedWorld(t)
	image := build(t, "1.2.0", 300_000)
	m := releasetest.Manifest(t, product, "1.2.0", image)
	releasetest.AddRaw(t, m, image, 4096)
	m.Sequence, m.SecurityVersion, m.Hardware = 7, 3, [][]byte{[]byte("rev-b"), {0, 255}}
	patch := bytes.Repeat([]byte("delta"), 500)
	file := releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("old image"), patch)})
	r, created, err := w.PublishRelease(ctx, iotest.HalfReader(bytes.NewReader(file)), 0)
	if err != nil || !created {
		t.Fatal(created, err)
	}
	want := fleet.Release{ID: r.ID, Product: product, Version: "1.2.0", ChunkSize: 1024, State: fleet.ReleasePublished, PublishedAt: t0,
		Image: fleet.Image{Digest: sha256.Sum256(image), Size: int64(len(image)), Chip: "ESP32-C3", Project: "pump", AppVersion: "1.2.0", IDFVersion: r.Image.IDFVersion},
		Epoch: 1, Sequence: 7, SecurityVersion: 3, Hardware: "rev-b, 00ff", ManifestDigest: r.ManifestDigest}
	if r != want || r.Image.IDFVersion == "" {
		t.Errorf("%+v\n%+v", r, want)
	}
	envelope, err := w.store.Manifest(ctx, r.ManifestDigest)
	if err != nil || !bytes.Contains(file, envelope.Envelope) || sha256.Sum256(envelope.Envelope) != r.ManifestDigest {
		t.Errorf("%v", err)
	}
	streams, err := w.store.Streams(ctx, r.ID)
	if err != nil || len(streams) != 3 {
		t.Fatalf("%+v, %v", streams, err)
	}
	for _, s := range streams {
		payload := image
		if s.Kind != fleet.StreamRaw {
			payload = patch
		}
		wantFile, root := releasetest.Stream(t, payload, s.Chunk)
		f, err := w.dir.Open(ctx, s.Digest)
		if err != nil {
			t.Fatal(err)
		}
		got, err := io.ReadAll(f)
		f.Close()
		if err != nil || !bytes.Equal(got, wantFile) || s.Length != int64(len(got)) || s.Root != fleet.Digest(root) || s.Digest != sha256.Sum256(got) || (len(s.Sheet) > 0) != (s.Kind == fleet.StreamPatch) {
			t.Errorf("%+v: %d bytes, %v", s, len(got), err)
		}
	}
	w.keeps(4, 1, 1)
	// The same again.
	if again, created, err := w.push(file); again != want || created || err != nil {
		t.Errorf("%+v %v %v", again, created, err)
	}
	w.keeps(4, 1, 1)
	if n, faults, err := w.Check(ctx); n != 5 || len(faults) != 0 || err != nil {
		t.Errorf("%d %v %v", n, faults, err)
	}
	if removed, faults, err := w.Sweep(ctx); removed != 0 || len(faults) != 0 || err != nil {
		t.Errorf("%d %v %v", removed, faults, err)
	}
}

// An image of one chunk is its own stream: one blob that is both.
func TestOneChunk(t *testing.T) {
	w := signedWorld(t)
	image := []byte("for a board that is no ESP32")
	m := releasetest.Manifest(t, product, "1", image)
	r, _, err := w.push(releasetest.File(t, nil, m, image, nil))
	if err != nil || r.Image.Chip != "" {
		t.Fatal(r, err)
	}
	w.keeps(1, 1, 1)
}

// What is taken already is a conflict; an old image that is issued anew is none.
func TestReleaseConflicts(t *testing.T) {
	w := signedWorld(t)
	_, first := pump(t, 5, nil)
	if _, _, err := w.push(first); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		change func(*release.Manifest)
		image  string // its version
	}{
		"the same sequence":                    {func(m *release.Manifest) { m.Version = "other" }, "1.9"},
		"the same sequence, the same image":    {func(m *release.Manifest) { m.SecurityVersion = 2 }, "1.5"},
		"the same version with another image":  {func(m *release.Manifest) { m.Sequence, m.Version = 6, "1.5" }, "1.9"},
		"the same version in a lower sequence": {func(m *release.Manifest) { m.Sequence, m.Version = 1, "1.5" }, "1.9"},
	} {
		image := build(t, c.image, 64<<10)
		m := releasetest.Manifest(t, product, c.image, image)
		m.Sequence = 5
		c.change(m)
		if _, created, err := w.push(releasetest.File(t, nil, m, image, nil)); created || fleet.CodeOf(err) != fleet.CodeConflict {
			t.Errorf("%s: %v", name, err)
		}
		w.keeps(2, 1, 1)
	}
	// Issued anew: the same bytes and version, a higher sequence.
	image := build(t, "1.5", 64<<10)
	m := releasetest.Manifest(t, product, "1.5", image)
	m.Sequence = 6
	r, created, err := w.push(releasetest.File(t, nil, m, image, nil))
	if err != nil || !created {
		t.Fatal(created, err)
	}
	if streams, err := w.store.Streams(ctx, r.ID); err != nil || len(streams) != 1 {
		t.Errorf("%v %v", streams, err)
	}
	w.keeps(2, 2, 1)
	// The same again with a patch that was made later: the patch is added.
	withPatch := releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("d"), 3000))})
	if again, created, err := w.push(withPatch); again != r || created || err != nil {
		t.Errorf("%v %v", created, err)
	}
	if streams, err := w.store.Streams(ctx, r.ID); err != nil || len(streams) != 2 || streams[0].Kind != fleet.StreamPatch {
		t.Errorf("%v %v", streams, err)
	}
	w.keeps(3, 2, 1)
	// Signed by another key, the manifest is another one.
	_, again := pump(t, 7, nil)
	if _, _, err := w.push(again); err != nil {
		t.Fatal(err)
	}
	image = build(t, "1.7", 64<<10)
	m, _ = pump(t, 7, nil)
	if _, _, err := w.push(releasetest.File(t, nil, m, image, nil, "second")); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("another signer: %v", err)
	}
}

// What is refused leaves nothing behind, and says what and where. forbidden is
// what no message may have.
func TestReleaseRefuses(t *testing.T) {
	image := build(t, "1.1", 64<<10)
	bad := bytes.Clone(image)
	bad[5000] ^= 4
	_, good := pump(t, 1, nil)
	own := errors.New("the connection broke")
	file := func(list []byte, change func(*release.Manifest), image []byte, signers ...string) []byte {
		m, _ := pump(t, 1, change)
		return releasetest.File(t, list, m, image, nil, signers...)
	}
	other := releasetest.List(2, product)
	other.Roots[0] = releasetest.Public("thief")
	m, _ := pump(t, 1, nil)
	stranger := releasetest.Patch(t, m, []byte("base"), []byte("patch"))
	stranger.Sheet[len(stranger.Sheet)-1] ^= 1
	cut := releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("patch"), 1000))
	altered, _ := io.ReadAll(cut.Stream)
	altered[700] ^= 1
	cut.Stream = bytes.NewReader(altered)

	for _, c := range []struct {
		name  string
		file  io.Reader
		code  fleet.Code
		parts string // of the message
	}{
		{"empty", strings.NewReader(""), fleet.CodeInvalid, "ends early, at offset 0"},
		{"an image", bytes.NewReader(image), fleet.CodeInvalid, "unexpected member"},
		{"no signature that counts", bytes.NewReader(file(nil, nil, image, "thief")), fleet.CodeInvalid, "0 of 1|not in the key list (version 1)"},
		{"a stream key's signature", bytes.NewReader(file(nil, nil, image, "stream")), fleet.CodeInvalid, "0 of 1|may sign stream sheets only"},
		{"another product", bytes.NewReader(file(nil, func(m *release.Manifest) { m.Product = "acme/other" }, image)), fleet.CodeInvalid, "acme/other"},
		{"another epoch", bytes.NewReader(file(nil, func(m *release.Manifest) { m.Epoch = 2 }, image)), fleet.CodeInvalid, "2, the key list says 1"},
		{"another image", bytes.NewReader(file(nil, nil, bad)), fleet.CodeInvalid, "image.bin"},
		{"an image that was signed and does not boot", bytes.NewReader(file(nil, func(m *release.Manifest) {
			m.Image.Digest = sha256.Sum256(bad)
			m.Image.Streams = nil
			releasetest.AddRaw(t, m, bad, 1024)
		}, bad)), fleet.CodeInvalid, "image.bin|checksum"},
		{"a root that is not the image's", bytes.NewReader(file(nil, func(m *release.Manifest) { m.Image.Streams[0].Root[3]++ }, image)), fleet.CodeInvalid, "raw stream in chunks of 1024"},
		{"a second root that is not the image's", bytes.NewReader(file(nil, func(m *release.Manifest) {
			m.Image.Streams = append(m.Image.Streams, release.Raw{Chunk: 256, Root: release.Hash{1}})
		}, image)), fleet.CodeInvalid, "raw stream in chunks of 256"},
		{"a version with a line break", bytes.NewReader(file(nil, func(m *release.Manifest) { m.Version = "1\n2" }, image)), fleet.CodeInvalid, "version"},
		{"a key list of other roots", bytes.NewReader(file(releasetest.SealList(t, other, "thief"), nil, image)), fleet.CodeInvalid, "key list"},
		{"a key list nobody signed for", bytes.NewReader(file(releasetest.SealList(t, releasetest.List(2, product), "thief"), nil, image)), fleet.CodeInvalid, "key list"},
		{"another key list 1", bytes.NewReader(file(releasetest.SealList(t, releasetest.List(1, product, "acme/more")), nil, image)), fleet.CodeInvalid, "other bytes"},
		{"a sheet nobody signed", bytes.NewReader(releasetest.File(t, nil, m, image, []release.DerivedFile{stranger})), fleet.CodeInvalid, "sheet-00"},
		{"a patch with one bit flipped", bytes.NewReader(releasetest.File(t, nil, m, image, []release.DerivedFile{cut})), fleet.CodeInvalid, "stream-00.bin: record 1"},
		{"bytes behind it", bytes.NewReader(append(bytes.Clone(good), 0)), fleet.CodeInvalid, "behind the archive"},
		{"a source that breaks", io.MultiReader(bytes.NewReader(good[:40000]), iotest.ErrReader(own)), fleet.CodeInternal, "the connection broke"},
		{"a source that breaks in a header", io.MultiReader(bytes.NewReader(good[:100]), iotest.ErrReader(io.ErrUnexpectedEOF)), fleet.CodeInternal, "unexpected EOF"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := signedWorld(t)
			r, created, err := w.PublishRelease(ctx, c.file, 0)
			if created || r != (fleet.Release{}) || fleet.CodeOf(err) != c.code {
				t.Fatalf("%+v %v (%s)", r, err, fleet.CodeOf(err))
			}
			for _, part := range strings.Split(c.parts, "|") {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%q says nothing of %q", err, part)
				}
			}
			var e *fleet.Error
			if errors.As(err, &e) && e.Hint == "" && c.parts != "version" {
				t.Errorf("%q has no hint", err)
			}
			for _, secret := range []string{w.path, "put-", ".db"} {
				if strings.Contains(err.Error(), secret) {
					t.Errorf("%q says %q", err, secret)
				}
			}
			w.keeps(0, 0, 1)
			if only, err := w.store.Policy(ctx, product); err != nil || !only.SignedOnly {
				t.Errorf("%+v %v", only, err)
			}
		})
	}
}

// One byte in each member, at its beginning, middle and end; and a cut anywhere.
func TestTamperedMembers(t *testing.T) {
	image := build(t, "1.1", 8<<10)
	m := releasetest.Manifest(t, product, "1.1", image)
	list := releasetest.SealList(t, releasetest.List(2, product))
	file := releasetest.File(t, list, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("d"), 3000))})
	w := signedWorld(t)
	members := 0
	for at := 0; at+1024 < len(file); {
		size := 0
		fmt.Sscanf(string(file[at+124:at+135]), "%o", &size)
		name := strings.TrimRight(string(file[at:at+20]), "\x00")
		members++
		for _, off := range []int{at, at + 130, at + 150, at + 512, at + 512 + size/2, at + 511 + size} {
			p := bytes.Clone(file)
			p[off] ^= 0x10
			if _, _, err := w.push(p); fleet.CodeOf(err) != fleet.CodeInvalid {
				t.Errorf("%s: byte %d flipped: %v", name, off, err)
			}
		}
		for _, n := range []int{at, at + 100, at + 512, at + 512 + size/2} {
			if _, _, err := w.push(file[:n]); fleet.CodeOf(err) != fleet.CodeInvalid {
				t.Errorf("%s: cut at %d: %v", name, n, err)
			}
		}
		at += 512 + (size+511)/512*512
	}
	if members != 5 {
		t.Errorf("%d members", members)
	}
	w.keeps(0, 0, 1)
	if _, created, err := w.push(file); err != nil || !created {
		t.Errorf("untampered: %v %v", created, err)
	}
	w.keeps(3, 1, 2)
}

// A key list in a file is taken if it follows, with the release in one
// transaction; an older one is passed over, and the newest decides.
func TestKeyListInFile(t *testing.T) {
	w := newWorld(t)
	_, file := pump(t, 1, nil)
	if _, _, err := w.push(file); fleet.CodeOf(err) != fleet.CodeConflict || !strings.Contains(err.Error(), "no key list") {
		t.Errorf("without a list: %v", err)
	}
	image := build(t, "1.1", 64<<10)
	m := releasetest.Manifest(t, product, "1.1", image)
	one := releasetest.SealList(t, releasetest.List(1, product))
	if _, _, err := w.push(releasetest.File(t, one, m, image, nil)); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("a first list comes by an operator's word alone: %v", err)
	}
	w.keeps(0, 0, 0)
	if _, _, err := w.AddKeyList(ctx, one); err != nil {
		t.Fatal(err)
	}
	if _, created, err := w.push(releasetest.File(t, one, m, image, nil)); err != nil || !created {
		t.Fatalf("with the list that is held: %v", err)
	}
	w.keeps(2, 1, 1)
	// List 2 revokes "second" and names one more product.
	l2 := releasetest.List(2, product, "acme/valve")
	l2.Keys = slices.Delete(l2.Keys, 1, 2)
	two := releasetest.SealList(t, l2)
	valve := releasetest.Manifest(t, "acme/valve", "1.0", image)
	if _, _, err := w.push(releasetest.File(t, two, valve, image, nil)); err != nil {
		t.Fatal(err)
	}
	w.keeps(2, 2, 2)
	m.Sequence, m.Version = 2, "1.1"
	for name, c := range map[string]struct {
		list   []byte
		signer string
		code   fleet.Code
	}{
		"an old list, and a key that was revoked": {one, "second", fleet.CodeInvalid},
		"a key that was revoked":                  {nil, "second", fleet.CodeInvalid},
		"an old list, and a key that is good":     {one, "release", ""},
	} {
		if _, _, err := w.push(releasetest.File(t, c.list, m, image, nil, c.signer)); fleet.CodeOf(err) != c.code {
			t.Errorf("%s: %v", name, err)
		}
	}
	w.keeps(2, 3, 2)
	// With a conflict the list is not taken either.
	three := releasetest.SealList(t, releasetest.List(3, product))
	m.SecurityVersion = 9
	if _, _, err := w.push(releasetest.File(t, three, m, image, nil)); fleet.CodeOf(err) != fleet.CodeConflict {
		t.Errorf("%v", err)
	}
	w.keeps(2, 3, 2)
}

func TestAddKeyList(t *testing.T) {
	w := newWorld(t)
	one := releasetest.SealList(t, releasetest.List(1, product))
	bad := bytes.Clone(one)
	bad[len(bad)-1] ^= 1
	thief := releasetest.List(2, product)
	thief.Roots[0] = releasetest.Public("thief")
	rotated := releasetest.List(3, product)
	rotated.Generation, rotated.Roots = 2, append(rotated.Roots[:0:0], releasetest.Public("root-2"))
	for _, c := range []struct {
		name     string
		envelope []byte
		code     fleet.Code
		created  bool
		version  uint32
	}{
		{"nothing", nil, fleet.CodeInvalid, false, 0},
		{"a bad signature", bad, fleet.CodeInvalid, false, 0},
		{"not by its own root", releasetest.SealList(t, releasetest.List(1, product), "thief"), fleet.CodeInvalid, false, 0},
		{"the first", one, "", true, 1},
		{"the same", one, "", false, 1},
		{"another of its version", releasetest.SealList(t, releasetest.List(1)), fleet.CodeConflict, false, 1},
		{"of a thief's root", releasetest.SealList(t, thief, "thief"), fleet.CodeInvalid, false, 1},
		{"the second", releasetest.SealList(t, releasetest.List(2, product)), "", true, 2},
		{"the first again", one, fleet.CodeConflict, false, 2},
		{"new roots, signed by the new one", releasetest.SealList(t, rotated, "root-2"), fleet.CodeInvalid, false, 2},
		{"new roots, signed by the old one", releasetest.SealList(t, rotated, "root"), fleet.CodeInvalid, false, 2},
		{"new roots, signed by both", releasetest.SealList(t, rotated, "root", "root-2"), "", true, 3},
		{"by the root that is gone", releasetest.SealList(t, releasetest.List(4, product)), fleet.CodeInvalid, false, 3},
	} {
		l, created, err := w.AddKeyList(ctx, c.envelope)
		if fleet.CodeOf(err) != c.code || created != c.created || err == nil && l.Version != c.version {
			t.Errorf("%s: %d %v %v", c.name, l.Version, created, err)
		}
		w.keeps(0, 0, c.version)
	}
}

// A list that comes while a file does is the one that the file is judged by.
func TestKeyListMeanwhile(t *testing.T) {
	w := signedWorld(t)
	m, _ := pump(t, 1, nil)
	file := releasetest.File(t, nil, m, build(t, "1.1", 64<<10), nil, "second")
	l2 := releasetest.List(2, product)
	l2.Keys = slices.Delete(l2.Keys, 1, 2) // "second" is revoked
	two := releasetest.SealList(t, l2)
	once := sync.OnceFunc(func() {
		if _, _, err := w.AddKeyList(ctx, two); err != nil {
			t.Error(err)
		}
	})
	src := io.MultiReader(bytes.NewReader(file[:30_000]), readerFunc(func([]byte) (int, error) { once(); return 0, io.EOF }), bytes.NewReader(file[30_000:]))
	if _, _, err := w.PublishRelease(ctx, src, 0); fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "not in the key list (version 2)") {
		t.Errorf("%v", err)
	}
	w.keeps(0, 0, 2)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

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
	if _, _, err := w.PublishRelease(ctx, r, int64(len(file))); fleet.CodeOf(err) != fleet.CodeNoSpace || r.Len() != len(file) {
		t.Errorf("%v, %d bytes left", err, r.Len())
	}
	w.keeps(0, 0, 1)
	if _, _, err := w.PublishRelease(ctx, r, MaxRelease+1); fleet.CodeOf(err) != fleet.CodeTooLarge {
		t.Errorf("%v", err)
	}
}

// The disk fills up at any of the places that a release takes, or the caller goes
// away there: nothing is left.
func TestReleaseStagesFail(t *testing.T) {
	image := build(t, "1.1", 64<<10)
	m := releasetest.Manifest(t, product, "1.1", image)
	for k := 0; ; k++ {
		file := releasetest.File(t, nil, m, image, []release.DerivedFile{releasetest.Patch(t, m, []byte("base"), bytes.Repeat([]byte("d"), 3000))})
		for _, at := range []string{"stage", "write", "commit"} {
			w := signedWorld(t)
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

func (f failingSigned) PublishSigned(context.Context, fleet.Release, []byte, []fleet.Stream, time.Time) (fleet.Release, bool, error) {
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

func (l lookingSigned) PublishSigned(c context.Context, r fleet.Release, e []byte, s []fleet.Stream, now time.Time) (fleet.Release, bool, error) {
	l.look(r, s)
	return l.Signed.PublishSigned(c, r, e, s, now)
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
				_, created, err := w.PublishRelease(ctx, iotest.HalfReader(bytes.NewReader(file)), 0)
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
		"images": func() error { return second3(w.PublishImage(ctx, product, "1.0", 1024, nil, bytes.NewReader(image))) },
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
	if _, _, err := w.PublishImage(ctx, "acme/other", "1.0", 1024, nil, bytes.NewReader(image)); err != nil {
		t.Errorf("another product: %v", err)
	}
	if err := w.store.SetPolicy(ctx, product, false, t0); err != nil {
		t.Fatal(err)
	}
	if err := ways["images"](); err != nil {
		t.Errorf("allowed: %v", err)
	}
}
