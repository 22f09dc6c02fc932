//go:build tinygo

package nrf51

// Watch starts the watchdog; it can't be stopped again. The chip's own resets
// after 8 s without Feed. Beside it runs a timer whose interrupt does the same: an
// emulator that does not model the watchdog resets all the same, and the reset's
// reason is then known on every chip.
func Watch() {
	reg(wdt + 0x50C).Set(1)           // CONFIG: runs while the CPU sleeps
	reg(wdt + 0x504).Set(8*32768 - 1) // CRV
	reg(wdt + 0x508).Set(1)           // RREN: one reload register
	reg(wdt).Set(1)                   // START
	timer16(guard)
	reg(guard + 0x540).Set(guardTicks)
	reg(guard + 0x200).Set(1)       // SHORTS: COMPARE0 clears
	reg(guard + 0x304).Set(1 << 16) // INTENSET: COMPARE0
	reg(nvic + 0x100).Set(1 << 10)  // ISER: TIMER2
	reg(guard).Set(1)
}

// guardTicks is 2 s; start.s resets in the fourth without Feed.
const guardTicks = 62500

// Feed says that the program gets on.
func Feed() {
	reg(wdt + 0x600).Set(0x6E524635)
	shared().Missed.Set(0)
}

// timer16 sets a timer to 16 bits at 31,250 Hz, stopped, at 0.
func timer16(t uintptr) {
	reg(t + 0x004).Set(1) // STOP
	reg(t + 0x504).Set(0) // MODE: timer
	reg(t + 0x508).Set(0) // BITMODE: 16
	reg(t + 0x510).Set(9) // PRESCALER: 16 MHz / 2^9
	reg(t + 0x00C).Set(1) // CLEAR
}
