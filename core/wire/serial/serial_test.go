package serial

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// wire ties a Client to a Host: what the board puts is taken at once, what the host
// says lies in a queue. Time is virtual: a Get that finds nothing has waited.
type wire struct {
	host   Host
	back   []byte // to the board
	sent   int
	waited uint64 // ms
	serve  func(h *Host)
	// lose says of each byte, by its number, that it does not arrive.
	lose func(n int) bool
	n    int
	seen map[Happening]int
}

type queue struct{ w *wire }

func (q queue) Put(b byte) { q.w.back = append(q.w.back, b) }

func newWire(serve func(h *Host)) *wire {
	w := &wire{serve: serve, seen: map[Happening]int{}}
	w.host.Out, w.host.Session = queue{w}, 0xC0DA
	return w
}

func (w *wire) lost() bool {
	w.n++
	return w.lose != nil && w.lose(w.n)
}

func (w *wire) Put(b byte) {
	w.sent++
	if w.lost() {
		return
	}
	what := w.host.Feed(b)
	w.seen[what]++
	if what == Called {
		w.serve(&w.host)
	}
}

func (w *wire) Get(ms uint32) (byte, bool) {
	for len(w.back) > 0 {
		b := w.back[0]
		w.back = w.back[1:]
		if !w.lost() {
			return b, true
		}
	}
	w.waited += uint64(ms)
	return 0, false
}

// server answers each kind of call from one request's body.
type server struct {
	body  []byte
	calls []byte // ops, in order
	req   Request
	say   [4]uint32
	own   []byte
}

func (s *server) serve(h *Host) {
	s.calls = append(s.calls, h.Op())
	p := h.Payload()
	switch h.Op() {
	case OpSend:
		if e := s.req.Decode(bytes.Clone(p)); e != 0 {
			h.Refuse(e)
			return
		}
		var b [HeadBytes]byte
		head := Head{Status: 206, RetryAfter: 7, From: 0xC0DBDCDD, To: 0xDBC0, Total: 1 << 31, Coded: true}
		head.Encode(&b)
		h.Answer(b[:])
	case OpRead:
		off, most, e := DecodeRead(p)
		if e != 0 || int(off) > len(s.body) {
			h.Refuse(ErrForm)
			return
		}
		part := s.body[off:min(int(off)+most, len(s.body))]
		h.Answer([]byte{Piece(int(off)+len(part) == len(s.body), false)}, part)
	case OpSay:
		k, r, slot, n, e := DecodeSay(p)
		if e != 0 {
			h.Refuse(e)
			return
		}
		s.say = [4]uint32{uint32(k), uint32(r), uint32(slot), n}
		h.Answer()
	case OpTime:
		h.Answer(binary.LittleEndian.AppendUint32(nil, 1_800_000_000))
	case OpClose:
		h.Answer()
	case OpHost + 5:
		s.own = bytes.Clone(p)
		h.Answer([]byte("yes"), p)
	default:
		h.Refuse(ErrOp)
	}
}

func body(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i*7) ^ byte(i>>8)
	}
	return p
}

// TestLoopBack: every call there and back.
func TestLoopBack(t *testing.T) {
	s := &server{body: body(2500)}
	w := newWire(s.serve)
	c := &Client{Port: w, Nonce: 41}

	if got := c.Time(); got != 1_800_000_000 {
		t.Errorf("time %d, fault %v", got, c.Fault)
	}
	r := Request{Target: []byte("/r1/poll"), Body: body(1024), Device: "d-1", Nonce: []byte("12"), Timestamp: []byte("345"), MAC: []byte("ab")}
	var h Head
	if !c.Send(&r, &h) {
		t.Fatalf("send: %v", c.Fault)
	}
	if want := (Head{Status: 206, RetryAfter: 7, From: 0xC0DBDCDD, To: 0xDBC0, Total: 1 << 31, Coded: true}); h != want {
		t.Errorf("head %+v, want %+v", h, want)
	}
	if g := s.req; !bytes.Equal(g.Target, r.Target) || !bytes.Equal(g.Body, r.Body) || g.Device != r.Device || !bytes.Equal(g.Nonce, r.Nonce) ||
		!bytes.Equal(g.Timestamp, r.Timestamp) || !bytes.Equal(g.MAC, r.MAC) || g.Ranged {
		t.Errorf("the bridge has %+v, sent was %+v", g, r)
	}
	var got []byte
	for {
		p := make([]byte, 2000)
		n, end, ok := c.Read(p)
		if !ok {
			t.Fatalf("read at %d: %v", len(got), c.Fault)
		}
		got = append(got, p[:n]...)
		if end {
			break
		}
	}
	if !bytes.Equal(got, s.body) {
		t.Errorf("%d bytes of a body came of %d, or others", len(got), len(s.body))
	}
	if !c.Close() || !c.Say(3, 46, 0xFF, 1<<31+1) {
		t.Errorf("close or say: %v", c.Fault)
	}
	if s.say != [4]uint32{3, 46, 255, 1<<31 + 1} {
		t.Errorf("said %v", s.say)
	}
	into := make([]byte, 32)
	n, ok := c.Call(OpHost+5, []byte{1}, []byte{2, 0xC0}, []byte{0xDB, 4}, into)
	if !ok || !bytes.Equal(into[:n], []byte{'y', 'e', 's', 1, 2, 0xC0, 0xDB, 4}) {
		t.Errorf("own call: % x, %v", into[:n], c.Fault)
	}
	if _, ok := c.Call(OpHost+6, nil, nil, nil, into); ok || c.Fault != ErrOp {
		t.Errorf("a call that nobody has: %v, %v", ok, c.Fault)
	}
	r = Request{Target: []byte("/r1/streams/x"), Ranged: true, From: 5, To: 0xFFFFFFFE}
	if !c.Send(&r, &h) || !s.req.Ranged || s.req.From != 5 || s.req.To != 0xFFFFFFFE {
		t.Errorf("ranged: %+v, %v", s.req, c.Fault)
	}
	if w.seen[Opened] != 1 || w.seen[Asked]+w.seen[Damaged]+w.seen[Strange] != 0 {
		t.Errorf("on a good line: %v", w.seen)
	}
}

// TestDoneOnce: whatever byte of a call or its answer is lost, the call is done once
// and its answer is whole.
func TestDoneOnce(t *testing.T) {
	for lost := 1; ; lost++ {
		s := &server{body: body(40)}
		w := newWire(s.serve)
		c := &Client{Port: w}
		if !c.Say(1, 0, 0, 0) {
			t.Fatal(c.Fault)
		}
		w.n = 0
		hit := false
		w.lose = func(n int) bool { hit = hit || n == lost; return n == lost }
		into := make([]byte, 8)
		n, ok := c.Call(OpHost+5, []byte{1, 2}, nil, nil, into)
		if !hit {
			if lost < 20 {
				t.Fatalf("only %d bytes went over the line", lost)
			}
			return
		}
		if !ok || string(into[:n]) != "yes\x01\x02" {
			t.Errorf("byte %d lost: %q, %v", lost, into[:n], c.Fault)
		}
		if !bytes.Equal(s.calls, []byte{OpSay, OpHost + 5}) {
			t.Errorf("byte %d lost: done was % x", lost, s.calls)
		}
	}
}

// TestHostStartsAnew: between two calls a bridge that was started anew is not noticed,
// but for a body that went with the old one; in the middle of a call nobody knows
// whether it was done, and nobody does it again.
func TestHostStartsAnew(t *testing.T) {
	s := &server{body: body(40)}
	w := newWire(s.serve)
	anew := func() { w.host = Host{Out: queue{w}, Session: w.host.Session + 100} }
	c := &Client{Port: w}
	var into [16]byte
	var h Head
	for range 2 {
		if n, ok := c.Call(OpHost+5, []byte{9}, nil, nil, into[:]); !ok || n != 4 {
			t.Fatal(c.Fault)
		}
		if !c.Send(&Request{Target: []byte("/r1/poll")}, &h) {
			t.Fatal(c.Fault)
		}
		anew()
	}
	if n, _, ok := c.Read(into[:]); ok || n != 0 || c.Fault != ErrSession {
		t.Errorf("a body of before: %d bytes, %v", n, c.Fault)
	}
	// It did the call, and was started anew before it could say so.
	s.calls = nil
	w.serve = func(h *Host) {
		s.serve(h)
		w.back = nil
		anew()
		w.serve = s.serve
	}
	if _, ok := c.Call(OpHost+5, []byte{9}, nil, nil, into[:]); ok || c.Fault != ErrSilent {
		t.Errorf("the answer was lost for good: %v, %v", ok, c.Fault)
	}
	if !bytes.Equal(s.calls, []byte{OpHost + 5}) {
		t.Errorf("done was % x", s.calls)
	}
	if !c.Say(1, 2, 3, 4) {
		t.Error(c.Fault)
	}
}

// TestBounds: each call ends, whatever the line says, after as many frames and as much
// time as it may take.
func TestBounds(t *testing.T) {
	s := &server{}
	w := newWire(s.serve)
	c := &Client{Port: w, Wait: 100, Tries: 3, Busy: 4}
	if c.Time() == 0 {
		t.Fatal(c.Fault)
	}
	for name, f := range map[string]struct {
		serve func(h *Host)
		fault Error
		most  uint64 // ms
	}{
		"silent": {func(h *Host) { w.lose = func(int) bool { return true } }, ErrSilent, 300},
		"busy":   {func(*Host) {}, ErrBusy, 500}, // the first try hears nothing, four that it is being done
	} {
		w.lose, w.serve, w.waited = nil, f.serve, 0
		if c.Say(1, 0, 0, 0) || c.Fault != f.fault || w.waited != f.most {
			t.Errorf("%s: %v after %d ms", name, c.Fault, w.waited)
		}
		w.lose, w.serve = nil, s.serve
		if c.Time() == 0 {
			t.Errorf("behind %s: %v", name, c.Fault)
		}
	}
	if c.Send(&Request{Target: body(MaxField + 1)}, new(Head)) || c.Fault != ErrSpace {
		t.Errorf("a long target: %v", c.Fault)
	}
	if c.Send(&Request{Target: []byte("/r1/poll"), Body: body(MaxPayload - requestHead - 7)}, new(Head)) || c.Fault != ErrSpace {
		t.Errorf("a long body: %v", c.Fault)
	}
	if !c.Send(&Request{Target: []byte("/r1/poll"), Body: body(MaxPayload - requestHead - 8)}, new(Head)) {
		t.Errorf("the longest body: %v", c.Fault)
	}
	if _, ok := c.Call(OpHost+5, body(1), body(1), body(MaxPayload-1), nil); ok || c.Fault != ErrSpace {
		t.Errorf("a long call: %v", c.Fault)
	}
	if _, ok := c.Call(OpHost+5, body(1), body(1), body(MaxPayload-5), make([]byte, MaxPayload)); !ok || len(s.own) != MaxPayload-3 {
		t.Errorf("the longest call whose answer fits: %v", c.Fault)
	}
}

// TestStaleAnswers: what comes late is an answer to something else, by its sequence or
// its session, and is not taken.
func TestStaleAnswers(t *testing.T) {
	s := &server{}
	w := newWire(s.serve)
	c := &Client{Port: w}
	var into [16]byte
	var before []byte
	call := func(i byte) {
		t.Helper()
		n, ok := c.Call(OpHost+5, []byte{i}, nil, nil, into[:])
		if !ok || string(into[:n]) != "yes"+string(rune(i)) {
			t.Fatalf("call %d: %q, %v", i, into[:n], c.Fault)
		}
	}
	w.serve = func(h *Host) {
		n := len(w.back)
		s.serve(h)
		answer := bytes.Clone(w.back[n:])
		// The answer before comes once more, and then this one.
		w.back = append(bytes.Clone(before), answer...)
		before = answer
	}
	for i := range byte(100) {
		call(i)
	}
	// Another session's, with the right sequence and op.
	w.serve = func(h *Host) {
		w.back = append(w.back, frame(OpHost+5|Answer, c.seq, c.session^0x100, []byte("no"))...)
		s.serve(h)
	}
	call(100)
}

// TestStrangeCalls: a call of another session, or not the next one of this, is not done.
func TestStrangeCalls(t *testing.T) {
	s := &server{}
	w := newWire(s.serve)
	feed := func(p []byte) (what Happening) {
		w.back = nil
		for _, b := range p {
			if got := w.host.Feed(b); got != Nothing {
				what = got
			}
		}
		if what == Called {
			s.serve(&w.host)
		}
		return what
	}
	session := uint16(0xC0DB)
	if got := feed(frame(OpSay, 1, session, make([]byte, sayCall))); got != Strange {
		t.Errorf("before a session: %d", got)
	}
	if got := feed(frame(OpOpen, 7, 0, []byte{Version, 0, 0, 0, 0})); got != Opened {
		t.Fatalf("open: %d", got)
	}
	for name, p := range map[string][]byte{
		"same sequence":     frame(OpTime, 7, session, nil),
		"one is left out":   frame(OpTime, 9, session, nil),
		"one before":        frame(OpTime, 6, session, nil),
		"another session":   frame(OpTime, 8, session+1, nil),
		"no session at all": frame(OpTime, 8, 0, nil),
	} {
		if got := feed(p); got != Strange || len(s.calls) != 0 {
			t.Errorf("%s: %d, done was % x", name, got, s.calls)
		}
		if want := slip(p, MaxContent)[0]; !bytes.Equal(w.back, frame(OpRefused+byte(ErrSession), want[1], binary.LittleEndian.Uint16(want[2:]), nil)) {
			t.Errorf("%s: the bridge says % x", name, w.back)
		}
	}
	if got := feed(frame(OpTime|Answer, 8, session, nil)); got != Damaged || len(w.back) != 0 {
		t.Errorf("an echo: %d, % x", got, w.back)
	}
	if got := feed(frame(OpTime, 8, session, nil)); got != Called {
		t.Errorf("the next one: %d", got)
	}
	if got := feed(frame(OpTime, 8, session, nil)); got != Asked || !bytes.Equal(s.calls, []byte{OpTime}) {
		t.Errorf("again: %d, done was % x", got, s.calls)
	}
}

// TestDamagedAnswer: it is asked for again as soon as the line is quiet, not after the
// silence that a lost call takes to be noticed.
func TestDamagedAnswer(t *testing.T) {
	s := &server{}
	w := newWire(s.serve)
	c := &Client{Port: w}
	if c.Time() == 0 {
		t.Fatal(c.Fault)
	}
	w.waited = 0
	w.serve = func(h *Host) {
		s.serve(h)
		w.back[len(w.back)-3] ^= 4
	}
	if c.Time() == 0 || w.waited != afterDamage {
		t.Errorf("%v, after %d ms", c.Fault, w.waited)
	}
}
