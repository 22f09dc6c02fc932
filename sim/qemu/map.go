package qemu

import (
	"github.com/runnel-fota/runnel/core/flash"
)

// Map is where things are in a board's flash, bytes from its start.
type Map struct {
	Slots                            [2]uint32
	SlotSize                         uint32
	Load                             [2]uint32 // address that an image of the slot is linked to
	Records, State, Journal, Factory uint32    // two sectors each, the last one
	Sector                           uint32
}

// area is a part of a chip; within the map it can't fail.
func (m *Map) area(d flash.Device, off, size uint32) *flash.Area {
	a, err := flash.NewArea(d, off, size)
	if err != nil {
		panic(err)
	}
	return &a
}
