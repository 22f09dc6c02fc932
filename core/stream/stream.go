// Package stream is how an image or a patch travels: records, each of which
// carries the hash of the next, so that who trusts the root can check every byte
// before it is written. docs/format/stream.md has the bytes.
//
// It holds the arithmetic of a stream (Shape), the check of records as they
// arrive (Verifier) and the proof of what flash holds already (Walk). It imports
// core/digest and nothing else; it knows no transport, no driver and no
// manifest, and keeps neither buffers nor a running hash: both are handed in.
package stream

import (
	"encoding/binary"
	"math/bits"

	"github.com/runnel-fota/runnel/core/digest"
)

// Chunk sizes are powers of two in this range, bytes (docs/format/stream.md).
const (
	MinChunk = 256
	MaxChunk = 16384
)

// HashSize is what a record but the last has behind its chunk, bytes.
const HashSize = digest.Size

const (
	prefixMagic   = "RNLR"
	prefixVersion = 1
	prefixSize    = 16
)

// Error is why a record or a shape was refused; 0 is none.
type Error uint8

const (
	ErrShape    Error = iota + 1 // a size of 0, or a chunk size that is not allowed
	ErrRange                     // no such record
	ErrLength                    // not the record's length
	ErrHash                      // not the record that the root stands for
	ErrUnproven                  // the expected hash is not proven yet
	ErrDone                      // there is no further record
	ErrSpace                     // a buffer of no bytes
)

func (e Error) Error() string {
	switch e {
	case 0:
		return "stream: no error"
	case ErrShape:
		return "stream: size or chunk size is not allowed"
	case ErrRange:
		return "stream: no such record"
	case ErrLength:
		return "stream: not the record's length"
	case ErrHash:
		return "stream: a record that the root does not stand for"
	case ErrUnproven:
		return "stream: resumed but not proven"
	case ErrDone:
		return "stream: no further record"
	case ErrSpace:
		return "stream: no buffer"
	}
	return "stream: unknown error"
}

// Shape is what a stream's layout follows from, both signed. The methods but
// Valid want a valid one.
type Shape struct {
	Size  uint32 // of the payload, bytes, from 1
	Chunk uint32 // bytes
}

// Valid reports whether there are streams of this shape.
//
//go:noinline
func (s Shape) Valid() bool {
	return s.Size > 0 && s.Chunk >= MinChunk && s.Chunk <= MaxChunk && s.Chunk&(s.Chunk-1) == 0
}

// Records is how many there are.
//
//go:noinline
func (s Shape) Records() uint32 { return (s.Size-1)/s.Chunk + 1 }

// Start is where record i starts in the file. The HashSize bytes before it are
// its hash, but for record 0.
func (s Shape) Start(i uint32) uint64 { return uint64(i) * uint64(s.Chunk+HashSize) }

// ChunkLen is the number of payload bytes in record i, 0 where there is none.
func (s Shape) ChunkLen(i uint32) uint32 {
	switch last := s.Records() - 1; {
	case i < last:
		return s.Chunk
	case i == last:
		return s.Size - last*s.Chunk
	}
	return 0
}

// RecordLen is the length of record i in bytes, 0 where there is none.
func (s Shape) RecordLen(i uint32) uint32 {
	n := s.ChunkLen(i)
	if i < s.Records()-1 {
		n += HashSize
	}
	return n
}

// FileLen is the length of the stream file in bytes: above 32 bits for a payload
// near them.
func (s Shape) FileLen() uint64 {
	return uint64(s.Size) + HashSize*uint64(s.Records()-1)
}

// Begin makes h the start of the hash of record i. The caller writes the chunk, in
// pieces of any length, and behind it, for every record but the last, the hash
// of the next one.
func (s Shape) Begin(h *digest.SHA256, i uint32) {
	// Computed, never sent. Without it two streams of different sizes could have
	// one root.
	var p [prefixSize]byte
	copy(p[:], prefixMagic)
	p[4] = prefixVersion
	p[5] = byte(bits.TrailingZeros32(s.Chunk))
	if i == s.Records()-1 {
		p[6] = 1
	}
	binary.LittleEndian.PutUint32(p[8:], i)
	binary.LittleEndian.PutUint32(p[12:], s.Size)
	h.Reset()
	h.Write(p[:])
}

// Hash puts the hash of record i into out. next is the hash of record i+1, and
// empty for the last record. It may be what out holds.
func Hash(h *digest.SHA256, s Shape, i uint32, chunk, next []byte, out *[HashSize]byte) {
	s.Begin(h, i)
	h.Write(chunk)
	h.Write(next)
	h.Sum(out)
}
