package stream

import "github.com/runnel-fota/runnel/core/digest"

// StepBytes is how many bytes one Step of a Walk hashes at most: some
// milliseconds on a small chip, between two looks at its watchdog.
const StepBytes = 4096

// Source is what a walk reads: a slot, where the payload lies from offset 0 on.
// *flash.Area is one. ReadAt fills p or fails.
type Source interface {
	ReadAt(p []byte, off uint32) error
}

// Walk proves what a slot holds, backwards: chunk i-1 as it is in flash, with
// hash(i), gives hash(i-1), and so on down to hash(0). If that is the root, the
// chunks and hash(i) are what the root stands for; if not, nothing is known of
// any of them. From the number of records it needs no hash, and is the check of a
// whole slot.
type Walk struct {
	shape Shape
	from  uint32         // where the walk began
	left  uint32         // records still to be hashed
	off   uint32         // bytes of chunk left-1 that are hashed
	hash  [HashSize]byte // of record left
}

// Begin starts from record i and its hash, which nobody believes yet. hash is not
// looked at where i is the number of records: it may be nil.
func (w *Walk) Begin(s Shape, i uint32, hash *[HashSize]byte) Error {
	*w = Walk{}
	if !s.Valid() {
		return ErrShape
	}
	if i > s.Records() {
		return ErrRange
	}
	w.shape, w.from, w.left = s, i, i
	if i < s.Records() {
		copy(w.hash[:], hash[:])
	}
	return 0
}

// Step reads and hashes up to StepBytes, or the length of buf, and reports
// whether the walk is done. h must not be used by others until then. After an
// error the same step may be tried again.
func (w *Walk) Step(src Source, buf []byte, h *digest.SHA256) (bool, error) {
	off, n := w.Next(uint32(len(buf)))
	if n == 0 {
		if w.left == 0 {
			return true, nil
		}
		return false, ErrSpace
	}
	if err := src.ReadAt(buf[:n], off); err != nil {
		return false, err
	}
	return w.Take(buf[:n], h), nil
}

// Next is for who reads the slot himself: which bytes Take wants next, StepBytes and
// most at most; none, n 0, when the walk is done.
func (w *Walk) Next(most uint32) (off, n uint32) {
	if w.left == 0 {
		return 0, 0
	}
	n = w.shape.ChunkLen(w.left-1) - w.off
	if n > StepBytes {
		n = StepBytes
	}
	if n > most {
		n = most
	}
	return (w.left-1)*w.shape.Chunk + w.off, n
}

// Take hashes the bytes that Next named, all of them, and reports whether the walk is
// done. h must not be used by others until then.
func (w *Walk) Take(p []byte, h *digest.SHA256) (done bool) {
	if w.left == 0 {
		return true
	}
	i := w.left - 1
	if w.off == 0 {
		w.shape.Begin(h, i)
	}
	h.Write(p)
	w.off += uint32(len(p))
	if w.off == w.shape.ChunkLen(i) {
		if w.left < w.shape.Records() {
			h.Write(w.hash[:])
		}
		h.Sum(&w.hash)
		w.left, w.off = i, 0
	}
	return w.left == 0
}

// Left is how many records are still to be hashed.
func (w *Walk) Left() uint32 { return w.left }

// Proven reports whether the walk is done and arrived at root.
func (w *Walk) Proven(root *[HashSize]byte) bool {
	return w.shape.Valid() && w.left == 0 && digest.Equal(w.hash[:], root[:])
}
