package digest

// HMAC is HMAC-SHA256 (RFC 2104). It keeps the two states that follow from the
// key, not the key, and one running hash.
type HMAC struct {
	inner, outer [8]uint32 // after the padded key
	run          SHA256
}

// SetKey sets the key, of any length, and begins a message.
func (m *HMAC) SetKey(key []byte) {
	var pad [blockSize]byte
	if len(key) > blockSize {
		var d [Size]byte
		m.run.Reset()
		m.run.Write(key)
		m.run.Sum(&d)
		copy(pad[:], d[:])
	} else {
		copy(pad[:], key)
	}
	for i := range pad {
		pad[i] ^= 0x36
	}
	m.inner = sha256Start
	sha256Block(&m.inner, pad[:])
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	m.outer = sha256Start
	sha256Block(&m.outer, pad[:])
	m.Begin()
}

// Hash is the running hash, free for other use between two messages: it is lost
// with the next Begin. A device verifies no MAC while it hashes a slot.
func (m *HMAC) Hash() *SHA256 { return &m.run }

// Begin starts a new message under the same key.
func (m *HMAC) Begin() { m.run.h, m.run.n = m.inner, blockSize }

// Write adds p to the message.
func (m *HMAC) Write(p []byte) { m.run.Write(p) }

// Sum puts the MAC into out and ends the message: Begin comes next.
func (m *HMAC) Sum(out *[Size]byte) {
	m.run.Sum(out)
	m.run.h, m.run.n = m.outer, blockSize
	m.run.Write(out[:])
	m.run.Sum(out)
	m.Begin()
}

// Equal compares in constant time: how long it takes tells nothing about where
// a and b differ. Their lengths are no secret.
func Equal(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	var x byte
	for i := range a {
		x |= a[i] ^ b[i]
	}
	return x == 0
}
