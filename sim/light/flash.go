package light

import (
	"github.com/runnel-fota/runnel/core/flash"
)

// Where partitions lie, as in sim/board's table of a 4 MiB board.
const (
	otadataAt = 0xC000 // two sectors each
	stateAt   = 0xE000
	journalAt = 0x3D0000
	slot0At   = 0x10000
	slotBytes = 0x1E0000
	slots     = 2

	erased  = 0xFF
	program = 16 // bytes of a unit: an encryption unit's, as board.Layout pads to
)

// kept is a board's flash while nobody looks at it. The two sectors of its state are
// like no other board's: they are its own, and shorter than any number of a library
// would be worth.
type kept struct {
	blocks [blocks]uint32
	state  [2]string
}

// chip is the flash of the board that a Bench works on: a strict NOR chip, which
// programs erased units only. Sectors that are being written lie open; put back, they
// are in the library.
type chip struct {
	lib   *Library
	from  *kept
	refs  [flashBytes / sectorBytes]uint32
	open  map[uint32]*[sectorBytes]byte
	free  []*[sectorBytes]byte
	dirty [blocks]bool
}

var _ flash.Device = (*chip)(nil)

func newChip(l *Library) *chip { return &chip{lib: l, open: map[uint32]*[sectorBytes]byte{}} }

// load makes it the flash of a board.
func (c *chip) load(k *kept) {
	c.from = k
	c.lib.unpack(&k.blocks, &c.refs)
}

// settle puts back what is open.
func (c *chip) settle() {
	for s := range c.open {
		c.close(s)
	}
	for i := range c.dirty {
		if c.dirty[i] {
			c.dirty[i] = false
			c.from.blocks[i] = c.lib.pack((*block)(c.refs[i*perBlock:]))
		}
	}
}

func private(sector uint32) (int, bool) {
	i := int(sector) - stateAt/sectorBytes
	return i, i == 0 || i == 1
}

func (c *chip) close(s uint32) {
	p := c.open[s]
	delete(c.open, s)
	c.free = append(c.free, p)
	if i, ok := private(s); ok {
		c.from.state[i] = string(trim(p[:]))
		return
	}
	c.refs[s], c.dirty[s/perBlock] = c.lib.sector(p[:]), true
}

func (c *chip) content(s uint32) string {
	if i, ok := private(s); ok {
		return c.from.state[i]
	}
	return c.lib.content(c.refs[s])
}

// writable opens a sector.
func (c *chip) writable(s uint32) *[sectorBytes]byte {
	if p := c.open[s]; p != nil {
		return p
	}
	var p *[sectorBytes]byte
	if n := len(c.free); n > 0 {
		p, c.free = c.free[n-1], c.free[:n-1]
	} else {
		p = new([sectorBytes]byte)
	}
	fill(p[:], c.content(s))
	c.open[s] = p
	return p
}

// Geometry is flash.Device's.
func (c *chip) Geometry() flash.Geometry {
	return flash.Geometry{Size: flashBytes, EraseSize: sectorBytes, BlockEraseSize: blockBytes, ProgramSize: program, ErasedByte: erased, ErasedReadable: true}
}

// ReadAt is flash.Device's.
func (c *chip) ReadAt(p []byte, off uint32) error {
	if off > flashBytes || uint32(len(p)) > flashBytes-off {
		return flash.ErrRange
	}
	for len(p) > 0 {
		s, at := off/sectorBytes, off%sectorBytes
		n := min(uint32(len(p)), sectorBytes-at)
		if o := c.open[s]; o != nil {
			copy(p[:n], o[at:])
		} else {
			t := c.content(s)
			fill(p[:n], t[min(int(at), len(t)):])
		}
		p, off = p[n:], off+n
	}
	return nil
}

// Program is flash.Device's.
func (c *chip) Program(p []byte, off uint32) error {
	switch {
	case off > flashBytes || uint32(len(p)) > flashBytes-off:
		return flash.ErrRange
	case off%program != 0 || len(p)%program != 0:
		return flash.ErrAlign
	}
	for i := off; i < off+uint32(len(p)); {
		s, at := i/sectorBytes, i%sectorBytes
		n := min(off+uint32(len(p))-i, sectorBytes-at)
		to := c.writable(s)[at : at+n]
		if len(trim(to)) > 0 {
			return flash.ErrNotBlank
		}
		copy(to, p[i-off:])
		if at+n == sectorBytes {
			c.close(s) // it is full
		}
		i += n
	}
	return nil
}

// Erase is flash.Device's.
func (c *chip) Erase(off, length uint32) error {
	switch {
	case off > flashBytes || length > flashBytes-off:
		return flash.ErrRange
	case off%sectorBytes != 0 || length%sectorBytes != 0:
		return flash.ErrAlign
	}
	for s := off / sectorBytes; s < (off+length)/sectorBytes; s++ {
		if p := c.open[s]; p != nil {
			delete(c.open, s)
			c.free = append(c.free, p)
		}
		if i, ok := private(s); ok {
			c.from.state[i] = ""
		} else if c.refs[s] != 0 {
			c.refs[s], c.dirty[s/perBlock] = 0, true
		}
	}
	return nil
}

// Sync is flash.Device's.
func (c *chip) Sync() error { return nil }
