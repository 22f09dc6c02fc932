// Package digest holds the hashes that the device core needs, as plain values
// without a heap: SHA-256, HMAC-SHA256, SHA-512 for signatures, CRC-32, and MD5
// for partition tables.
// The standard library's incremental ones allocate and do not link where no
// allocator is (docs/design/tinygo.md); these are proven against it by vectors
// and fuzzing.
package digest

import (
	"encoding/binary"
	"math/bits"
)

// Size is the length of a SHA-256 in bytes.
const Size = 32

const blockSize = 64

// SHA256 is an incremental SHA-256 (FIPS 180-4), 104 bytes. Call Reset first.
type SHA256 struct {
	h   [8]uint32
	buf [blockSize]byte // the unfinished block, n%64 bytes of it
	n   uint64          // bytes written
}

var sha256Start = [8]uint32{
	0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a, 0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19,
}

var sha256K = [64]uint32{
	0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
	0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
	0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
	0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
	0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
	0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
	0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
	0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
}

// Reset starts a new hash.
//
//go:noinline
func (s *SHA256) Reset() {
	copy(s.h[:], sha256Start[:])
	s.n = 0
}

// Write adds p.
func (s *SHA256) Write(p []byte) {
	have := int(s.n % blockSize)
	s.n += uint64(len(p))
	if have > 0 {
		k := copy(s.buf[have:], p)
		p = p[k:]
		if have+k < blockSize {
			return
		}
		sha256Block(&s.h, s.buf[:])
	}
	for len(p) >= blockSize {
		sha256Block(&s.h, p[:blockSize])
		p = p[blockSize:]
	}
	copy(s.buf[:], p)
}

// Sum puts the hash of what was written into out. The state is kept: more may be written.
func (s *SHA256) Sum(out *[Size]byte) {
	var h [8]uint32
	copy(h[:], s.h[:])
	var b [blockSize]byte
	have := int(s.n % blockSize)
	copy(b[:], s.buf[:have])
	b[have] = 0x80
	if have >= blockSize-8 {
		sha256Block(&h, b[:])
		clear(b[:])
	}
	binary.BigEndian.PutUint64(b[blockSize-8:], s.n*8)
	sha256Block(&h, b[:])
	for i := range h {
		binary.BigEndian.PutUint32(out[i*4:], h[i])
	}
}

// sha256Block works on a rolling schedule of 16 words: 64 bytes of stack, not 256.
func sha256Block(h *[8]uint32, p []byte) {
	var w [16]uint32
	_ = p[blockSize-1]
	for i := range w {
		w[i] = binary.BigEndian.Uint32(p[i*4:])
	}
	a, b, c, d, e, f, g, hh := h[0], h[1], h[2], h[3], h[4], h[5], h[6], h[7]
	for i := 0; i < 64; i++ {
		x := w[i&15]
		if i >= 16 {
			v2, v15 := w[(i+14)&15], w[(i+1)&15]
			x += (bits.RotateLeft32(v2, -17) ^ bits.RotateLeft32(v2, -19) ^ (v2 >> 10)) + w[(i+9)&15] +
				(bits.RotateLeft32(v15, -7) ^ bits.RotateLeft32(v15, -18) ^ (v15 >> 3))
			w[i&15] = x
		}
		t1 := hh + (bits.RotateLeft32(e, -6) ^ bits.RotateLeft32(e, -11) ^ bits.RotateLeft32(e, -25)) +
			((e & f) ^ (^e & g)) + sha256K[i&63] + x
		t2 := (bits.RotateLeft32(a, -2) ^ bits.RotateLeft32(a, -13) ^ bits.RotateLeft32(a, -22)) +
			((a & b) ^ (a & c) ^ (b & c))
		hh, g, f, e, d, c, b, a = g, f, e, d+t1, c, b, a, t1+t2
	}
	h[0] += a
	h[1] += b
	h[2] += c
	h[3] += d
	h[4] += e
	h[5] += f
	h[6] += g
	h[7] += hh
}
