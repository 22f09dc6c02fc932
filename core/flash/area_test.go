package flash

import (
	"fmt"
	"testing"
)

// probe records what reaches the chip. It checks nothing: an Area must.
type probe struct {
	geo   Geometry
	calls []string
	err   error
}

func (p *probe) note(what string, off, n uint32) error {
	p.calls = append(p.calls, fmt.Sprintf("%s 0x%x +%d", what, off, n))
	return p.err
}

func (p *probe) ReadAt(b []byte, off uint32) error  { return p.note("read", off, uint32(len(b))) }
func (p *probe) Program(b []byte, off uint32) error { return p.note("program", off, uint32(len(b))) }
func (p *probe) Erase(off, n uint32) error          { return p.note("erase", off, n) }
func (p *probe) Sync() error                        { return p.note("sync", 0, 0) }
func (p *probe) Geometry() Geometry                 { return p.geo }

func newProbe() *probe {
	return &probe{geo: Geometry{Size: 0x40000, EraseSize: 0x1000, BlockEraseSize: 0x10000,
		ProgramSize: 16, ErasedByte: 0xFF, ErasedReadable: true}}
}

func mustArea(t *testing.T, d Device, off, length uint32) Area {
	t.Helper()
	a, err := NewArea(d, off, length)
	if err != nil {
		t.Fatalf("NewArea(0x%x, 0x%x): %v", off, length, err)
	}
	return a
}

func TestNewAreaRefuses(t *testing.T) {
	for _, c := range []struct {
		off, length uint32
		want        error
	}{
		{0, 0x40000, nil},
		{0x3F000, 0x1000, nil},
		{0x40000, 0, nil},
		{0, 0x41000, ErrRange},
		{0x40000, 0x1000, ErrRange},
		{0x41000, 0, ErrRange},
		{0xFFFFF000, 0x1000, ErrRange}, // the sum is 0
		{0xFFFFF000, 0x2000, ErrRange}, // the sum is 0x1000
		{0x1000, 0xFFFFF000, ErrRange},
		{0x800, 0x1000, ErrAlign},
		{0x1000, 0x800, ErrAlign},
		{0x10, 0x10, ErrAlign},
	} {
		a, err := NewArea(newProbe(), c.off, c.length)
		if err != c.want {
			t.Errorf("NewArea(0x%x, 0x%x): %v, want %v", c.off, c.length, err, c.want)
		}
		if err == nil && (a.Base() != c.off || a.Size() != c.length) {
			t.Errorf("NewArea(0x%x, 0x%x) is 0x%x, 0x%x", c.off, c.length, a.Base(), a.Size())
		}
	}
}

// A geometry that a driver forgot to fill is refused before anything divides by it.
func TestNewAreaRefusesUnfilledGeometry(t *testing.T) {
	for _, spoil := range []func(*Geometry){
		func(g *Geometry) { g.EraseSize = 0 },
		func(g *Geometry) { g.ProgramSize = 0 },
		func(g *Geometry) { *g = Geometry{} },
	} {
		p := newProbe()
		spoil(&p.geo)
		if _, err := NewArea(p, 0, 0); err != ErrAlign {
			t.Errorf("%+v: %v, want %v", p.geo, err, ErrAlign)
		}
	}
}

func TestAreaMovesAndRefuses(t *testing.T) {
	p := newProbe()
	a := mustArea(t, p, 0x3000, 0x2000)
	read := func(n int, off uint32) func() error { return func() error { return a.ReadAt(make([]byte, n), off) } }
	program := func(n int, off uint32) func() error { return func() error { return a.Program(make([]byte, n), off) } }
	erase := func(off, n uint32) func() error { return func() error { return a.Erase(off, n) } }
	for _, c := range []struct {
		name string
		call func() error
		want error
		chip string // the call that reaches the chip
	}{
		{"read first", read(7, 0), nil, "read 0x3000 +7"},
		{"read last", read(1, 0x1FFF), nil, "read 0x4fff +1"},
		{"read all", read(0x2000, 0), nil, "read 0x3000 +8192"},
		{"read nothing at the end", read(0, 0x2000), nil, "read 0x5000 +0"},
		{"read past the end", read(2, 0x1FFF), ErrRange, ""},
		{"read outside", read(1, 0x2000), ErrRange, ""},
		{"read nothing outside", read(0, 0x2001), ErrRange, ""},
		{"read before the start", read(1, 0xFFFFFFFF), ErrRange, ""},
		{"read around the end of counting", read(16, 0xFFFFFFF8), ErrRange, ""},

		{"program first", program(16, 0), nil, "program 0x3000 +16"},
		{"program last", program(16, 0x1FF0), nil, "program 0x4ff0 +16"},
		{"program past the end", program(32, 0x1FF0), ErrRange, ""},
		{"program outside", program(16, 0x2000), ErrRange, ""},
		{"program before the start", program(16, 0xFFFFFFF0), ErrRange, ""},
		{"program at half a unit", program(16, 8), ErrAlign, ""},
		{"program half a unit", program(8, 0), ErrAlign, ""},
		{"program nothing", program(0, 0x10), nil, "program 0x3010 +0"},

		{"erase first", erase(0, 0x1000), nil, "erase 0x3000 +4096"},
		{"erase all", erase(0, 0x2000), nil, "erase 0x3000 +8192"},
		{"erase past the end", erase(0x1000, 0x2000), ErrRange, ""},
		{"erase outside", erase(0x2000, 0x1000), ErrRange, ""},
		{"erase before the start", erase(0xFFFFF000, 0x1000), ErrRange, ""},
		{"erase around the end of counting", erase(0xFFFFF000, 0x2000), ErrRange, ""},
		{"erase as long as counting", erase(0x1000, 0xFFFFF000), ErrRange, ""},
		{"erase at half a sector", erase(0x800, 0x1000), ErrAlign, ""},
		{"erase half a sector", erase(0, 0x800), ErrAlign, ""},

		{"sync", a.Sync, nil, "sync 0x0 +0"},
	} {
		p.calls = nil
		if err := c.call(); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		got := ""
		if len(p.calls) > 0 {
			got = p.calls[0]
		}
		if got != c.chip || len(p.calls) > 1 {
			t.Errorf("%s: the chip saw %q, want %q", c.name, p.calls, c.chip)
		}
	}
}

func TestAreaHandsErrorsOn(t *testing.T) {
	p := newProbe()
	a := mustArea(t, p, 0, 0x1000)
	p.err = ErrProgram
	for name, err := range map[string]error{
		"read": a.ReadAt(make([]byte, 1), 0), "program": a.Program(make([]byte, 16), 0), "erase": a.Erase(0, 0x1000), "sync": a.Sync(),
	} {
		if err != ErrProgram {
			t.Errorf("%s: %v, want the chip's %v", name, err, ErrProgram)
		}
	}
}

func TestAreaGeometryIsTheChips(t *testing.T) {
	p := newProbe()
	p.geo.ErasedReadable = false
	a := mustArea(t, p, 0x3000, 0x2000)
	want := p.geo
	want.Size = 0x2000
	if g := a.Geometry(); g != want {
		t.Errorf("%+v, want %+v", g, want)
	}
}

func TestSub(t *testing.T) {
	a := mustArea(t, newProbe(), 0x3000, 0x4000)
	for _, c := range []struct {
		off, length uint32
		want        error
	}{
		{0, 0x4000, nil}, {0x1000, 0x3000, nil}, {0x4000, 0, nil},
		{0, 0x5000, ErrRange}, // fits the chip, not the area
		{0x4000, 0x1000, ErrRange}, {0xFFFFF000, 0x1000, ErrRange}, {0xFFFFF000, 0x2000, ErrRange},
		{0xFFFFD000, 0x1000, ErrRange}, // with the area's base the sum is 0
		{0x800, 0x1000, ErrAlign}, {0, 0x800, ErrAlign},
	} {
		s, err := a.Sub(c.off, c.length)
		if err != c.want {
			t.Errorf("Sub(0x%x, 0x%x): %v, want %v", c.off, c.length, err, c.want)
		}
		if err == nil && (s.Base() != 0x3000+c.off || s.Size() != c.length) {
			t.Errorf("Sub(0x%x, 0x%x) is 0x%x, 0x%x", c.off, c.length, s.Base(), s.Size())
		}
	}
}

// A window on an Area knows where the chip's blocks are, like one made by Sub.
func TestAreaOfAreaCountsFromTheChip(t *testing.T) {
	p := newProbe()
	outer := mustArea(t, p, 0x1000, 0x3F000)
	inner := mustArea(t, &outer, 0, 0x20000)
	if inner.Base() != 0x1000 {
		t.Errorf("base 0x%x, want 0x1000 of the chip", inner.Base())
	}
	if n := inner.EraseUnit(0, 0x20000); n != 0x1000 {
		t.Errorf("erase unit 0x%x at 0x1000 of the chip, want a sector", n)
	}
	if n := inner.EraseUnit(0xF000, 0x20000); n != 0x10000 {
		t.Errorf("erase unit 0x%x at 0x10000 of the chip, want a block", n)
	}
	if err := inner.Erase(0x1000, 0x1000); err != nil || p.calls[0] != "erase 0x2000 +4096" {
		t.Errorf("%v, the chip saw %q", err, p.calls)
	}
	if _, err := NewArea(&outer, 0x3F000, 0x1000); err != ErrRange {
		t.Errorf("behind the outer area: %v, want %v", err, ErrRange)
	}
}

func TestEraseUnit(t *testing.T) {
	blocks := newProbe()
	sectors := newProbe()
	sectors.geo.BlockEraseSize = 0
	for _, c := range []struct {
		chip              *probe
		base, size        uint32
		off, limit, wants uint32
	}{
		{blocks, 0, 0x40000, 0, 0x40000, 0x10000},
		{blocks, 0, 0x40000, 0, 0x10000, 0x10000},
		{blocks, 0, 0x40000, 0, 0xF000, 0x1000}, // the block does not fit
		{blocks, 0, 0x40000, 0x1000, 0x40000, 0x1000},
		{blocks, 0, 0x40000, 0x10000, 0x20000, 0x10000},
		{blocks, 0xF000, 0x21000, 0, 0x21000, 0x1000}, // aligned in the area, not on the chip
		{blocks, 0xF000, 0x21000, 0x1000, 0x21000, 0x10000},
		{blocks, 0xF000, 0x21000, 0x10000, 0x21000, 0x1000},
		{blocks, 0, 0x40000, 0, 0x1000, 0x1000},
		{blocks, 0, 0x40000, 0, 0xFFF, 0}, // not even a sector
		{blocks, 0, 0x40000, 0, 0, 0},
		{blocks, 0, 0x40000, 0x2000, 0x1000, 0},
		{blocks, 0, 0x8000, 0, 0x9000, 0}, // the limit is outside
		{blocks, 0, 0x8000, 0x8000, 0x8000, 0},
		{blocks, 0, 0x8000, 0xFFFFF000, 0x8000, 0},
		{sectors, 0, 0x40000, 0, 0x40000, 0x1000},
	} {
		a := mustArea(t, c.chip, c.base, c.size)
		if n := a.EraseUnit(c.off, c.limit); n != c.wants {
			t.Errorf("area 0x%x+0x%x: EraseUnit(0x%x, 0x%x) = 0x%x, want 0x%x", c.base, c.size, c.off, c.limit, n, c.wants)
		}
	}
}

func TestZeroAreaRefusesAll(t *testing.T) {
	var a Area
	for name, err := range map[string]error{
		"read":         a.ReadAt(make([]byte, 1), 0),
		"read nothing": a.ReadAt(nil, 0),
		"program":      a.Program(make([]byte, 1), 0),
		"program none": a.Program(nil, 0),
		"erase":        a.Erase(0, 4096),
		"erase none":   a.Erase(0, 0),
		"sync":         a.Sync(),
		"sub":          second(a.Sub(0, 0)),
		"area":         second(NewArea(&a, 0, 0)),
	} {
		if err != ErrRange {
			t.Errorf("%s: %v, want %v", name, err, ErrRange)
		}
	}
	if a.Size() != 0 || a.Base() != 0 || a.EraseUnit(0, 4096) != 0 || a.EraseUnit(0, 0) != 0 {
		t.Error("the zero Area has a size")
	}
}

func second(_ Area, err error) error { return err }

func TestErrorTexts(t *testing.T) {
	seen := map[string]bool{}
	for e := ErrRange; e <= ErrPower; e++ {
		s := e.Error()
		if s == Error(0).Error() || seen[s] {
			t.Errorf("error %d has no text of its own: %q", e, s)
		}
		seen[s] = true
	}
	if len(seen) != 7 || Error(0).Error() != Error(99).Error() {
		t.Errorf("%d texts, want 7 and one for all others", len(seen))
	}
}
