// Package bridge is the other end of a board's serial line (docs/format/serial.md):
// it takes calls, has requests sent to the server, and hands the answers back a piece
// at a time. It believes nothing of what comes over the line: frames and targets are
// bounded, only the device wires' paths are fetched, and one request is open at a
// time. What a board makes of an answer is proven by the board.
//
// It knows lines (Open, Listen) and core/wire/serial; HTTP it is handed as a
// function. It imports no other adapter.
package bridge

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"

	"github.com/runnel-fota/runnel/core/wire/serial"
)

// Serve is the bridge's end of one line until ctx ends (nil), or the line does (why;
// io.EOF where the other side closed it). It closes rw.
func Serve(ctx context.Context, rw io.ReadWriteCloser, o Options) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	b := &bridge{rw: rw, f: NewForwarder(o), done: make(chan result, 1)}
	var seed [2]byte
	if _, err := rand.Read(seed[:]); err != nil {
		return errors.Join(err, rw.Close())
	}
	b.host.Out, b.host.Session = &b.out, binary.LittleEndian.Uint16(seed[:])
	b.begin(ctx)
	// Closing it is what ends a read or a write that waits.
	unblock := context.AfterFunc(ctx, func() { _ = rw.Close() })
	defer unblock()
	in, gone := make(chan []byte), make(chan error, 1)
	go func() { gone <- pump(ctx, rw, in) }()
	err := b.loop(ctx, in, gone)
	ended := ctx.Err() != nil
	// The reader and the call in progress end by this; both are waited for, so that
	// nothing of this line goes on behind it.
	cancel()
	closed := rw.Close()
	for b.working {
		b.end(<-b.done)
	}
	b.f.Reset()
	b.leave()
	for range in { // until the reader has closed it
	}
	if ended {
		return nil
	}
	if err == nil {
		return closed
	}
	return err // a line that is gone can't be closed well: that adds nothing
}

// readBytes at a time: what a tty driver holds.
const readBytes = 4096

// pump hands on what comes, until the line ends.
func pump(ctx context.Context, r io.Reader, in chan<- []byte) error {
	defer close(in)
	// Two buffers in turn: the reader of in is done with one when it takes the next.
	var buf [2][readBytes]byte
	for i := 0; ; i ^= 1 {
		n, err := r.Read(buf[i][:])
		if n > 0 {
			select {
			case in <- buf[i][:n]:
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		if err != nil {
			return err
		}
	}
}

// result is a call that was done.
type result struct {
	session int // that it belongs to
	answer  []byte
	refusal serial.Error
}

type bridge struct {
	rw   io.ReadWriteCloser
	host serial.Host
	out  sink
	f    *Forwarder
	done chan result

	// A call is done beside the loop, so that a board which asks again hears "still at
	// it". f is its alone then.
	working bool
	waiting bool // a call of a new session waits for one of an old session to end
	session int  // counts
	openIn  int  // session of f's open answer; of who has f
	live    context.Context
	leave   context.CancelFunc
	damaged int
}

// sink gathers what is said in answer to one piece of the line.
type sink []byte

func (s *sink) Put(b byte) { *s = append(*s, b) }

// begin gives a session a context of its own: what it left open ends with it.
func (b *bridge) begin(ctx context.Context) {
	b.live, b.leave = context.WithCancel(ctx)
}

func (b *bridge) loop(ctx context.Context, in <-chan []byte, gone <-chan error) error {
	for {
		select {
		case p, ok := <-in:
			if !ok {
				return <-gone
			}
			for _, c := range p {
				b.happened(ctx, b.host.Feed(c))
			}
		case r := <-b.done:
			b.end(r)
			if b.waiting {
				b.waiting = false
				b.start()
			}
		case <-ctx.Done():
			return ctx.Err()
		}
		if len(b.out) > 0 {
			if _, err := b.rw.Write(b.out); err != nil {
				return err
			}
			b.out = b.out[:0]
		}
	}
}

func (b *bridge) happened(ctx context.Context, what serial.Happening) {
	switch what {
	case serial.Opened:
		b.leave()
		b.begin(ctx)
		b.session++
		b.damaged = 0
		b.waiting = false
		b.f.tell(Event{Kind: KindOpened})
	case serial.Called:
		if b.working {
			b.waiting = true
			return
		}
		b.start()
	case serial.Damaged:
		// A line that is nothing but noise must not fill a log: at 1, 2, 4, 8 and so on.
		if b.damaged++; b.damaged&(b.damaged-1) == 0 {
			b.f.tell(Event{Kind: KindDamaged, Count: b.damaged})
		}
	}
}

// start does the call that the host has.
func (b *bridge) start() {
	b.working = true
	op, payload := b.host.Op(), append([]byte(nil), b.host.Payload()...)
	session, ctx := b.session, b.live
	go func() {
		if b.openIn != session {
			b.f.Reset()
			b.openIn = session
		}
		a, e := b.f.Do(ctx, op, payload)
		b.done <- result{session, a, e}
	}()
}

// end says what came of a call, if anybody still wants to know.
func (b *bridge) end(r result) {
	b.working = false
	if r.session != b.session {
		return
	}
	if r.refusal != 0 {
		b.host.Refuse(r.refusal)
		return
	}
	b.host.Answer(r.answer)
}
