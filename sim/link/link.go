// Package link is a network on a virtual clock: how long a request and the bytes of
// its answer take over a line of some rate, with some distance to the server and a
// receive window. It knows no protocol and no payload; who carries those asks it
// when they arrive. docs/design/updater.md says which lines the project's figures
// are for.
package link

import "time"

// Line is a way to a server.
type Line struct {
	BytesPerSecond int // of each direction
	RoundTrip      time.Duration
	Window         int // bytes that may be on the way or unread: what the device has room for
}

// Clock is the time that a Line works on. Wait moves it on.
type Clock interface {
	Now() time.Duration
	Wait(d time.Duration)
}

// Body is an answer on its way.
type Body struct {
	line  Line
	clock Clock
	free  time.Duration // when the line has carried what was sent so far
	left  int           // bytes that the server has still to send
	queue []span        // sent or to be sent, in order
}

// span are bytes that the server may send from a moment on.
type span struct {
	from  time.Duration
	bytes int
}

// Ask sends a request of so many bytes, headers included, and waits for the head of
// its answer; the body then has so many bytes.
func (l Line) Ask(c Clock, request, head, body int) *Body {
	c.Wait(l.took(request) + l.RoundTrip + l.took(head))
	b := &Body{line: l, clock: c, free: c.Now(), left: body}
	b.open(b.free, l.Window)
	return b
}

func (l Line) took(n int) time.Duration {
	return time.Duration(n) * time.Second / time.Duration(l.BytesPerSecond)
}

// open lets the server send n more bytes from a moment on.
func (b *Body) open(from time.Duration, n int) {
	if n = min(n, b.left); n > 0 {
		b.left -= n
		b.queue = append(b.queue, span{from, n})
	}
}

// Read waits until n more bytes have arrived. What is read makes room in the window,
// of which the server hears half a round trip later and fills it another half later.
func (b *Body) Read(n int) {
	for need := n; need > 0 && len(b.queue) > 0; {
		s := &b.queue[0]
		k := min(need, s.bytes)
		b.free = max(b.free, s.from) + b.line.took(k)
		need -= k
		if s.bytes -= k; s.bytes == 0 {
			b.queue = b.queue[1:]
		}
	}
	if d := b.free - b.clock.Now(); d > 0 {
		b.clock.Wait(d)
	}
	b.open(b.clock.Now()+b.line.RoundTrip, n)
}
