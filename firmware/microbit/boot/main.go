//go:build tinygo

// Command boot is the boot stage: it starts the watchdog, decides which slot starts
// and enters its image. It is written once, in the factory, and no update touches
// it.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/firmware/microbit"
	"github.com/runnel-fota/runnel/firmware/nrf51"
)

// runImage sets the stack pointer and jumps (start.s).
//
//export run_image
func runImage(stack, entry uintptr)

var (
	records flash.Area
	headers [2]boot.RawHeader
	checked [2]uint8 // 0: not yet, 1: good, 2: not
	buf     [128]byte
)

func main() {
	nrf51.TakeResetReason()
	nrf51.Watch()
	microbit.Open()
	records = microbit.Pair(microbit.Records)
	if s := boot.Start(&records, bootable, buf[:]); s != boot.NoSlot && bootable(s) {
		runImage(uintptr(headers[s].Stack), uintptr(headers[s].Entry))
	}
	for {
		// Nothing starts. The watchdog resets, and a marginal bit may read otherwise.
	}
}

// bootable checks a slot's image, once.
func bootable(s boot.Slot) bool {
	if int(s) >= len(headers) {
		return false
	}
	if checked[s] == 0 {
		checked[s] = 2
		a := &microbit.Slots[s]
		if boot.VerifyRaw(a, a.Base(), &headers[s], buf[:]) == nil {
			checked[s] = 1
		}
	}
	return checked[s] == 1
}
