package release

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/manifest"
)

func list(version, generation uint32, m int, roots ...string) *KeyList {
	l := testList()
	l.Version, l.Generation, l.M, l.Roots = version, generation, m, publics(roots...)
	return l
}

// TestTrustChain follows two rotations of the roots, as a device does, and wants
// the way to be the only one.
func TestTrustChain(t *testing.T) {
	seal := func(l *KeyList, names ...string) []byte { return sealed(t, manifest.KindKeys, l, names...) }
	first := seal(list(1, 1, 2, "a", "b", "c"), "a", "b")
	more := seal(list(2, 1, 2, "a", "b", "c"), "b", "c")
	second := seal(list(3, 2, 2, "a", "d", "e"), "a", "b", "d")
	third := seal(list(4, 3, 1, "f"), "d", "e", "f")
	tr, err := TrustRoots(1, 2, publics("a", "b", "c")...)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tr.Accept(second); err != nil {
		t.Errorf("a generation on, without the list between: %v", err)
	}
	if _, err := tr.Accept(third); !errors.Is(err, manifest.ErrGeneration) {
		t.Errorf("two generations on: %v", err)
	}
	for i, p := range [][]byte{first, more, second, third} {
		before := tr
		if tr, err = tr.Accept(p); err != nil {
			t.Fatalf("list %d: %v", i+1, err)
		}
		if int(tr.Version) != i+1 || tr.List == nil || !bytes.Equal(tr.Envelope, p) {
			t.Errorf("list %d: %+v", i+1, tr)
		}
		if same, err := tr.Accept(p); err != nil || same != tr {
			t.Errorf("list %d again: %v", i+1, err)
		}
		if before.Version != uint32(i) {
			t.Errorf("Accept changed what was held")
		}
		if _, err := tr.Accept(first); i > 0 && !errors.Is(err, manifest.ErrOldList) {
			t.Errorf("back to the first: %v", err)
		}
	}
	// Who has the roots of the first generation only can't jump to the third.
	if _, err := mustRoots(t, 2, "a", "b", "c").Accept(third); !errors.Is(err, manifest.ErrOldQuorum) {
		t.Errorf("roots of unknown generation: %v", err)
	}
	for _, p := range [][]byte{first, more, second} {
		if _, err := mustRoots(t, 2, "a", "b", "c").Accept(p); err != nil {
			t.Errorf("roots of unknown generation: %v", err)
		}
	}
	// An m of the list that is below what was trusted does not help a thief of one root.
	if _, err := mustRoots(t, 2, "a", "b", "c").Accept(seal(list(9, 1, 1, "a", "b", "c"), "a")); !errors.Is(err, manifest.ErrOldQuorum) {
		t.Errorf("m lowered: %v", err)
	}
}

func TestTrustStoreOfALaterDevice(t *testing.T) {
	tr, err := mustRoots(t, 1, "root").Accept(sealed(t, manifest.KindKeys, testList(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	p, err := tr.Store("acme/pump")
	if err != nil || len(p) != manifest.TrustHeaderSize+4*manifest.RecordSize {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
	p, err = tr.Store("acme/valve") // the stream key is for pumps only
	if err != nil || len(p) != manifest.TrustHeaderSize+3*manifest.RecordSize {
		t.Fatalf("%d bytes, %v", len(p), err)
	}
	roots, err := TrustRoots(3, 2, publics("a", "b")...)
	if err != nil {
		t.Fatal(err)
	}
	var h manifest.Trust
	if err := h.Load(memory(roots.Baked()), make([]byte, 52)); err != 0 || h.Generation != 3 || h.M != 2 || h.Roots != 2 || h.Version != 0 {
		t.Errorf("%v %+v", err, h)
	}
}

func TestRootsThatAreNone(t *testing.T) {
	for name, f := range map[string]func() (*Trust, error){
		"none":    func() (*Trust, error) { return TrustRoots(1, 1) },
		"m 0":     func() (*Trust, error) { return TrustRoots(1, 0, public("a")) },
		"m above": func() (*Trust, error) { return TrustRoots(1, 2, public("a")) },
		"twice":   func() (*Trust, error) { return TrustRoots(1, 1, publics("a", "a")...) },
		"nine": func() (*Trust, error) {
			return TrustRoots(1, 1, publics("1", "2", "3", "4", "5", "6", "7", "8", "9")...)
		},
		"weak":       func() (*Trust, error) { return TrustRoots(1, 1, make([]byte, 32)) },
		"m above 4":  func() (*Trust, error) { return TrustRoots(1, 5, publics("1", "2", "3", "4", "5")...) },
		"wrong size": func() (*Trust, error) { return TrustRoots(1, 1, make([]byte, 31)) },
	} {
		if _, err := f(); err == nil {
			t.Errorf("%s: trusted", name)
		}
	}
}

func TestThreshold(t *testing.T) {
	tr, err := mustRoots(t, 1, "root").Accept(sealed(t, manifest.KindKeys, testList(), "root"))
	if err != nil {
		t.Fatal(err)
	}
	m := testManifest(t, testImage(300), 256)
	m.Product, m.Epoch = "acme/valve", 0
	one := sealed(t, manifest.KindManifest, m, "release")
	_, _, err = tr.Manifest(one)
	var short *ThresholdError
	if !errors.As(err, &short) || short.Have != 1 || short.Need != 2 {
		t.Fatalf("one of two: %v", err)
	}
	two, err := AddSignature(context.Background(), manifest.KindManifest, one, signer("second"))
	if err != nil {
		t.Fatal(err)
	}
	if _, signers, err := tr.Manifest(two); err != nil || len(signers) != 2 {
		t.Errorf("two of two: %v", err)
	}
	if !bytes.Equal(two, sealed(t, manifest.KindManifest, m, "release", "second")) {
		t.Error("added and signed together are not the same")
	}
	if _, err := AddSignature(context.Background(), manifest.KindManifest, one, signer("release")); !errors.Is(err, errSigned) {
		t.Errorf("the same key again: %v", err)
	}
	four := sealed(t, manifest.KindManifest, m, "1", "2", "3", "4")
	if _, err := AddSignature(context.Background(), manifest.KindManifest, four, signer("5")); !hasText(err, "at most") {
		t.Errorf("a fifth: %v", err)
	}
	// A list that no longer names a key revokes it.
	l := testList()
	l.Version, l.Keys = 2, l.Keys[1:]
	newer, err := tr.Accept(sealed(t, manifest.KindKeys, l, "root"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := newer.Manifest(two); !hasText(err, "revoked") {
		t.Errorf("a revoked key: %v", err)
	}
	// Nothing is believed through roots alone.
	if _, _, err := mustRoots(t, 1, "root").Manifest(two); !errors.Is(err, ErrNoList) {
		t.Errorf("without a list: %v", err)
	}
	if _, err := tr.Sheet(two, "acme/valve"); !errors.Is(err, manifest.ErrThreshold) {
		t.Errorf("a manifest as sheet: %v", err)
	}
}

// TestFileWithOldList: the newer list that is held judges a file with an older one.
func TestFileWithOldList(t *testing.T) {
	file, trust := testFile(t)
	l := testList()
	l.Version, l.Keys = 2, l.Keys[1:] // without "release"
	newer, err := trust.Accept(sealed(t, manifest.KindKeys, l, "root"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Verify(context.Background(), bytes.NewReader(file), newer, Options{}); !hasText(err, "revoked") {
		t.Errorf("a revoked key behind an old list: %v", err)
	}
	l.Keys = testList().Keys
	if newer, err = trust.Accept(sealed(t, manifest.KindKeys, l, "root")); err != nil {
		t.Fatal(err)
	}
	if c, err := Verify(context.Background(), bytes.NewReader(file), newer, Options{}); err != nil || c.Trust != newer {
		t.Errorf("a newer list that keeps the key: %v", err)
	}
}
