package ingest

import (
	"bytes"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release/releasetest"
)

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
	if _, _, err := w.PublishRelease(ctx, src, 0, fleet.Publication{}); fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "not in the key list (version 2)") {
		t.Errorf("%v", err)
	}
	w.keeps(0, 0, 2)
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

// A demo's keys are taken by the demo's own server only: as the first list, as one
// that follows, in a release file, and where a data folder is opened by another.
func TestThrowAwayKeysAreRefused(t *testing.T) {
	mark := func(version uint32) []byte {
		l := releasetest.List(version, product)
		l.ThrowAway = true
		return releasetest.SealList(t, l)
	}
	refused := func(name string, err error) {
		t.Helper()
		if fleet.CodeOf(err) != fleet.CodeInvalid || !strings.Contains(err.Error(), "demo") {
			t.Errorf("%s: %v", name, err)
		}
	}
	w := newWorld(t)
	_, _, err := w.AddKeyList(ctx, mark(1))
	refused("the first list", err)
	w.keeps(0, 0, 0)
	if _, _, err := w.AddKeyList(ctx, releasetest.SealList(t, releasetest.List(1, product))); err != nil {
		t.Fatal(err)
	}
	_, _, err = w.AddKeyList(ctx, mark(2))
	refused("a list that follows", err)
	image := build(t, "1.1", 64<<10)
	m := releasetest.Manifest(t, product, "1.1", image)
	_, _, err = w.push(releasetest.File(t, mark(2), m, image, nil))
	refused("in a release file", err)
	w.keeps(0, 0, 1)

	demo := newWorld(t)
	o := demo.options()
	o.ThrowAway = true
	demo.Service = New(o)
	if _, created, err := demo.AddKeyList(ctx, mark(1)); err != nil || !created {
		t.Fatalf("the demo's own server: %v", err)
	}
	file := releasetest.File(t, mark(1), m, image, nil)
	if _, created, err := demo.push(file); err != nil || !created {
		t.Errorf("the demo's own server: %v", err)
	}
	demo.Service = New(demo.options())
	_, _, err = demo.push(file)
	refused("another server on the demo's data", err)
}
