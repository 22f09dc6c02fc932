//go:build tinygo

package nrf51

import "device/arm"

// UART is the serial line at 115,200 baud, 8N1, without flow control. Bytes that
// arrive while the CPU stands still for a flash operation are lost: nobody sends
// unasked (docs/format/serial.md).
type UART struct{ Clock *Clock }

// Open sets it up for the pins.
func (u *UART) Open(tx, rx uint32) {
	reg(uart0 + 0x50C).Set(tx)
	reg(uart0 + 0x514).Set(rx)
	reg(uart0 + 0x524).Set(0x01D7E000) // BAUDRATE
	reg(uart0 + 0x500).Set(4)          // ENABLE
	reg(uart0 + 0x000).Set(1)          // STARTRX
	reg(uart0 + 0x008).Set(1)          // STARTTX
}

// Put sends a byte and waits until it has gone.
func (u *UART) Put(b byte) {
	reg(uart0 + 0x11C).Set(0) // EVENTS_TXDRDY
	reg(uart0 + 0x51C).Set(uint32(b))
	for reg(uart0+0x11C).Get() == 0 {
	}
}

// Get waits for a byte, ms milliseconds at most.
func (u *UART) Get(ms uint32) (byte, bool) {
	from := u.Clock.Micros()
	for reg(uart0+0x108).Get() == 0 { // EVENTS_RXDRDY
		if u.Clock.Micros()-from >= ms*1000 {
			return 0, false
		}
		// A byte takes 87 us and six fit into the chip's queue: there is time, and an
		// emulator needs some to bring the next one.
		pause()
	}
	reg(uart0 + 0x108).Set(0)
	return byte(reg(uart0 + 0x518).Get()), true
}

// pause takes some 12 us.
func pause() {
	for i := 0; i < 64; i++ {
		arm.Asm("nop")
	}
}
