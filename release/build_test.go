package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
)

// testKey is a key of a fixed series. Test keys: everybody has them.
func testKey(name string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte("runnel test key, known to everybody: " + name))
	return ed25519.NewKeyFromSeed(seed[:])
}

func signer(name string) Signer { return NewKeySigner(testKey(name)) }

func signers(names ...string) []Signer {
	list := make([]Signer, len(names))
	for i, n := range names {
		list[i] = signer(n)
	}
	return list
}

func public(name string) ed25519.PublicKey { return testKey(name).Public().(ed25519.PublicKey) }

func publics(names ...string) []ed25519.PublicKey {
	list := make([]ed25519.PublicKey, len(names))
	for i, n := range names {
		list[i] = public(n)
	}
	return list
}

type encoder interface{ Encode() ([]byte, error) }

func sealed(t testing.TB, kind manifest.Kind, e encoder, names ...string) []byte {
	t.Helper()
	p, err := e.Encode()
	if err != nil {
		t.Fatal(err)
	}
	env, err := Sign(context.Background(), kind, p, signers(names...)...)
	if err != nil {
		t.Fatal(err)
	}
	return env
}

func testList() *KeyList {
	return &KeyList{Version: 1, Generation: 1, M: 1, Roots: publics("root"),
		Keys: []Key{{Public: public("release"), Roles: manifest.RoleRelease},
			{Public: public("second"), Roles: manifest.RoleRelease | manifest.RoleStream},
			{Public: public("stream"), Roles: manifest.RoleStream, Products: []string{"acme/pump"}}},
		Products: []Product{{Name: "acme/pump", Threshold: 1, Epoch: 2, Floor: 1}, {Name: "acme/valve", Threshold: 2}}}
}

func testImage(size int) []byte {
	r := rand.New(rand.NewPCG(1, uint64(size)))
	p := make([]byte, size)
	for i := range p {
		p[i] = byte(r.Uint32())
	}
	p[0] = 0x42
	return p
}

func testManifest(t testing.TB, image []byte, chunks ...uint32) *Manifest {
	t.Helper()
	m := &Manifest{Product: "acme/pump", Hardware: [][]byte{[]byte("board-1")}, Version: "1.2.0", Epoch: 2, Sequence: 7, SecurityVersion: 1,
		Confirm: Confirm{Contact: true, Seconds: 300}, SignedAt: 1_700_000_000,
		Image: Image{Component: "app", Format: manifest.FormatRaw, Digest: sha256.Sum256(image), Size: uint32(len(image))}}
	for _, c := range chunks {
		root, err := rawRoot(context.Background(), bytes.NewReader(image), stream.Shape{Size: uint32(len(image)), Chunk: c}, nil)
		if err != nil {
			t.Fatal(err)
		}
		m.Image.Streams = append(m.Image.Streams, Raw{Chunk: c, Root: root})
	}
	return m
}

// rawFile is a payload's raw stream as a file.
func rawFile(t testing.TB, payload []byte, chunk uint32) []byte {
	t.Helper()
	var out bytes.Buffer
	if _, _, _, err := BuildStream(&out, bytes.NewReader(payload), uint32(len(payload)), chunk); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func testSheet(t testing.TB, m *Manifest, payload []byte) *Sheet {
	t.Helper()
	root, err := rawRoot(context.Background(), bytes.NewReader(payload), stream.Shape{Size: uint32(len(payload)), Chunk: 512}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return &Sheet{ImageRoot: m.Image.Streams[0].Root, Kind: manifest.StreamPatch, Profile: 1, RAM: 8192, BaseDigest: Hash{0xB0}, BaseSize: 90_000,
		Length: uint32(len(payload)), Chunk: 512, Root: root}
}

// testFile is a whole release file with one derived stream, and its trust.
func testFile(t testing.TB) (file []byte, trust *Trust) {
	t.Helper()
	image := testImage(2600)
	patch := testImage(700)
	m := testManifest(t, image, 1024, 4096)
	f := &File{KeyList: sealed(t, manifest.KindKeys, testList(), "root"), Manifest: sealed(t, manifest.KindManifest, m, "release"),
		Image: bytes.NewReader(image), Size: int64(len(image))}
	derived := rawFile(t, patch, 512)
	f.Derived = []DerivedFile{{Sheet: sealed(t, manifest.KindSheet, testSheet(t, m, patch), "stream"), Stream: bytes.NewReader(derived), Size: int64(len(derived))}}
	var out bytes.Buffer
	if err := Write(&out, f); err != nil {
		t.Fatal(err)
	}
	return out.Bytes(), mustRoots(t, 1, "root")
}

func mustRoots(t testing.TB, m int, names ...string) *Trust {
	t.Helper()
	tr, err := TrustRoots(0, m, publics(names...)...)
	if err != nil {
		t.Fatal(err)
	}
	return tr
}

func hasText(err error, part string) bool {
	return err != nil && bytes.Contains([]byte(fmt.Sprint(err)), []byte(part))
}
