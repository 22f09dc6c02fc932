//go:build tinygo

// Package microbit is the map of the board's flash (docs/design/microbit.md). The
// linker scripts beside it say the same of the programs.
package microbit

import (
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/firmware/nrf51"
)

// Where things are, bytes from the start of flash.
const (
	SlotSize = 0x1E000
	Slot0    = 0x02000
	Slot1    = Slot0 + SlotSize
	Records  = 0x3E000 // two pages each
	State    = 0x3E800
	Journal  = 0x3F000
	Factory  = 0x3F800 // one page

	PinTX, PinRX = 24, 25 // of the chip on the board that does USB
)

// Slots are the places for images.
var Slots [2]flash.Area

var chip nrf51.Flash

// Area is length bytes of flash at off: within the map it can't fail.
func Area(off, length uint32) flash.Area {
	a, _ := flash.NewArea(chip, off, length)
	return a
}

// Open makes the Slots.
func Open() {
	Slots[0], Slots[1] = Area(Slot0, SlotSize), Area(Slot1, SlotSize)
}

// Pair is the area of two pages at off.
func Pair(off uint32) flash.Area { return Area(off, 2*nrf51.Page) }
