package nor_test

import (
	"bytes"
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
)

// A dying sector: the operation takes its time, says so, and leaves a mess that only
// an erase clears.
func TestFailingProgram(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Seed: 1})
	c.SetFail(func(o nor.Op) error {
		if o.Kind == nor.Program && o.Off >= 0x1000 {
			return flash.ErrProgram
		}
		return nil
	})
	data := noise(1, 512)
	if err := c.Program(data, 0xF00); err != flash.ErrProgram {
		t.Fatalf("program into the failing sector: %v", err)
	}
	if c.Dead() {
		t.Error("a failing sector took the power")
	}
	if got := read(t, c, 0xF00, 512); !bytes.Equal(got[:256], data[:256]) || bytes.Equal(got[256:], data[256:]) {
		t.Error("want the page before the failing sector done and the one in it not")
	}
	if c.Clock() < 2*nor.Typical.Page || c.Stats().Programs != 2 {
		t.Errorf("%v and %+v: a failed program takes its time too", c.Clock(), c.Stats())
	}
	c.SetFail(nil)
	if err := c.Program(data[256:], 0x1000); err != flash.ErrNotBlank {
		t.Errorf("a page that failed counts as blank: %v", err)
	}
	must(t, c.Erase(0x1000, 4096), c.Program(data[256:], 0x1000))
}

func TestFailingErase(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Seed: 2})
	data := noise(2, 3*4096)
	must(t, c.Program(data, 0))
	c.SetFail(func(o nor.Op) error {
		if o.Kind == nor.Erase && o.Off == 0x1000 {
			return flash.ErrErase
		}
		return nil
	})
	if err := c.Erase(0, 3*4096); err != flash.ErrErase {
		t.Fatalf("erase over the failing sector: %v", err)
	}
	if !blank(c.Raw()[:4096]) || !bytes.Equal(c.Raw()[8192:3*4096], data[8192:]) {
		t.Error("want the sector before it erased and the one behind it as it was")
	}
	if !varies(t, c, 0x1000, 4096) {
		t.Error("the sector that failed reads the same each time")
	}
	if err := c.Program([]byte{0}, 0x1000); err != flash.ErrNotBlank {
		t.Errorf("a sector that failed counts as blank: %v", err)
	}
	if c.Wear(0x1000) != 1 || c.Stats().SectorErases != 2 {
		t.Errorf("wear %d, %+v: a failed erase counts", c.Wear(0x1000), c.Stats())
	}
	c.SetFail(nil)
	must(t, c.Erase(0x1000, 4096), c.Program(data[4096:8192], 0x1000))
}

// What a flasher loads is sound, whatever a cut left there before.
func TestLoadHealsACutErase(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20, Seed: 3})
	cutNext(c, nor.Cut{When: nor.CutInside, Done: 4096})
	wantPower(t, "erase", c.Erase(4096, 4096))
	c.PowerOn()
	data := noise(3, 4096)
	must(t, c.Load(4096, data))
	if varies(t, c, 4096, 4096) || !bytes.Equal(read(t, c, 4096, 4096), data) {
		t.Error("the sector is still marginal")
	}
}

func TestReadFlipChangesWhatIsReadOnly(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	data := noise(4, 64)
	must(t, c.Program(data, 0x100))
	var at []uint32
	c.SetReadFlip(func(off uint32, p []byte) {
		at = append(at, off)
		if len(p) > 0 {
			p[0] ^= 0x80
		}
	})
	got := read(t, c, 0x100, 64)
	if got[0] != data[0]^0x80 || !bytes.Equal(got[1:], data[1:]) || len(at) != 1 || at[0] != 0x100 {
		t.Errorf("the flip did not show, or called with %v", at)
	}
	c.SetReadFlip(nil)
	if !bytes.Equal(read(t, c, 0x100, 64), data) {
		t.Error("the cells changed")
	}
}

// The hook's own error comes through, so that a sweep can tell its fault from others.
func TestFailHookErrorComesThrough(t *testing.T) {
	c := newChip(t, nor.Config{Size: 1 << 20})
	mine := errors.New("mine")
	c.SetFail(func(nor.Op) error { return mine })
	if err := c.Erase(0, 4096); err != mine {
		t.Errorf("erase: %v", err)
	}
	if err := c.Program([]byte{1}, 8192); err != mine {
		t.Errorf("program: %v", err)
	}
}
