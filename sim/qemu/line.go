package qemu

import (
	"bufio"
	"io"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// Line is the other end of a chip's serial line: a bridge to a server in memory. One
// Line stays when the chip starts anew, as a bridge does.
type Line struct {
	// Do answers a request.
	Do func(device.Request) *labserver.Answer
	// Say hears of events; nil: nobody does.
	Say func(device.Event)
	// Host does the calls from serial.OpHost on; nil: there are none.
	Host func(op byte, payload []byte) ([]byte, bool)
	// Gone, asked after a call, says that the power went in it: nothing is answered, then
	// and later. nil: it never does.
	Gone func() bool
	// Done is called after each call; nil: nobody counts. Calls is how many there were.
	Done  func()
	Calls int

	host   serial.Host
	answer *labserver.Answer
	at     uint32 // of the body, what was read
}

// sink writes frames to a connection.
type sink struct{ *bufio.Writer }

func (s sink) Put(b byte) { _ = s.WriteByte(b) } // an error stays, and Flush returns it

// Serve answers the chip until the line is closed.
func (l *Line) Serve(conn io.ReadWriter) {
	in, out := bufio.NewReader(conn), bufio.NewWriter(conn)
	l.host.Out = sink{out}
	for {
		b, err := in.ReadByte()
		if err != nil {
			return
		}
		if l.host.Feed(b) == serial.Called {
			l.Calls++
			l.call()
			if l.Gone != nil && l.Gone() {
				return // what was not flushed is lost
			}
			if l.Done != nil {
				l.Done()
			}
		}
		if out.Flush() != nil {
			return
		}
	}
}

func (l *Line) call() {
	p := l.host.Payload()
	switch op := l.host.Op(); {
	case op == serial.OpSend:
		l.send(p)
	case op == serial.OpRead:
		l.read(p)
	case op == serial.OpClose:
		l.answer = nil
		l.host.Answer()
	case op == serial.OpSay:
		kind, reason, slot, bytes, err := serial.DecodeSay(p)
		if err != 0 {
			l.host.Refuse(err)
			return
		}
		l.host.Answer()
		if l.Say != nil {
			l.Say(device.Event{Kind: device.EventKind(kind), Reason: device.Reason(reason), Slot: boot.Slot(slot), Bytes: bytes})
		}
	case op >= serial.OpHost && op <= serial.OpHostLast && l.Host != nil:
		answer, ok := l.Host(op, p)
		if !ok {
			l.host.Refuse(serial.ErrHost)
			return
		}
		l.host.Answer(answer)
	default:
		l.host.Refuse(serial.ErrOp)
	}
}

func (l *Line) send(p []byte) {
	var r serial.Request
	if err := r.Decode(p); err != 0 {
		l.host.Refuse(err)
		return
	}
	l.answer = l.Do(device.Request{Method: "POST", Target: r.Target, Body: r.Body, Ranged: r.Ranged, From: r.From, To: r.To})
	l.at = 0
	d := l.answer.Head()
	h := serial.Head{Status: d.Status, RetryAfter: d.RetryAfter, From: d.From, To: d.To, Total: d.Total, Coded: d.Coded}
	var out [serial.HeadBytes]byte
	h.Encode(&out)
	l.host.Answer(out[:])
}

func (l *Line) read(p []byte) {
	offset, most, e := serial.DecodeRead(p)
	if e != 0 {
		l.host.Refuse(e)
		return
	}
	if l.answer == nil || offset != l.at {
		l.host.Answer([]byte{serial.Piece(false, true)})
		return
	}
	buf := make([]byte, most)
	n, end, err := l.answer.Read(buf)
	l.at += uint32(n)
	l.host.Answer([]byte{serial.Piece(end, err != nil)}, buf[:n])
}
