package serial

import "encoding/binary"

// Port is the UART: 8 bits, no parity, one stop bit.
type Port interface {
	// Put sends a byte, and waits until there is room for it.
	Put(b byte)
	// Get waits at most ms milliseconds for a byte; with 0 it takes one that is there.
	Get(ms uint32) (b byte, ok bool)
}

// Defaults and bounds, with their reasons.
const (
	// defaultWait, ms: USB adapters and emulators hold bytes back for some 20.
	defaultWait  = 500
	defaultTries = 8
	// defaultBusy times defaultWait is two minutes: longer than a bridge waits for a
	// server, and an end where something on the line answers "still at it" for ever.
	defaultBusy = 240
	// afterDamage, ms: how long the line is silent before a damaged answer is asked for
	// again.
	afterDamage = 50
	// maxHeard bounds what is listened to after a call, bytes: twice the longest frame
	// with every byte escaped, and the noise before it.
	maxHeard = 6 * MaxContent
)

// Client is the board's end. Set Port, and Nonce where the chip has something that
// differs from start to start; the rest may be 0. It belongs to one caller.
//
// A call that fails leaves the reason in Fault, and ends the session where nobody
// knows whether the call was done: an answer that was being read is then broken, and
// the next call opens a new session by itself.
type Client struct {
	Port Port
	// Nonce tells this start's first frames from what the last start left on the line.
	Nonce uint32
	// Wait, ms: a call is sent again after such a silence; 0: 500.
	Wait uint32
	// Tries of a call; 0: 8. Busy is how often in a row it may be answered with "still
	// at it"; 0: 240.
	Tries, Busy uint16

	Fault Error // why the last call failed

	session uint16 // 0: none
	seq     byte
	offset  uint32 // of the body that is being read
	enc     Encoder
	dec     Decoder
	tx      [requestHead]byte
	rx      [HeaderSize + headSize]byte
}

// Send has the bridge send a request, and waits for the head of the answer. An answer
// that was open is let go of. False: it could not be sent, or there was no answer.
// Nothing of r is kept.
func (c *Client) Send(r *Request, h *Head) bool {
	target, device, nonce, stamp, mac := len(r.Target), len(r.Device), len(r.Nonce), len(r.Timestamp), len(r.MAC)
	// MaxField is a power of two less one: one comparison for all of them.
	if target|device|nonce|stamp|mac > MaxField || requestHead+target+device+nonce+stamp+mac+len(r.Body) > MaxPayload {
		return c.fail(ErrSpace)
	}
	p := c.tx[:requestHead]
	p[0] = 0
	if r.Ranged {
		p[0] = flagRanged
	}
	binary.LittleEndian.PutUint32(p[1:], r.From)
	binary.LittleEndian.PutUint32(p[5:], r.To)
	p[9], p[10], p[11], p[12], p[13] = byte(target), byte(device), byte(nonce), byte(stamp), byte(mac)
	c.offset = 0
	n, ok := c.call(OpSend, p, r, nil, nil, HeaderSize+headSize, nil)
	if !ok {
		return false
	}
	if n != headSize {
		return c.fail(ErrBroken)
	}
	p = c.rx[HeaderSize:]
	h.Status = binary.LittleEndian.Uint16(p)
	h.Coded = p[2]&flagCoded != 0
	h.RetryAfter = binary.LittleEndian.Uint32(p[3:])
	h.From = binary.LittleEndian.Uint32(p[7:])
	h.To = binary.LittleEndian.Uint32(p[11:])
	h.Total = binary.LittleEndian.Uint32(p[15:])
	return true
}

// Read brings the next bytes of the answer's body straight into p: at least one, at
// most MaxRead, or none at its end, which end says. What is in p counts only as far as
// n says. False: the rest of the body is lost.
//
//go:noinline
func (c *Client) Read(p []byte) (n int, end, ok bool) {
	if len(p) > MaxRead {
		p = p[:MaxRead]
	}
	if c.session == 0 {
		return 0, false, c.fail(ErrSession) // a new one would know nothing of the body
	}
	head := c.tx[:readCall]
	binary.LittleEndian.PutUint32(head, c.offset)
	binary.LittleEndian.PutUint16(head[4:], uint16(len(p)))
	n, ok = c.call(OpRead, head, nil, nil, nil, HeaderSize+1, p)
	if !ok {
		return 0, false, false
	}
	n--
	flags := c.rx[HeaderSize]
	if n < 0 || flags&flagBroken != 0 || n == 0 && flags&flagEnd == 0 {
		return 0, false, c.fail(ErrBroken)
	}
	c.offset += uint32(n)
	return n, flags&flagEnd != 0, true
}

// Close lets go of an answer that was not read to its end.
func (c *Client) Close() bool {
	if c.session == 0 {
		return true // it went with the session
	}
	_, ok := c.call(OpClose, nil, nil, nil, nil, HeaderSize, nil)
	return ok
}

// Say tells the bridge of an event, for people: the numbers of the updater's.
func (c *Client) Say(kind, reason, slot uint8, bytes uint32) bool {
	p := c.tx[:sayCall]
	p[0], p[1], p[2] = kind, reason, slot
	binary.LittleEndian.PutUint32(p[3:], bytes)
	_, ok := c.call(OpSay, p, nil, nil, nil, HeaderSize, nil)
	return ok
}

// Time is the bridge's, Unix seconds; 0: not known.
func (c *Client) Time() uint32 {
	n, ok := c.call(OpTime, nil, nil, nil, nil, HeaderSize+4, nil)
	if !ok || n != 4 {
		return 0
	}
	return binary.LittleEndian.Uint32(c.rx[HeaderSize:])
}

// Call is one of the host's own, OpHost to OpHostLast. Its payload is head, a and b,
// one behind the other; the answer's goes to into, and has n bytes. The host does it
// once, however often it is sent. Nothing of what is handed over is kept; into shares
// no memory with the rest, which may have to be sent again.
func (c *Client) Call(op byte, head, a, b, into []byte) (n int, ok bool) {
	if len(head)+len(a)+len(b) > MaxPayload {
		return 0, c.fail(ErrSpace)
	}
	return c.call(op, head, nil, a, b, HeaderSize, into)
}

func (c *Client) fail(e Error) bool {
	c.Fault = e
	return false
}

// open begins a session, where there is none.
func (c *Client) open() bool {
	if c.session != 0 {
		return true
	}
	c.Nonce++
	var p [openCall]byte
	p[0] = Version
	binary.LittleEndian.PutUint32(p[1:], c.Nonce)
	n, ok := c.exchange(OpOpen, p[:], nil, nil, nil, HeaderSize+openAnswer, nil)
	if !ok {
		return false
	}
	q := c.rx[HeaderSize:]
	session := binary.LittleEndian.Uint16(q[5:])
	if n != openAnswer || q[0] != Version || binary.LittleEndian.Uint32(q[1:]) != c.Nonce || session == 0 {
		return c.fail(ErrForm)
	}
	c.session = session
	return true
}

// call is exchange within a session. A bridge that was started anew since the last call
// says so at the first try: then nothing was done, and the call goes to the new one, but
// for a read, whose body went with the old one.
func (c *Client) call(op byte, head []byte, r *Request, a, b []byte, rx int, into []byte) (int, bool) {
	for again := op == OpRead; ; again = true {
		if !c.open() {
			return 0, false
		}
		n, ok := c.exchange(op, head, r, a, b, rx, into)
		if ok || c.Fault == ErrOp || c.Fault == ErrTarget || c.Fault == ErrHost {
			return n, ok
		}
		c.session = 0
		if c.Fault != ErrSession || again {
			return 0, false
		}
	}
}

// exchange sends a call until it is answered. The first rx bytes of the answer go to
// c.rx, the rest to into; n is how long its payload is.
func (c *Client) exchange(op byte, head []byte, r *Request, a, b []byte, rx int, into []byte) (n int, ok bool) {
	tries, busy := c.Tries, c.Busy
	if tries == 0 {
		tries = defaultTries
	}
	if busy == 0 {
		busy = defaultBusy
	}
	c.seq++
	c.Fault = ErrSilent
	c.drain()
	first := true
	for left := tries; left > 0; first = false {
		c.put(op, head, r, a, b)
		switch c.listen(op, c.rx[:rx], into) {
		case heardAnswer:
			c.Fault = 0
			return c.dec.Len() - HeaderSize, true
		case heardBusy:
			if busy--; busy == 0 {
				return 0, c.fail(ErrBusy)
			}
			left = tries
		case heardRefusal:
			if e := Error(c.rx[0] - OpRefused); first || e != ErrSession {
				c.Fault = e
			} // else who was asked first may have done it, and ErrSilent says that nobody knows
			return 0, false
		default:
			left--
		}
	}
	return 0, false
}

func (c *Client) put(op byte, head []byte, r *Request, a, b []byte) {
	e := &c.enc
	e.Begin(c.Port, op, c.seq, c.session)
	e.Write(head)
	if r != nil {
		e.Write(r.Target)
		for i := 0; i < len(r.Device); i++ {
			e.h[0] = r.Device[i]
			e.Write(e.h[:1])
		}
		e.Write(r.Nonce)
		e.Write(r.Timestamp)
		e.Write(r.MAC)
		e.Write(r.Body)
	}
	e.Write(a)
	e.Write(b)
	e.End()
}

// drain drops what lies on the line: a second answer to what was sent twice, or what
// is left of one that came while the chip was busy with its flash.
func (c *Client) drain() {
	c.dec.Reset()
	for i := 0; i < maxHeard; i++ {
		if _, ok := c.Port.Get(0); !ok {
			return
		}
	}
}

type heard uint8

const (
	heardNothing heard = iota
	heardAnswer
	heardBusy
	heardRefusal
)

// listen waits for the answer to the call that was sent last.
func (c *Client) listen(op byte, rx, into []byte) heard {
	wait := c.Wait
	if wait == 0 {
		wait = defaultWait
	}
	now, what := wait, heardNothing
	for i := 0; i < maxHeard; i++ {
		b, ok := c.Port.Get(now)
		if !ok {
			break
		}
		switch c.dec.Feed(b, rx, into) {
		case Bad:
			now = afterDamage
		case Whole:
			now = wait
			if rx[1] != c.seq || binary.LittleEndian.Uint16(rx[2:]) != c.session {
				break // an answer to something else
			}
			switch h := rx[0]; {
			case h == op|Answer:
				return heardAnswer
			case h == OpBusy:
				what = heardBusy
			case h > OpRefused && h < OpBusy:
				return heardRefusal
			}
		}
	}
	return what
}
