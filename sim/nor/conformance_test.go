package nor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/flash/flashtest"
	"github.com/runnel-fota/runnel/sim/nor"
)

// chips are of all sorts: the ESP32's, small and large sectors, units of 1 to 256
// bytes, with and without blocks, plain and encrypting.
func chips() map[string]nor.Config {
	const size = 40 * 4096 // two blocks and a half
	m := map[string]nor.Config{
		"w25q32":         {},
		"small-sectors":  {Size: 32 << 10, EraseSize: 256, BlockEraseSize: 4096, ProgramSize: 4},
		"large-sectors":  {Size: 8 * 128 << 10, EraseSize: 128 << 10, BlockEraseSize: nor.NoBlocks, ProgramSize: 16},
		"encrypt-32":     {Size: size, Encrypt: true, ProgramSize: 32},
		"encrypt-small":  {Size: 32 << 10, EraseSize: 256, BlockEraseSize: 1024, Encrypt: true, ProgramSize: 256},
		"blocks-of-32k":  {Size: size, BlockEraseSize: 32 << 10},
		"uneven-in-size": {Size: 27 * 4096},
	}
	for _, unit := range []uint32{1, 4, 16, 256} {
		if testing.Short() && unit != 16 {
			continue
		}
		for name, block := range map[string]uint32{"blocks": 0, "sectors": nor.NoBlocks} {
			for _, encrypt := range []bool{false, true} {
				m[fmt.Sprintf("unit-%d,%s,encrypt=%v", unit, name, encrypt)] =
					nor.Config{Size: size, BlockEraseSize: block, ProgramSize: unit, Encrypt: encrypt}
			}
		}
	}
	return m
}

// watched is a chip with the powers that the suite asks for.
type watched struct {
	*nor.Chip
	log   []flashtest.Span
	cycle func() (flash.Device, error)
}

var (
	_ flashtest.PowerCycler = (*watched)(nil)
	_ flashtest.EraseLogger = (*watched)(nil)
)

func watch(c *nor.Chip) *watched {
	w := &watched{Chip: c}
	c.SetLog(func(o nor.Op) {
		if o.Kind == nor.Erase {
			w.log = append(w.log, flashtest.Span{Off: o.Off, Len: o.Len})
		}
	})
	return w
}

func (w *watched) EraseLog() []flashtest.Span {
	l := w.log
	w.log = nil
	return l
}

func (w *watched) PowerCycle() (flash.Device, error) { return w.cycle() }

func inMemory(t testing.TB, cfg nor.Config) *watched {
	t.Helper()
	c, err := nor.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	w := watch(c)
	w.cycle = func() (flash.Device, error) {
		c.SetCut(func(nor.Op) nor.Cut { return nor.Cut{When: nor.CutBefore} })
		defer c.SetCut(nil)
		if err := c.Erase(0, c.Geometry().EraseSize); err != flash.ErrPower {
			return nil, fmt.Errorf("erase without power: %v", err)
		}
		c.PowerOn()
		return w, nil
	}
	return w
}

// inFile is a chip whose power cycle ends the process without a Sync or Close: what
// the file holds at that moment is opened again.
func inFile(t testing.TB, cfg nor.Config) *watched {
	t.Helper()
	path := filepath.Join(t.TempDir(), "flash.bin")
	c, err := nor.Create(path, cfg)
	if err != nil {
		t.Fatal(err)
	}
	return fileBacked(t, c, path, cfg)
}

func fileBacked(t testing.TB, c *nor.Chip, path string, cfg nor.Config) *watched {
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	w := watch(c)
	w.cycle = func() (flash.Device, error) {
		left, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		path := path + "+"
		if err := os.WriteFile(path, left, 0o600); err != nil {
			return nil, err
		}
		c, err := nor.Open(path, cfg)
		if err != nil {
			return nil, err
		}
		return fileBacked(t, c, path, cfg), nil
	}
	return w
}

// partition is an Area with the powers of its chip.
type partition struct {
	*flash.Area
	chip *watched
	off  uint32
}

func inArea(t testing.TB, w *watched, off, length uint32) *partition {
	t.Helper()
	a, err := flash.NewArea(w, off, length)
	if err != nil {
		t.Fatal(err)
	}
	return &partition{&a, w, off}
}

func (p *partition) EraseLog() []flashtest.Span { return p.chip.EraseLog() }

func (p *partition) PowerCycle() (flash.Device, error) {
	d, err := p.chip.PowerCycle()
	if err != nil {
		return nil, err
	}
	a, err := flash.NewArea(d, p.off, p.Size())
	return &partition{&a, d.(*watched), p.off}, err
}

func TestChipKeepsTheContract(t *testing.T) {
	for name, cfg := range chips() {
		t.Run(name, func(t *testing.T) {
			flashtest.Run(t, func(t testing.TB) flash.Device { return inMemory(t, cfg) })
		})
	}
}

// In an area that begins and ends beside the borders of blocks.
func TestAreaOfChipKeepsTheContract(t *testing.T) {
	for name, cfg := range chips() {
		t.Run(name, func(t *testing.T) {
			flashtest.Run(t, func(t testing.TB) flash.Device {
				w := inMemory(t, cfg)
				g := w.Geometry()
				return inArea(t, w, g.EraseSize, g.Size-3*g.EraseSize)
			})
		})
	}
}

// As drivers are used: all misuse is caught before it reaches the chip.
func TestChipBehindAreaAsDriver(t *testing.T) {
	flashtest.RunDriver(t, func(t testing.TB) flash.Device { return inMemory(t, nor.Config{Size: 1 << 20}) })
}

func TestFileKeepsTheContract(t *testing.T) {
	for name, cfg := range map[string]nor.Config{
		"w25q32":        {Size: 1 << 20},
		"unit-4":        {Size: 1 << 20, ProgramSize: 4, BlockEraseSize: nor.NoBlocks},
		"unit-256":      {Size: 1 << 20, ProgramSize: 256},
		"encrypt":       {Size: 1 << 20, Encrypt: true},
		"large-sectors": {Size: 1 << 20, EraseSize: 128 << 10, BlockEraseSize: nor.NoBlocks, ProgramSize: 16},
	} {
		t.Run(name, func(t *testing.T) {
			flashtest.Run(t, func(t testing.TB) flash.Device { return inFile(t, cfg) })
		})
		t.Run(name+",area", func(t *testing.T) {
			flashtest.Run(t, func(t testing.TB) flash.Device {
				w := inFile(t, cfg)
				g := w.Geometry()
				return inArea(t, w, g.EraseSize, g.Size-2*g.EraseSize)
			})
		})
	}
}
