package flashtest

import (
	"bytes"
	"fmt"

	"github.com/runnel-fota/runnel/core/flash"
)

// checkGeometry: the numbers fit each other (newRig looked) and never change.
func checkGeometry(r *rig) error {
	if err := sane(r.geo); err != nil {
		return err
	}
	if _, err := r.fresh(0, r.geo.EraseSize); err != nil {
		return err
	}
	if g := r.raw.Geometry(); g != r.geo {
		return fmt.Errorf("the geometry was %+v and is %+v after a write", r.geo, g)
	}
	return nil
}

// checkProgramThenRead: lengths from one unit to whole sectors, over the borders
// of pages, sectors and blocks. What lies between two programs stays erased and can
// be programmed later.
func checkProgramThenRead(r *rig) error {
	unit, sector := r.geo.ProgramSize, r.geo.EraseSize
	window := min(4, max(3, (16384+sector-1)/sector)) * sector
	for _, base := range r.places(window) {
		if err := r.erase(base, window); err != nil {
			return err
		}
		want := make([]byte, window)
		var gaps []uint32
		at := uint32(0)
		for _, n := range []uint32{unit, 2 * unit, r.up(255), r.up(256), r.up(257), r.up(600), sector, unit, r.up(1000), r.up(3 * 256), window} {
			n = min(n, window-at)
			copy(want[at:], r.random(n))
			if err := r.program(want[at:at+n], base+at); err != nil {
				return err
			}
			if err := r.expect("just programmed", base+at, want[at:at+n]); err != nil {
				return err
			}
			if at += n; at == window {
				break
			}
			gaps = append(gaps, at)
			if at += unit; at == window {
				break
			}
		}
		from := uint32(0)
		for _, g := range gaps {
			if err := r.expect("before a gap", base+from, want[from:g]); err != nil {
				return err
			}
			if err := r.expectErased("between two programs", base+g, unit); err != nil {
				return err
			}
			from = g + unit
		}
		if err := r.expect("behind the gaps", base+from, want[from:at]); err != nil {
			return err
		}
		for _, g := range gaps {
			copy(want[g:], r.random(unit))
			if err := r.program(want[g:g+unit], base+g); err != nil {
				return err
			}
		}
		if err := r.expect("with the gaps filled", base, want[:at]); err != nil {
			return err
		}
	}
	return nil
}

// checkProgramAnyOrder: units of a sector in descending order, each alone.
func checkProgramAnyOrder(r *rig) error {
	unit := r.geo.ProgramSize
	n := min(r.geo.EraseSize, 64*unit)
	if err := r.erase(r.geo.EraseSize, r.geo.EraseSize); err != nil {
		return err
	}
	want := r.random(n)
	for at := n; at > 0; at -= unit {
		if err := r.program(want[at-unit:at], r.geo.EraseSize+at-unit); err != nil {
			return err
		}
	}
	return r.expect("programmed in descending order", r.geo.EraseSize, want)
}

// checkProgramTwice: a unit is refused until it is erased, whatever it holds and
// whatever is written, alone and as part of a longer program. Drivers of real chips
// may let it pass.
func checkProgramTwice(r *rig) error {
	if r.driver {
		return nil
	}
	unit := r.geo.ProgramSize
	blank := bytes.Repeat([]byte{r.geo.ErasedByte}, int(4*unit))
	data := r.random(4 * unit)
	for _, c := range []struct {
		what          string
		first, second []byte
		at            uint32 // of the second, in units
	}{
		{"other data", data, r.random(unit), 0},
		{"the same data", data, data[:unit], 0},
		{"erased bytes over data", data, blank[:unit], 0},
		{"data over erased bytes that were programmed", blank, data[:unit], 0},
		{"the last unit", data, r.random(unit), 3},
		{"a longer program that ends in it", data[:unit], data[:2*unit], 0},
	} {
		if 4*unit > r.geo.EraseSize {
			c.first, c.second, c.at = c.first[:unit], c.second[:unit], 0
		}
		if err := r.erase(0, r.geo.EraseSize); err != nil {
			return err
		}
		if err := r.program(c.first, 0); err != nil {
			return err
		}
		if err := r.dev.Program(c.second, c.at*unit); err != flash.ErrNotBlank {
			return fmt.Errorf("a unit programmed twice, %s: error is %v, want %v", c.what, err, flash.ErrNotBlank)
		}
		if uint32(len(c.second)) == unit {
			if err := r.expect("after a refused program, "+c.what, 0, c.first); err != nil {
				return err
			}
		}
	}
	_, err := r.fresh(0, r.geo.EraseSize)
	return err
}

// checkBitsOneWay: a second program of a unit, where the chip lets it pass, moves
// bits away from their erased value only. No plain text can tell on a chip that
// encrypts.
func checkBitsOneWay(r *rig) error {
	unit := r.geo.ProgramSize
	first, second := r.random(unit), r.random(unit)
	if err := r.erase(0, r.geo.EraseSize); err != nil {
		return err
	}
	if err := r.program(first, 0); err != nil {
		return err
	}
	err := r.dev.Program(second, 0)
	if err == flash.ErrNotBlank {
		return r.expect("after a refused program", 0, first)
	}
	if err != nil {
		return fmt.Errorf("a second program of a unit: %w", err)
	}
	if !r.geo.ErasedReadable {
		return nil
	}
	e := r.geo.ErasedByte
	want := make([]byte, unit)
	for i := range want {
		want[i] = (first[i] ^ e | second[i] ^ e) ^ e
	}
	return r.expect("after a second program", 0, want)
}

// checkBuffers: Program keeps and changes nothing of p; ReadAt's p is the
// caller's again as soon as the call has returned.
func checkBuffers(r *rig) error {
	sector := r.geo.EraseSize
	n := min(sector, r.up(600))
	if err := r.erase(0, 2*sector); err != nil {
		return err
	}
	want := r.random(n)
	p := append([]byte(nil), want...)
	if err := r.program(p, 0); err != nil {
		return err
	}
	if !bytes.Equal(p, want) {
		return fmt.Errorf("Program(%d bytes, 0) changed p", n)
	}
	got, err := r.read(0, n)
	if err != nil {
		return err
	}
	held := append([]byte(nil), got...)
	if err := r.program(r.random(r.geo.ProgramSize), sector); err != nil {
		return err
	}
	if !bytes.Equal(got, held) {
		return fmt.Errorf("the p of a finished ReadAt changed")
	}
	for i := range p {
		p[i] = ^p[i]
	}
	if err := r.expect("after the caller reused p", 0, want); err != nil {
		return err
	}
	if _, err := r.fresh(sector, sector); err != nil {
		return err
	}
	if err := r.dev.Sync(); err != nil {
		return fmt.Errorf("call of Sync: %w", err)
	}
	return r.expect("after the caller reused p, and another program", 0, want)
}

// checkReadAnywhere: any offset and length, over pages and sectors, and reading
// changes nothing.
func checkReadAnywhere(r *rig) error {
	window := 3 * r.geo.EraseSize
	for _, base := range r.places(window) {
		want, err := r.fresh(base, window)
		if err != nil {
			return err
		}
		for off := uint32(0); off < 20; off++ {
			for n := uint32(0); n <= 40; n++ {
				if err := r.expect("a short read", base+off, want[off:off+n]); err != nil {
					return err
				}
			}
		}
		for _, border := range []uint32{256, r.geo.EraseSize, 2 * r.geo.EraseSize, window} {
			for n := uint32(1); n <= 33; n++ {
				at := border - min(border, 1+n/2)
				if err := r.expect("a read over a border", base+at, want[at:min(at+n, window)]); err != nil {
					return err
				}
			}
		}
		for i := 0; i < 100; i++ {
			off := r.below(window)
			n := 1 + r.below(min(window-off, 3*r.geo.EraseSize/2))
			if err := r.expect("a read of any length", base+off, want[off:off+n]); err != nil {
				return err
			}
		}
		if err := r.expect("after many reads", base, want); err != nil {
			return err
		}
	}
	return nil
}

// checkRange: nothing outside is touched, and no sum of off and length that runs
// over the end of counting is taken for a small number.
func checkRange(r *rig) error {
	size, sector, unit := r.geo.Size, r.geo.EraseSize, r.geo.ProgramSize
	low, err := r.fresh(0, 2*sector)
	if err != nil {
		return err
	}
	high, err := r.fresh(size-sector, sector)
	if err != nil {
		return err
	}
	for _, c := range [][2]uint32{{size, 1}, {size - 1, 2}, {size + 1, 0}, {size + sector, 1}, {^uint32(0), 1}, {^uint32(7), 16}, {-sector, sector + 1}} {
		if err := r.refused("ReadAt", r.dev.ReadAt(make([]byte, c[1]), c[0]), c[0], c[1], 1); err != nil {
			return err
		}
	}
	for _, c := range [][2]uint32{{size, unit}, {size - unit, 2 * unit}, {size + unit, 0}, {-unit, unit}, {-unit, 2 * unit}, {-sector, 2 * sector}} {
		if err := r.refused("Program", r.dev.Program(make([]byte, c[1]), c[0]), c[0], c[1], unit); err != nil {
			return err
		}
	}
	for _, c := range [][2]uint32{{size, sector}, {size - sector, 2 * sector}, {0, size + sector}, {size + sector, 0}, {-sector, sector}, {-sector, 2 * sector}, {sector, -sector}, {sector, -sector + sector/2}} {
		if err := r.refused("Erase", r.dev.Erase(c[0], c[1]), c[0], c[1], sector); err != nil {
			return err
		}
	}
	if err := r.expect("after accesses that were refused", 0, low); err != nil {
		return err
	}
	if err := r.expect("after accesses that were refused", size-sector, high); err != nil {
		return err
	}
	// What is just inside works, after all these refusals too.
	if err := r.erase(size-sector, sector); err != nil {
		return err
	}
	last := r.random(unit)
	if err := r.program(last, size-unit); err != nil {
		return err
	}
	return r.expect("the last unit", size-unit, last)
}

// checkAlignment: nothing is rounded.
func checkAlignment(r *rig) error {
	sector, unit := r.geo.EraseSize, r.geo.ProgramSize
	want, err := r.fresh(0, 2*sector)
	if err != nil {
		return err
	}
	for _, c := range [][2]uint32{{1, sector}, {sector / 2, sector}, {0, sector / 2}, {0, sector + 1}, {unit, sector}, {sector - 1, 1}, {sector / 2, sector / 2}} {
		if c[0]%sector == 0 && c[1]%sector == 0 {
			continue // a sector of one unit
		}
		if err := r.refused("Erase", r.dev.Erase(c[0], c[1]), c[0], c[1], sector); err != nil {
			return err
		}
	}
	if err := r.expect("after erases that were refused", 0, want); err != nil {
		return err
	}
	if unit > 1 {
		if err := r.erase(0, sector); err != nil {
			return err
		}
		for _, c := range [][2]uint32{{1, unit}, {unit / 2, unit}, {0, unit - 1}, {0, unit + 1}, {0, 1}, {unit - 1, 1}, {unit / 2, unit / 2}} {
			if err := r.refused("Program", r.dev.Program(make([]byte, c[1]), c[0]), c[0], c[1], unit); err != nil {
				return err
			}
		}
		if err := r.expectErased("after programs that were refused", 0, sector); err != nil {
			return err
		}
		// The refused ones do not count as programmed.
		copy(want, r.random(unit))
		if err := r.program(want[:unit], 0); err != nil {
			return err
		}
		if err := r.expect("after programs that were refused", 0, want[:unit]); err != nil {
			return err
		}
	}
	_, err = r.fresh(0, 2*sector)
	return err
}

// checkZeroLength: a call of length 0 succeeds up to the very end and does nothing.
func checkZeroLength(r *rig) error {
	size, sector := r.geo.Size, r.geo.EraseSize
	want, err := r.fresh(0, 2*sector)
	if err != nil {
		return err
	}
	high, err := r.fresh(size-sector, sector)
	if err != nil {
		return err
	}
	for _, p := range [][]byte{nil, {}} {
		for _, off := range []uint32{0, sector, size - sector, size} {
			if err := r.dev.ReadAt(p, off); err != nil {
				return fmt.Errorf("ReadAt of nothing at 0x%x: %w", off, err)
			}
			if err := r.program(p, off); err != nil {
				return err
			}
			if err := r.erase(off, 0); err != nil {
				return err
			}
		}
		if err := r.dev.ReadAt(p, 1); err != nil {
			return fmt.Errorf("ReadAt of nothing at 1: %w", err)
		}
	}
	if err := r.expect("after calls of length 0", size-sector, high); err != nil {
		return err
	}
	return r.expect("after calls of length 0", 0, want)
}

// checkSync: it succeeds at any time and changes nothing.
func checkSync(r *rig) error {
	if err := r.dev.Sync(); err != nil {
		return fmt.Errorf("call of Sync on an untouched device: %w", err)
	}
	want, err := r.fresh(0, r.geo.EraseSize)
	if err != nil {
		return err
	}
	for i := 0; i < 2; i++ {
		if err := r.dev.Sync(); err != nil {
			return fmt.Errorf("call of Sync: %w", err)
		}
		if err := r.expect("after Sync", 0, want); err != nil {
			return err
		}
	}
	return nil
}
