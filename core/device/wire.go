package device

// Wire is one protocol, as the updater is handed it: a V1's or a Native's, made by the
// caller. Nothing received chooses it.
type Wire struct {
	by     protocol
	v1     *V1
	native *Native
}

// protocol is what the wires do differently. Its types have no fields: what is in an
// interface has all of its fields described in flash.
type protocol interface {
	// attach checks what the wire was given and parts the updater's buffer.
	attach(u *Updater) error
	// body looks at what came of an answer and says whether it wants more of it.
	body(u *Updater) (more bool)
	// poll asks for a release and ends in nothing, consider or another phase.
	poll(u *Updater) Need
	// resume proves what a download may build on and ends in resumed.
	resume(u *Updater) Need
	// fetch brings the next chunk, whole and checked, into the chunk buffer and
	// ends in chunkInHand, or in beginVerify.
	fetch(u *Updater) Need
	// report sends what saying says and ends in reported.
	report(u *Updater) Need
}

// Request is what NeedSend wants sent. Its slices lie in the updater's buffer:
// they are gone after Response.
type Request struct {
	Method string
	Target []byte // path with query
	Body   []byte // empty for a GET
	// Ranged asks for bytes From to To of the target, To included. Without it, To, if
	// not 0, is where the target's last byte lies: a bound on what is worth reading.
	// Time is bounded by the caller, who ends an answer that drips with Broken.
	Ranged   bool
	From, To uint32
	// Headers of the v1 wire; empty: not sent.
	DeviceID              string
	Nonce, Timestamp, MAC []byte
}

// Head is what an answer says before its body.
type Head struct {
	Status uint16
	// Coded: the body has a content coding, which nobody here undoes.
	Coded      bool
	RetryAfter uint32 // seconds; 0: not said
	// Of a 206: what its Content-Range says; Total 0: not said.
	From, To, Total uint32
}

// ioState is where a request and its answer are.
type ioState uint8

const (
	ioNone   ioState = iota
	ioSend           // the caller has still to send Request()
	ioBody           // the answer is being read
	ioDone           // read to its end
	ioBroken         // no answer, or not a whole one
)

// layout is where a request lies in the buffer: the ends of its parts, one behind
// the other.
type layout struct {
	target, body, nonce, stamp, mac uint16
}

// exchange is the request in progress. What it points at lies in the buffer.
type exchange struct {
	state    ioState
	open     bool // the caller holds an answer that has not ended
	drop     bool // and is to let it go
	ranged   bool
	inFrom   uint16 // where the answer goes: [inFrom, inTo) of the buffer
	inTo     uint16
	got      uint16 // bytes of it that came and were not used yet
	left     uint16 // of an answer that is only read to its end
	req      layout
	from, to uint32 // of a ranged request
	head     Head
}

// maxUnread bounds what is read of an answer that says nothing, such as an error
// page, to keep its connection. Bytes.
const maxUnread = 4096

// Request is what NeedSend wants sent.
func (u *Updater) Request() Request {
	l, b := &u.io.req, u.buf
	r := Request{Method: "GET", Target: b[:l.target], Ranged: u.io.ranged, From: u.io.from, To: u.io.to}
	if v1Made && u.w.v1 != nil {
		r.DeviceID = u.w.v1.wire.ID()
		r.Nonce, r.Timestamp, r.MAC = b[l.body:l.nonce], b[l.nonce:l.stamp], b[l.stamp:l.mac]
	}
	if l.body > l.target {
		r.Method, r.Body = "POST", b[l.target:l.body]
	}
	return r
}

// Response is the head of the answer.
func (u *Updater) Response(h Head) {
	if u.io.state != ioSend {
		return
	}
	if h.RetryAfter > maxRetryAfter {
		h.RetryAfter = maxRetryAfter
	}
	u.io.head, u.io.state, u.io.open, u.io.got, u.io.left = h, ioBody, true, 0, maxUnread
}

// Space is where the next bytes of the answer go, where Step wants some
// (NeedBytes). It is never empty then.
func (u *Updater) Space() []byte { return u.buf[u.io.inFrom+u.io.got : u.io.inTo] }

// Fed says that n bytes were put there.
func (u *Updater) Fed(n int) {
	if u.io.state == ioBody && n > 0 && n <= int(u.io.inTo-u.io.inFrom-u.io.got) {
		u.io.got += uint16(n)
	}
}

// EndOfBody: the answer was read to its end; the bytes before it were Fed.
func (u *Updater) EndOfBody() {
	if u.io.state == ioBody {
		u.io.state, u.io.open = ioDone, false
	}
}

// Broken: the request could not be sent, or its answer not read. The caller has
// let go of it.
func (u *Updater) Broken() {
	if u.io.state != ioNone {
		u.io.state, u.io.open, u.io.got = ioBroken, false, 0
	}
}

// send starts an exchange with the request that io.req and io.ranged describe; its
// answer goes to [from, to) of the buffer.
//
//go:noinline
func (u *Updater) send(from, to int) Need {
	u.io.inFrom, u.io.inTo, u.io.got = uint16(from), uint16(to), 0
	u.io.head, u.io.state = Head{}, ioSend
	return Need{Kind: NeedSend}
}

// in is what came of the answer and was not used yet.
func (u *Updater) in() []byte { return u.buf[u.io.inFrom : u.io.inFrom+u.io.got] }

// hangUp ends the exchange, and has the caller let go of what is left of the answer.
//
//go:noinline
func (u *Updater) hangUp() {
	u.io.state, u.io.got = ioNone, 0
	u.io.drop = u.io.drop || u.io.open
	u.io.open = false
}

// skim reads an answer that says nothing to its end, within bounds.
//
//go:noinline
func (u *Updater) skim() (more bool) {
	n := u.io.got
	u.io.got = 0
	if n >= u.io.left {
		u.io.left = 0
		if u.io.state == ioBody {
			u.io.state = ioDone
		}
		return false
	}
	u.io.left -= n
	return u.io.state == ioBody
}
