//go:build tinygo

// Package stm32f405 drives what the updater needs of an STM32F405: UART, clock, random
// bits, watchdog, reset and its reason. It polls; the one interrupt, of SysTick, is
// served by the program's start.s. It has no driver for the chip's flash.
//
// Source: RM0090, "STM32F405/415 ... reference manual". Register offsets are named by
// section.
package stm32f405

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
	iwdg    = 0x40003000 // 21
	usart1  = 0x40011000 // 30
	gpioA   = 0x40020000 // 8
	rcc     = 0x40023800 // 7
	flashIf = 0x40023C00 // 3.9
	rng     = 0x50060800 // 24
	systick = 0xE000E010 // ARMv7-M, B3.3
	scb     = 0xE000ED00 // ARMv7-M, B3.2
)

// ready waits until a register shows all bits of mask, for a while: what QEMU does not
// model reads as 0. A PLL locks in 300 us (datasheet): 4,800 periods of 16 MHz.
func ready(r *volatile.Register32, mask uint32) bool {
	for i := 0; i < 2000; i++ {
		if r.Get()&mask == mask {
			return true
		}
	}
	return false
}
