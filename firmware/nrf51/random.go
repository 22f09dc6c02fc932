//go:build tinygo

package nrf51

// Random is 32 bits of the chip's generator.
func Random() uint32 {
	reg(rng + 0x504).Set(1) // CONFIG: bias correction
	reg(rng).Set(1)         // START
	v := uint32(0)
	for i := 0; i < 4; i++ {
		reg(rng + 0x100).Set(0)
		for reg(rng+0x100).Get() == 0 { // EVENTS_VALRDY
		}
		v = v<<8 | reg(rng+0x508).Get()
	}
	reg(rng + 0x004).Set(1) // STOP
	return v
}
