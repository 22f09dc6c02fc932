//go:build tinygo

package nrf51

import (
	"runtime/volatile"
	"unsafe"

	"github.com/runnel-fota/runnel/core/boot"
)

// handover is the last 32 bytes of RAM, which no program's linker script gives away:
// what the boot stage and the images tell each other. RAM outlives a reset, but not
// a loss of power, which the words don't survive: then they are none of the values
// below.
type handover struct {
	why    volatile.Register32 // why the chip is about to be reset; by the one who resets it
	reason volatile.Register32 // boot.ResetReason of this start; by the boot stage
	missed volatile.Register32 // periods of the guard timer since the last Feed; by its interrupt
	alive  volatile.Register32 // whyAlive since the first start with power; by the boot stage
	_      [4]uint32
}

// Values of why; start.s has the first two too.
const (
	whyPanic    = 0x50414E49
	whyWatchdog = 0x57444F47
	whySoftware = 0x534F4654
	whyAlive    = 0x414C4956
)

func shared() *handover { return (*handover)(unsafe.Pointer(uintptr(0x20003FE0))) }

// TakeResetReason finds out why the chip started, once, in the boot stage, and
// leaves it for the image.
func TakeResetReason() {
	h := shared()
	why := h.why.Get()
	h.why.Set(0)
	h.missed.Set(0)
	r := reasonOf(why)
	switch {
	case h.alive.Get() != whyAlive:
		r = boot.ResetPowerOn // RAM was lost; an emulator has no RESETREAS
	case r == boot.ResetUnknown:
		r = ofPower(reg(power + 0x400).Get())
	}
	h.alive.Set(whyAlive)
	reg(power + 0x400).Set(0xFFFFFFFF) // the bits add up until they are cleared
	h.reason.Set(uint32(r))
}

func reasonOf(why uint32) boot.ResetReason {
	switch why {
	case whyPanic:
		return boot.ResetPanic
	case whyWatchdog:
		return boot.ResetWatchdog
	case whySoftware:
		return boot.ResetSoftware
	}
	return boot.ResetUnknown
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
func ResetReason() boot.ResetReason { return boot.ResetReason(shared().reason.Get()) }

// Reset starts the chip anew, as the updater asked.
func Reset() {
	shared().why.Set(whySoftware)
	reg(scb + 0x0C).Set(0x05FA0004)
	for {
	}
}
