//go:build tinygo

package board

import (
	"device/arm"
	"runtime/volatile"
	"unsafe"
)

// What the programs under measure need of QEMU's microbit (nRF51): a timer that
// counts instructions, and a way to say what was counted.

// TIMER0 (nRF51 Series Reference Manual 3.0, chapter 18): 16 MHz, 32 bits.
const timer0 = 0x40008000

func register(off uintptr) *volatile.Register32 {
	return (*volatile.Register32)(unsafe.Pointer(timer0 + off))
}

// StartClock starts the timer from 0.
func StartClock() {
	register(0x508).Set(3) // BITMODE: 32
	register(0x510).Set(0) // PRESCALER
	register(0x00C).Set(1) // TASKS_CLEAR
	register(0x000).Set(1) // TASKS_START
}

// Instructions is how many there were since StartClock, 262 million at most. With
// -icount shift=10 each takes 1,024 ns of the emulated time, 16.384 ticks.
func Instructions() uint32 {
	register(0x040).Set(1) // TASKS_CAPTURE[0]
	return uint32(uint64(register(0x540).Get()) * 125 >> 11)
}

const (
	paint       = 0xA5A5A5A5
	stackBottom = 0x20000000 // the stack lies at the start of RAM (TinyGo's arm.ld)
)

var painted uintptr // to here

// PaintStack fills the part of the stack that is not in use.
func PaintStack() {
	painted = arm.AsmFull("mov {}, sp", nil)
	for a := uintptr(stackBottom); a < painted; a += 4 {
		(*volatile.Register32)(unsafe.Pointer(a)).Set(paint)
	}
}

// StackUsed is the most that was in use below PaintStack's caller since then, bytes.
func StackUsed() uint32 {
	a := uintptr(stackBottom)
	for a < painted && (*volatile.Register32)(unsafe.Pointer(a)).Get() == paint {
		a += 4
	}
	return uint32(painted - a)
}

var letter [1]byte

// Print says a word and a number, by semihosting.
func Print(what string, n uint32) {
	for i := 0; i < len(what); i++ {
		char(what[i])
	}
	var digits [10]byte
	i := len(digits)
	for ok := true; ok; ok = n > 0 {
		i--
		digits[i] = byte('0' + n%10)
		n /= 10
	}
	char(' ')
	for ; i < len(digits); i++ {
		char(digits[i])
	}
	char('\n')
}

func char(c byte) {
	letter[0] = c
	arm.SemihostingCall(arm.SemihostingWriteByte, uintptr(unsafe.Pointer(&letter[0])))
}
