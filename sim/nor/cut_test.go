package nor_test

import (
	"bytes"
	"fmt"
	"sync"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
)

// cutNext has the power fail at the next operation.
func cutNext(c *nor.Chip, cut nor.Cut) {
	c.SetCut(func(nor.Op) nor.Cut {
		c.SetCut(nil)
		return cut
	})
}

func wantPower(t testing.TB, what string, err error) {
	t.Helper()
	if err != flash.ErrPower {
		t.Errorf("%s: %v, want %v", what, err, flash.ErrPower)
	}
}

func TestWithoutPowerNothingWorks(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	must(t, c.Erase(0, 4096), c.Program(noise(1, 256), 0))
	before, clock, stats := append([]byte(nil), c.Raw()...), c.Clock(), c.Stats()
	cutNext(c, nor.Cut{When: nor.CutBefore})
	wantPower(t, "the operation", c.Program([]byte{0}, 0x200))
	for i := 0; i < 2; i++ {
		wantPower(t, "read", c.ReadAt(make([]byte, 1), 0))
		wantPower(t, "read of nothing", c.ReadAt(nil, 0))
		wantPower(t, "program", c.Program([]byte{0}, 0x200))
		wantPower(t, "program of nothing", c.Program(nil, 0))
		wantPower(t, "erase", c.Erase(0, 4096))
		wantPower(t, "erase of nothing", c.Erase(0, 0))
		wantPower(t, "sync", c.Sync())
		if !c.Dead() {
			t.Error("not dead")
		}
	}
	if !bytes.Equal(before, c.Raw()) || c.Clock() != clock || c.Stats() != stats {
		t.Error("something happened without power")
	}
	c.PowerOn()
	if c.Dead() || !bytes.Equal(read(t, c, 0, 256), noise(1, 256)) {
		t.Error("the content is not what it was")
	}
	must(t, c.Program([]byte{0}, 0x200))
}

func TestCutAfterLeavesTheOperationDone(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	data := noise(2, 300)
	cutNext(c, nor.Cut{When: nor.CutAfter})
	wantPower(t, "program", c.Program(data, 0))
	c.PowerOn()
	// The first page of two: the second never began.
	if got := read(t, c, 0, 300); !bytes.Equal(got[:256], data[:256]) || !bytes.Equal(got[256:], bytes.Repeat([]byte{0xFF}, 44)) {
		t.Error("not exactly the first page is programmed")
	}
	must(t, c.Program(data[256:], 256))
	cutNext(c, nor.Cut{When: nor.CutAfter})
	wantPower(t, "erase", c.Erase(0, 8192))
	c.PowerOn()
	for i := 0; i < 50; i++ {
		if got := read(t, c, 0, 4096); !bytes.Equal(got, bytes.Repeat([]byte{0xFF}, 4096)) {
			t.Fatal("the sector is not erased, or its bits are marginal")
		}
	}
	if c.Wear(0) != 1 || c.Wear(4096) != 0 {
		t.Errorf("wear %d and %d, want 1 and 0", c.Wear(0), c.Wear(4096))
	}
}

// A torn page: whole units, then up to 64 bytes with some of their bits cleared,
// then nothing.
func TestTornPage(t *testing.T) {
	for _, unit := range []uint32{1, 4, 16, 64, 128, 256} {
		partly := 0
		for done := uint32(0); done <= 256; done += 8 {
			for seed := uint64(0); seed < 4; seed++ {
				c := newChip(t, nor.Config{Size: 8192, ProgramSize: unit, Seed: seed})
				data := noise(seed+10, 256)
				cutNext(c, nor.Cut{When: nor.CutInside, Done: done})
				wantPower(t, "program", c.Program(data, 0x300))
				c.PowerOn()
				whole := done / unit * unit
				torn := min(max(64, unit), 256-whole)
				got := read(t, c, 0x300, 256)
				where := fmt.Sprintf("unit %d, done %d, seed %d", unit, done, seed)
				if !bytes.Equal(got[:whole], data[:whole]) {
					t.Fatalf("%s: not all of the first %d bytes are done", where, whole)
				}
				for i, b := range got[whole : whole+torn] {
					if b&data[int(whole)+i] != data[int(whole)+i] {
						t.Fatalf("%s: byte %d is %02x of %02x: a bit is cleared that should not be", where, i, b, data[int(whole)+i])
					}
				}
				if torn > 0 && !bytes.Equal(got[whole:whole+torn], data[whole:whole+torn]) && !blank(got[whole:whole+torn]) {
					partly++
				}
				if !blank(got[whole+torn:]) || !blank(c.Raw()[0x200:0x300]) || !blank(c.Raw()[0x400:0x1000]) {
					t.Fatalf("%s: something is changed beside the torn bytes", where)
				}
				for at := uint32(0); at < 256; at += unit {
					err := c.Program(data[at:at+unit], 0x300+at)
					if at < whole+torn && err != flash.ErrNotBlank {
						t.Fatalf("%s: a unit that was touched counts as blank: %v", where, err)
					}
					if at >= whole+torn && err != nil {
						t.Fatalf("%s: a unit that was not touched: %v", where, err)
					}
				}
			}
		}
		if partly < 30 {
			t.Errorf("unit %d: only %d pages were torn in the middle", unit, partly)
		}
	}
}

func blank(p []byte) bool { return bytes.Count(p, []byte{0xFF}) == len(p) }

func TestCutInALaterPage(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	n := 0
	c.SetCut(func(nor.Op) nor.Cut {
		if n++; n == 3 {
			return nor.Cut{When: nor.CutInside, Done: 100}
		}
		return nor.Cut{}
	})
	data := noise(3, 1024)
	wantPower(t, "program", c.Program(data, 0))
	c.PowerOn()
	if !bytes.Equal(read(t, c, 0, 612), data[:612]) || !blank(c.Raw()[676:]) {
		t.Error("want two pages and 100 bytes of the third, up to 64 more torn, and nothing behind")
	}
	if s := c.Stats(); s.Programs != 3 {
		t.Errorf("%d programs, want 3", s.Programs)
	}
}

// Program disturb: other bytes of the sector, none of another.
func TestDisturb(t *testing.T) {
	elsewhere := 0
	for seed := uint64(0); seed < 10; seed++ {
		c := newChip(t, nor.Config{Size: 1 << 20, Seed: seed})
		data := noise(seed, 3*4096)
		must(t, c.Erase(0, 3*4096), c.Program(data[:4096+2048], 0), c.Program(data[8192:], 8192))
		cutNext(c, nor.Cut{When: nor.CutInside, Done: 16, Disturb: true})
		wantPower(t, "program", c.Program(data[4096+2048:4096+2304], 4096+2048))
		c.PowerOn()
		if !bytes.Equal(c.Raw()[:4096], data[:4096]) || !bytes.Equal(c.Raw()[8192:3*4096], data[8192:]) {
			t.Errorf("seed %d: another sector is disturbed", seed)
		}
		if !bytes.Equal(c.Raw()[4096:4096+2048], data[4096:4096+2048]) {
			elsewhere++
		}
		for _, off := range []uint32{4096 + 3000, 8191} {
			if err := c.Program([]byte{0}, off); err != flash.ErrNotBlank {
				t.Errorf("seed %d: 0x%x of a disturbed sector can be programmed: %v", seed, off, err)
			}
		}
		must(t, c.Erase(4096, 4096), c.Program(data[4096:8192], 4096))
		if !bytes.Equal(c.Raw()[:3*4096], data) {
			t.Errorf("seed %d: the sector does not recover by an erase", seed)
		}
	}
	if elsewhere < 5 {
		t.Errorf("only %d of 10 cuts disturbed the sector", elsewhere)
	}
}

// A cut erase: nothing yet, partly, or blank to look at; marginal in each case, and
// not to be programmed.
func TestTornErase(t *testing.T) {
	for _, n := range []uint32{4096, 65536} {
		for _, c := range []struct {
			name string
			done uint32
		}{
			{"at once", 0}, {"just before a quarter", n/4 - 1}, {"at a quarter", n / 4},
			{"half way", n / 2}, {"at three quarters", n / 4 * 3}, {"just after", n/4*3 + 1}, {"at the end", n},
		} {
			chip := newChip(t, nor.Config{Size: 1 << 20, Seed: 11})
			old := noise(12, int(n)+2*4096)
			from := uint32(0x20000)
			must(t, chip.Program(old, from-4096))
			old = old[4096 : 4096+n]
			outside := append([]byte(nil), chip.Raw()...)
			cutNext(chip, nor.Cut{When: nor.CutInside, Done: c.done})
			wantPower(t, "erase", chip.Erase(from, n))
			chip.PowerOn()

			cells := chip.Raw()[from : from+n]
			set := 0 // bits that were 0 and are 1
			for i := range cells {
				if cells[i]&old[i] != old[i] {
					t.Fatalf("%d %s: an erase cleared a bit of byte %d", n, c.name, i)
				}
				for b := cells[i] &^ old[i]; b != 0; b &= b - 1 {
					set++
				}
			}
			half := int(n) * 8 / 4 // half of the bits were 0, half of these are set
			switch {
			case c.done < n/4 && set != 0:
				t.Errorf("%d %s: %d bits are set already", n, c.name, set)
			case c.done > n/4*3 && !blank(cells):
				t.Errorf("%d %s: not blank to look at", n, c.name)
			case c.done >= n/4 && c.done <= n/4*3 && (set < half*9/10 || set > half*11/10):
				t.Errorf("%d %s: %d bits are set, want about %d", n, c.name, set, half)
			}
			if !bytes.Equal(chip.Raw()[:from], outside[:from]) || !bytes.Equal(chip.Raw()[from+n:], outside[from+n:]) {
				t.Errorf("%d %s: the erase reached beside it", n, c.name)
			}

			for s := uint32(0); s < n; s += 4096 {
				if !varies(t, chip, from+s, 4096) {
					t.Errorf("%d %s: sector 0x%x reads the same each time", n, c.name, from+s)
				}
				if err := chip.Program([]byte{0}, from+s+77); err != flash.ErrNotBlank {
					t.Errorf("%d %s: can be programmed: %v", n, c.name, err)
				}
			}
			if varies(t, chip, from-4096, 4096) || varies(t, chip, from+n, 4096) {
				t.Errorf("%d %s: a sector beside it is marginal", n, c.name)
			}
			must(t, chip.Erase(from, n))
			if varies(t, chip, from, int(n)) || !blank(read(t, chip, from, int(n))) {
				t.Errorf("%d %s: not sound after an erase", n, c.name)
			}
			must(t, chip.Program(old, from))
		}
	}
}

// varies reads a range often enough that marginal bits show.
func varies(t testing.TB, c *nor.Chip, off uint32, n int) bool {
	t.Helper()
	first := read(t, c, off, n)
	for i := 0; i < 40; i++ {
		if !bytes.Equal(first, read(t, c, off, n)) {
			return true
		}
	}
	return false
}

// On a chip that encrypts a marginal bit spoils its cipher block, and the cells of
// a torn page hold ciphertext.
func TestCutsOfAnEncryptingChip(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: true, Seed: 13})
	data := noise(14, 4096)
	must(t, c.Program(data, 0))
	cutNext(c, nor.Cut{When: nor.CutInside, Done: 0})
	wantPower(t, "erase", c.Erase(0, 4096))
	c.PowerOn()
	spoilt := 0
	for i := 0; i < 100; i++ {
		got := read(t, c, 0, 4096)
		for at := 0; at < 4096; at += 16 {
			wrong := 0
			for j := at; j < at+16; j++ {
				if got[j] != data[j] {
					wrong++
				}
			}
			if wrong > 0 && wrong < 8 {
				t.Fatalf("%d of 16 bytes at 0x%x are wrong: a cipher block is all right or all wrong", wrong, at)
			}
			if wrong > 0 {
				spoilt++
			}
		}
		// Also where the read begins and ends inside of a block.
		must(t, c.ReadAt(got[:100], uint32(i)))
	}
	if spoilt < 5 {
		t.Errorf("%d blocks were spoilt in 100 reads: the sector is not marginal", spoilt)
	}
	must(t, c.Erase(0, 4096))
	cutNext(c, nor.Cut{When: nor.CutInside, Done: 47})
	wantPower(t, "program", c.Program(data[:256], 0))
	c.PowerOn()
	got := read(t, c, 0, 256)
	if !bytes.Equal(got[:32], data[:32]) {
		t.Error("47 bytes done: the first two units of 16 are not")
	}
	if bytes.Equal(got[32:96], data[32:96]) {
		t.Error("the torn units are whole")
	}
	if !blank(c.Raw()[96:256]) {
		t.Error("cells behind the torn units changed")
	}
}

func TestCutPowerTearsTheNextOperationOnce(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Seed: 15})
	var hand sync.WaitGroup
	hand.Add(1)
	go func() {
		defer hand.Done()
		c.CutPower()
	}()
	hand.Wait()
	must(t, c.ReadAt(make([]byte, 16), 0)) // reading changes no flash
	wantPower(t, "program", c.Program(make([]byte, 256), 0))
	if err := c.Program(make([]byte, 256), 512); err != flash.ErrPower || !blank(c.Raw()[256:]) {
		t.Errorf("%v, or more than the page is touched", err)
	}
	c.PowerOn()
	must(t, c.Erase(0, 4096), c.Program(make([]byte, 256), 0))

	c.CutPower()
	wantPower(t, "erase", c.Erase(4096, 4096))
	c.PowerOn()
	c.CutPower() // before the power came back: it is back
	c.PowerOn()
	must(t, c.Erase(4096, 4096))
}

// One seed, one story: every tear and every marginal bit.
func TestSameSeedSameStory(t *testing.T) {
	story := func(seed uint64) []byte {
		c := newChip(t, nor.Config{Size: 1 << 20, Seed: seed})
		var heard []byte
		for i := uint32(0); i < 20; i++ {
			must(t, c.Erase(0, 8192))
			cutNext(c, nor.Cut{When: nor.CutInside, Done: i * 12, Disturb: i%3 == 0})
			wantPower(t, "program", c.Program(noise(16, 256), 0))
			c.PowerOn()
			cutNext(c, nor.Cut{When: nor.CutInside, Done: i * 200})
			wantPower(t, "erase", c.Erase(4096, 4096))
			c.PowerOn()
			c.CutPower()
			wantPower(t, "erase", c.Erase(8192, 4096))
			c.PowerOn()
			heard = append(heard, read(t, c, 0, 3*4096)...)
		}
		d := c.Clone()
		cutNext(d, nor.Cut{When: nor.CutInside, Done: 2048})
		wantPower(t, "erase", d.Erase(0, 4096))
		return append(append(heard, c.Raw()...), d.Raw()...)
	}
	a, b, other := story(17), story(17), story(18)
	if !bytes.Equal(a, b) {
		t.Error("seed 17 tells two stories")
	}
	if bytes.Equal(a, other) {
		t.Error("seeds 17 and 18 tell the same story: nothing was random")
	}
}

// A fork is what a cut would have left, and the chip itself goes on.
func TestForkIsTheCutChip(t *testing.T) {
	for _, cut := range []nor.Cut{
		{When: nor.CutBefore}, {When: nor.CutAfter}, {When: nor.CutInside, Done: 100}, {When: nor.CutInside, Done: 100, Clean: true},
		{When: nor.CutInside, Done: 3000}, {When: nor.CutInside, Done: 2000, Disturb: true},
	} {
		for _, encrypt := range []bool{false, true} {
			make1 := func() *nor.Chip {
				c := newChip(t, nor.Config{Size: 1 << 20, Encrypt: encrypt, Seed: 5})
				must(t, c.Erase(0, 8192), c.Program(noise(1, 256), 0))
				return c
			}
			for _, change := range []func(c *nor.Chip) error{
				func(c *nor.Chip) error { return c.Program(noise(2, 256), 256) },
				func(c *nor.Chip) error { return c.Erase(0, 4096) },
			} {
				whole, forked := make1().Clone(), make1()
				cutNext(whole, cut)
				wantPower(t, "cut", change(whole))
				whole.PowerOn()
				var fork *nor.Chip
				forked.SetCut(func(nor.Op) nor.Cut {
					fork = forked.Fork(cut)
					return nor.Cut{}
				})
				must(t, change(forked))
				if !bytes.Equal(fork.Raw(), whole.Raw()) || fork.Stats() != whole.Stats() || fork.Dead() {
					t.Errorf("%+v, encrypted %v: the fork is not what the cut leaves", cut, encrypt)
				}
				after := make1()
				must(t, change(after))
				if !bytes.Equal(forked.Raw(), after.Raw()) {
					t.Errorf("%+v: the fork changed the chip", cut)
				}
			}
		}
	}
}

// A clean cut begins nothing behind what is done, and that may be programmed.
func TestCleanCut(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	cutNext(c, nor.Cut{When: nor.CutInside, Done: 4, Clean: true})
	wantPower(t, "program", c.Program(noise(1, 16), 0))
	c.PowerOn()
	if got := read(t, c, 0, 16); !bytes.Equal(got[:4], noise(1, 16)[:4]) || !bytes.Equal(got[4:], bytes.Repeat([]byte{0xFF}, 12)) {
		t.Errorf("left % x", got)
	}
	must(t, c.Program(noise(2, 12), 4))
	if err := c.Program(noise(2, 1), 0); err != flash.ErrNotBlank || c.Misuses() != 1 {
		t.Errorf("%v, %d misuses", err, c.Misuses())
	}
}
