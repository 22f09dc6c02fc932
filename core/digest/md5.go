package digest

import (
	"encoding/binary"
	"math/bits"
)

// MD5 (RFC 1321), for the checksum entry of ESP-IDF's partition tables and for
// nothing that has to be secure. Call Reset first.
type MD5 struct {
	h   [4]uint32
	buf [blockSize]byte
	n   uint64
}

var md5K = [64]uint32{
	0xd76aa478, 0xe8c7b756, 0x242070db, 0xc1bdceee, 0xf57c0faf, 0x4787c62a, 0xa8304613, 0xfd469501,
	0x698098d8, 0x8b44f7af, 0xffff5bb1, 0x895cd7be, 0x6b901122, 0xfd987193, 0xa679438e, 0x49b40821,
	0xf61e2562, 0xc040b340, 0x265e5a51, 0xe9b6c7aa, 0xd62f105d, 0x02441453, 0xd8a1e681, 0xe7d3fbc8,
	0x21e1cde6, 0xc33707d6, 0xf4d50d87, 0x455a14ed, 0xa9e3e905, 0xfcefa3f8, 0x676f02d9, 0x8d2a4c8a,
	0xfffa3942, 0x8771f681, 0x6d9d6122, 0xfde5380c, 0xa4beea44, 0x4bdecfa9, 0xf6bb4b60, 0xbebfbc70,
	0x289b7ec6, 0xeaa127fa, 0xd4ef3085, 0x04881d05, 0xd9d4d039, 0xe6db99e5, 0x1fa27cf8, 0xc4ac5665,
	0xf4292244, 0x432aff97, 0xab9423a7, 0xfc93a039, 0x655b59c3, 0x8f0ccc92, 0xffeff47d, 0x85845dd1,
	0x6fa87e4f, 0xfe2ce6e0, 0xa3014314, 0x4e0811a1, 0xf7537e82, 0xbd3af235, 0x2ad7d2bb, 0xeb86d391,
}

var md5Shift = [16]int{7, 12, 17, 22, 5, 9, 14, 20, 4, 11, 16, 23, 6, 10, 15, 21}

// Reset starts a new hash.
func (m *MD5) Reset() { m.h, m.n = [4]uint32{0x67452301, 0xefcdab89, 0x98badcfe, 0x10325476}, 0 }

// Write adds p.
func (m *MD5) Write(p []byte) {
	for len(p) > 0 {
		k := copy(m.buf[m.n%blockSize:], p)
		m.n += uint64(k)
		p = p[k:]
		if m.n%blockSize == 0 {
			m.block()
		}
	}
}

// Sum puts the hash into out and ends it.
func (m *MD5) Sum(out *[16]byte) {
	n := m.n
	pad := [1]byte{0x80}
	m.Write(pad[:])
	pad[0] = 0
	for m.n%blockSize != blockSize-8 {
		m.Write(pad[:])
	}
	binary.LittleEndian.PutUint64(m.buf[blockSize-8:], n*8)
	m.block()
	for i, v := range m.h {
		binary.LittleEndian.PutUint32(out[i*4:], v)
	}
}

func (m *MD5) block() {
	a, b, c, d := m.h[0], m.h[1], m.h[2], m.h[3]
	for i := 0; i < 64; i++ {
		var f uint32
		g := i
		switch i >> 4 {
		case 0:
			f = b&c | ^b&d
		case 1:
			f, g = d&b|^d&c, 5*i+1
		case 2:
			f, g = b^c^d, 3*i+5
		default:
			f, g = c^(b|^d), 7*i
		}
		f += a + md5K[i] + binary.LittleEndian.Uint32(m.buf[g&15*4:])
		a, d, c = d, c, b
		b += bits.RotateLeft32(f, md5Shift[i>>4*4+i&3])
	}
	m.h[0] += a
	m.h[1] += b
	m.h[2] += c
	m.h[3] += d
}
