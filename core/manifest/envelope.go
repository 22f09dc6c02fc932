// Package manifest reads and judges the three signed objects: the key list, the
// manifest and the stream sheet (docs/format/keylist.md, manifest.md, sheet.md;
// their common shape is in encoding.md). The writers are in package release.
//
// Objects are read in place: what a reader hands out are views into the bytes
// that it was given, good until those change. Nothing is allocated. Signatures
// are checked by the port, through a Verifier, over the raw payload; what is in
// the payload is believed only afterwards. Errors are values of Error, 0 for
// none; compare with 0, and don't assign them to a variable of type error.
//
// It imports cbor and digest, and must never know flash, wires or time.
package manifest

import (
	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/digest"
)

// Limits of every signed object (docs/format/encoding.md).
const (
	MaxPayload    = 1024 // bytes
	MaxSignatures = 4
	KeySize       = 32 // bytes of an Ed25519 public key
	SignatureSize = 64 // bytes
	KeyIDSize     = 8  // bytes, the first of SHA-256(public key)
	// HeadSize is room for the start of a Sig_structure: 47 bytes at most.
	HeadSize = 64
)

// AlgEdDSA is COSE's EdDSA (RFC 9053, 2.2), with Ed25519 keys: the only
// algorithm so far.
const AlgEdDSA int8 = -8

// coseSign is the tag of COSE_Sign (RFC 9052, 4.1).
const coseSign = 98

// Kind says which of the three objects an envelope is. It is not in the
// envelope: it goes into what is signed, so that none passes for another.
type Kind uint8

// The kinds.
const (
	KindKeys Kind = iota + 1
	KindManifest
	KindSheet
)

// Label is the external_aad of RFC 9052, 4.4.
func (k Kind) Label() string {
	switch k {
	case KindKeys:
		return "runnel/keys/1"
	case KindManifest:
		return "runnel/manifest/1"
	case KindSheet:
		return "runnel/sheet/1"
	}
	return ""
}

// Signature of an envelope: views into it.
type Signature struct {
	Alg   int8
	KeyID []byte // KeyIDSize bytes: a hint, nothing more
	Sig   []byte // SignatureSize bytes
}

// Envelope is a COSE_Sign message, read in place: views into the bytes that
// Parse was given.
type Envelope struct {
	Payload []byte
	Sigs    [MaxSignatures]Signature
	N       int // signatures
	// Offset of the defect, where Parse found one.
	Offset int
}

// Parse reads an envelope. The signatures are not checked by that.
func (e *Envelope) Parse(p []byte) Error {
	*e = Envelope{}
	var r cbor.Reader
	r.Begin(p)
	err := e.read(&r)
	if err == 0 {
		r.End()
		err = fromCBOR(r.Err())
	}
	if err != 0 {
		*e = Envelope{Offset: r.Offset()}
	}
	return err
}

func (e *Envelope) read(r *cbor.Reader) Error {
	r.Tag(coseSign)
	if r.Array() != 4 {
		r.Fail(cbor.ErrValue)
	}
	r.Fixed(0)
	skipMap(r)
	e.Payload = r.Bytes(len64k)
	if r.Err() == 0 && (len(e.Payload) == 0 || len(e.Payload) > MaxPayload) {
		return ErrSize
	}
	e.N = r.Array()
	if r.Err() == 0 && (e.N == 0 || e.N > MaxSignatures) {
		return ErrSignatures
	}
	for i := 0; i < e.N && r.Err() == 0; i++ {
		s := &e.Sigs[i]
		if r.Array() != 3 {
			r.Fail(cbor.ErrValue)
		}
		if head := r.Bytes(len64k); r.Err() == 0 && !s.header(head) {
			return ErrHeader
		}
		skipMap(r)
		s.Sig = r.Fixed(SignatureSize)
	}
	return fromCBOR(r.Err())
}

// len64k lets a length through that is judged right behind, for a better error.
const len64k = 1 << 16

// skipMap skips an unprotected header. Nothing in it is believed; the outermost
// map must be one.
func skipMap(r *cbor.Reader) {
	for n := r.Map(); n > 0; n-- {
		r.Key()
		r.Skip()
	}
}

// header reads a protected header, which has one form: A2 01 alg 04 48 kid,
// with an alg of one byte, -1 to -24.
func (s *Signature) header(p []byte) bool {
	if len(p) != 5+KeyIDSize || p[0] != 0xA2 || p[1] != 1 || p[2] < 0x20 || p[2] > 0x37 || p[3] != 4 || p[4] != 0x40|KeyIDSize {
		return false
	}
	s.Alg = -1 - int8(p[2]-0x20)
	s.KeyID = p[5:]
	return true
}

// Head puts what stands before the payload in a Sig_structure (RFC 9052, 4.4)
// into buf: head and payload together are what is signed. alg is -1 to -24, kid
// has KeyIDSize bytes, payload is its length, at most 65,535.
func Head(buf *[HeadSize]byte, k Kind, alg int8, kid []byte, payload int) []byte {
	n := copy(buf[:], "\x85\x69Signature\x40")
	n += copy(buf[n:], "\x4D\xA2\x01")
	buf[n] = 0x20 + byte(-1-alg)
	n++
	n += copy(buf[n:], "\x04\x48")
	n += copy(buf[n:], kid[:KeyIDSize])
	label := k.Label()
	buf[n] = 0x40 + byte(len(label)) // 13 to 17 bytes: a head of one byte
	n++
	n += copy(buf[n:], label)
	switch {
	case payload < 24:
		buf[n] = 0x40 + byte(payload)
		n++
	case payload < 256:
		buf[n], buf[n+1] = 0x58, byte(payload)
		n += 2
	default:
		buf[n], buf[n+1], buf[n+2] = 0x59, byte(payload>>8), byte(payload)
		n += 3
	}
	return buf[:n]
}

// KeyID puts the id of a public key into out.
func KeyID(public []byte, out *[KeyIDSize]byte) {
	var s digest.SHA256
	var sum [digest.Size]byte
	s.Reset()
	s.Write(public)
	s.Sum(&sum)
	copy(out[:], sum[:])
}

// by says whether the signature may be by a key: its algorithm and its id. The
// verifier has the last word.
func (s *Signature) by(alg int8, public []byte) bool {
	var id [KeyIDSize]byte
	if s.Alg != alg {
		return false
	}
	KeyID(public, &id)
	return equal(s.KeyID, id[:])
}

// equal compares what is no secret.
func equal(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

// fields counts which keys of a map were there.
type fields uint16

func (f *fields) saw(k int) { *f |= 1 << k }

// need fails the reader where one of the keys in mask was absent.
func (f fields) need(r *cbor.Reader, mask fields) {
	if f&mask != mask {
		r.Fail(cbor.ErrMissing)
	}
}
