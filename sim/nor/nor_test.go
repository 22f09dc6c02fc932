package nor_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
)

func newChip(t testing.TB, cfg nor.Config) *nor.Chip {
	t.Helper()
	c, err := nor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// noise is n bytes of a seed, the same each time.
func noise(seed uint64, n int) []byte {
	rnd := rand.New(rand.NewPCG(seed, 0))
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(rnd.UintN(256))
	}
	return p
}

func read(t testing.TB, c flash.Device, off uint32, n int) []byte {
	t.Helper()
	p := make([]byte, n)
	must(t, c.ReadAt(p, off))
	return p
}

// record collects the operations of a chip.
func record(c *nor.Chip) *[]nor.Op {
	var ops []nor.Op
	c.SetLog(func(o nor.Op) { ops = append(ops, o) })
	return &ops
}

func TestDefaultIsAW25Q32(t *testing.T) {
	c := newChip(t, nor.Config{})
	want := flash.Geometry{Size: 4 << 20, EraseSize: 4096, BlockEraseSize: 65536, ProgramSize: 1, ErasedByte: 0xFF, ErasedReadable: true}
	if g := c.Geometry(); g != want {
		t.Errorf("%+v, want %+v", g, want)
	}
	must(t, c.Program([]byte{0}, 0))
	if c.Clock() != nor.Typical.FirstByte {
		t.Errorf("a byte takes %v, want typical timing", c.Clock())
	}
}

func TestConfigsThatAreNoChip(t *testing.T) {
	for _, c := range []struct {
		name string
		cfg  nor.Config
		says string
	}{
		{"sector of no power of two", nor.Config{EraseSize: 3072}, "erase size 3072"},
		{"sector below a page", nor.Config{EraseSize: 128}, "erase size 128"},
		{"half a sector too long", nor.Config{Size: 1<<20 + 2048}, "size 1050624"},
		{"too large", nor.Config{Size: 256 << 20}, "size 268435456"},
		{"unit of no power of two", nor.Config{ProgramSize: 12}, "program size 12"},
		{"unit above a page", nor.Config{ProgramSize: 512}, "program size 512"},
		{"block of half a sector", nor.Config{BlockEraseSize: 4096 + 2048}, "block size 6144"},
	} {
		if _, err := nor.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want an error with %q", c.name, err, c.says)
		}
	}
}

func TestProgramGoesByPage(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	ops := record(c)
	data := noise(1, 0x300)
	must(t, c.Program(data, 0x10))
	want := []nor.Op{{Kind: nor.Program, Off: 0x10, Len: 0xF0}, {Kind: nor.Program, Off: 0x100, Len: 0x100}, {Kind: nor.Program, Off: 0x200, Len: 0x100}, {Kind: nor.Program, Off: 0x300, Len: 0x10}}
	if !slices.Equal(*ops, want) {
		t.Errorf("%v, want %v", *ops, want)
	}
	if s := c.Stats(); s.Programs != 4 || s.BytesProgrammed != 0x300 || s.Ops() != 4 {
		t.Errorf("%+v", s)
	}
	if !bytes.Equal(c.Raw()[0x10:0x310], data) {
		t.Error("the cells hold something else")
	}
	if got := (*ops)[0].String(); got != "program 0x000010 +240" {
		t.Errorf("an operation prints as %q", got)
	}
}

func TestEraseGoesByBlockWhereItCan(t *testing.T) {
	for _, c := range []struct {
		name     string
		cfg      nor.Config
		off, n   uint32
		sectors  uint64
		blocks   uint64
		firstOps string
	}{
		{"a sector", nor.Config{}, 0x1000, 0x1000, 1, 0, "erase 0x001000 +4096"},
		{"a block", nor.Config{}, 0x10000, 0x10000, 0, 1, "erase 0x010000 +65536"},
		{"a block's worth, unaligned", nor.Config{}, 0x1000, 0x10000, 16, 0, "erase 0x001000 +4096"},
		{"both", nor.Config{}, 0xF000, 0x12000, 2, 1, "erase 0x00f000 +4096"},
		{"an image of 1,068,032 bytes", nor.Config{}, 0x10000, 261 * 4096, 5, 16, "erase 0x010000 +65536"},
		{"no blocks", nor.Config{BlockEraseSize: nor.NoBlocks}, 0, 0x20000, 32, 0, "erase 0x000000 +4096"},
		{"nothing", nor.Config{}, 0x1000, 0, 0, 0, ""},
	} {
		chip := newChip(t, c.cfg)
		ops := record(chip)
		must(t, chip.Erase(c.off, c.n))
		s := chip.Stats()
		if s.SectorErases != c.sectors || s.BlockErases != c.blocks || s.Ops() != c.sectors+c.blocks {
			t.Errorf("%s: %d sectors and %d blocks, want %d and %d", c.name, s.SectorErases, s.BlockErases, c.sectors, c.blocks)
		}
		first := ""
		if len(*ops) > 0 {
			first = (*ops)[0].String()
		}
		if first != c.firstOps || uint64(len(*ops)) != s.Ops() {
			t.Errorf("%s: the log begins with %q of %d, want %q", c.name, first, len(*ops), c.firstOps)
		}
	}
}

// The cells, not the interface, say that a program clears bits and nothing else:
// what it could not clear of a flasher's content it leaves.
func TestBitsGoFromOneToZero(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	for unit := uint32(0); unit < 256; unit++ {
		must(t, c.Program([]byte{byte(unit)}, unit))
		if err := c.Program([]byte{0}, unit); err != flash.ErrNotBlank {
			t.Fatalf("unit 0x%x programmed twice: %v", unit, err)
		}
		if got := c.Raw()[unit]; got != byte(unit) {
			t.Fatalf("unit 0x%x holds %02x", unit, got)
		}
	}
	must(t, c.Erase(0, 4096))
	if !bytes.Equal(c.Raw()[:4096], bytes.Repeat([]byte{0xFF}, 4096)) {
		t.Error("an erased sector is not all 1")
	}
}

func TestWearCountsEachSector(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	must(t, c.Erase(0x1000, 0x1000), c.Erase(0x1000, 0x1000), c.Erase(0x10000, 0x10000), c.Erase(0x1F000, 0x2000))
	for off, want := range map[uint32]uint32{0: 0, 0x1000: 2, 0x1FFF: 2, 0x2000: 0, 0x10000: 1, 0x1EFFF: 1, 0x1F000: 2, 0x20000: 1, 0x21000: 0} {
		if got := c.Wear(off); got != want {
			t.Errorf("wear at 0x%x is %d, want %d", off, got, want)
		}
	}
}

// The arithmetic behind every figure of an update's time.
func TestTimeOfAnImage(t *testing.T) {
	const image = 1_068_032
	for _, c := range []struct {
		name                 string
		timing               nor.Timing
		erase, program, read time.Duration
	}{
		// 16 blocks and 5 sectors: 2.63 s; 4,172 pages: 1.67 s.
		{"typical", nor.Timing{}, 16*150*time.Millisecond + 5*45*time.Millisecond, 4172 * 400 * time.Microsecond, 133504 * time.Microsecond},
		{"maximum", nor.Maximum, 16*2*time.Second + 5*400*time.Millisecond, 4172 * 3 * time.Millisecond, 133504 * time.Microsecond},
	} {
		chip := newChip(t, nor.Config{Timing: c.timing})
		step := func(what string, want time.Duration, op func() error) {
			t.Helper()
			before := chip.Clock()
			must(t, op())
			if got := chip.Clock() - before; got != want {
				t.Errorf("%s: %s takes %v, want %v", c.name, what, got, want)
			}
		}
		step("erase", c.erase, func() error { return chip.Erase(0x10000, 261*4096) })
		step("program", c.program, func() error { return chip.Program(make([]byte, image), 0x10000) })
		step("read", c.read, func() error { return chip.ReadAt(make([]byte, image), 0x10000) })
		step("sync", 0, chip.Sync)
	}
	if d := 16*nor.Typical.Block + 5*nor.Typical.Sector; d.Round(10*time.Millisecond) != 2630*time.Millisecond {
		t.Errorf("erase of the image: %v, want 2.63 s", d)
	}
	if d := 4172 * nor.Typical.Page; d.Round(10*time.Millisecond) != 1670*time.Millisecond {
		t.Errorf("program of the image: %v, want 1.67 s", d)
	}
}

func TestTimeOfAPartOfAPage(t *testing.T) {
	for _, c := range []struct {
		timing nor.Timing
		n      int
		want   time.Duration
	}{
		{nor.Typical, 1, 30 * time.Microsecond},
		{nor.Typical, 2, 32500 * time.Nanosecond},
		{nor.Typical, 16, 67500 * time.Nanosecond},
		{nor.Typical, 64, 187500 * time.Nanosecond},
		{nor.Typical, 149, 400 * time.Microsecond},
		{nor.Typical, 150, 400 * time.Microsecond}, // never more than a page
		{nor.Typical, 256, 400 * time.Microsecond},
		{nor.Maximum, 1, 50 * time.Microsecond},
		{nor.Maximum, 64, 806 * time.Microsecond},
		{nor.Maximum, 256, 3 * time.Millisecond},
	} {
		chip := newChip(t, nor.Config{Timing: c.timing})
		must(t, chip.Program(make([]byte, c.n), 0))
		if chip.Clock() != c.want {
			t.Errorf("%d bytes take %v, want %v", c.n, chip.Clock(), c.want)
		}
	}
}

func TestLogComesBeforeTheOperation(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	calls := 0
	c.SetLog(func(o nor.Op) {
		calls++
		if b := c.Raw()[o.Off]; o.Kind == nor.Program && b != 0xFF || o.Kind == nor.Erase && b != 0x5A {
			t.Errorf("%v: the cell holds %02x already", o, b)
		}
	})
	must(t, c.Program([]byte{0x5A}, 0), c.Erase(0, 4096))
	if calls != 2 {
		t.Errorf("%d operations logged, want 2", calls)
	}
	c.SetLog(nil)
	must(t, c.Program([]byte{0x5A}, 0))
	// What is refused is no operation.
	c.SetLog(func(o nor.Op) { t.Errorf("%v logged", o) })
	for _, err := range []error{c.Program([]byte{1}, 0), c.Program([]byte{1}, 1<<20), c.Erase(1, 4096), c.Erase(0, 2<<20)} {
		if err == nil {
			t.Error("misuse passes")
		}
	}
}

func TestEncryptingChip(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: true, Seed: 3})
	if g := c.Geometry(); g.ErasedReadable || g.ProgramSize != 16 {
		t.Fatalf("%+v: want units of 16 and no readable erased bytes", g)
	}
	must(t, c.Erase(0, 8192))
	blank := read(t, c, 0, 4096)
	for i, b := range c.Raw()[:4096] {
		if b != 0xFF {
			t.Fatalf("cell 0x%x is %02x after an erase", i, b)
		}
	}
	if n := bytes.Count(blank, []byte{0xFF}); n > 64 {
		t.Errorf("%d of 4096 erased bytes read as FF: no noise", n)
	}
	seen := map[string]int{}
	for i := 0; i < len(blank); i += 16 {
		seen[string(blank[i:i+16])]++
	}
	if len(seen) != 256 {
		t.Errorf("256 erased units read as %d different ones: their place does not matter", len(seen))
	}

	// Equal plain blocks are stored differently in each place, none as it is.
	plain := noise(4, 16)
	must(t, c.Program(bytes.Repeat(plain, 256), 0))
	stored := map[string]bool{}
	for i := 0; i < 4096; i += 16 {
		stored[string(c.Raw()[i:i+16])] = true
	}
	if len(stored) != 256 || stored[string(plain)] {
		t.Errorf("256 equal units are stored in %d ways, plain: %v", len(stored), stored[string(plain)])
	}
	for _, off := range []uint32{0, 1, 15, 16, 17, 4079} {
		want := bytes.Repeat(plain, 3)[off%16:][:17]
		if got := read(t, c, off, 17); !bytes.Equal(got, want) && off+17 <= 4096 {
			t.Errorf("read at %d: % x, want % x", off, got, want)
		}
	}
	other := newChip(t, nor.Config{Size: 1 << 20, Encrypt: true, Seed: 4})
	must(t, other.Program(plain, 0))
	if bytes.Equal(other.Raw()[:16], c.Raw()[:16]) {
		t.Error("two seeds have one key")
	}
	same := newChip(t, nor.Config{Size: 1 << 20, Encrypt: true, Seed: 3})
	must(t, same.Program(plain, 0))
	if !bytes.Equal(same.Raw()[:16], c.Raw()[:16]) {
		t.Error("one seed has two keys")
	}
}

func TestLoadIsAFlasher(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: encrypt})
		data := noise(5, 4096)
		copy(data[256:512], bytes.Repeat([]byte{0xFF}, 256))
		must(t, c.Load(0x1000, data), c.Load(0x1000, data))
		if got := read(t, c, 0x1000, 4096); !bytes.Equal(got, data) {
			t.Errorf("encrypt %v: reads as something else", encrypt)
		}
		if s := c.Stats(); s.Ops() != 0 || c.Wear(0x1000) != 0 {
			t.Errorf("encrypt %v: %+v, wear %d: a flasher leaves no trace", encrypt, s, c.Wear(0x1000))
		}
		if err := c.Program(make([]byte, 16), 0x1000); err != flash.ErrNotBlank {
			t.Errorf("encrypt %v: a loaded unit counts as blank: %v", encrypt, err)
		}
		if !encrypt { // bytes of FF are blank cells
			must(t, c.Program(make([]byte, 256), 0x1100))
		}
		for _, bad := range [][2]uint32{{1 << 20, 16}, {1<<20 - 16, 32}, {0xFFFFFFF0, 32}} {
			if err := c.Load(bad[0], make([]byte, bad[1])); err != flash.ErrRange {
				t.Errorf("Load of %d at 0x%x: %v", bad[1], bad[0], err)
			}
		}
	}
	c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: true})
	if err := c.Load(8, make([]byte, 16)); err != flash.ErrAlign {
		t.Errorf("Load of half a cipher block: %v", err)
	}
}

func TestCloneIsAnotherChip(t *testing.T) {
	for _, encrypt := range []bool{false, true} {
		c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: encrypt, Seed: 6})
		data := noise(7, 4096)
		must(t, c.Erase(0, 8192), c.Program(data, 0))
		hooks := 0
		c.SetLog(func(nor.Op) { hooks++ })
		c.SetCut(func(nor.Op) nor.Cut { hooks++; return nor.Cut{} })
		c.SetFail(func(nor.Op) error { hooks++; return nil })
		c.SetReadFlip(func(uint32, []byte) { hooks++ })
		d := c.Clone()
		if !bytes.Equal(d.Raw(), c.Raw()) || d.Clock() != c.Clock() || d.Stats() != c.Stats() || d.Wear(0) != 1 || d.Geometry() != c.Geometry() {
			t.Error("the clone begins otherwise")
		}
		if err := d.Program(make([]byte, 16), 0); err != flash.ErrNotBlank {
			t.Errorf("the clone forgot what was programmed: %v", err)
		}
		must(t, d.Erase(0, 4096), d.Program(noise(8, 4096), 0), d.ReadAt(make([]byte, 1), 0))
		if hooks != 0 {
			t.Errorf("the clone called %d hooks", hooks)
		}
		if got := read(t, c, 0, 4096); !bytes.Equal(got, data) || c.Wear(0) != 1 || c.Stats().Programs != 16 {
			t.Error("what the clone did shows in the chip")
		}
		before := append([]byte(nil), d.Raw()...)
		must(t, c.Erase(0, 65536))
		if !bytes.Equal(before, d.Raw()) || d.Wear(0) != 2 {
			t.Error("what the chip did shows in the clone")
		}
	}
	c := newChip(t, nor.Config{Size: 1 << 20})
	c.SetCut(func(nor.Op) nor.Cut { return nor.Cut{When: nor.CutBefore} })
	if err := c.Erase(0, 4096); err != flash.ErrPower {
		t.Fatal(err)
	}
	d := c.Clone()
	if d.PowerOn(); !c.Dead() || d.Dead() {
		t.Errorf("chip dead: %v, clone: %v", c.Dead(), d.Dead())
	}
}
