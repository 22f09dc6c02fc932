//go:build tinygo

package stm32f405

import "device/arm"

// UART is USART1 at 115,200 baud, 8N1, without flow control, on PA9 (out) and PA10 (in).
type UART struct{}

// Open sets it up.
func (u *UART) Open() {
	const af, in, out = 7, 10, 9
	reg(gpioA + 0x24).Set(af<<(4*(out-8)) | af<<(4*(in-8)))                           // AFRH
	reg(gpioA).Set(reg(gpioA).Get()&^(3<<(2*out)|3<<(2*in)) | 2<<(2*out) | 2<<(2*in)) // MODER: alternate
	reg(usart1 + 0x08).Set((apb2 + 115200/2) / 115200)                                // BRR
	reg(usart1 + 0x0C).Set(1<<13 | 1<<3 | 1<<2)                                       // CR1: UE, TE, RE
}

// Put sends a byte, once there is room for it.
func (u *UART) Put(b byte) {
	for reg(usart1).Get()&(1<<7) == 0 { // SR: TXE
	}
	reg(usart1 + 0x04).Set(uint32(b))
}

// Get waits for a byte, ms milliseconds at most.
func (u *UART) Get(ms uint32) (byte, bool) {
	from := micros()
	for {
		// The clock is asked now and then only: an emulator takes long for each register.
		for i := 0; i < 16; i++ {
			if reg(usart1).Get()&(1<<5) != 0 { // SR: RXNE
				return byte(reg(usart1 + 0x04).Get()), true
			}
			pause()
		}
		if micros()-from >= ms*1000 {
			return 0, false
		}
	}
}

// pause takes some 10 us, of the 87 that a byte takes; an emulator needs some time to
// bring the next one.
func pause() {
	for i := 0; i < 512; i++ {
		arm.Asm("nop")
	}
}
