package serial

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// SLIP's bytes (RFC 1055).
const (
	end    = 0xC0
	esc    = 0xDB
	escEnd = 0xDC
	escEsc = 0xDD
)

// Sink is where a frame's bytes go.
type Sink interface {
	Put(b byte)
}

// Encoder writes a frame as its bytes come: it needs neither their number nor a
// buffer.
type Encoder struct {
	out Sink
	crc uint32
	h   [HeaderSize]byte
}

// Begin starts a frame. The END before it ends what noise left on the line.
func (e *Encoder) Begin(out Sink, op, seq byte, session uint16) {
	e.out, e.crc = out, 0
	e.h[0], e.h[1] = op, seq
	binary.LittleEndian.PutUint16(e.h[2:], session)
	out.Put(end)
	e.Write(e.h[:])
}

// Write adds p to the payload. Nothing of p is kept.
func (e *Encoder) Write(p []byte) {
	e.crc = digest.CRC32(e.crc, p)
	for _, b := range p {
		e.put(b)
	}
}

// End puts the CRC behind the payload, and ends the frame.
func (e *Encoder) End() {
	binary.LittleEndian.PutUint32(e.h[:], e.crc)
	for _, b := range e.h {
		e.put(b)
	}
	e.out.Put(end)
}

func (e *Encoder) put(b byte) {
	switch b {
	case end:
		e.out.Put(esc)
		b = escEnd
	case esc:
		e.out.Put(esc)
		b = escEsc
	}
	e.out.Put(b)
}

// Result is what a byte made of the frame that is coming in.
type Result uint8

const (
	More  Result = iota
	Whole        // a frame ended, and its CRC is right
	Bad          // something ended that is no frame, or a damaged one
)

// Decoder takes frames apart as their bytes come. The zero value waits for one.
type Decoder struct {
	crc  uint32
	held uint32 // the last four bytes, which may be the CRC
	n    uint16 // bytes so far, escapes undone, CRC included
	size uint16 // of the last whole frame, without CRC
	esc  bool
	bad  bool
	one  [CRCSize]byte
}

// Feed takes the next byte of the line. Header and payload go to a, then to b, as
// they come: what is in them counts when a frame is Whole, and a frame that does not
// fit is Bad. Neither is kept; both are to be the same for all of a frame.
func (d *Decoder) Feed(c byte, a, b []byte) Result {
	if c == end {
		return d.finish()
	}
	if d.esc {
		d.esc = false
		switch c {
		case escEnd:
			c = end
		case escEsc:
			c = esc
		default:
			d.bad = true
		}
	} else if c == esc {
		d.esc = true
		return More
	}
	if d.bad {
		return More
	}
	if d.n >= CRCSize {
		at := int(d.n) - CRCSize
		out := byte(d.held)
		switch {
		case at < len(a):
			a[at] = out
		case at-len(a) < len(b):
			b[at-len(a)] = out
		default:
			d.bad = true
			return More
		}
		d.one[0] = out
		d.crc = digest.CRC32(d.crc, d.one[:1])
	}
	d.held = d.held>>8 | uint32(c)<<24
	d.n++
	return More
}

// finish: an END came.
func (d *Decoder) finish() Result {
	n, bad, right := d.n, d.bad || d.esc, d.held == d.crc
	d.Reset()
	switch {
	case n == 0 && !bad:
		return More // between two frames
	case bad || n < HeaderSize+CRCSize || !right:
		return Bad
	}
	d.size = n - CRCSize
	return Whole
}

// Len is how long header and payload of the last whole frame are, together.
func (d *Decoder) Len() int { return int(d.size) }

// Reset forgets what came of a frame.
func (d *Decoder) Reset() { d.crc, d.held, d.n, d.esc, d.bad = 0, 0, 0, false, false }
