//go:build tinygo

package chip

import (
	"runtime/volatile"

	"github.com/runnel-fota/runnel/core/boot"
)

// Handover is the last 32 bytes of RAM, which no program's linker script gives away:
// what one start of the chip tells the next, and the boot stage its image. RAM outlives
// a reset, but not a loss of power, which the words don't survive: then they are none
// of the values below. The programs' start.s know where Why and Missed are.
type Handover struct {
	Why    volatile.Register32 // why the chip is about to be reset; by the one who resets it
	reason volatile.Register32 // boot.ResetReason of this start; by Take
	Missed volatile.Register32 // periods of the guard timer since the last Feed; by its interrupt
	alive  volatile.Register32 // whyAlive since the first start with power; by Take
	Own    [4]volatile.Register32
}

// Values of Why; start.s has the first two too.
const (
	whyPanic    = 0x50414E49
	whyWatchdog = 0x57444F47
	whySoftware = 0x534F4654
	whyAlive    = 0x414C4956
)

// Take finds out why the chip started, once, at its start. ofChip is what the chip's own
// register says, ResetUnknown where that is nothing; an emulator has none.
func (h *Handover) Take(ofChip boot.ResetReason) {
	r := reasonOf(h.Why.Get())
	h.Why.Set(0)
	h.Missed.Set(0)
	switch {
	case h.alive.Get() != whyAlive:
		r = boot.ResetPowerOn // RAM was lost
	case r == boot.ResetUnknown:
		r = ofChip
	}
	h.alive.Set(whyAlive)
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

// Reason is why the chip started.
func (h *Handover) Reason() boot.ResetReason { return boot.ResetReason(h.reason.Get()) }

// Asked notes that the reset to come is the updater's own.
func (h *Handover) Asked() { h.Why.Set(whySoftware) }
