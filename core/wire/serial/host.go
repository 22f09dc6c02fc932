//go:build !tinygo || semihosting

package serial

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Happening is what a byte of the line made happen at the bridge.
type Happening uint8

const (
	Nothing Happening = iota
	Opened            // a session began: what was open in the one before is over
	Called            // a call is to be done: Op and Payload, then Answer or Refuse
	Asked             // what was done, or is in progress, was asked for again; nothing is to be done
	Damaged           // a damaged frame, or none
	Strange           // a call of no session
)

// Host is the bridge's end of one line. It tells a call from one that was sent
// again, has each done once, and keeps the last answer. It knows no clock and no
// HTTP, and does not lock.
type Host struct {
	// Out is where frames go.
	Out Sink
	// Session is the number of the last one; a random number at the start keeps a
	// bridge that was started anew from taking a board of before for one of its own.
	Session uint16

	state  hostState
	seq    byte
	sum    uint32 // of the call, so that a repeat is one
	dec    Decoder
	enc    Encoder
	in     [MaxContent]byte // as it comes
	call   [MaxContent]byte // the one to be done
	callN  int
	answer [MaxContent]byte
	ansOp  byte
	ansN   int
}

type hostState uint8

const (
	hostIdle    hostState = iota // no session
	hostWorking                  // a call is being done
	hostDone                     // the last call was answered
)

// Op of the call to be done.
func (h *Host) Op() byte { return h.call[0] }

// Payload of the call to be done; it lasts until the next one.
func (h *Host) Payload() []byte { return h.call[HeaderSize:h.callN] }

// Feed takes a byte of the line.
func (h *Host) Feed(b byte) Happening {
	switch h.dec.Feed(b, h.in[:], nil) {
	case Bad:
		return Damaged // and no answer: nobody knows whose it was
	case Whole:
		return h.frame(h.in[:h.dec.Len()])
	}
	return Nothing
}

func (h *Host) frame(p []byte) Happening {
	op, seq, session := p[0], p[1], binary.LittleEndian.Uint16(p[2:])
	if op&Answer != 0 {
		return Damaged // an echo of ours: a line whose ends are tied together
	}
	sum := digest.CRC32(0, p)
	switch {
	case h.state != hostIdle && seq == h.seq && sum == h.sum:
		h.again()
		return Asked
	case op == OpOpen:
		return h.open(p, sum)
	case h.state != hostDone || session != h.Session || seq != h.seq+1:
		h.put(OpRefused+byte(ErrSession), seq, session, nil)
		return Strange
	}
	h.state, h.seq, h.sum = hostWorking, seq, sum
	h.callN = copy(h.call[:], p)
	return Called
}

// open begins a session. The answer goes under no session: the board has none yet.
func (h *Host) open(p []byte, sum uint32) Happening {
	h.state, h.seq, h.sum = hostWorking, p[1], sum
	h.callN = copy(h.call[:], p[:HeaderSize])
	binary.LittleEndian.PutUint16(h.call[2:], 0)
	if len(p) != HeaderSize+openCall || p[HeaderSize] != Version {
		h.Refuse(ErrForm)
		h.state = hostIdle
		return Damaged
	}
	if h.Session++; h.Session == 0 {
		h.Session = 1
	}
	var a [openAnswer]byte
	a[0] = Version
	copy(a[1:], p[HeaderSize+1:])
	binary.LittleEndian.PutUint16(a[5:], h.Session)
	h.Answer(a[:])
	return Opened
}

// Answer ends the call that is being done, with the parts as payload: MaxPayload bytes
// at most, what is beyond is cut. Where none is being done it does nothing.
func (h *Host) Answer(parts ...[]byte) {
	h.finish(h.call[0]|Answer, parts)
}

// Refuse ends it with a reason.
func (h *Host) Refuse(e Error) {
	h.finish(OpRefused+byte(e), nil)
}

func (h *Host) finish(op byte, parts [][]byte) {
	if h.state != hostWorking {
		return
	}
	h.state, h.ansOp, h.ansN = hostDone, op, 0
	for _, p := range parts {
		h.ansN += copy(h.answer[h.ansN:MaxPayload], p)
	}
	h.again()
}

// again says the last answer, or that there is none yet.
func (h *Host) again() {
	op, p := h.ansOp, h.answer[:h.ansN]
	if h.state == hostWorking {
		op, p = OpBusy, nil
	}
	h.put(op, h.call[1], binary.LittleEndian.Uint16(h.call[2:]), p)
}

func (h *Host) put(op, seq byte, session uint16, payload []byte) {
	h.enc.Begin(h.Out, op, seq, session)
	h.enc.Write(payload)
	h.enc.End()
}

// Decode reads the payload of OpSend; all but Device are views of p.
func (r *Request) Decode(p []byte) Error {
	if len(p) < requestHead || len(p) > MaxPayload || p[0]&^flagRanged != 0 {
		return ErrForm
	}
	r.Ranged = p[0]&flagRanged != 0
	r.From = binary.LittleEndian.Uint32(p[1:])
	r.To = binary.LittleEndian.Uint32(p[5:])
	n, rest := p[9:requestHead], p[requestHead:]
	var part [5][]byte
	for i := range part {
		if len(rest) < int(n[i]) {
			return ErrForm
		}
		part[i], rest = rest[:n[i]:n[i]], rest[n[i]:]
	}
	r.Target, r.Device, r.Nonce, r.Timestamp, r.MAC, r.Body = part[0], string(part[1]), part[2], part[3], part[4], rest
	if len(r.Target) == 0 || r.Ranged && (r.From > r.To || len(rest) > 0) {
		return ErrForm
	}
	return 0
}

// HeadBytes is how long a Head is on the wire.
const HeadBytes = headSize

// Encode writes the payload of the answer to OpSend.
func (h *Head) Encode(p *[HeadBytes]byte) {
	binary.LittleEndian.PutUint16(p[:], h.Status)
	p[2] = 0
	if h.Coded {
		p[2] = flagCoded
	}
	binary.LittleEndian.PutUint32(p[3:], h.RetryAfter)
	binary.LittleEndian.PutUint32(p[7:], h.From)
	binary.LittleEndian.PutUint32(p[11:], h.To)
	binary.LittleEndian.PutUint32(p[15:], h.Total)
}

// DecodeRead reads the payload of OpRead: where in the body, and at most how many bytes.
func DecodeRead(p []byte) (offset uint32, most int, err Error) {
	if len(p) != readCall {
		return 0, 0, ErrForm
	}
	offset, most = binary.LittleEndian.Uint32(p), int(binary.LittleEndian.Uint16(p[4:]))
	if most == 0 || most > MaxRead {
		return 0, 0, ErrForm
	}
	return offset, most, 0
}

// Piece is the first byte of the answer to OpRead.
func Piece(end, broken bool) byte {
	switch {
	case broken:
		return flagBroken
	case end:
		return flagEnd
	}
	return 0
}

// DecodeSay reads the payload of OpSay.
func DecodeSay(p []byte) (kind, reason, slot uint8, bytes uint32, err Error) {
	if len(p) != sayCall {
		return 0, 0, 0, 0, ErrForm
	}
	return p[0], p[1], p[2], binary.LittleEndian.Uint32(p[3:]), 0
}
