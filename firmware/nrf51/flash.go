//go:build tinygo

package nrf51

import (
	"runtime/volatile"
	"unsafe"

	"github.com/runnel-fota/runnel/core/flash"
)

// Flash is the chip's own. The CPU stands still while it works: 21 ms for a page,
// 46 us for a word (Product Specification 3.1, 8.21). Areas check ranges.
type Flash struct{}

var _ flash.Device = Flash{}

// Size and Page of a 256 KiB chip, bytes.
const (
	Size = 256 * 1024
	Page = 1024
)

// Geometry of the chip.
func (Flash) Geometry() flash.Geometry {
	return flash.Geometry{Size: Size, EraseSize: Page, ProgramSize: 4, ErasedByte: 0xFF, ErasedReadable: true}
}

// ReadAt copies from where the flash lies in the address space.
func (Flash) ReadAt(p []byte, off uint32) error {
	copy(p, unsafe.Slice((*byte)(unsafe.Pointer(uintptr(off))), len(p)))
	return nil
}

// Erase erases page by page.
func (Flash) Erase(off, length uint32) error {
	reg(nvmc + 0x504).Set(2) // CONFIG: erase
	for end := off + length; off < end; off += Page {
		erasePage(off)
	}
	reg(nvmc + 0x504).Set(0)
	return nil
}

// Program writes word by word.
func (Flash) Program(p []byte, off uint32) error {
	reg(nvmc + 0x504).Set(1) // CONFIG: write
	for i := 0; i+3 < len(p); i += 4 {
		w := uint32(p[i]) | uint32(p[i+1])<<8 | uint32(p[i+2])<<16 | uint32(p[i+3])<<24
		programWord(uintptr(off)+uintptr(i), w)
	}
	reg(nvmc + 0x504).Set(0)
	return nil
}

// Sync has nothing to do: a call returns when the chip is done.
func (Flash) Sync() error { return nil }

// erasePage and programWord are symbols of their own: a power cut in the emulator
// stops at them.
//
//go:noinline
//export flash_erase_page
func erasePage(off uint32) {
	reg(nvmc + 0x508).Set(off) // ERASEPAGE
	for reg(nvmc+0x400).Get() == 0 {
	}
}

//go:noinline
//export flash_program_word
func programWord(addr uintptr, w uint32) {
	(*volatile.Register32)(unsafe.Pointer(addr)).Set(w)
	for reg(nvmc+0x400).Get() == 0 { // READY
	}
}
