//go:build tinygo

package nrf51

import (
	"unsafe"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/firmware/chip"
)

func shared() *chip.Handover { return (*chip.Handover)(unsafe.Pointer(uintptr(0x20003FE0))) }

// TakeResetReason finds out why the chip started, once, in the boot stage, and
// leaves it for the image.
func TakeResetReason() {
	shared().Take(ofPower(reg(power + 0x400).Get()))
	reg(power + 0x400).Set(0xFFFFFFFF) // the bits add up until they are cleared
}

// ofPower reads RESETREAS (12.1.5). No bit is a loss of power, or a brown-out: the
// chip does not tell them apart.
func ofPower(bits uint32) boot.ResetReason {
	switch {
	case bits == 0:
		return boot.ResetPowerOn
	case bits&(1<<1) != 0:
		return boot.ResetWatchdog
	case bits&(1<<3) != 0: // lock-up
		return boot.ResetPanic
	case bits&(1<<0) != 0:
		return boot.ResetExternal
	case bits&(1<<16) != 0:
		return boot.ResetDeepSleep
	case bits&(1<<2) != 0:
		return boot.ResetSoftware
	}
	return boot.ResetUnknown
}

// ResetReason is why the chip started.
func ResetReason() boot.ResetReason { return shared().Reason() }

// Reset starts the chip anew, as the updater asked.
func Reset() {
	shared().Asked()
	reg(scb + 0x0C).Set(0x05FA0004)
	for {
	}
}
