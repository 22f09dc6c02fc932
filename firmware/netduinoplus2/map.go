//go:build tinygo

// Package netduinoplus2 is the map of the board's flash, a NOR chip that the host keeps
// behind the serial line, and its driver (docs/design/netduino.md).
package netduinoplus2

import "github.com/runnel-fota/runnel/core/flash"

// Where things are, bytes from the start of the chip.
const (
	Size     = 0x80000
	Sector   = 4096
	SlotSize = 0x20000
	Slot0    = 0x00000
	Slot1    = Slot0 + SlotSize
	Records  = 0x40000 // two sectors each
	State    = 0x42000
	Journal  = 0x44000
	Factory  = 0x46000 // one sector

	// Load is where an image is linked to run, in the chip's own flash, for either slot:
	// the vectors before it are the boot stage's.
	Load = 0x08000400
	// InfoAt is where in an image stand 16 bytes of version and a word that says what is
	// wrong with it (app/start.s).
	InfoAt = 32
)

// Slots are the places for images.
var Slots [2]flash.Area

// Area is length bytes of flash at off: within the map it can't fail.
func Area(off, length uint32) flash.Area {
	a, _ := flash.NewArea(Flash{}, off, length)
	return a
}

// Pair is the area of two sectors at off.
func Pair(off uint32) flash.Area { return Area(off, 2*Sector) }
