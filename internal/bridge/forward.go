package bridge

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// Answer is an answer being read.
type Answer interface {
	Head() device.Head
	Read(buf []byte) (n int, eof bool, err error)
	Close() error
}

// Fetch sends a request and waits for the head of the answer. Its context holds for
// the body too. It bounds time, redirects and lengths: internal/devicehttp does.
type Fetch func(ctx context.Context, r *device.Request) (Answer, error)

// Over makes a Fetch of a client's method, such as (*devicehttp.Client).Do.
func Over[A Answer](do func(context.Context, *device.Request) (A, error)) Fetch {
	return func(ctx context.Context, r *device.Request) (Answer, error) {
		a, err := do(ctx, r)
		if err != nil {
			return nil, err // not a, which in an interface would not be nil
		}
		return a, nil
	}
}

// Kind of an Event.
type Kind uint8

const (
	KindOpened    Kind = iota + 1 // a board began a session
	KindRequested                 // a request was answered: Method, Target, Status
	KindFailed                    // or it was not, or its body broke off: Err
	KindSaid                      // the board's own event: Said
	KindRefused                   // a call that is not done: Err, and Target where it had one
	KindDamaged                   // frames were damaged, Count of them in this session
)

// Event is something to tell people. Target and what is said come from the line: the
// characters of Target are letters, digits and /?&=._- .
type Event struct {
	Kind           Kind
	Method, Target string
	Status         int
	Said           device.Event
	Count          int
	Err            error
}

// Options of a bridge.
type Options struct {
	// Fetch carries requests to the server; nil: each is answered as broken.
	Fetch Fetch
	// OnEvent hears what happens, one event at a time; nil: nobody.
	OnEvent func(Event)
	// Extra does the host's own calls (serial.OpHost and up), each once. The payload is
	// gone when it returns. It is not called in two places at once, nor broken off. An
	// error is told to OnEvent, and refuses the call. nil: there are none.
	Extra func(op byte, payload []byte) (answer []byte, err error)
	// Now is the time that boards are told; nil: the time of day.
	Now func() time.Time
}

// Forwarder does a board's calls, one at a time. Serve has one; who has a clock of his
// own may use it by itself, with a serial.Host.
type Forwarder struct {
	o      Options
	mu     sync.Mutex // one event at a time
	ans    Answer     // being read; nil: none
	hangUp context.CancelFunc
	at     uint32 // offset in its body
	ended  bool   // it was read to its end
	broken bool   // it broke off
	target string
	buf    [1 + serial.MaxRead]byte
}

// NewForwarder has no answer open.
func NewForwarder(o Options) *Forwarder {
	if o.Now == nil {
		o.Now = time.Now
	}
	return &Forwarder{o: o}
}

// tell is called from the call that is being done, and from beside it.
func (f *Forwarder) tell(e Event) {
	if f.o.OnEvent == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.o.OnEvent(e)
}

// Do does a call. The answer lasts until the next one.
func (f *Forwarder) Do(ctx context.Context, op byte, p []byte) (answer []byte, refusal serial.Error) {
	switch {
	case op == serial.OpSend:
		answer, refusal = f.send(ctx, p)
	case op == serial.OpRead:
		answer, refusal = f.read(p)
	case op == serial.OpClose && len(p) == 0:
		f.close()
	case op == serial.OpSay:
		refusal = f.say(p)
	case op == serial.OpTime && len(p) == 0:
		answer = binary.LittleEndian.AppendUint32(nil, f.unix())
	case op >= serial.OpHost && op <= serial.OpHostLast && f.o.Extra != nil:
		var err error
		if answer, err = f.o.Extra(op, p); err == nil && len(answer) > serial.MaxPayload {
			err = errors.New("its answer is too long for a frame")
		}
		if err != nil {
			f.tell(Event{Kind: KindRefused, Err: err})
			return nil, serial.ErrHost
		}
		return answer, 0
	default:
		refusal = serial.ErrOp
	}
	if refusal != 0 && refusal != serial.ErrTarget {
		f.tell(Event{Kind: KindRefused, Err: refusal})
	}
	return answer, refusal
}

// unix is 0 where the time does not fit: not known.
func (f *Forwarder) unix() uint32 {
	t := f.o.Now().Unix()
	if t < 0 || t > 1<<32-1 {
		return 0
	}
	return uint32(t)
}

func (f *Forwarder) say(p []byte) serial.Error {
	kind, reason, slot, n, e := serial.DecodeSay(p)
	if e != 0 {
		return e
	}
	f.tell(Event{Kind: KindSaid, Said: device.Event{Kind: device.EventKind(kind), Reason: device.Reason(reason), Slot: boot.Slot(slot), Bytes: n}})
	return 0
}

func (f *Forwarder) send(ctx context.Context, p []byte) ([]byte, serial.Error) {
	f.close()
	var r serial.Request
	if e := r.Decode(p); e != 0 {
		return nil, e
	}
	req := device.Request{Method: "GET", Target: r.Target, Ranged: r.Ranged, From: r.From, To: r.To,
		DeviceID: r.Device, Nonce: r.Nonce, Timestamp: r.Timestamp, MAC: r.MAC}
	if len(r.Body) > 0 {
		req.Method, req.Body = "POST", r.Body
	}
	if !Allowed(r.Target) || !isHeader(r.Device) || !isHeader(string(r.Nonce)+string(r.Timestamp)+string(r.MAC)) {
		f.tell(Event{Kind: KindRefused, Method: req.Method, Target: printable(r.Target), Err: serial.ErrTarget})
		return nil, serial.ErrTarget
	}
	told := Event{Method: req.Method, Target: string(r.Target)}
	ctx, hangUp := context.WithCancel(ctx)
	ans, err := Answer(nil), errors.New("this bridge has no server")
	if f.o.Fetch != nil {
		ans, err = f.o.Fetch(ctx, &req)
	}
	if err != nil {
		hangUp()
		told.Kind, told.Err = KindFailed, err
		f.tell(told)
		return nil, 0 // no head: broken
	}
	f.ans, f.hangUp, f.at, f.ended, f.broken, f.target = ans, hangUp, 0, false, false, told.Target
	h := ans.Head()
	told.Kind, told.Status = KindRequested, int(h.Status)
	f.tell(told)
	head := serial.Head{Status: h.Status, RetryAfter: h.RetryAfter, From: h.From, To: h.To, Total: h.Total, Coded: h.Coded}
	var b [serial.HeadBytes]byte
	head.Encode(&b)
	return append(f.buf[:0], b[:]...), 0
}

// read brings all that was asked for, or what comes before the body's end: each call
// costs the line a turn.
func (f *Forwarder) read(p []byte) ([]byte, serial.Error) {
	offset, most, e := serial.DecodeRead(p)
	if e != 0 {
		return nil, e
	}
	if f.ans == nil || offset != f.at {
		f.broken = true // there is nothing at that place, or not any more
	}
	n := 0
	for n < most && !f.ended && !f.broken {
		k, eof, err := f.ans.Read(f.buf[1+n : 1+most])
		n += k
		f.ended = eof
		if err != nil {
			f.broken = true
			f.tell(Event{Kind: KindFailed, Method: "GET", Target: f.target, Err: err})
		}
	}
	f.at += uint32(n)
	// What came before a break is good: the break is the next answer.
	f.buf[0] = serial.Piece(f.ended, f.broken && n == 0)
	return f.buf[:1+n], 0
}

// close lets go of an answer. The rest of a short one is read, for its connection's sake.
func (f *Forwarder) close() {
	if f.ans == nil {
		return
	}
	// What is wrong with the rest of an answer that nobody wants is of no interest.
	_ = f.ans.Close()
	f.hangUp()
	f.ans = nil
}

// Reset breaks off what a session left open.
func (f *Forwarder) Reset() {
	if f.ans != nil {
		f.hangUp()
		f.close()
	}
}

// maxTold bounds what is told of a target that nobody fetches, bytes.
const maxTold = 80

// printable is what a log may hold of bytes from the line.
func printable(p []byte) string {
	p = bytes.Clone(p[:min(len(p), maxTold)])
	for i, c := range p {
		if c < 0x21 || c > 0x7E {
			p[i] = '?'
		}
	}
	return string(p)
}

// isHeader reports whether s can stand in a header, and in nothing else.
func isHeader(s string) bool {
	return strings.IndexFunc(s, func(c rune) bool { return c < 0x21 || c > 0x7E }) < 0
}

// Allowed says which targets a board may have fetched: those of the device wires, by
// their own characters. A board, or who is on its line, must not make the bridge's host
// ask for anything else, here or elsewhere.
func Allowed(target []byte) bool {
	for _, c := range target {
		switch {
		case c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.IndexByte("/?&=._-", c) >= 0:
		default:
			return false
		}
	}
	path, _, _ := strings.Cut(string(target), "?")
	if strings.Contains(path, "..") || strings.Contains(path, "//") {
		return false
	}
	switch path {
	case v1.ManifestPath, v1.ChunkPath, v1.StatusPath, v1.RollbackPath:
		return true
	}
	return strings.HasPrefix(path, "/r1/") && len(path) > len("/r1/")
}
