package digest

// Key is a key of HMAC-SHA256 (RFC 2104), 64 bytes: the two states that follow
// from it, not the key itself. The running hash is handed in, so that several
// keys share one, and with whoever else hashes: it is lost with Begin, and must
// not be used otherwise until Sum.
type Key struct {
	inner, outer [8]uint32 // after the padded key
}

// Set takes a key of any length; run is used for those above 64 bytes.
func (k *Key) Set(key []byte, run *SHA256) {
	var pad [blockSize]byte
	if len(key) > blockSize {
		var d [Size]byte
		run.Reset()
		run.Write(key)
		run.Sum(&d)
		copy(pad[:], d[:])
	} else {
		copy(pad[:], key)
	}
	for i := range pad {
		pad[i] ^= 0x36
	}
	copy(k.inner[:], sha256Start[:])
	sha256Block(&k.inner, pad[:])
	for i := range pad {
		pad[i] ^= 0x36 ^ 0x5c
	}
	copy(k.outer[:], sha256Start[:])
	sha256Block(&k.outer, pad[:])
}

// Begin makes run the start of a message: write it with run.Write.
//
//go:noinline
func (k *Key) Begin(run *SHA256) { run.from(&k.inner) }

// from goes on behind a key's block.
func (s *SHA256) from(h *[8]uint32) {
	copy(s.h[:], h[:])
	s.n = blockSize
}

// Sum puts the MAC of the message into out and ends the message.
func (k *Key) Sum(run *SHA256, out *[Size]byte) {
	run.Sum(out)
	run.from(&k.outer)
	run.Write(out[:])
	run.Sum(out)
}

// HMAC is HMAC-SHA256 with one key and a running hash of its own.
type HMAC struct {
	key Key
	run SHA256
}

// SetKey sets the key, of any length, and begins a message.
func (m *HMAC) SetKey(key []byte) {
	m.key.Set(key, &m.run)
	m.Begin()
}

// Hash is the running hash, free for other use between two messages: it is lost
// with the next Begin. A device verifies no MAC while it hashes a slot.
func (m *HMAC) Hash() *SHA256 { return &m.run }

// Begin starts a new message under the same key.
func (m *HMAC) Begin() { m.key.Begin(&m.run) }

// Write adds p to the message.
func (m *HMAC) Write(p []byte) { m.run.Write(p) }

// Sum puts the MAC into out and ends the message: Begin comes next.
func (m *HMAC) Sum(out *[Size]byte) {
	m.key.Sum(&m.run, out)
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
