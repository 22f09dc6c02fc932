//go:build tinygo

package stm32f405

// Watch starts the watchdog; it can't be stopped again. The chip's own resets after
// 8 s without Feed, by a clock of its own. Beside it SysTick's interrupt counts periods
// and does the same (start.s): an emulator that does not model the watchdog resets all
// the same, and the reset's reason is then known on every chip.
func Watch() {
	reg(iwdg).Set(0x5555)           // KR: PR and RLR may be written
	reg(iwdg + 0x04).Set(4)         // PR: 32 kHz / 64
	reg(iwdg + 0x08).Set(8*500 - 1) // RLR
	reg(iwdg).Set(0xCCCC)
	Feed()
}

// Feed says that the program gets on.
func Feed() {
	reg(iwdg).Set(0xAAAA)
	shared().Missed.Set(0)
}
