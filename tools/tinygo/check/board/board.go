// Package board is what the check programs run on: a few KiB of RAM that
// behaves as NOR flash, and inputs and outputs that the compiler can't see
// through. The programs are linked, never judged by what they compute: they
// have to reach the exported API of a core package, so that the linker meets
// every allocation that a device could meet.
package board

import "github.com/runnel-fota/runnel/core/flash"

const (
	sectorBytes = 1024 // as on the nRF51, so that several fit
	sectors     = 6
)

// NOR is a flash.Device in RAM. The zero value is a chip that was never erased.
type NOR struct {
	cells [sectors * sectorBytes]byte
}

var _ flash.Device = (*NOR)(nil)

// Geometry is that of a small chip without block erase.
func (n *NOR) Geometry() flash.Geometry {
	return flash.Geometry{
		Size:           uint32(len(n.cells)),
		EraseSize:      sectorBytes,
		ProgramSize:    1,
		ErasedByte:     0xFF,
		ErasedReadable: true,
	}
}

// ReadAt copies cells into p.
func (n *NOR) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(n.cells)) {
		return flash.ErrRange
	}
	copy(p, n.cells[off:])
	return nil
}

// Program clears bits.
func (n *NOR) Program(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(n.cells)) {
		return flash.ErrRange
	}
	for i, b := range p {
		n.cells[off+uint32(i)] &= b
	}
	return nil
}

// Erase sets cells.
func (n *NOR) Erase(off, length uint32) error {
	if uint64(off)+uint64(length) > uint64(len(n.cells)) {
		return flash.ErrRange
	}
	for i := off; i < off+length; i++ {
		n.cells[i] = 0xFF
	}
	return nil
}

// Sync has nothing to flush.
func (n *NOR) Sync() error { return nil }

// DMA is a second driver, which holds its caller's buffer while it works, as one
// that feeds a DMA controller does. With one driver only the compiler would know
// every callee, and would keep on the stack what moves to the heap elsewhere.
type DMA struct {
	NOR    *NOR
	buffer []byte
}

var _ flash.Device = (*DMA)(nil)

// Geometry is the chip's.
func (d *DMA) Geometry() flash.Geometry { return d.NOR.Geometry() }

// ReadAt reads into p and holds it until the next call.
func (d *DMA) ReadAt(p []byte, off uint32) error {
	d.buffer = p
	return d.NOR.ReadAt(d.buffer, off)
}

// Program writes p and holds it until the next call.
func (d *DMA) Program(p []byte, off uint32) error {
	d.buffer = p
	return d.NOR.Program(d.buffer, off)
}

// Erase is the chip's.
func (d *DMA) Erase(off, length uint32) error { return d.NOR.Erase(off, length) }

// Sync lets the buffer go.
func (d *DMA) Sync() error {
	Bytes(d.buffer)
	d.buffer = nil
	return nil
}

var (
	chip NOR
	dma  = DMA{NOR: &chip}
)

// Flash is one of the two drivers of the one chip; which is not known at build time.
func Flash() flash.Device {
	if Bool() {
		return &dma
	}
	return &chip
}

// Fill overwrites p with bytes that are not known at build time.
func Fill(p []byte) {
	for i := range p {
		p[i] = byte(Input())
	}
}

// Bool is a condition that is not known at build time.
func Bool() bool { return Input()&1 != 0 }

// Err makes an error count as used.
func Err(err error) {
	if err != nil {
		Output(1)
	}
}

// Bytes makes every byte of p count as used.
func Bytes(p []byte) {
	for _, b := range p {
		Output(uint32(b))
	}
}

// Text makes a string count as used.
func Text(s string) {
	for i := 0; i < len(s); i++ {
		Output(uint32(s[i]))
	}
}

// Flag makes a condition count as used.
func Flag(b bool) {
	if b {
		Output(2)
	}
}
