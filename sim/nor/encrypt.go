package nor

import "encoding/binary"

// The encrypting mode is AES in 16-byte blocks with the address mixed in before
// and after, so that equal blocks differ by place and an erased block decrypts to
// noise. It models what software sees of flash encryption, not any chip's scheme.

func tweak(b *[16]byte, off uint32) {
	binary.LittleEndian.PutUint32(b[0:], binary.LittleEndian.Uint32(b[0:])^off)
	binary.LittleEndian.PutUint32(b[8:], binary.LittleEndian.Uint32(b[8:])^^off)
}

// encrypt works in place; off and len(p) are multiples of 16.
func (c *Chip) encrypt(p []byte, off uint32) {
	b := &c.unit
	for i := 0; i < len(p); i += 16 {
		copy(b[:], p[i:])
		tweak(b, off+uint32(i))
		c.block.Encrypt(p[i:i+16], b[:])
	}
}

// decrypt fills p with the plain text at off, of any alignment.
func (c *Chip) decrypt(p []byte, off uint32) {
	b := &c.unit
	for len(p) > 0 {
		at := off &^ 15
		c.block.Decrypt(b[:], c.mem[at:at+16])
		tweak(b, at)
		n := copy(p, b[off-at:])
		p, off = p[n:], off+uint32(n)
	}
}
