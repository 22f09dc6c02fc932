package release

import (
	"bytes"
	"errors"
	"reflect"
	"slices"
	"testing"

	"github.com/fxamacker/cbor/v2"

	"github.com/runnel-fota/runnel/core/manifest"
)

func TestRoundTrip(t *testing.T) {
	slot, address := uint8(3), uint32(0x10000)
	m := testManifest(t, testImage(900), 256, 512)
	m.Image.Slot, m.Image.Address = &slot, &address
	p, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeManifest(p)
	if err != nil || !reflect.DeepEqual(back, m) {
		t.Errorf("%v\n%+v\n%+v", err, back, m)
	}
	l := testList()
	if p, err = l.Encode(); err != nil {
		t.Fatal(err)
	}
	if back, err := DecodeKeyList(p); err != nil || !reflect.DeepEqual(back, l) {
		t.Errorf("%v\n%+v\n%+v", err, back, l)
	}
	s := testSheet(t, m, testImage(600))
	if p, err = s.Encode(); err != nil {
		t.Fatal(err)
	}
	if back, err := DecodeSheet(p); err != nil || !reflect.DeepEqual(back, s) {
		t.Errorf("%v\n%+v\n%+v", err, back, s)
	}
}

// TestWritersRefuse what a reader would refuse.
func TestWritersRefuse(t *testing.T) {
	image := testImage(900)
	for name, f := range map[string]func(m *Manifest){
		"no product":      func(m *Manifest) { m.Product = "" },
		"sequence 0":      func(m *Manifest) { m.Sequence = 0 },
		"no stream":       func(m *Manifest) { m.Image.Streams = nil },
		"three streams":   func(m *Manifest) { m.Image.Streams = make([]Raw, 3) },
		"chunk 100":       func(m *Manifest) { m.Image.Streams[0].Chunk = 100 },
		"no hardware":     func(m *Manifest) { m.Hardware = nil },
		"no confirm time": func(m *Manifest) { m.Confirm.Seconds = 0 },
		"no UTF-8":        func(m *Manifest) { m.Version = "\xFF" },
		"format 3":        func(m *Manifest) { m.Image.Format = 3 },
	} {
		m := testManifest(t, image, 256)
		f(m)
		if _, err := m.Encode(); err == nil {
			t.Errorf("%s: written", name)
		}
	}
	l := testList()
	for range 16 {
		l.Products = append(l.Products, Product{Name: string(bytes.Repeat([]byte{'a' + byte(len(l.Products))}, 64)), Threshold: 1})
	}
	l.Products = l.Products[2:]
	if _, err := l.Encode(); !hasText(err, "at most 1024") {
		t.Errorf("a list above 1,024 bytes: %v", err)
	}
}

// FuzzIdentity: what a reader takes is written again byte for byte.
func FuzzIdentity(f *testing.F) {
	m := testManifest(f, testImage(900), 256, 512)
	for _, e := range []encoder{testList(), m, testSheet(f, m, testImage(600))} {
		p, err := e.Encode()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(p)
	}
	f.Add(sealed(f, manifest.KindKeys, testList(), "root"))
	f.Fuzz(func(t *testing.T, p []byte) {
		if e, err := ParseEnvelope(p); err == nil {
			// Unprotected headers are skipped and not written again: what is written
			// is the same envelope without them.
			q, err := encodeEnvelope(e)
			if err != nil || len(q) > len(p) || len(q) == len(p) && !bytes.Equal(p, q) {
				t.Fatalf("envelope: %v\n% x\n% x", err, p, q)
			}
		}
		if l, err := DecodeKeyList(p); err == nil {
			identity(t, p, l)
		}
		if m, err := DecodeManifest(p); err == nil {
			identity(t, p, m)
		}
		if s, err := DecodeSheet(p); err == nil {
			identity(t, p, s)
		}
	})
}

// identity writes e and compares. Notes (negative keys) are not written again:
// then the reader must take what was written for the same.
func identity(t *testing.T, p []byte, e encoder) {
	t.Helper()
	if len(p) > manifest.MaxPayload {
		return // envelopes hold no more: the writers refuse it
	}
	q, err := e.Encode()
	if err != nil {
		t.Fatalf("%T: %v\n% x", e, err, p)
	}
	if bytes.Equal(p, q) {
		return
	}
	if !hasNote(p) {
		t.Fatalf("%T without notes is written as something else\n% x\n% x", e, p, q)
	}
}

// hasNote looks for a negative map key, with a reader by somebody else.
func hasNote(p []byte) bool {
	var v any
	if cbor.Unmarshal(p, &v) != nil {
		return false
	}
	return noteIn(v)
}

func noteIn(v any) bool {
	switch v := v.(type) {
	case map[any]any:
		for k, x := range v {
			if n, ok := k.(int64); ok && n < 0 || noteIn(x) {
				return true
			}
		}
	case []any:
		return slices.ContainsFunc(v, noteIn)
	}
	return false
}

// FuzzFile: no archive makes the reader fail otherwise than by an error, and one
// that it takes has what its members promise.
func FuzzFile(f *testing.F) {
	file, _ := testFile(f)
	f.Add(file)
	f.Add(file[:2048])
	f.Add([]byte{})
	trust, err := TrustRoots(0, 1, public("root"))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, p []byte) {
		spool := new(memSpool)
		c, err := Verify(t.Context(), bytes.NewReader(p), trust, Options{Spool: spool})
		if err == nil && (len(spool.p) != int(c.Manifest.Image.Size) || len(c.Signers) == 0) {
			t.Fatal("taken without what it must have")
		}
		spool = new(memSpool)
		if c, err := Verify(t.Context(), bytes.NewReader(p), nil, Options{Spool: spool, Unsigned: true}); err == nil && c.Manifest == nil {
			t.Fatal("taken without a manifest")
		}
	})
}

// TestThrowAway: the mark is a note. Devices read over it, and who was not told to
// take such lists does not.
func TestThrowAway(t *testing.T) {
	l := testList()
	plain, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	l.ThrowAway = true
	p, err := l.Encode()
	if err != nil {
		t.Fatal(err)
	}
	back, err := DecodeKeyList(p)
	if err != nil || !reflect.DeepEqual(back, l) {
		t.Errorf("%v, %+v", err, back)
	}
	// Anything but true under the key is somebody else's note.
	for _, value := range [][]byte{{0xF4}, {0x01}, {0x81, 0xF5}, {0xA1, 0x20, 0xF5}} {
		note := append(append([]byte{plain[0] + 1}, plain[1:]...), append([]byte{0x20}, value...)...)
		if back, err := DecodeKeyList(note); err != nil || back.ThrowAway {
			t.Errorf("note %x: %v, %+v", value, err, back)
		}
	}
	env := sealed(t, manifest.KindKeys, l, "root")
	roots := mustRoots(t, 1, "root")
	if _, err := roots.Accept(env); !errors.Is(err, ErrThrowAway) {
		t.Errorf("a demo's list is taken: %v", err)
	}
	roots.ThrowAway = true
	demo, err := roots.Accept(env)
	if err != nil || !demo.ThrowAway {
		t.Fatalf("the demo itself: %v", err)
	}
	// The device's own code, with the same roots, skips the note.
	var dev manifest.KeyList
	if e := dev.Parse(p); e != 0 || dev.NKeys != 3 {
		t.Errorf("the device's reader: %v", e)
	}
}
