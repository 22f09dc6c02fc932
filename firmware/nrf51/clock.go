//go:build tinygo

package nrf51

import (
	"device/arm"

	"github.com/runnel-fota/runnel/firmware/chip"
)

// Clock counts milliseconds since Start.
type Clock struct{ millis chip.Millis }

// Start lets it run.
func (c *Clock) Start() {
	reg(clock + 0x004).Set(1)
	reg(clock + 0x504).Set(0)
	reg(clock + 0x508).Set(3) // 32 bits
	reg(clock + 0x510).Set(4) // 1 MHz
	reg(clock + 0x00C).Set(1)
	reg(clock).Set(1)
}

// Micros is the timer as it stands; it wraps after 71 minutes.
func (c *Clock) Micros() uint32 {
	reg(clock + 0x040).Set(1) // CAPTURE0
	return reg(clock + 0x540).Get()
}

// Millis never goes back. It must be asked once in 71 minutes at least.
func (c *Clock) Millis() uint64 { return c.millis.At(c.Micros()) }

// Nap lets the CPU sleep for so many milliseconds, 2,000 at most.
func Nap(ms uint32) {
	const most = 2000
	if ms > most {
		ms = most
	}
	if ms == 0 {
		return
	}
	timer16(nap)
	reg(nap + 0x140).Set(0) // EVENTS_COMPARE0
	reg(nap + 0x540).Set(ms * 125 / 4)
	reg(nap + 0x304).Set(1 << 16)
	reg(nvic + 0x100).Set(1 << 9)
	// An interrupt that is pending wakes the CPU though it is masked, and is not served.
	arm.Asm("cpsid i")
	reg(nap).Set(1)
	for reg(nap+0x140).Get() == 0 {
		arm.Asm("wfi")
		if reg(guard+0x140).Get() != 0 {
			// The guard's is served here. The nap's own may be pending by now, comes
			// first, and has no handler: it is disabled meanwhile.
			reg(nvic + 0x180).Set(1 << 9)
			arm.Asm("cpsie i")
			arm.Asm("cpsid i")
			reg(nvic + 0x100).Set(1 << 9)
		}
	}
	reg(nvic + 0x180).Set(1 << 9) // ICER
	reg(nap + 0x140).Set(0)
	reg(nap + 0x308).Set(1 << 16)
	reg(nap + 0x004).Set(1)
	reg(nvic + 0x280).Set(1 << 9) // ICPR
	arm.Asm("cpsie i")
}
