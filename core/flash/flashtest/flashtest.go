// Package flashtest checks a flash.Device against the contract in core/flash: a
// new driver, or a model, runs it in three lines. It rests no verdict on a blank
// read where Geometry.ErasedReadable is false.
//
// It is for tests on a host: it allocates, prints, and erases the whole device.
// docs/design/flash.md says what each sentence of the contract is for.
package flashtest

import (
	"bytes"
	"fmt"
	"math/rand"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// PowerCycler is an optional power of a device under test. PowerCycle takes the
// power away without a Sync and returns the chip as it is afterwards; the device
// itself is not used again.
type PowerCycler interface {
	PowerCycle() (flash.Device, error)
}

// EraseLogger is an optional power of a device under test. EraseLog returns the
// single erases that the chip did since the last call, in order, with offsets of
// the chip. A device that does not start at the chip's start says where, as Area
// does: Base() uint32.
type EraseLogger interface {
	EraseLog() []Span
}

// Span is a range of the chip, in bytes.
type Span struct{ Off, Len uint32 }

// Run checks a device that refuses all misuse itself, as models and areas do. open
// is called for each check; what the device holds does not matter and is lost. The
// device has at least four sectors.
func Run(t *testing.T, open func(t testing.TB) flash.Device) {
	t.Helper()
	run(t, open, false)
}

// RunDriver checks a device that relies on Area for range and alignment, and may
// let a unit be programmed twice: the driver of a real chip. It is used through an
// Area only, as the updater does.
func RunDriver(t *testing.T, open func(t testing.TB) flash.Device) {
	t.Helper()
	run(t, open, true)
}

const seed = 1 // of data and sequences; a failure prints it

func run(t *testing.T, open func(t testing.TB) flash.Device, driver bool) {
	t.Helper()
	for _, c := range checks {
		t.Run(c.name, func(t *testing.T) {
			dev := open(t)
			if c.power != nil && !c.power(dev) {
				t.Log("not checked: the device lacks the optional power for it")
				return
			}
			r, err := newRig(dev, driver)
			if err == nil {
				err = c.run(r)
			}
			if err != nil {
				t.Errorf("%v (%+v, seed %d)", err, dev.Geometry(), seed)
			}
		})
	}
}

// check is one group of sentences of the contract. It returns what is wrong, so
// that the tests of this package can show that it does find something.
type check struct {
	name  string
	power func(flash.Device) bool // the device can be checked; nil: every device
	run   func(*rig) error
}

var checks = []check{
	{"Geometry", nil, checkGeometry},
	{"ProgramThenRead", nil, checkProgramThenRead},
	{"ProgramAnyOrder", nil, checkProgramAnyOrder},
	{"ProgramTwice", nil, checkProgramTwice},
	{"BitsOneWay", nil, checkBitsOneWay},
	{"Buffers", nil, checkBuffers},
	{"ReadAnywhere", nil, checkReadAnywhere},
	{"EraseSector", nil, checkEraseSector},
	{"EraseRanges", nil, checkEraseRanges},
	{"EraseOrder", canLog, checkEraseOrder},
	{"Range", nil, checkRange},
	{"Alignment", nil, checkAlignment},
	{"ZeroLength", nil, checkZeroLength},
	{"Sync", nil, checkSync},
	{"Durable", canCycle, checkDurable},
	{"Sequence", nil, checkSequence},
}

func canLog(d flash.Device) bool   { _, ok := d.(EraseLogger); return ok }
func canCycle(d flash.Device) bool { _, ok := d.(PowerCycler); return ok }

// rig is a device under test and what the checks need around it.
type rig struct {
	dev    flash.Device // all calls go through it
	raw    flash.Device // what open returned
	geo    flash.Geometry
	base   uint32 // of dev on its chip
	driver bool
	rng    *rand.Rand
}

func newRig(dev flash.Device, driver bool) (*rig, error) {
	r := &rig{driver: driver, rng: rand.New(rand.NewSource(seed))}
	return r, r.attach(dev)
}

func (r *rig) attach(dev flash.Device) error {
	r.dev, r.raw, r.geo = dev, dev, dev.Geometry()
	if err := sane(r.geo); err != nil {
		return err
	}
	if b, ok := dev.(interface{ Base() uint32 }); ok {
		r.base = b.Base()
	}
	if r.driver {
		a, err := flash.NewArea(dev, 0, r.geo.Size)
		if err != nil {
			return fmt.Errorf("no Area of the whole device: %w", err)
		}
		r.dev = &a
	}
	return nil
}

// sane comes before everything else: the checks divide by these numbers.
func sane(g flash.Geometry) error {
	switch {
	case g.ProgramSize < 1 || g.ProgramSize > 256:
		return fmt.Errorf("ProgramSize %d is not 1 to 256", g.ProgramSize)
	case g.EraseSize == 0 || g.EraseSize%g.ProgramSize != 0:
		return fmt.Errorf("EraseSize %d is not a multiple of ProgramSize %d", g.EraseSize, g.ProgramSize)
	case g.BlockEraseSize != 0 && (g.BlockEraseSize < g.EraseSize || g.BlockEraseSize%g.EraseSize != 0):
		return fmt.Errorf("BlockEraseSize %d is neither 0 nor a multiple of EraseSize %d", g.BlockEraseSize, g.EraseSize)
	case g.Size%g.EraseSize != 0:
		return fmt.Errorf("size %d is not a multiple of EraseSize %d", g.Size, g.EraseSize)
	case g.Size/g.EraseSize < 4:
		return fmt.Errorf("%d sectors: the checks need four", g.Size/g.EraseSize)
	}
	return nil
}

func (r *rig) random(n uint32) []byte {
	p := make([]byte, n)
	r.rng.Read(p)
	return p
}

// below is a random number from 0 to n-1.
func (r *rig) below(n uint32) uint32 { return uint32(r.rng.Int63n(int64(n))) }

// up rounds n up to whole program units.
func (r *rig) up(n uint32) uint32 {
	return (n + r.geo.ProgramSize - 1) / r.geo.ProgramSize * r.geo.ProgramSize
}

func (r *rig) erase(off, n uint32) error {
	if err := r.dev.Erase(off, n); err != nil {
		return fmt.Errorf("Erase(0x%x, 0x%x): %w", off, n, err)
	}
	return nil
}

func (r *rig) program(p []byte, off uint32) error {
	if err := r.dev.Program(p, off); err != nil {
		return fmt.Errorf("Program(%d bytes, 0x%x): %w", len(p), off, err)
	}
	return nil
}

// read also looks that nothing beside p is written, neither before nor behind it,
// where p's capacity would let it.
func (r *rig) read(off, n uint32) ([]byte, error) {
	const guard = 16
	buf := bytes.Repeat([]byte{0xA5}, int(n)+2*guard)
	p := buf[guard : guard+n]
	if err := r.dev.ReadAt(p, off); err != nil {
		return nil, fmt.Errorf("ReadAt(%d bytes, 0x%x): %w", n, off, err)
	}
	for i := 0; i < guard; i++ {
		if buf[i] != 0xA5 || buf[guard+int(n)+i] != 0xA5 {
			return nil, fmt.Errorf("ReadAt(%d bytes, 0x%x) wrote beside p", n, off)
		}
	}
	return p, nil
}

func (r *rig) expect(what string, off uint32, want []byte) error {
	got, err := r.read(off, uint32(len(want)))
	if err != nil || bytes.Equal(got, want) {
		return err
	}
	for i := range want {
		if got[i] != want[i] {
			return fmt.Errorf("%s: 0x%x reads as %02x, want %02x", what, off+uint32(i), got[i], want[i])
		}
	}
	return nil
}

// expectErased can only look where erased bytes can be read; elsewhere the checks
// find out by programming.
func (r *rig) expectErased(what string, off, n uint32) error {
	if !r.geo.ErasedReadable {
		return nil
	}
	return r.expect(what, off, bytes.Repeat([]byte{r.geo.ErasedByte}, int(n)))
}

// fresh erases whole sectors and fills them with random data.
func (r *rig) fresh(off, n uint32) ([]byte, error) {
	p := r.random(n)
	if err := r.erase(off, n); err != nil {
		return nil, err
	}
	if err := r.program(p, off); err != nil {
		return nil, err
	}
	return p, r.expect("after a program of whole sectors", off, p)
}

// places are where a window of n bytes is worth a look: at both ends, and over the
// border between two blocks of the chip.
func (r *rig) places(n uint32) []uint32 {
	list := []uint32{0}
	if r.geo.Size > n {
		list = append(list, r.geo.Size-n)
	}
	if b, first := r.geo.BlockEraseSize, r.firstBlock(); b != 0 {
		for _, border := range []uint32{first, first + b} {
			at := border - n/2/r.geo.EraseSize*r.geo.EraseSize
			if border != 0 && border < r.geo.Size && at < r.geo.Size && r.geo.Size-at >= n {
				list = append(list, at)
			}
		}
	}
	return list
}

// firstBlock is where the first block of the chip begins in the device.
func (r *rig) firstBlock() uint32 {
	b := r.geo.BlockEraseSize
	if b == 0 {
		return 0
	}
	return (b - r.base%b) % b
}

// refused wants the error that names the misuse: one of them, where the call is
// wrong in two ways.
func (r *rig) refused(what string, err error, off, n, unit uint32) error {
	outside := off > r.geo.Size || n > r.geo.Size-off
	unaligned := off%unit != 0 || n%unit != 0
	if outside && err == flash.ErrRange || unaligned && err == flash.ErrAlign {
		return nil
	}
	want := flash.ErrRange
	if !outside {
		want = flash.ErrAlign
	}
	return fmt.Errorf("%s(0x%x, 0x%x): error is %v, want %v", what, off, n, err, want)
}
