package flash

// Area is a bounded window on a Device: a partition, a slot, a journal. It is a
// Device itself, with offsets counted from its start, and the one place where
// range and alignment are checked (ErrRange, ErrAlign), so that a driver need
// not. The zero Area has size 0 and refuses every access; it has no chip whose geometry
// could be asked for: look at its size first.
type Area struct {
	dev        Device
	base, size uint32 // bytes; what the chip is like, it is asked each time: an updater holds five areas
}

var _ Device = (*Area)(nil)

// NewArea returns the window of length bytes at off of dev. off and length must
// be multiples of the device's EraseSize. A window on an Area is one on its chip,
// so that Base and EraseUnit count from where the chip's blocks do.
func NewArea(dev Device, off, length uint32) (Area, error) {
	if a, ok := dev.(*Area); ok {
		return a.Sub(off, length)
	}
	return window(dev, dev.Geometry(), 0, off, length)
}

// Sub returns the window of length bytes at off of a.
func (a *Area) Sub(off, length uint32) (Area, error) {
	if a.dev == nil {
		return Area{}, ErrRange
	}
	return window(a.dev, a.Geometry(), a.base, off, length)
}

// window is length bytes at off of what g describes, which starts at base of dev.
func window(dev Device, g Geometry, base, off, length uint32) (Area, error) {
	if off > g.Size || length > g.Size-off {
		return Area{}, ErrRange
	}
	// A driver that leaves a size at 0 is refused here, not by a division later.
	if g.EraseSize == 0 || g.ProgramSize == 0 || off%g.EraseSize != 0 || length%g.EraseSize != 0 {
		return Area{}, ErrAlign
	}
	return Area{dev: dev, base: base + off, size: length}, nil
}

// Base is where the area starts on its chip, in bytes.
func (a *Area) Base() uint32 { return a.base }

// Size of the area in bytes.
func (a *Area) Size() uint32 { return a.size }

// Geometry is the chip's, with the area's size.
func (a *Area) Geometry() Geometry {
	g := a.dev.Geometry()
	g.Size = a.size
	return g
}

// EraseSize is Geometry's: one word, where that is six.
//
//go:noinline
func (a *Area) EraseSize() uint32 {
	return a.dev.Geometry().EraseSize
}

// ProgramSize is Geometry's.
//
//go:noinline
func (a *Area) ProgramSize() uint32 {
	return a.dev.Geometry().ProgramSize
}

// Blank makes p what erased flash reads as.
//
//go:noinline
func (a *Area) Blank(p []byte) {
	b := a.Geometry().ErasedByte
	for i := range p {
		p[i] = b
	}
}

// ReadAt fills p from off.
func (a *Area) ReadAt(p []byte, off uint32) error {
	if err := a.check(uint32(len(p)), off); err != nil {
		return err
	}
	return a.dev.ReadAt(p, a.base+off)
}

// Program writes p at off; both are multiples of ProgramSize.
func (a *Area) Program(p []byte, off uint32) error {
	if err := a.check(uint32(len(p)), off); err != nil {
		return err
	}
	if unit := a.ProgramSize(); off%unit != 0 || uint32(len(p))%unit != 0 {
		return ErrAlign
	}
	return a.dev.Program(p, a.base+off)
}

// Erase erases length bytes at off; both are multiples of EraseSize.
func (a *Area) Erase(off, length uint32) error {
	if err := a.check(length, off); err != nil {
		return err
	}
	if sector := a.EraseSize(); off%sector != 0 || length%sector != 0 {
		return ErrAlign
	}
	return a.dev.Erase(a.base+off, length)
}

// Sync flushes the device's own buffer, if it has one.
func (a *Area) Sync() error {
	if a.dev == nil {
		return ErrRange
	}
	return a.dev.Sync()
}

// EraseUnit is the length in bytes of the largest single erase that starts at
// off and ends at or before limit: a block where one is aligned on the chip and
// fits, else a sector; 0 where not even a sector fits.
func (a *Area) EraseUnit(off, limit uint32) uint32 {
	if limit > a.size || off >= limit {
		return 0
	}
	g := a.dev.Geometry()
	if b := g.BlockEraseSize; b != 0 && (a.base+off)%b == 0 && limit-off >= b {
		return b
	}
	if limit-off >= g.EraseSize {
		return g.EraseSize
	}
	return 0
}

func (a *Area) check(n, off uint32) error {
	if a.dev == nil || off > a.size || n > a.size-off {
		return ErrRange
	}
	return nil
}
