package flashtest

import (
	"fmt"

	"github.com/runnel-fota/runnel/core/flash"
)

// checkEraseSector: all of the sector and nothing else, at each place.
func checkEraseSector(r *rig) error {
	sector := r.geo.EraseSize
	for _, base := range r.places(3 * sector) {
		want, err := r.fresh(base, 3*sector)
		if err != nil {
			return err
		}
		if err := r.erase(base+sector, sector); err != nil {
			return err
		}
		if err := r.expectErased("an erased sector", base+sector, sector); err != nil {
			return err
		}
		if err := r.expect("the sector before an erased one", base, want[:sector]); err != nil {
			return err
		}
		if err := r.expect("the sector behind an erased one", base+2*sector, want[2*sector:]); err != nil {
			return err
		}
		// Other data everywhere in it, unit by unit: what the erase left standing
		// would show, on a chip that encrypts too.
		step := r.geo.ProgramSize
		if step < 16 && sector%16 == 0 {
			step = 16 // a byte at a time takes long on a file
		}
		for at := uint32(0); at < sector; at += step {
			copy(want[sector+at:], r.random(step))
			if err := r.program(want[sector+at:sector+at+step], base+sector+at); err != nil {
				return fmt.Errorf("in a sector just erased: %w", err)
			}
		}
		if err := r.expect("an erased sector programmed again", base, want); err != nil {
			return err
		}
		// Erasing what is erased is no error.
		for i := 0; i < 2; i++ {
			if err := r.erase(base, sector); err != nil {
				return err
			}
		}
		if err := r.expectErased("a sector erased twice", base, sector); err != nil {
			return err
		}
		if err := r.expect("the sector behind one erased twice", base+sector, want[sector:]); err != nil {
			return err
		}
	}
	return nil
}

// spans are ranges around the borders of blocks, or of sectors where no block fits.
func (r *rig) spans() []Span {
	s, b, first := r.geo.EraseSize, r.geo.BlockEraseSize, r.firstBlock()
	var list []Span
	add := func(off, n uint32) {
		if n > 0 && off < r.geo.Size && n <= r.geo.Size-off {
			list = append(list, Span{off, n})
		}
	}
	if b > s && first < r.geo.Size && r.geo.Size-first >= b {
		add(first, b)         // exactly a block
		add(first+s, b)       // as long, but not aligned
		add(first, b-s)       // aligned, but shorter
		add(first, b+s)       // a block and a sector
		add(first+b-s, 2*s)   // a sector on each side of the border
		add(first+b-s, b+2*s) // a block between sectors
		add(first, 2*b)       // two blocks
		add(first-min(first, s), b+min(first, s))
		return list
	}
	add(0, s)
	add(0, 2*s)
	add(s, 2*s)
	add(s, 3*s)
	add(r.geo.Size-2*s, 2*s)
	return list
}

// checkEraseRanges: many sectors in one call, blocks and sectors mixed: all inside
// is erased, nothing outside.
func checkEraseRanges(r *rig) error {
	sector := r.geo.EraseSize
	for _, c := range r.spans() {
		from := c.Off - min(c.Off, sector)
		to := c.Off + c.Len + min(r.geo.Size-c.Off-c.Len, sector)
		want, err := r.fresh(from, to-from)
		if err != nil {
			return err
		}
		if err := r.erase(c.Off, c.Len); err != nil {
			return err
		}
		what := fmt.Sprintf("Erase(0x%x, 0x%x)", c.Off, c.Len)
		if err := r.expectErased(what, c.Off, c.Len); err != nil {
			return err
		}
		in, out := c.Off-from, c.Off-from+c.Len
		if err := r.expect(what+", before it", from, want[:in]); err != nil {
			return err
		}
		if err := r.expect(what+", behind it", c.Off+c.Len, want[out:]); err != nil {
			return err
		}
		copy(want[in:out], r.random(c.Len))
		if err := r.program(want[in:out], c.Off); err != nil {
			return fmt.Errorf("after %s: %w", what, err)
		}
		if err := r.expect("programmed after "+what, from, want); err != nil {
			return err
		}
	}
	return nil
}

// checkEraseOrder: blocks where they are aligned to the chip and wholly inside,
// sectors elsewhere, ascending.
func checkEraseOrder(r *rig) error {
	log := r.raw.(EraseLogger)
	log.EraseLog()
	for _, c := range r.spans() {
		if err := r.erase(c.Off, c.Len); err != nil {
			return err
		}
		got, at := log.EraseLog(), r.base+c.Off
		for end := at + c.Len; at < end; {
			n := r.geo.EraseSize
			if b := r.geo.BlockEraseSize; b != 0 && at%b == 0 && end-at >= b {
				n = b
			}
			if len(got) == 0 || got[0] != (Span{at, n}) {
				return fmt.Errorf("Erase(0x%x, 0x%x) of a device at 0x%x: next comes %v, want 0x%x +0x%x", c.Off, c.Len, r.base, got, at, n)
			}
			got, at = got[1:], at+n
		}
		if len(got) != 0 {
			return fmt.Errorf("Erase(0x%x, 0x%x) of a device at 0x%x: more than it takes: %v", c.Off, c.Len, r.base, got)
		}
	}
	return nil
}

// checkDurable: what returned nil is in the cells, with no Sync.
func checkDurable(r *rig) error {
	sector, unit := r.geo.EraseSize, r.geo.ProgramSize
	want, err := r.fresh(0, 3*sector)
	if err != nil {
		return err
	}
	if err := r.erase(sector, sector); err != nil {
		return err
	}
	part := r.random(unit)
	if err := r.program(part, sector+unit*((sector/unit)/2)); err != nil {
		return err
	}
	before := r.geo
	dev, err := r.raw.(PowerCycler).PowerCycle()
	if err != nil {
		return fmt.Errorf("power cycle: %w", err)
	}
	if err := r.attach(dev); err != nil {
		return err
	}
	if r.geo != before {
		return fmt.Errorf("the geometry was %+v and is %+v after a power cycle", before, r.geo)
	}
	if err := r.expect("programmed before a power cycle", 0, want[:sector]); err != nil {
		return err
	}
	if err := r.expect("programmed before a power cycle", 2*sector, want[2*sector:]); err != nil {
		return err
	}
	if err := r.expect("the last program before a power cycle", sector+unit*((sector/unit)/2), part); err != nil {
		return err
	}
	if sector > unit {
		if err := r.expectErased("erased before a power cycle", sector, unit); err != nil {
			return err
		}
		first := r.random(unit)
		if err := r.program(first, sector); err != nil {
			return fmt.Errorf("a unit that was erased before a power cycle: %w", err)
		}
		if err := r.expect("programmed after a power cycle", sector, first); err != nil {
			return err
		}
	}
	_, err = r.fresh(0, sector)
	return err
}

// unitState is what checkSequence knows of a program unit.
type unitState uint8

const (
	anything unitState = iota // after an error: erase before use
	erased
	programmed
)

// checkSequence: a few hundred random calls against an image in memory. Sectors
// on both sides must not notice.
func checkSequence(r *rig) error {
	sector, unit := r.geo.EraseSize, r.geo.ProgramSize
	n := min(r.geo.Size/sector-2, max(6, min(2*r.geo.BlockEraseSize/sector+2, 40)))
	from := (1 + r.below(r.geo.Size/sector-1-n)) * sector
	before, err := r.fresh(from-sector, sector)
	if err != nil {
		return err
	}
	behind, err := r.fresh(from+n*sector, sector)
	if err != nil {
		return err
	}
	s := &sequence{rig: r, from: from, image: make([]byte, n*sector), units: make([]unitState, n*sector/unit)}
	if err := s.erase(0, n); err != nil {
		return err
	}
	for step := 0; step < 400; step++ {
		if err := s.step(); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
	}
	if s.erases < 10 || s.programs < 20 || s.reads < 20 {
		return fmt.Errorf("%d erases, %d programs, %d reads: the sequence says too little", s.erases, s.programs, s.reads)
	}
	if err := s.compare(0, n*sector); err != nil {
		return err
	}
	if err := r.expect("the sector before a sequence of calls", from-sector, before); err != nil {
		return err
	}
	return r.expect("the sector behind a sequence of calls", from+n*sector, behind)
}

type sequence struct {
	*rig
	from                    uint32
	image                   []byte
	units                   []unitState
	erases, programs, reads int
}

func (s *sequence) step() error {
	size := uint32(len(s.image))
	sectors := size / s.geo.EraseSize
	switch k := s.rng.Intn(100); {
	case k < 15:
		first := s.below(sectors)
		return s.erase(first, 1+s.below(min(sectors-first, 4)))
	case k < 18:
		first := s.below(sectors)
		return s.erase(first, 1+s.below(sectors-first))
	case k < 60:
		unit := s.geo.ProgramSize
		first := s.below(size / unit)
		return s.program(first, 1+s.below(min(size/unit-first, 1+600/unit)))
	case k < 97:
		off := s.below(size)
		return s.compare(off, 1+s.below(min(size-off, 2000)))
	case k < 99:
		return s.dev.Sync()
	}
	c, ok := s.raw.(PowerCycler)
	if !ok {
		return nil
	}
	dev, err := c.PowerCycle()
	if err != nil {
		return fmt.Errorf("power cycle: %w", err)
	}
	return s.attach(dev)
}

func (s *sequence) erase(first, n uint32) error {
	off, length := first*s.geo.EraseSize, n*s.geo.EraseSize
	if err := s.rig.erase(s.from+off, length); err != nil {
		return err
	}
	s.erases++
	for i := off; i < off+length; i++ {
		s.image[i] = s.geo.ErasedByte
	}
	for u := off / s.geo.ProgramSize; u < (off+length)/s.geo.ProgramSize; u++ {
		s.units[u] = erased
	}
	return nil
}

func (s *sequence) program(first, n uint32) error {
	unit := s.geo.ProgramSize
	state := erased
	for _, u := range s.units[first : first+n] {
		if u == anything || u == programmed && s.driver {
			return nil
		}
		if u == programmed {
			state = programmed
		}
	}
	p := s.random(n * unit)
	for i := range p {
		// A power cycle may leave no trace of a unit that was programmed with erased
		// bytes, and the next program of it would then pass.
		if p[i] == s.geo.ErasedByte {
			p[i] = ^p[i]
		}
	}
	if state == programmed {
		if err := s.dev.Program(p, s.from+first*unit); err != flash.ErrNotBlank {
			return fmt.Errorf("Program(%d bytes, 0x%x) over a programmed unit: error is %v, want %v", len(p), s.from+first*unit, err, flash.ErrNotBlank)
		}
		for u := first; u < first+n; u++ {
			s.units[u] = anything
		}
		return nil
	}
	if err := s.rig.program(p, s.from+first*unit); err != nil {
		return err
	}
	s.programs++
	copy(s.image[first*unit:], p)
	for u := first; u < first+n; u++ {
		s.units[u] = programmed
	}
	return nil
}

// compare reads a range and looks at what is known of it.
func (s *sequence) compare(off, n uint32) error {
	got, err := s.read(s.from+off, n)
	if err != nil {
		return err
	}
	s.reads++
	for i, b := range got {
		at := off + uint32(i)
		state := s.units[at/s.geo.ProgramSize]
		if state == anything || state == erased && !s.geo.ErasedReadable {
			continue
		}
		if b != s.image[at] {
			return fmt.Errorf("0x%x reads as %02x, want %02x", s.from+at, b, s.image[at])
		}
	}
	return nil
}
