//go:build tinygo

package stm32f405

import (
	"unsafe"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/firmware/chip"
)

// shared are the last 32 bytes that programs use: of 64 KiB, though the chip has more.
func shared() *chip.Handover { return (*chip.Handover)(unsafe.Pointer(uintptr(0x2000FFE0))) }

// TakeResetReason finds out why the chip started, once, at its start.
func TakeResetReason() {
	shared().Take(ofCSR(reg(rcc + 0x74).Get()))
	reg(rcc + 0x74).Set(1 << 24) // RMVF: the flags add up until they are cleared
}

// ofCSR reads RCC_CSR (7.3.21). PINRSTF is set by every reset: it counts alone.
func ofCSR(bits uint32) boot.ResetReason {
	switch {
	case bits&(1<<27) != 0: // PORRSTF, with BORRSTF
		return boot.ResetPowerOn
	case bits&(1<<25) != 0:
		return boot.ResetBrownout
	case bits&(1<<29|1<<30) != 0: // IWDG, WWDG
		return boot.ResetWatchdog
	case bits&(1<<28) != 0:
		return boot.ResetSoftware
	case bits&(1<<26) != 0:
		return boot.ResetExternal
	}
	return boot.ResetUnknown
}

// ResetReason is why the chip started.
func ResetReason() boot.ResetReason { return shared().Reason() }

// Reset starts the chip anew, as the updater asked.
func Reset() {
	shared().Asked()
	reg(scb + 0x0C).Set(0x05FA0004) // AIRCR: SYSRESETREQ
	for {
	}
}
