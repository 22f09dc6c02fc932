package native

import "github.com/runnel-fota/runnel/core/cbor"

// MaxHealth is how long an encoded Health is at most, bytes.
const MaxHealth = 16

// Health is how a device is doing, as its board knows it; what is 0 is not said. It
// decides nothing on the device and is encoded by its board, so that one that says
// nothing of it pays for a test of nil.
type Health struct {
	FreeRAM uint32 // bytes
	Reset   uint8  // why the chip started: a boot.ResetReason
	Battery uint8  // percent, 1 to 100
	Signal  uint8  // of the radio, as dB below 1 mW: 67 is -67 dBm
}

// Encode puts the health into buf, of MaxHealth bytes, for Poll.Health; nil where
// nothing is said.
func (h *Health) Encode(buf []byte) []byte {
	n := count(h.FreeRAM != 0) + count(h.Reset != 0) + count(h.Battery != 0) + count(h.Signal != 0)
	if n == 0 {
		return nil
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(n)
	for i, v := range [4]uint32{h.FreeRAM, uint32(h.Reset), uint32(h.Battery), uint32(h.Signal)} {
		if v != 0 {
			field(&w, i, v)
		}
	}
	p, err := w.Done()
	if err != 0 {
		return nil
	}
	return p
}
