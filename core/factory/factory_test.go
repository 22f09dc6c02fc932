package factory

import (
	"bytes"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

func sample() Page {
	var secret [SecretSize]byte
	for i := range secret {
		secret[i] = byte(i)
	}
	return Page{Key: 1, Device: []byte("pump-7"), Product: []byte("acme/pump"), Hardware: []byte("nrf51"),
		Secret: &secret, Roots: []byte("roots as core/manifest keeps them")}
}

// The vector of docs/format/factory.md.
func TestGolden(t *testing.T) {
	text := chiptest.Read(t, "testdata/page.hex")
	want, err := hex.DecodeString(strings.Join(strings.Fields(string(text)), ""))
	if err != nil {
		t.Fatal(err)
	}
	p := sample()
	got, e := p.Encode(make([]byte, 1024))
	if e != 0 || !bytes.Equal(got, want) {
		t.Fatalf("encoded (error %d)\n%x\nwant\n%x", e, got, want)
	}
	var back Page
	if e := back.Parse(append(want, 0xFF, 0xFF)); e != 0 {
		t.Fatal(e)
	}
	if !same(&back, &p) {
		t.Errorf("read back %+v", back)
	}
}

func same(a, b *Page) bool {
	return a.Key == b.Key && bytes.Equal(a.Device, b.Device) && bytes.Equal(a.Product, b.Product) &&
		bytes.Equal(a.Hardware, b.Hardware) && *a.Secret == *b.Secret && bytes.Equal(a.Roots, b.Roots)
}

// sealed puts the right CRC behind a page that was changed.
func sealed(p []byte) []byte {
	end := len(p) - crcBytes
	crc := digest.CRC32(0, p[:end])
	return append(p[:end:end], byte(crc), byte(crc>>8), byte(crc>>16), byte(crc>>24))
}

func TestMalformed(t *testing.T) {
	page := sample()
	whole, _ := page.Encode(make([]byte, 1024))
	for _, c := range []struct {
		name string
		make func(p []byte) []byte
		want Error
	}{
		{"empty", func(p []byte) []byte { return nil }, ErrNone},
		{"erased flash", func(p []byte) []byte { return bytes.Repeat([]byte{0xFF}, 1024) }, ErrNone},
		{"header cut short", func(p []byte) []byte { return p[:headerBytes-1] }, ErrNone},
		{"other magic", func(p []byte) []byte { p[0]++; return sealed(p) }, ErrNone},
		{"later format", func(p []byte) []byte { p[4] = 2; return sealed(p) }, ErrFormat},
		{"reserved byte", func(p []byte) []byte { p[9] = 1; return sealed(p) }, ErrFormat},
		{"no device", func(p []byte) []byte { p[6] = 0; return sealed(p) }, ErrLength},
		{"no product", func(p []byte) []byte { p[7] = 0; return sealed(p) }, ErrLength},
		{"no hardware", func(p []byte) []byte { p[8] = 0; return sealed(p) }, ErrLength},
		{"name too long", func(p []byte) []byte { p[6] = MaxName + 1; return append(p, make([]byte, 256)...) }, ErrLength},
		{"roots past the end", func(p []byte) []byte { p[10]++; return p }, ErrLength},
		{"roots beyond all", func(p []byte) []byte { p[10], p[11] = 0xFF, 0xFF; return append(p, make([]byte, 1<<17)...) }, ErrLength},
		{"cut in its CRC", func(p []byte) []byte { return p[:len(p)-1] }, ErrLength},
		{"a bit of the secret", func(p []byte) []byte { p[20] ^= 1; return p }, ErrCRC},
		{"a bit of the CRC", func(p []byte) []byte { p[len(p)-1] ^= 0x80; return p }, ErrCRC},
	} {
		var p Page
		if got := p.Parse(c.make(bytes.Clone(whole))); got != c.want {
			t.Errorf("%s: %d, want %d", c.name, got, c.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	room := make([]byte, 8192)
	for name, change := range map[string]func(p *Page){
		"no device":        func(p *Page) { p.Device = nil },
		"long product":     func(p *Page) { p.Product = make([]byte, MaxName+1) },
		"no hardware":      func(p *Page) { p.Hardware = nil },
		"no secret":        func(p *Page) { p.Secret = nil },
		"too long a store": func(p *Page) { p.Roots = make([]byte, MaxRoots+1) },
	} {
		p := sample()
		change(&p)
		if _, e := p.Encode(room); e != ErrLength {
			t.Errorf("%s: %d", name, e)
		}
	}
	p := sample()
	whole, _ := p.Encode(room)
	if _, e := p.Encode(make([]byte, len(whole)-1)); e != ErrLength {
		t.Errorf("a byte too little room: %d", e)
	}
}

func TestRoots(t *testing.T) {
	p := sample()
	got := make([]byte, 4)
	if err := p.ReadAt(got, 6); err != nil || string(got) != "as c" {
		t.Errorf("%q, %v", got, err)
	}
	for _, off := range []uint32{uint32(len(p.Roots)) - 3, uint32(len(p.Roots)) + 1, 1<<32 - 1} {
		if err := p.ReadAt(got, off); !errors.Is(err, ErrLength) {
			t.Errorf("at %d: %v", off, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	page := sample()
	whole, _ := page.Encode(make([]byte, 1024))
	f.Add(whole)
	f.Add(sealed(append(bytes.Clone(whole[:headerBytes]), 0, 0, 0, 0)))
	f.Fuzz(func(t *testing.T, in []byte) {
		var p Page
		if p.Parse(in) != 0 {
			return
		}
		out, e := p.Encode(make([]byte, len(in)))
		if e != 0 || !bytes.Equal(out, in[:len(out)]) {
			t.Fatalf("%x is written again as %x (error %d)", in, out, e)
		}
	})
}
