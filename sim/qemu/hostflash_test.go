package qemu

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/sim/nor"
)

// The calls of docs/design/netduino.md, byte for byte, in a row on one chip.
func TestHostFlash(t *testing.T) {
	chip, err := nor.New(nor.Config{Size: 0x4000})
	if err != nil {
		t.Fatal(err)
	}
	f := &HostFlash{NOR: chip, Seed: rand.New(rand.NewPCG(1, 2))}
	for _, c := range []struct {
		name string
		op   byte
		in   []byte
		want []byte
		ok   bool
	}{
		{"read blank", 0x40, []byte{0, 0x10, 0, 0, 3, 0}, []byte{0xFF, 0xFF, 0xFF}, true},
		{"program", 0x41, []byte{0, 0x10, 0, 0, 1, 2}, nil, true},
		{"read it", 0x40, []byte{0, 0x10, 0, 0, 3, 0}, []byte{1, 2, 0xFF}, true},
		{"program twice", 0x41, []byte{0, 0x10, 0, 0, 1}, nil, false},
		{"erase half a sector", 0x42, []byte{0, 0x10, 0, 0, 0, 8, 0, 0}, nil, false},
		{"erase", 0x42, []byte{0, 0x10, 0, 0, 0, 0x10, 0, 0}, nil, true},
		{"read what was erased", 0x40, []byte{0, 0x10, 0, 0, 2, 0}, []byte{0xFF, 0xFF}, true},
		{"read past the end", 0x40, []byte{0xFF, 0x3F, 0, 0, 2, 0}, nil, false},
		{"read too much for a frame", 0x40, []byte{0, 0, 0, 0, 1, 5}, nil, false},
		{"read cut short", 0x40, []byte{0, 0, 0, 0, 1}, nil, false},
		{"program cut short", 0x41, []byte{0, 0, 0}, nil, false},
		{"erase cut short", 0x42, []byte{0, 0, 0, 0, 0, 0x10, 0}, nil, false},
		{"seed with a payload", 0x43, []byte{0}, nil, false},
		{"no such call", 0x44, nil, nil, false},
	} {
		got, ok := f.Call(c.op, c.in)
		if ok != c.ok || ok && !bytes.Equal(got, c.want) {
			t.Errorf("%s: %x, %v", c.name, got, ok)
		}
	}
	a, ok := f.Call(0x43, nil)
	a = bytes.Clone(a)
	b, _ := f.Call(0x43, nil)
	if !ok || len(a) != seedSize || bytes.Equal(a, b) {
		t.Errorf("seeds are %x and %x", a, b)
	}
	if f.Reads != 5 || f.Programs != 2 || f.Erases != 2 || f.Seeds != 2 {
		t.Errorf("counted %+v", f)
	}
}
