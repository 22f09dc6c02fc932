//go:build tinygo

// Package nrf51 drives what the updater needs of an nRF51: flash, UART, clock,
// random bits, watchdog, reset and its reason. It polls; the one interrupt, of the
// watchdog's stand-in, is served by the boot stage (start.s), because a Cortex-M0
// can't move its vectors away from address 0.
//
// Source: nRF51 Series Reference Manual 3.0. Register offsets are named by section.
package nrf51

import (
	"runtime/volatile"
	"unsafe"
)

// reg is a register of the chip.
func reg(addr uintptr) *volatile.Register32 {
	return (*volatile.Register32)(unsafe.Pointer(addr))
}

// Peripherals.
const (
	power = 0x40000000 // 12
	uart0 = 0x40002000 // 29
	clock = 0x40008000 // TIMER0, 18: 32 bits at 1 MHz
	nap   = 0x40009000 // TIMER1: 16 bits at 31,250 Hz, wakes the CPU
	guard = 0x4000A000 // TIMER2: the same, counts the watchdog's stand-in
	rng   = 0x4000D000 // 21
	wdt   = 0x40010000 // 24
	nvmc  = 0x4001E000 // 6
	nvic  = 0xE000E000 // ARMv6-M, B3.4
	scb   = 0xE000ED00 // ARMv6-M, B3.2
)
