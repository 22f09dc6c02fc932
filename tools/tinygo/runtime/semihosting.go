//go:build cortexm && qemu && semihosting

// Package runtime: this file joins TinyGo's own in the tool chain that setup.sh
// builds, for programs with the tag "semihosting". It stands in for the file that
// drives one emulated board's UART: text goes out, and the program ends, by calls
// to the debugger (Arm's Semihosting for AArch32 and AArch64), which every machine
// of the emulator answers. No firmware is built with it.
package runtime

import (
	"device/arm"
	"unsafe"
)

// line is what is not sent yet; the call wants a zero behind it.
var (
	line   [256]byte
	length int
)

//export Reset_Handler
func main() {
	preinit()
	run()
	exit(0)
}

func putchar(c byte) {
	line[length] = c
	length++
	if c == '\n' || length == len(line)-1 {
		flush()
	}
}

func flush() {
	line[length] = 0
	length = 0
	arm.SemihostingCall(arm.SemihostingWrite0, uintptr(unsafe.Pointer(&line)))
}

func getchar() byte { return 0 }

func buffered() int { return 0 }

// ticks are ns; the host's clock counts hundredths of a second.
func ticks() timeUnit {
	return timeUnit(uint32(arm.SemihostingCall(arm.SemihostingClock, 0))) * 10_000_000
}

func ticksToNanoseconds(t timeUnit) int64 { return int64(t) }

func nanosecondsToTicks(ns int64) timeUnit { return timeUnit(ns) }

func sleepTicks(d timeUnit) {
	for end := ticks() + d; ticks() < end; {
	}
}

func waitForEvents() { arm.Asm("wfe") }

func abort() { exit(1) }

// exit ends the emulator: with status 0, or with 1.
func exit(code int) {
	flush()
	why := uintptr(arm.SemihostingApplicationExit)
	if code != 0 {
		why = arm.SemihostingRunTimeErrorUnknown
	}
	for {
		arm.SemihostingCall(arm.SemihostingReportException, why)
	}
}
