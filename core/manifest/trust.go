package manifest

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// The trust store is what a device keeps of a key list that it accepted, for its
// own product, in records of fixed size: it can check a manifest while that
// fills the only buffer, with the keys coming from flash one by one. The bytes
// are in docs/format/keylist.md.
const (
	TrustHeaderSize = 52 // bytes
	RecordSize      = 36 // bytes of a root or key behind the header
	// MaxTrust is the largest trust store in bytes: 8 roots and 16 keys.
	MaxTrust = TrustHeaderSize + (MaxRoots+MaxKeys)*RecordSize
)

// TrustReader reads a trust store from where it is kept. ReadAt fills p with the
// bytes from off on, counted from the store's first byte, and does not keep p.
// The store does not change under it between Begin and the last Step.
type TrustReader interface {
	ReadAt(p []byte, off uint32) error
}

// Trust is the header of a trust store.
type Trust struct {
	Version    uint32 // of the list; 0: only roots that were baked in
	Generation uint32
	M          uint8 // roots that must sign a list
	Roots      uint8
	Keys       uint8 // that may sign for the product
	Threshold  uint8 // release keys that must sign a manifest; 0: the product has no releases
	Epoch      uint32
	Floor      uint32            // lowest security version
	Digest     [digest.Size]byte // SHA-256 of the list's payload; zero with version 0
}

// Size is the length of the whole store in bytes.
func (t *Trust) Size() uint32 {
	return TrustHeaderSize + (uint32(t.Roots)+uint32(t.Keys))*RecordSize
}

// Put writes the header into p, which has room for TrustHeaderSize bytes.
func (t *Trust) Put(p []byte) {
	le := binary.LittleEndian
	le.PutUint32(p[0:], t.Version)
	le.PutUint32(p[4:], t.Generation)
	p[8], p[9], p[10], p[11] = t.M, t.Roots, t.Keys, t.Threshold
	le.PutUint32(p[12:], t.Epoch)
	le.PutUint32(p[16:], t.Floor)
	copy(p[20:TrustHeaderSize], t.Digest[:])
}

// Load reads the header through buf, of TrustHeaderSize bytes at least.
func (t *Trust) Load(r TrustReader, buf []byte) Error {
	*t = Trust{}
	if len(buf) < TrustHeaderSize {
		return ErrSpace
	}
	p := buf[:TrustHeaderSize]
	if r.ReadAt(p, 0) != nil {
		return ErrTrust
	}
	le := binary.LittleEndian
	t.Version, t.Generation = le.Uint32(p[0:]), le.Uint32(p[4:])
	t.M, t.Roots, t.Keys, t.Threshold = p[8], p[9], p[10], p[11]
	t.Epoch, t.Floor = le.Uint32(p[12:]), le.Uint32(p[16:])
	copy(t.Digest[:], p[20:])
	if t.M == 0 || t.M > t.Roots || t.M > MaxSignatures || t.Roots > MaxRoots || t.Keys > MaxKeys || t.Threshold > MaxSignatures {
		*t = Trust{} // erased flash, or a store of something else
		return ErrTrust
	}
	return 0
}

// PutRecord writes one root or key into p, which has room for RecordSize bytes.
func (k *Key) PutRecord(p []byte) {
	p[0], p[1], p[2], p[3] = k.Roles, byte(k.Alg), 0, 0
	copy(p[4:RecordSize], k.Public)
}

// record reads the record i into p, which is RecordSize long; k becomes a view of it.
func (k *Key) record(r TrustReader, p []byte, i uint8) Error {
	if r.ReadAt(p, TrustHeaderSize+uint32(i)*RecordSize) != nil {
		return ErrTrust
	}
	*k = Key{Roles: p[0], Alg: int8(p[1]), Public: p[4:RecordSize]}
	return 0
}

// Compact writes the trust store of an accepted list for a product to the front
// of dst, and returns its length. dst and the list's payload must not overlap:
// CompactInPlace is for a device that has no second buffer.
func Compact(dst []byte, l *KeyList, product []byte) (int, Error) {
	t := Trust{Version: l.Version, Generation: l.Generation, M: l.M, Roots: l.NRoots}
	var p Product
	if l.Product(product, &p) {
		t.Threshold, t.Epoch, t.Floor = p.Threshold, p.Epoch, p.Floor
	}
	var k Key
	var keys Keys
	keys.begin(l.keys, false)
	for keys.Next(&k) {
		if k.SignsFor(product) {
			t.Keys++
		}
	}
	var s digest.SHA256
	s.Reset()
	s.Write(l.Payload)
	s.Sum(&t.Digest)
	if uint32(len(dst)) < t.Size() {
		return 0, ErrSpace
	}
	t.Put(dst)
	n := TrustHeaderSize
	l.all(&keys)
	for keys.Next(&k) {
		if k.Roles == 0 || k.SignsFor(product) {
			k.PutRecord(dst[n:])
			n += RecordSize
		}
	}
	return n, 0
}

// CompactInPlace is Compact into the front of envelope, the bytes that e was
// read from; envelope and e are used up. product must not lie in them.
//
// The payload is moved to the end first, over the signatures, which have done
// their work. Then what is written never reaches what is still to be read. One
// signature and the array around it have 83 bytes, the message's head has 7, so
// the payload starts at 90 or later, and its first root at least 8 bytes behind
// that; a root has 38 bytes at least there and 36 here, a key 40 and 36, so
// that the end of record i, 88+36i, stays below the start of root i+1 at
// 136+38i, and the distance only grows. The products behind the keys are read
// before the first byte is written.
func CompactInPlace(envelope []byte, e *Envelope, l *KeyList, product []byte) (int, Error) {
	if len(envelope)-len(e.Payload) < TrustHeaderSize {
		return 0, ErrSpace
	}
	end := envelope[len(envelope)-len(e.Payload):]
	copy(end, e.Payload)
	*e = Envelope{}
	if err := l.Parse(end); err != 0 {
		return 0, err
	}
	return Compact(envelope, l, product)
}
