package derive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
)

const product = "acme/pump"

// program is an image of words that repeat, as code does; edits changes some of them.
func program(seed uint64, size, edits int) []byte {
	r := rand.New(rand.NewPCG(1, 1))
	words := make([][]byte, 200)
	for i := range words {
		words[i] = fmt.Appendf(nil, "word %x;", r.Uint64())
	}
	var b []byte
	for len(b) < size {
		b = append(b, words[r.IntN(len(words))]...)
	}
	b = b[:size]
	r = rand.New(rand.NewPCG(seed, 2))
	for range edits {
		b[r.IntN(size)] ^= byte(1 + r.IntN(255))
	}
	return b
}

func options(profile uint8) Options {
	return Options{Profile: profile, MinSaving: DefaultMinSaving, Signer: releasetest.Signer("stream")}
}

func imageOf(m *release.Manifest, b []byte) Image {
	return Image{Bytes: bytes.NewReader(b), Size: uint32(len(b)), Chunk: m.Image.Streams[0].Chunk}
}

// The names of profiles and the version are the coder's.
func TestNames(t *testing.T) {
	if Profile("large") != patch.ProfileLarge || Profile("small") != patch.ProfileSmall || Profile("medium") != 0 || len(fleet.ProfileNames) != 2 || fleet.PatchVersion != patch.Version {
		t.Errorf("%v %d", fleet.ProfileNames, fleet.PatchVersion)
	}
}

// What is made is a stream as any verifier takes it, its sheet says what it is, and it makes the image.
func TestMake(t *testing.T) {
	old, image := program(1, 60_000, 0), program(2, 61_000, 40)
	m := releasetest.Manifest(t, product, "1", image)
	for _, base := range [][]byte{old, nil} {
		for _, profile := range []uint8{patch.ProfileLarge, patch.ProfileSmall} {
			var last float64
			o := options(profile)
			o.Progress = func(part float64, _ string) { last = part }
			made, err := Make(t.Context(), base, image, m, o)
			if err != nil {
				t.Fatal(err)
			}
			s := made.Sheet
			if s.Profile != profile || s.ImageRoot != m.Image.Streams[0].Root || last != 1 || made.Raw != 61_000+59*32 || made.Sent() >= made.Raw/2 {
				t.Errorf("%+v, %d bytes of %d, progress %f", s, made.Sent(), made.Raw, last)
			}
			if most := map[uint8]uint32{patch.ProfileLarge: 16384, patch.ProfileSmall: 8192}[profile]; s.RAM == 0 || s.RAM > most {
				t.Errorf("profile %d: %d bytes of RAM", profile, s.RAM)
			}
			if got := made.Stream(); (got.Kind == fleet.StreamPatch) != (base != nil) || (s.BaseSize != 0) != (base != nil) || base != nil && s.BaseDigest != sha256.Sum256(base) ||
				got.Digest != sha256.Sum256(made.File) || got.Sent() != made.Sent() {
				t.Errorf("%+v, %+v", s, got)
			}
			trust, err := release.TrustRoots(1, 1, releasetest.Public("root"))
			if err == nil {
				trust, err = trust.Accept(releasetest.SealList(t, releasetest.List(1, product)))
			}
			if err != nil {
				t.Fatal(err)
			}
			if _, err := trust.Sheet(made.Envelope, product); err != nil {
				t.Error(err)
			}
			if _, err := release.CheckStream(t.Context(), bytes.NewReader(made.File), stream.Shape{Size: s.Length, Chunk: s.Chunk}, s.Root, nil); err != nil {
				t.Error(err)
			}
			if err := Prove(t.Context(), s, bytes.NewReader(made.File), bytes.NewReader(base), imageOf(m, image)); err != nil {
				t.Error(err)
			}
		}
	}
}

// With snapshots the model goes on over restart points, which is cheaper, and the stream
// makes the same image.
func TestMakeWithSnapshots(t *testing.T) {
	image := program(2, 200_000, 0)
	rand.NewChaCha8([32]byte{3}).Read(image[:80_000]) // noise: long enough for restart points
	m := releasetest.Manifest(t, product, "1", image)
	o := options(patch.ProfileLarge)
	plain, err := Make(t.Context(), nil, image, m, o)
	if err != nil {
		t.Fatal(err)
	}
	o.Snapshots = true
	kept, err := Make(t.Context(), nil, image, m, o)
	if err != nil {
		t.Fatal(err)
	}
	if kept.Sent() >= plain.Sent() {
		t.Errorf("%d bytes with snapshots, %d without", kept.Sent(), plain.Sent())
	}
	if err := Prove(t.Context(), kept.Sheet, bytes.NewReader(kept.File), bytes.NewReader(nil), imageOf(m, image)); err != nil {
		t.Error(err)
	}
}

func TestMakeRefuses(t *testing.T) {
	image := program(1, 20_000, 0)
	m := releasetest.Manifest(t, product, "1", image)
	noise := make([]byte, 20_000)
	rand.NewChaCha8([32]byte{3}).Read(noise)
	noisy := releasetest.Manifest(t, product, "1", noise)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name       string
		ctx        context.Context
		old, image []byte
		m          *release.Manifest
		want       string
	}{
		{"the same image", t.Context(), image, image, m, "the same"},
		{"not the manifest's", t.Context(), nil, noise, m, "not the manifest's"},
		{"noise", t.Context(), nil, noise, noisy, "saves less than 20 %"},
		{"a patch from noise to noise", t.Context(), image, noise, noisy, "saves less than 20 %"},
		{"stopped", gone, nil, image, m, "canceled"},
	} {
		made, err := Make(c.ctx, c.old, c.image, c.m, options(patch.ProfileLarge))
		if made != nil || err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if little := (&SavingError{}); errors.As(err, &little) && (little.Sent < 16_000 || little.Raw != 20_000+19*32) {
			t.Errorf("%s: %+v", c.name, little)
		}
	}
}

// A bad one is refused by what is wrong with it, and what can't be read is no fault of it.
func TestProveRefuses(t *testing.T) {
	old, image := program(1, 200_000, 0), program(2, 200_000, 3000)
	// Noise, so that the compressed image is long enough for restart points.
	rand.NewChaCha8([32]byte{3}).Read(image[:80_000])
	m := releasetest.Manifest(t, product, "1", image)
	made, err := Make(t.Context(), old, image, m, options(patch.ProfileLarge))
	if err != nil {
		t.Fatal(err)
	}
	packed, err := Make(t.Context(), nil, image, m, options(patch.ProfileLarge))
	if err != nil {
		t.Fatal(err)
	}
	payload := func(m *Made) []byte {
		var p []byte
		for r := range (stream.Shape{Size: m.Sheet.Length, Chunk: m.Sheet.Chunk}).Records() {
			at := int(r * (m.Sheet.Chunk + 32))
			p = append(p, m.File[at:min(at+int(m.Sheet.Chunk), len(m.File))]...)
		}
		return p[:m.Sheet.Length]
	}
	// rebuilt is a stream of other bytes, with the sheet that belongs to it.
	rebuilt := func(of *Made, change func([]byte) []byte) (*release.Sheet, []byte) {
		p := change(payload(of))
		s := *of.Sheet
		s.Length = uint32(len(p))
		file, root := releasetest.Stream(t, p, s.Chunk)
		s.Root = root
		return &s, file
	}
	other := bytes.Clone(image)
	other[100] ^= 1 // before the first restart point, whose hash covers what is behind
	flip := func(p []byte) []byte { p[len(p)/2] ^= 4; return p }
	for _, c := range []struct {
		name   string
		of     *Made
		change func([]byte) []byte
		sheet  func(*release.Sheet)
		old    []byte
		image  []byte
		chunk  uint32
		want   string // "": it is good
	}{
		{name: "as it was made", of: made},
		{name: "compressed", of: packed},
		{name: "another old image", of: made, old: program(9, 200_000, 500), want: " "},
		{name: "another image", of: made, image: other, want: "another image, from byte 100"},
		{name: "a bit flipped", of: made, change: flip, want: " "},
		{name: "cut", of: made, change: func(p []byte) []byte { return p[:len(p)/2] }, want: patch.ErrShort.Error()},
		{name: "a byte more", of: made, change: func(p []byte) []byte { return append(p, bytes.Repeat([]byte{0}, 40)...) }, want: patch.ErrLong.Error()},
		{name: "another version", of: made, change: func(p []byte) []byte { p[0]++; return p }, want: patch.ErrVersion.Error()},
		{name: "more memory than it says", of: made, sheet: func(s *release.Sheet) { s.Profile = patch.ProfileSmall }, want: patch.ErrMemory.Error()},
		{name: "a profile that nobody knows", of: made, sheet: func(s *release.Sheet) { s.Profile = 9 }, want: "profile 9"},
		{name: "hashes of another chunk size", of: packed, chunk: 4096, want: "after a reset no device could go on at byte "},
	} {
		s, file := rebuilt(c.of, func(p []byte) []byte { return p })
		if c.change != nil {
			s, file = rebuilt(c.of, c.change)
		}
		if c.sheet != nil {
			c.sheet(s)
		}
		from, to := old, image
		if c.old != nil {
			from = c.old
		}
		if c.image != nil {
			to = c.image
		}
		im := imageOf(m, to)
		if c.chunk != 0 {
			im.Chunk = c.chunk
		}
		err := Prove(t.Context(), s, bytes.NewReader(file), bytes.NewReader(from), im)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if read := (*ReadError)(nil); errors.As(err, &read) {
			t.Errorf("%s: %v is taken for a fault of the disk", c.name, err)
		}
	}
	// Files that end early are no fault of the stream.
	for name, err := range map[string]error{
		"stream": Prove(t.Context(), made.Sheet, bytes.NewReader(made.File[:100]), bytes.NewReader(old), imageOf(m, image)),
		"old":    Prove(t.Context(), made.Sheet, bytes.NewReader(made.File), bytes.NewReader(old[:100_000]), imageOf(m, image)),
		"image":  Prove(t.Context(), made.Sheet, bytes.NewReader(made.File), bytes.NewReader(old), Image{bytes.NewReader(image[:100_000]), 200_000, 1024}),
	} {
		if read := (*ReadError)(nil); !errors.As(err, &read) {
			t.Errorf("%s: %v", name, err)
		}
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if err := Prove(gone, packed.Sheet, bytes.NewReader(packed.File), nil, imageOf(m, image)); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if packed.Sheet.Kind != manifest.StreamCompressed {
		t.Error(packed.Sheet.Kind)
	}
}
