//go:build tinygo

package stm32f405

import "github.com/runnel-fota/runnel/core/digest"

// Random makes bits of a seed, a counter and the chip's generator, by SHA-256. QEMU has
// no model of the generator, which then gives nothing: what comes out is as good as the
// seed. Nonces and jitter are made of it, keys never.
type Random struct {
	hash  digest.SHA256
	state [digest.Size]byte
	in    [8]byte // counter, what the generator gave
	count uint32
}

// Seed stirs p in.
func (r *Random) Seed(p []byte) {
	r.hash.Reset()
	r.hash.Write(r.state[:])
	r.hash.Write(p)
	r.hash.Sum(&r.state)
}

// Uint32 is the next 32 bits. The state goes on by one way, so that what was given does
// not come again after another Seed.
func (r *Random) Uint32() uint32 {
	r.count++
	put(r.in[:], r.count)
	put(r.in[4:], generator())
	r.Seed(r.in[:])
	s := &r.state
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func put(p []byte, v uint32) { p[0], p[1], p[2], p[3] = byte(v), byte(v>>8), byte(v>>16), byte(v>>24) }

// generator is the chip's, after Start; 40 periods of 48 MHz make a word (24.3).
func generator() uint32 {
	for i := 0; i < 64; i++ {
		if reg(rng+0x04).Get()&1 != 0 { // SR: DRDY
			return reg(rng + 0x08).Get()
		}
	}
	return 0
}
