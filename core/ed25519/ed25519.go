// Package ed25519 verifies Ed25519 signatures (RFC 8032) on a chip without a
// heap and without a wide multiplication, a bounded share at a time. It can't
// sign. The verdict is that of Go's crypto/ed25519.Verify, on every input: see
// Verification. What is secret nowhere needs no constant time: key, signature and
// message are public, and how long a verdict takes tells nothing else.
//
// How it works and what it takes: docs/design/ed25519.md.
package ed25519

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Lengths in bytes, and the algorithm's number in COSE (RFC 9053, section 2.2).
const (
	KeySize       = 32
	SignatureSize = 64
	AlgEdDSA      = -8
)

// Verification checks one signature. Begin, then Step until it is done.
//
// With a signature of R and S, a key A, and k = SHA-512(R, A, message) modulo L,
// it holds where S is below L, A is on the curve, and SB - kA, in its one proper
// encoding, is R byte for byte. As in Go, A's y may be 2^255-19 or more, and its
// x may be 0 with the sign bit set: core/manifest refuses such keys where they
// would enter a list.
type Verification struct {
	hash    digest.SHA512
	payload []byte // what is not hashed yet
	r       element
	s, k    digits
	y       element // of A, reduced or not
	sign    uint32  // of A's x
	table   [tableSize]cached
	base    cached // of the base point
	p       point
	bit     int16 // that comes next
	phase   uint8
}

const (
	phaseFailed uint8 = iota
	phaseHash
	phaseKey
	phaseMultiply
	phaseCompare
	phaseHolds
)

// What one Step does at most.
const (
	// bitsPerStep: 24 take as long as the root and the inverse, which are a Step
	// each and would be the longest in any case.
	bitsPerStep = 24
	// bytesPerStep takes no longer than that.
	bytesPerStep = 1024
)

// Begin takes a signature over head followed by payload. payload must stay as it
// is until the last Step; the others are not kept.
func (v *Verification) Begin(key, sig, head, payload []byte) {
	v.phase, v.bit = phaseFailed, topBit
	if len(key) != KeySize || len(sig) != SignatureSize {
		return
	}
	load(&v.r, sig)
	load(&v.s.n, sig[KeySize:])
	load(&v.y, key)
	v.sign = v.y[7] >> 31
	v.y[7] &^= 1 << 31
	v.p.e.constant(order)
	if minus(&v.p.e, &v.s.n, &v.p.e) == 0 {
		return
	}
	v.hash.Reset()
	v.hash.Write(sig[:KeySize])
	v.hash.Write(key)
	v.hash.Write(head)
	v.payload = payload
	v.phase = phaseHash
}

func load(e *element, p []byte) {
	for i := range e {
		e[i] = binary.LittleEndian.Uint32(p[i*4:])
	}
}

// Step does a bounded share. The signature holds with done and ok; after a Begin
// that was refused, and after none, it is done and does not.
func (v *Verification) Step() (done, ok bool) {
	switch v.phase {
	case phaseHash:
		v.digest()
	case phaseKey:
		v.phase = phaseFailed
		if v.key() {
			v.phase = phaseMultiply
		}
	case phaseMultiply:
		v.multiply()
	case phaseCompare:
		v.phase = phaseFailed
		if v.compare() {
			v.phase = phaseHolds
		}
	}
	return v.phase == phaseFailed || v.phase == phaseHolds, v.phase == phaseHolds
}

func (v *Verification) digest() {
	n := len(v.payload)
	if n > bytesPerStep {
		v.hash.Write(v.payload[:bytesPerStep])
		v.payload = v.payload[bytesPerStep:]
		return
	}
	v.hash.Write(v.payload)
	v.payload = nil
	var sum [digest.Size512]byte
	var n512 [16]uint32
	v.hash.Sum(&sum)
	for i := range n512 {
		n512[i] = binary.LittleEndian.Uint32(sum[i*4:])
	}
	reduceOrder(&v.k.n, &n512)
	v.phase = phaseKey
}

// key decompresses A, and prepares -A, -3A, -5A, -7A.
func (v *Verification) key() bool {
	p := &v.p
	p.neutral()
	copy(p.y[:], v.y[:])
	// x^2 = (y^2-1) / (dy^2+1), whose denominator is never 0: -1/d is no square.
	square(&p.e, &p.y)
	p.g.constant(curveD)
	mul(&p.g, &p.g, &p.e)
	add(&p.g, &p.g, &p.z) // 1
	sub(&p.f, &p.e, &p.z)
	if !root(&p.x, &p.f, &p.g, &p.h) {
		return false
	}
	reduce(&p.x)
	if p.x[0]&1 == v.sign {
		sub(&p.x, &p.t, &p.x) // from 0
	}
	mul(&p.t, &p.x, &p.y)

	q := &v.table[0]
	q.of(p)
	p.double(true)
	twice := &v.table[tableSize-1] // until the last multiple takes its place
	twice.of(p)
	for i := 1; i < tableSize; i++ {
		p.add(q, false, true)
		q = twice
		v.table[i].of(p)
	}
	p.neutral()
	v.s.begin()
	v.k.begin()
	return true
}

// multiply goes down through the bits of both scalars at once: SB + k(-A).
func (v *Verification) multiply() {
	for n := 0; n < bitsPerStep && v.bit >= 0; n++ {
		s, k := v.s.next(int(v.bit)), v.k.next(int(v.bit))
		v.p.double(s|k != 0)
		if k != 0 {
			negative, i := entry(k)
			v.p.add(&v.table[i], negative, s != 0)
		}
		if s != 0 {
			negative, i := entry(s)
			v.base.base(i)
			v.p.add(&v.base, negative, false)
		}
		v.bit--
	}
	if v.bit < 0 {
		v.phase = phaseCompare
	}
}

// entry is where a table has the multiple for a digit.
func entry(d int8) (negative bool, i int) {
	if negative = d < 0; negative {
		d = -d
	}
	return negative, int(d>>1) & (tableSize - 1)
}

// compare encodes what came out.
func (v *Verification) compare() bool {
	p := &v.p
	invert(&p.e, &p.z)
	mul(&p.x, &p.x, &p.e)
	mul(&p.y, &p.y, &p.e)
	reduce(&p.x)
	reduce(&p.y)
	p.y[7] |= p.x[0] << 31
	var differ uint32
	for i := range p.y {
		differ |= p.y[i] ^ v.r[i]
	}
	return differ == 0
}

// Verifier checks signatures for core/manifest: in one call, or a Step at a time.
type Verifier struct{ v Verification }

// Verify is manifest.Verifier's.
func (v *Verifier) Verify(alg int8, key, sig, head, payload []byte) bool {
	v.Begin(alg, key, sig, head, payload)
	for {
		if done, ok := v.Step(); done {
			return ok
		}
	}
}

// Begin is manifest.StepVerifier's.
func (v *Verifier) Begin(alg int8, key, sig, head, payload []byte) {
	if alg != AlgEdDSA {
		key = nil
	}
	v.v.Begin(key, sig, head, payload)
}

// Step is manifest.StepVerifier's.
func (v *Verifier) Step() (done, ok bool) { return v.v.Step() }
