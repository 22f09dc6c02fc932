package digest

import (
	"encoding/binary"
	"math/bits"
)

// Size512 is the length of a SHA-512 in bytes.
const Size512 = 64

const block512 = 128

// SHA512 is an incremental SHA-512 (FIPS 180-4), 200 bytes. Call Reset first.
type SHA512 struct {
	h   [8]uint64
	buf [block512]byte // the unfinished block, n%128 bytes of it
	n   uint64         // bytes written
}

// The constants of SHA-256 are the upper halves of those of SHA-512: roots of
// the same primes. These are the lower halves, and the primes 65 to 80.

var sha512StartLow = [8]uint32{
	0xf3bcc908, 0x84caa73b, 0xfe94f82b, 0x5f1d36f1, 0xade682d1, 0x2b3e6c1f, 0xfb41bd6b, 0x137e2179,
}

var sha512KLow = [80]uint32{
	0xd728ae22, 0x23ef65cd, 0xec4d3b2f, 0x8189dbbc, 0xf348b538, 0xb605d019, 0xaf194f9b, 0xda6d8118,
	0xa3030242, 0x45706fbe, 0x4ee4b28c, 0xd5ffb4e2, 0xf27b896f, 0x3b1696b1, 0x25c71235, 0xcf692694,
	0x9ef14ad2, 0x384f25e3, 0x8b8cd5b5, 0x77ac9c65, 0x592b0275, 0x6ea6e483, 0xbd41fbd4, 0x831153b5,
	0xee66dfab, 0x2db43210, 0x98fb213f, 0xbeef0ee4, 0x3da88fc2, 0x930aa725, 0xe003826f, 0x0a0e6e70,
	0x46d22ffc, 0x5c26c926, 0x5ac42aed, 0x9d95b3df, 0x8baf63de, 0x3c77b2a8, 0x47edaee6, 0x1482353b,
	0x4cf10364, 0xbc423001, 0xd0f89791, 0x0654be30, 0xd6ef5218, 0x5565a910, 0x5771202a, 0x32bbd1b8,
	0xb8d2d0c8, 0x5141ab53, 0xdf8eeb99, 0xe19b48a8, 0xc5c95a63, 0xe3418acb, 0x7763e373, 0xd6b2b8a3,
	0x5defb2fc, 0x43172f60, 0xa1f0ab72, 0x1a6439ec, 0x23631e28, 0xde82bde9, 0xb2c67915, 0xe372532b,
	0xea26619c, 0x21c0c207, 0xcde0eb1e, 0xee6ed178, 0x72176fba, 0xa2c898a6, 0xbef90dae, 0x131c471b,
	0x23047d84, 0x40c72493, 0x15c9bebc, 0x9c100d4c, 0xcb3e42b6, 0xfc657e2a, 0x3ad6faec, 0x4a475817,
}

var sha512KHigh = [16]uint32{
	0xca273ece, 0xd186b8c7, 0xeada7dd6, 0xf57d4f7f, 0x06f067aa, 0x0a637dc5, 0x113f9804, 0x1b710b35,
	0x28db77f5, 0x32caab7b, 0x3c9ebe0a, 0x431d67c4, 0x4cc5d4be, 0x597f299c, 0x5fcb6fab, 0x6c44198c,
}

// Reset starts a new hash.
func (s *SHA512) Reset() {
	for i := range s.h {
		s.h[i] = uint64(sha256Start[i])<<32 | uint64(sha512StartLow[i])
	}
	s.n = 0
}

// Write adds p.
func (s *SHA512) Write(p []byte) {
	for len(p) > 0 {
		k := copy(s.buf[s.n%block512:], p)
		s.n += uint64(k)
		p = p[k:]
		if s.n%block512 == 0 {
			s.block()
		}
	}
}

// Sum puts the hash of what was written into out and ends it: Reset comes next.
func (s *SHA512) Sum(out *[Size512]byte) {
	have := s.n % block512
	s.buf[have] = 0x80
	clear(s.buf[have+1:])
	// The length in bits has 16 bytes at the end; it never needs the upper eight.
	if have >= block512-16 {
		s.block()
		clear(s.buf[:])
	}
	binary.BigEndian.PutUint64(s.buf[block512-8:], s.n*8)
	s.block()
	for i := range s.h {
		binary.BigEndian.PutUint64(out[i*8:], s.h[i])
	}
}

// block works on a rolling schedule of 16 words: 128 bytes of stack, not 640.
func (s *SHA512) block() {
	var w [16]uint64
	for i := range w {
		w[i] = binary.BigEndian.Uint64(s.buf[i*8:])
	}
	a, b, c, d, e, f, g, hh := s.h[0], s.h[1], s.h[2], s.h[3], s.h[4], s.h[5], s.h[6], s.h[7]
	for i := 0; i < 80; i++ {
		x := w[i&15]
		if i >= 16 {
			v2, v15 := w[(i+14)&15], w[(i+1)&15]
			x += (bits.RotateLeft64(v2, -19) ^ bits.RotateLeft64(v2, -61) ^ (v2 >> 6)) + w[(i+9)&15] +
				(bits.RotateLeft64(v15, -1) ^ bits.RotateLeft64(v15, -8) ^ (v15 >> 7))
			w[i&15] = x
		}
		high := sha512KHigh[i&15]
		if i < 64 {
			high = sha256K[i]
		}
		t1 := hh + (bits.RotateLeft64(e, -14) ^ bits.RotateLeft64(e, -18) ^ bits.RotateLeft64(e, -41)) +
			((e & f) ^ (^e & g)) + (uint64(high)<<32 | uint64(sha512KLow[i])) + x
		t2 := (bits.RotateLeft64(a, -28) ^ bits.RotateLeft64(a, -34) ^ bits.RotateLeft64(a, -39)) +
			((a & b) ^ (a & c) ^ (b & c))
		hh, g, f, e, d, c, b, a = g, f, e, d+t1, c, b, a, t1+t2
	}
	s.h[0] += a
	s.h[1] += b
	s.h[2] += c
	s.h[3] += d
	s.h[4] += e
	s.h[5] += f
	s.h[6] += g
	s.h[7] += hh
}
