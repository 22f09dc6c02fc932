package flashtest

import (
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// ram is a correct device, with one fault where the test asks for it.
type ram struct {
	geo    flash.Geometry
	mem    []byte
	used   []bool
	noise  bool // erased bytes read as noise
	lax    bool // a driver: checks nothing, lets a unit be programmed twice
	fault  fault
	log    []Span
	disk   []byte // what a device with a buffer has written through
	kept   []byte // p of an earlier call
	keptAt uint32
	misuse bool // it was called wrongly once
}

var (
	_ flash.Device = (*ram)(nil)
	_ PowerCycler  = (*ram)(nil)
	_ EraseLogger  = (*ram)(nil)
)

func newRAM(g flash.Geometry) *ram {
	m := &ram{geo: g, mem: make([]byte, g.Size), used: make([]bool, g.Size), noise: !g.ErasedReadable}
	for i := range m.used {
		m.used[i] = true // a device comes with anything in it
		m.mem[i] = byte(i)
	}
	return m
}

// pad is what encryption lays over the byte at off.
func (m *ram) pad(off uint32) byte {
	if !m.noise {
		return 0
	}
	x := off*2654435761 + 12345
	return byte(x>>24 ^ x>>13)
}

func (m *ram) Geometry() flash.Geometry {
	if m.is(geometryChanges) && len(m.log) > 0 {
		g := m.geo
		g.BlockEraseSize = 0
		g.Size -= g.EraseSize
		return g
	}
	return m.geo
}

func (m *ram) check(off, n, unit uint32, what fault) error {
	if m.lax {
		return nil
	}
	sum := off + n
	var err error
	switch {
	case m.is(what): // this call is not checked at all
	case m.is(sumRunsOver) && sum <= m.geo.Size:
	case m.is(oneTooFar) && off <= m.geo.Size && n <= m.geo.Size-off+unit:
	case off > m.geo.Size || n > m.geo.Size-off:
		err = flash.ErrRange
	case m.is(refusesTheEnd) && n == 0 && off == m.geo.Size:
		err = flash.ErrRange
	case m.is(refusesNothing) && n == 0:
		err = flash.ErrAlign
	}
	if err == nil && !m.is(what) && (off%unit != 0 || n%unit != 0) {
		if err = flash.ErrAlign; m.is(rounds) {
			err = nil
		}
	}
	if err != nil {
		m.misuse = true
		if m.is(wrongError) {
			err = errors.New("bad argument")
		}
	}
	return err
}

func (m *ram) ReadAt(p []byte, off uint32) error {
	if err := m.check(off, uint32(len(p)), 1, readsUnchecked); err != nil {
		return err
	}
	if m.is(readsAligned) {
		off &^= 3
	}
	if m.is(readsToThePage) {
		p = p[:min(len(p), 512)]
	}
	if m.is(readsBeside) {
		p = p[:min(cap(p), len(p)+1)]
	}
	if m.is(readDisturbs) && off+7 < m.geo.Size {
		m.mem[off+7] ^= 1
	}
	for i := range p {
		at := (off + uint32(i)) % m.geo.Size
		p[i] = m.mem[at] ^ m.pad(at)
	}
	if m.is(keepsReadBuffer) {
		m.kept = p
	}
	return nil
}

func (m *ram) Program(p []byte, off uint32) error {
	unit := m.geo.ProgramSize
	if err := m.check(off, uint32(len(p)), unit, programsUnchecked); err != nil {
		return err
	}
	if m.is(sulks) && m.misuse {
		return flash.ErrProgram
	}
	n := uint32(len(p))
	for i := uint32(0); i < n; i++ {
		at := (off + i) % m.geo.Size
		if m.used[at] && !m.lax && m.fault != programsTwice {
			if m.is(programsBlankTwice) && m.mem[at] == m.geo.ErasedByte {
				continue
			}
			if m.is(refusesTooLate) {
				m.put(p[:1], at)
			}
			return flash.ErrNotBlank
		}
	}
	if m.is(keepsProgramBuffer) && n > 0 {
		if m.kept != nil {
			m.put(m.kept, m.keptAt)
		}
		m.kept, m.keptAt = p, off
	}
	m.put(p, off)
	if m.is(encryptsInPlace) {
		for i := range p {
			p[i] = ^p[i]
		}
	}
	if m.is(keepsReadBuffer) && len(m.kept) > 0 {
		m.kept[0]++
	}
	return nil
}

func (m *ram) put(p []byte, off uint32) {
	e, page := m.geo.ErasedByte, off/256*256
	n := uint32(len(p))
	if m.is(shortPrograms) && n > 256 {
		n = 256
	}
	for i, v := range p[:n] {
		at := (off + uint32(i)) % m.geo.Size
		if m.fault == wrapsInPage {
			at = page + (off+uint32(i))%256
		}
		v ^= m.pad(at)
		switch m.fault {
		case ors:
			m.mem[at] |= v
		case overwrites:
			m.mem[at] = v
		default:
			m.mem[at] = (m.mem[at] ^ e | v ^ e) ^ e
		}
		m.used[at] = true
	}
	if next := off + n; m.is(programsBeside) && n > 0 && next < m.geo.Size {
		m.mem[next] &= 0x7F
	}
	if m.is(fillsThePage) && n > 0 {
		for at := off + n; at%256 != 0; at++ {
			m.used[at] = true
		}
	}
}

func (m *ram) Erase(off, length uint32) error {
	g := m.geo
	if err := m.check(off, length, g.EraseSize, erasesUnchecked); err != nil {
		return err
	}
	if m.is(rounds) {
		length += off % g.EraseSize
		off -= off % g.EraseSize
		length = (length + g.EraseSize - 1) / g.EraseSize * g.EraseSize
	}
	if m.is(descends) {
		for end := off + length; end > off; end -= g.EraseSize {
			m.eraseUnit(end-g.EraseSize, g.EraseSize)
		}
		return nil
	}
	for end := off + length; off != end; {
		n := g.EraseSize
		if b := g.BlockEraseSize; b != 0 && off%b == 0 && !m.is(neverByBlock) {
			if end-off >= b || m.is(blockTooMuch) && end-off > b/2 {
				n = b
			}
		}
		m.eraseUnit(off, n)
		if off += n; off > end {
			break
		}
	}
	return nil
}

func (m *ram) eraseUnit(off, n uint32) {
	m.log = append(m.log, Span{off, n})
	end := off + n
	switch {
	case m.is(erasesTooMuch):
		end++
	case m.is(erasesTooLittle):
		end--
	case m.is(erasesNeighbour):
		end += m.geo.EraseSize
	case m.is(blockErasesSector) && n > m.geo.EraseSize:
		end = off + m.geo.EraseSize
	}
	value := m.geo.ErasedByte
	if m.is(erasesToZero) {
		value = ^value
	}
	for at := off; at < end; at++ {
		i := at % m.geo.Size
		m.mem[i], m.used[i] = value, m.fault == keepsUsed && at%2 == 0
	}
	if m.is(marksOnly) {
		for at := off; at < end; at++ {
			m.mem[at%m.geo.Size] = byte(at)
		}
	}
}

func (m *ram) Sync() error {
	switch {
	case m.is(syncFails):
		return flash.ErrProgram
	case m.is(syncSpoils):
		m.mem[3] ^= 0x10
	}
	m.disk = append(m.disk[:0], m.mem...)
	return nil
}

func (m *ram) PowerCycle() (flash.Device, error) {
	c := *m
	c.mem, c.used = append([]byte(nil), m.mem...), append([]bool(nil), m.used...)
	if m.is(buffers) && m.disk != nil {
		copy(c.mem, m.disk)
	} else if m.is(buffers) {
		clear(c.mem)
	}
	if m.is(eraseUndone) {
		for i, u := range c.used {
			if !u {
				c.mem[i] = 0x42
			}
		}
	}
	return &c, nil
}

func (m *ram) EraseLog() []Span {
	l := m.log
	m.log = nil
	return l
}

// window is an Area with the optional powers of its chip.
type window struct {
	*flash.Area
	chip *ram
	off  uint32
}

func newWindow(t testing.TB, chip *ram, off, n uint32) *window {
	t.Helper()
	a, err := flash.NewArea(chip, off, n)
	if err != nil {
		t.Fatal(err)
	}
	return &window{&a, chip, off}
}

func (w *window) EraseLog() []Span { return w.chip.EraseLog() }

func (w *window) PowerCycle() (flash.Device, error) {
	d, err := w.chip.PowerCycle()
	if err != nil {
		return nil, err
	}
	a, err := flash.NewArea(d, w.off, w.Size())
	return &window{&a, d.(*ram), w.off}, err
}
