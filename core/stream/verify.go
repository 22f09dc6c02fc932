package stream

import "github.com/runnel-fota/runnel/core/digest"

// Verifier takes the records of a stream in order and says of each whether the
// root stands for it. It keeps the one hash that it expects: 48 bytes.
//
//	V1 Accept returns 0 only for the record that the root stands for, at its index
//	V2 a refused record changes nothing: the same index may be tried again
//	V3 after Resume nothing is accepted until a walk over what is in flash has
//	   proven the expected hash; what GoOn is told was proven before
type Verifier struct {
	shape Shape
	index uint32
	state uint8
	want  [HashSize]byte // hash of record index, where there is one
}

const (
	unproven = iota // also the zero value: accepts nothing
	walking
	proven
)

// Begin starts at record 0 of the stream with this shape and root.
func (v *Verifier) Begin(s Shape, root *[HashSize]byte) Error {
	if !s.Valid() {
		*v = Verifier{}
		return ErrShape
	}
	*v = Verifier{shape: s, state: proven}
	copy(v.want[:], root[:])
	return 0
}

// Resume goes on at record i of the stream that Begin named. hash is what the
// stream has before record i, believed by nobody yet: Walk and Prove come next.
// With i the number of records there is nothing to expect, and hash is not looked
// at: it may be nil.
func (v *Verifier) Resume(i uint32, hash *[HashSize]byte) Error {
	if !v.shape.Valid() {
		return ErrShape
	}
	if i > v.shape.Records() {
		return ErrRange
	}
	v.index, v.state = i, unproven
	if i < v.shape.Records() {
		copy(v.want[:], hash[:])
	}
	return 0
}

// GoOn goes on at record i of the stream that Begin named. Unlike Resume's, hash is
// believed: it is what Expected told when record i was due, from where the caller
// kept it.
func (v *Verifier) GoOn(i uint32, hash *[HashSize]byte) Error {
	if !v.shape.Valid() {
		return ErrShape
	}
	if i >= v.shape.Records() {
		return ErrRange
	}
	v.index, v.state = i, proven
	copy(v.want[:], hash[:])
	return 0
}

// Expected puts the hash of record Index into out, where there is such a record.
func (v *Verifier) Expected(out *[HashSize]byte) { copy(out[:], v.want[:]) }

// Walk begins the walk that proves what Resume set up.
func (v *Verifier) Walk(w *Walk) Error {
	err := w.Begin(v.shape, v.index, &v.want)
	if err == 0 && v.state == unproven {
		v.state = walking
	}
	return err
}

// Prove takes the walk that Walk began, when it is done, and reports whether
// Accept may go on: everything in flash before record Index, and the hash of that
// record, are what root stands for. Nothing was resumed in between.
func (v *Verifier) Prove(w *Walk, root *[HashSize]byte) bool {
	if v.state == walking && w.shape == v.shape && w.from == v.index && w.Proven(root) {
		v.state = proven
		return true
	}
	return false
}

// Index is the record that Accept expects; the number of records at the end.
func (v *Verifier) Index() uint32 { return v.index }

// Done reports whether the last record was accepted.
func (v *Verifier) Done() bool {
	return v.state == proven && v.index == v.shape.Records()
}

// Accept checks the whole of record Index before a byte of it is used. Its first
// ChunkLen bytes are the payload's. h is lost.
func (v *Verifier) Accept(record []byte, h *digest.SHA256) Error {
	if v.state != proven {
		return ErrUnproven
	}
	n := v.shape.RecordLen(v.index)
	if n == 0 {
		return ErrDone
	}
	if uint64(len(record)) != uint64(n) {
		return ErrLength
	}
	// The record's bytes are the hash's input in the order in which they lie.
	var got [HashSize]byte
	v.shape.Begin(h, v.index)
	h.Write(record)
	h.Sum(&got)
	if !digest.Equal(got[:], v.want[:]) {
		return ErrHash
	}
	copy(v.want[:], record[v.shape.ChunkLen(v.index):])
	v.index++
	return 0
}
