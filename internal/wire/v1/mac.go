package v1

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"hash"
	"sync"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// hasher computes HMAC-SHA256 (RFC 2104) without allocating: crypto/hmac makes
// two hashes for each key, and every chunk has another key.
type hasher struct {
	h   hash.Hash
	pad [sha256.BlockSize]byte
	sum [sha256.Size]byte
}

var hashers = sync.Pool{New: func() any { return &hasher{h: sha256.New()} }}

func (m *hasher) begin(key *fleet.Key) {
	m.key(key, 0x36)
}

func (m *hasher) key(key *fleet.Key, with byte) {
	for i := range m.pad {
		m.pad[i] = with
	}
	for i, b := range key {
		m.pad[i] ^= b
	}
	m.h.Reset()
	m.h.Write(m.pad[:])
}

// end returns the MAC; it lies in m until the next use.
func (m *hasher) end(key *fleet.Key) []byte {
	inner := m.h.Sum(m.sum[:0])
	m.key(key, 0x5C)
	m.h.Write(inner)
	out := m.h.Sum(m.sum[:0])
	clear(m.pad[:]) // no key stays in the pool
	return out
}

// appendMAC appends the 64 hex digits of a chunk's MAC.
func appendMAC(dst []byte, key *fleet.Key, chunk []byte) []byte {
	m := hashers.Get().(*hasher)
	m.begin(key)
	m.h.Write(chunk)
	dst = hex.AppendEncode(dst, m.end(key))
	hashers.Put(m)
	return dst
}

// textMAC says whether mac, 64 hex digits, is that of the concatenated parts. The
// comparison takes the same time wherever they differ.
func textMAC(key *fleet.Key, mac string, parts ...string) bool {
	var got [sha256.Size]byte
	if len(mac) != 2*len(got) {
		return false
	}
	if _, err := hex.Decode(got[:], []byte(mac)); err != nil {
		return false
	}
	m := hashers.Get().(*hasher)
	m.begin(key)
	for _, p := range parts {
		m.h.Write([]byte(p))
	}
	same := hmac.Equal(got[:], m.end(key))
	hashers.Put(m)
	return same
}
