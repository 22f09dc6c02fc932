// Package releasetest makes signed releases for the tests of other packages: keys
// that everybody can compute, key lists, release files. Nothing of it may ever
// sign what a device takes.
package releasetest

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/release"
)

// Key is the test key of that name.
func Key(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("runnel test key, known to everybody: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

// Public is its public half.
func Public(name string) ed25519.PublicKey { return Key(name).Public().(ed25519.PublicKey) }

// Signer signs with the test key of that name.
func Signer(name string) release.Signer { return release.NewKeySigner(Key(name)) }

// List is a key list of one root, "root", with the release keys "release" and
// "second" and the stream key "stream"; each product wants one signature, epoch 1.
func List(version uint32, products ...string) *release.KeyList {
	l := &release.KeyList{Version: version, Generation: 1, M: 1, Roots: []ed25519.PublicKey{Public("root")},
		Keys: []release.Key{{Public: Public("release"), Roles: manifest.RoleRelease}, {Public: Public("second"), Roles: manifest.RoleRelease},
			{Public: Public("stream"), Roles: manifest.RoleStream}}}
	for _, p := range products {
		l.Products = append(l.Products, release.Product{Name: p, Threshold: 1, Epoch: 1})
	}
	return l
}

// encoder is what has a payload.
type encoder interface{ Encode() ([]byte, error) }

// Seal signs an object.
func Seal(t testing.TB, kind manifest.Kind, e encoder, signers ...string) []byte {
	t.Helper()
	p, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	var by []release.Signer
	for _, s := range signers {
		by = append(by, Signer(s))
	}
	envelope, err := release.Sign(t.Context(), kind, p, by...)
	if err != nil {
		t.Fatal(err)
	}
	return envelope
}

// SealList signs a key list, by "root" where nobody is named.
func SealList(t testing.TB, l *release.KeyList, signers ...string) []byte {
	t.Helper()
	if len(signers) == 0 {
		signers = []string{"root"}
	}
	return Seal(t, manifest.KindKeys, l, signers...)
}

// Manifest is one for an image: sequence 1, epoch 1, hardware "board-1", chunks of
// 1,024 bytes.
func Manifest(t testing.TB, product, version string, image []byte) *release.Manifest {
	t.Helper()
	im, err := release.CheckImage(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	m := &release.Manifest{Product: product, Version: version, Hardware: [][]byte{[]byte("board-1")}, Epoch: 1, Sequence: 1,
		Image: im, Confirm: release.Confirm{Contact: true, Seconds: 600}}
	AddRaw(t, m, image, 1024)
	return m
}

// AddRaw adds a raw stream to a manifest.
func AddRaw(t testing.TB, m *release.Manifest, image []byte, chunk uint32) {
	t.Helper()
	root, err := release.StreamRoot(bytes.NewReader(image), uint32(len(image)), chunk)
	if err != nil {
		t.Fatal(err)
	}
	m.Image.Streams = append(m.Image.Streams, release.Raw{Chunk: chunk, Root: root})
}

// Stream is the file of a stream that carries payload.
func Stream(t testing.TB, payload []byte, chunk uint32) (file []byte, root release.Hash) {
	t.Helper()
	var out bytes.Buffer
	r, _, _, err := release.BuildStream(&out, bytes.NewReader(payload), uint32(len(payload)), chunk)
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), r
}

// Patch is a derived stream of a manifest's image, signed by "stream". Nothing
// looks into its payload yet.
func Patch(t testing.TB, m *release.Manifest, base, payload []byte) release.DerivedFile {
	t.Helper()
	file, root := Stream(t, payload, 512)
	s := &release.Sheet{ImageRoot: m.Image.Streams[0].Root, Kind: manifest.StreamPatch, Profile: 1, RAM: 4096, BaseDigest: sha256.Sum256(base),
		BaseSize: uint32(len(base)), Length: uint32(len(payload)), Chunk: 512, Root: root}
	return release.DerivedFile{Sheet: Seal(t, manifest.KindSheet, s, "stream"), Stream: bytes.NewReader(file), Size: int64(len(file))}
}

// File is a release file. list may be nil; the manifest is signed by "release"
// where nobody is named.
func File(t testing.TB, list []byte, m *release.Manifest, image []byte, derived []release.DerivedFile, signers ...string) []byte {
	t.Helper()
	if len(signers) == 0 {
		signers = []string{"release"}
	}
	var out bytes.Buffer
	err := release.Write(&out, &release.File{KeyList: list, Manifest: Seal(t, manifest.KindManifest, m, signers...),
		Image: bytes.NewReader(image), Size: int64(len(image)), Derived: derived})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}
