package ingest

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

// derivedFile is a patch from old to m's image, or the compressed image, as a release file has it.
func derivedFile(t testing.TB, old, image []byte, m *release.Manifest) release.DerivedFile {
	t.Helper()
	made, err := derive.Make(t.Context(), old, image, m, derive.Options{Profile: 1, Signer: releasetest.Signer("release")})
	if err != nil {
		t.Fatal(err)
	}
	return release.DerivedFile{Sheet: made.Envelope, Stream: bytes.NewReader(made.File), Size: int64(len(made.File))}
}

// What comes with a release is applied before it is published, if what it starts from is
// here; one that does not make the image takes the release with it.
func TestDerivedIsProven(t *testing.T) {
	old := bytes.Repeat([]byte("an image for a board that is no ESP32; "), 500)
	image := bytes.Clone(old)
	copy(image[5000:], "something else")
	other := bytes.Clone(image)
	other[9000] ^= 1
	m := releasetest.Manifest(t, product, "1.1", image)
	m.Sequence = 2
	otherM := releasetest.Manifest(t, product, "1.1", other)
	otherM.Image.Streams = m.Image.Streams // a sheet for m, of a patch that makes another image
	stolen := func(old []byte) release.DerivedFile { return derivedFile(t, old, other, otherM) }
	junk := releasetest.Patch(t, m, old, []byte("no patch at all"))
	for _, c := range []struct {
		name   string
		held   bool // the old image is here
		file   release.DerivedFile
		proven bool
		want   string // of the error; "": none
	}{
		{"a patch", true, derivedFile(t, old, image, m), true, ""},
		{"a patch from what is not here", false, derivedFile(t, old, image, m), false, ""},
		{"the compressed image", false, derivedFile(t, nil, image, m), true, ""},
		{"a patch to another image", true, stolen(old), false, "stream-00.bin does not make the image of acme/pump 1.1"},
		{"another image, compressed", false, stolen(nil), false, "stream-00.bin does not make the image"},
		{"no patch at all", true, junk, false, "not a patch"},
		{"no patch at all, from what is not here", false, junk, false, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := signedWorld(t)
			files, releases := 0, 0
			if c.held {
				if _, _, err := w.push(releasetest.File(t, nil, releasetest.Manifest(t, product, "1.0", old), old, nil)); err != nil {
					t.Fatal(err)
				}
				files, releases = 2, 1
			}
			if _, err := c.file.Stream.(io.Seeker).Seek(0, io.SeekStart); err != nil {
				t.Fatal(err)
			}
			r, _, err := w.push(releasetest.File(t, nil, m, image, []release.DerivedFile{c.file}))
			if c.want != "" {
				if fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%v", err)
				}
				w.keeps(files, releases, 1)
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			w.keeps(files+3, releases+1, 1)
			streams, err := w.store.Streams(ctx, r.ID)
			if err != nil || len(streams) != 2 {
				t.Fatal(streams, err)
			}
			for _, s := range streams {
				if s.Kind != fleet.StreamRaw && s.Proven != c.proven {
					t.Errorf("%+v", s)
				}
			}
		})
	}
}

// A base that is damaged on the disk is as one that is not here: whose fault it is, fsck says.
func TestDamagedBase(t *testing.T) {
	old := bytes.Repeat([]byte("an image for a board that is no ESP32; "), 500)
	image := bytes.Clone(old)
	copy(image[5000:], "something else")
	w := signedWorld(t)
	r, _, err := w.push(releasetest.File(t, nil, releasetest.Manifest(t, product, "1.0", old), old, nil))
	if err != nil {
		t.Fatal(err)
	}
	spoil(t, w, r.Image.Digest)
	m := releasetest.Manifest(t, product, "1.1", image)
	m.Sequence = 2
	if r, _, err = w.push(releasetest.File(t, nil, m, image, []release.DerivedFile{derivedFile(t, old, image, m)})); err != nil {
		t.Fatal(err)
	}
	streams, err := w.store.Streams(ctx, r.ID)
	if err != nil || len(streams) != 2 || streams[0].Proven || streams[1].Proven {
		t.Errorf("%+v %v", streams, err)
	}
}

// spoil flips a bit of a stored blob.
func spoil(t *testing.T, w *world, d fleet.Digest) {
	t.Helper()
	path := filepath.Join(w.path, "blobs", d.String())
	b, err := os.ReadFile(path)
	if err == nil {
		b[len(b)/2] ^= 1
		err = errors.Join(os.Chmod(path, 0o600), os.WriteFile(path, b, 0o600))
	}
	if err != nil {
		t.Fatal(err)
	}
}
