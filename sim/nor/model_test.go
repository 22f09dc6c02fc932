package nor_test

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
)

// The model: what a caller that keeps the contract may rely on, and what it costs.
// A unit is blank, holds data, or holds anything since a cut.
type unit uint8

const (
	unitBlank unit = iota
	unitData
	unitAnything
)

type model struct {
	g      flash.Geometry
	timing nor.Timing
	data   []byte
	units  []unit
	wear   []uint32
	clock  time.Duration
	stats  nor.Stats
}

// page is one operation of a program: what the contract leaves known of it.
func (m *model) page(p []byte, off uint32, cut nor.Cut) error {
	n := uint32(len(p))
	first, end := off/m.g.ProgramSize, (off+n)/m.g.ProgramSize
	if slices.ContainsFunc(m.units[first:end], func(u unit) bool { return u != unitBlank }) {
		return flash.ErrNotBlank
	}
	if cut.When == nor.CutBefore {
		return flash.ErrPower
	}
	m.stats.Programs++
	m.stats.BytesProgrammed += uint64(n)
	m.clock += min(m.timing.Page, m.timing.FirstByte+time.Duration(n-1)*m.timing.NextByte)
	done, touched := n, n
	if cut.When == nor.CutInside {
		done = min(cut.Done/m.g.ProgramSize*m.g.ProgramSize, n)
		touched = min(done+max(64, m.g.ProgramSize), n)
	}
	copy(m.data[off:], p[:done])
	for u := first; u < end; u++ {
		switch at := u*m.g.ProgramSize - off; {
		case at < done:
			m.units[u] = unitData
		case at < touched:
			m.units[u] = unitAnything
		}
	}
	if cut.When == nor.CutInside && cut.Disturb {
		s := off / m.g.EraseSize * m.g.EraseSize
		for u := s / m.g.ProgramSize; u < (s+m.g.EraseSize)/m.g.ProgramSize; u++ {
			m.units[u] = unitAnything
		}
	}
	if cut.When != nor.CutNone {
		return flash.ErrPower
	}
	return nil
}

func (m *model) erase(off, n uint32, cut nor.Cut) error {
	if cut.When == nor.CutBefore {
		return flash.ErrPower
	}
	if n == m.g.EraseSize {
		m.stats.SectorErases++
		m.clock += m.timing.Sector
	} else {
		m.stats.BlockErases++
		m.clock += m.timing.Block
	}
	for s := off / m.g.EraseSize; s < (off+n)/m.g.EraseSize; s++ {
		m.wear[s]++
	}
	after := unitBlank
	if cut.When == nor.CutInside {
		after = unitAnything
	}
	for u := off / m.g.ProgramSize; u < (off+n)/m.g.ProgramSize; u++ {
		m.units[u] = after
	}
	for i := off; i < off+n; i++ {
		m.data[i] = 0xFF
	}
	if cut.When != nor.CutNone {
		return flash.ErrPower
	}
	return nil
}

// TestChipAgainstModel runs random calls with random cuts. rapid prints the calls
// and the seed of a failure.
func TestChipAgainstModel(t *testing.T) {
	calls, cuts := 0, 0
	rapid.Check(t, func(t *rapid.T) {
		cfg := nor.Config{
			EraseSize:   rapid.SampledFrom([]uint32{256, 1024, 4096}).Draw(t, "erase size"),
			ProgramSize: rapid.SampledFrom([]uint32{1, 4, 16, 256}).Draw(t, "program size"),
			Encrypt:     rapid.Bool().Draw(t, "encrypt"),
			Seed:        rapid.Uint64().Draw(t, "seed"),
		}
		cfg.Size = 10 * cfg.EraseSize
		cfg.BlockEraseSize = rapid.SampledFrom([]uint32{nor.NoBlocks, 4 * cfg.EraseSize}).Draw(t, "block size")
		cfg.Timing = rapid.SampledFrom([]nor.Timing{nor.Typical, nor.Maximum}).Draw(t, "timing")
		chip, err := nor.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		g := chip.Geometry()
		m := &model{g: g, timing: cfg.Timing, data: slices.Repeat([]byte{0xFF}, int(g.Size)),
			units: make([]unit, g.Size/g.ProgramSize), wear: make([]uint32, g.Size/g.EraseSize)}

		// The hook decides, and the model replays the operations that it saw.
		type event struct {
			op  nor.Op
			cut nor.Cut
		}
		var seen []event
		var plan nor.Cut
		at := 0
		chip.SetCut(func(op nor.Op) nor.Cut {
			cut := nor.Cut{}
			if at--; at == 0 {
				cut = plan
			}
			seen = append(seen, event{op, cut})
			return cut
		})
		draw := func(what string, n uint32) uint32 { return rapid.Uint32Range(0, n-1).Draw(t, what) }
		armed := func() {
			seen, at, plan = seen[:0], 0, nor.Cut{}
			if rapid.IntRange(0, 3).Draw(t, "cut") == 0 {
				at = 1 + int(draw("at operation", 3))
				plan = nor.Cut{When: nor.CutWhen(1 + draw("when", 3)), Done: draw("done", g.EraseSize+1), Disturb: rapid.Bool().Draw(t, "disturb")}
			}
		}
		after := func(err, want error) {
			if err != want {
				t.Fatalf("error is %v, want %v (%v)", err, want, seen)
			}
			if chip.Dead() != (want == flash.ErrPower) {
				t.Fatalf("dead: %v after %v", chip.Dead(), err)
			}
			if chip.Dead() {
				cuts++
				chip.PowerOn()
			}
			calls++
		}
		t.Repeat(map[string]func(*rapid.T){
			"program": func(t *rapid.T) {
				units := g.Size / g.ProgramSize
				first := draw("first unit", units)
				n := 1 + draw("units", min(units-first, 1+700/g.ProgramSize))
				off, p := first*g.ProgramSize, noise(rapid.Uint64().Draw(t, "data"), int(n*g.ProgramSize))
				armed()
				err := chip.Program(p, off)
				var want error
				for i := 0; len(p) > 0 && want == nil; i++ {
					size := min(256-off%256, uint32(len(p)))
					cut := nor.Cut{}
					if i < len(seen) {
						if cut = seen[i].cut; seen[i].op != (nor.Op{Kind: nor.Program, Off: off, Len: size}) {
							t.Fatalf("%v, want a program of %d bytes at 0x%x", seen[i].op, size, off)
						}
					}
					want = m.page(p[:size], off, cut)
					p, off = p[size:], off+size
				}
				after(err, want)
			},
			"erase": func(t *rapid.T) {
				sectors := g.Size / g.EraseSize
				first := draw("first sector", sectors)
				off := first * g.EraseSize
				end := off + (1+draw("sectors", sectors-first))*g.EraseSize
				armed()
				err := chip.Erase(off, end-off)
				var want error
				for i := 0; off < end && want == nil; i++ {
					n := g.EraseSize
					if b := g.BlockEraseSize; b != 0 && off%b == 0 && end-off >= b {
						n = b
					}
					if i >= len(seen) || seen[i].op != (nor.Op{Kind: nor.Erase, Off: off, Len: n}) {
						t.Fatalf("%v, want erase %d of %d bytes at 0x%x", seen, i, n, off)
					}
					want = m.erase(off, n, seen[i].cut)
					off += n
				}
				after(err, want)
			},
			"clone": func(*rapid.T) {
				d := chip.Clone()
				if err := d.Erase(0, g.Size); err != nil { // the chip must not notice
					t.Fatal(err)
				}
			},
			"": func(t *rapid.T) {
				if s := chip.Stats(); s.Programs != m.stats.Programs || s.SectorErases != m.stats.SectorErases ||
					s.BlockErases != m.stats.BlockErases || s.BytesProgrammed != m.stats.BytesProgrammed {
					t.Fatalf("%+v, want %+v", s, m.stats)
				}
				for s, w := range m.wear {
					if got := chip.Wear(uint32(s) * g.EraseSize); got != w {
						t.Fatalf("wear of sector %d is %d, want %d", s, got, w)
					}
				}
				if chip.Clock() != m.clock {
					t.Fatalf("clock %v, want %v", chip.Clock(), m.clock)
				}
				if err := m.compare(chip); err != nil {
					t.Fatal(err)
				}
			},
		})
	})
	if calls == 0 || cuts == 0 {
		t.Errorf("%d calls and %d cuts: nothing was tried", calls, cuts)
	}
}

// compare reads what is known. Marginal sectors hold nothing that is.
func (m *model) compare(chip *nor.Chip) error {
	for u, state := range m.units {
		off := uint32(u) * m.g.ProgramSize
		if state == unitAnything || state == unitBlank && !m.g.ErasedReadable {
			continue
		}
		var buf [256]byte
		p := buf[:m.g.ProgramSize]
		if err := chip.ReadAt(p, off); err != nil {
			return err
		}
		m.clock += time.Duration(len(p)) * time.Second / time.Duration(m.timing.ReadBytesPerSecond)
		if want := m.data[off : off+m.g.ProgramSize]; !slices.Equal(p, want) {
			return fmt.Errorf("unit at 0x%x reads as % x, want % x", off, p, want)
		}
	}
	return nil
}
