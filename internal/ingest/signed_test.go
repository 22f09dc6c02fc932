package ingest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/iotest"

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
	return w.PublishRelease(ctx, bytes.NewReader(file), int64(len(file)), fleet.Publication{})
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
	r, created, err := w.PublishRelease(ctx, iotest.HalfReader(bytes.NewReader(file)), 0, fleet.Publication{})
	if err != nil || !created {
		t.Fatal(created, err)
	}
	want := fleet.Release{ID: r.ID, Product: product, Version: "1.2.0", ChunkSize: 1024, State: fleet.ReleasePublished, PublishedAt: t0,
		Image: fleet.Image{Digest: sha256.Sum256(image), Size: int64(len(image)), Chip: "ESP32-C3", Project: "pump", AppVersion: "1.2.0", IDFVersion: r.Image.IDFVersion},
		Epoch: 1, Sequence: 7, SecurityVersion: 3, Hardware: "rev-b, 00ff", ManifestDigest: r.ManifestDigest,
		Checked: fleet.Checked{Signers: release.KeyName(releasetest.Public("release")), Threshold: 1, Contact: true}}
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

	w := signedWorld(t) // one for all: each leaves it as it was
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
			w.t = t
			r, created, err := w.PublishRelease(ctx, c.file, 0, fleet.Publication{})
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
