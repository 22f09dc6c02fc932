package bridge

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// port is a UART over a connection. What is put goes out when something is waited for.
type port struct {
	c   io.ReadWriter
	out []byte
	in  chan byte
}

func newPort(c io.ReadWriter) *port {
	p := &port{c: c, in: make(chan byte, 1<<16)}
	go func() {
		defer close(p.in)
		var buf [512]byte
		for {
			n, err := c.Read(buf[:])
			for _, b := range buf[:n] {
				p.in <- b
			}
			if err != nil {
				return
			}
		}
	}()
	return p
}

func (p *port) Put(b byte) { p.out = append(p.out, b) }

func (p *port) Get(ms uint32) (byte, bool) {
	if len(p.out) > 0 {
		// A line that is gone answers nothing, which is what the board sees of it.
		_, _ = p.c.Write(p.out)
		p.out = p.out[:0]
	}
	if ms == 0 {
		select {
		case b, ok := <-p.in:
			return b, ok
		default:
			return 0, false
		}
	}
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case b, ok := <-p.in:
		if !ok {
			<-t.C // the line is gone: nothing comes
		}
		return b, ok
	case <-t.C:
		return 0, false
	}
}

// world is a bridge with a board on its line, and a server that a test plays.
type world struct {
	t      *testing.T
	board  *serial.Client
	line   net.Conn
	asked  []device.Request
	fetch  func(ctx context.Context, r *device.Request) (Answer, error)
	events []Event
	extra  func(op byte, p []byte) ([]byte, error)
	served chan error
	stop   context.CancelFunc
}

func newWorld(t *testing.T) *world {
	w := &world{t: t}
	w.connect()
	return w
}

// connect starts a bridge, and puts its line to the board.
func (w *world) connect() {
	here, there := net.Pipe()
	ctx, stop := context.WithCancel(w.t.Context())
	w.stop, w.served, w.line = stop, make(chan error, 1), here
	o := Options{
		Fetch: func(ctx context.Context, r *device.Request) (Answer, error) {
			c := *r
			c.Target, c.Body = bytes.Clone(r.Target), bytes.Clone(r.Body)
			c.Nonce, c.Timestamp, c.MAC = bytes.Clone(r.Nonce), bytes.Clone(r.Timestamp), bytes.Clone(r.MAC)
			w.asked = append(w.asked, c)
			return w.fetch(ctx, r)
		},
		OnEvent: func(e Event) { w.events = append(w.events, e) },
		Now:     func() time.Time { return time.Unix(1_800_000_001, 0) },
	}
	if w.extra != nil {
		o.Extra = w.extra
	}
	go func() { w.served <- Serve(ctx, there, o) }()
	if w.board == nil {
		w.board = &serial.Client{Nonce: 7}
	}
	w.board.Port = newPort(here)
}

// end ends the bridge, and wants it to end in peace.
func (w *world) end() {
	w.t.Helper()
	w.stop()
	if err := <-w.served; err != nil {
		w.t.Error(err)
	}
	w.line.Close()
}

func (w *world) kinds() (list []Kind) {
	for _, e := range w.events {
		list = append(list, e.Kind)
	}
	return list
}

// reply is an answer of a played server: pieces of a body, then its end or an error.
type reply struct {
	head   device.Head
	pieces []string
	err    error
	closed *int
}

func (r *reply) Head() device.Head { return r.head }

func (r *reply) Read(buf []byte) (n int, eof bool, err error) {
	if len(r.pieces) == 0 {
		return 0, r.err == nil, r.err
	}
	n = copy(buf, r.pieces[0])
	if r.pieces[0] = r.pieces[0][n:]; r.pieces[0] == "" {
		r.pieces = r.pieces[1:]
	}
	return n, false, nil
}

func (r *reply) Close() error {
	if r.closed != nil {
		*r.closed++
	}
	return nil
}

func (w *world) always(r reply) {
	w.fetch = func(context.Context, *device.Request) (Answer, error) {
		c := r
		c.pieces = slices.Clone(r.pieces)
		return &c, nil
	}
}

// body reads the answer that is open.
func body(c *serial.Client) (string, bool) {
	var all []byte
	var buf [700]byte
	for {
		n, end, ok := c.Read(buf[:])
		all = append(all, buf[:n]...)
		if end || !ok {
			return string(all), ok
		}
	}
}

func asText(r *device.Request) string {
	return fmt.Sprintf("%s %s %q %v %d-%d %s", r.Method, r.Target, r.Body, r.Ranged, r.From, r.To,
		strings.Fields(fmt.Sprintf("%s %s %s %s", r.DeviceID, r.Nonce, r.Timestamp, r.MAC)))
}

func TestServe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.extra = nil
		text := strings.Repeat("a piece of a body. ", 200)
		w.always(reply{head: device.Head{Status: 206, RetryAfter: 9, From: 5, To: 3804, Total: 9000, Coded: true}, pieces: []string{text[:3], text[3:1500], text[1500:]}})
		var h serial.Head
		r := serial.Request{Target: []byte("/r1/streams/ab?fresh=1"), Ranged: true, From: 5, To: 3804}
		if !w.board.Send(&r, &h) || h != (serial.Head{Status: 206, RetryAfter: 9, From: 5, To: 3804, Total: 9000, Coded: true}) {
			t.Fatalf("%+v, %v", h, w.board.Fault)
		}
		if got, ok := body(w.board); !ok || got != text {
			t.Errorf("%d bytes of %d, %v", len(got), len(text), w.board.Fault)
		}
		r = serial.Request{Target: []byte(v1.StatusPath), Body: []byte("{}"), Device: "old-1", Nonce: []byte("5"), Timestamp: []byte("17"), MAC: []byte("ab")}
		if !w.board.Send(&r, &h) || !w.board.Close() {
			t.Fatal(w.board.Fault)
		}
		want := []string{`GET /r1/streams/ab?fresh=1 "" true 5-3804 []`,
			"POST " + v1.StatusPath + ` "{}" false 0-0 [old-1 5 17 ab]`}
		if len(w.asked) != len(want) {
			t.Fatalf("%d requests", len(w.asked))
		}
		for i, r := range w.asked {
			if got := asText(&r); got != want[i] {
				t.Errorf("asked %s, want %s", got, want[i])
			}
		}
		if got := w.board.Time(); got != 1_800_000_001 {
			t.Errorf("time %d", got)
		}
		if !w.board.Say(uint8(device.EventStaged), 3, 1, 77) {
			t.Error(w.board.Fault)
		}
		if got := w.events[len(w.events)-1]; got.Said != (device.Event{Kind: device.EventStaged, Reason: 3, Slot: boot.Slot(1), Bytes: 77}) {
			t.Errorf("said %+v", got)
		}
		if _, ok := w.board.Call(serial.OpHost, nil, nil, nil, nil); ok || w.board.Fault != serial.ErrOp {
			t.Errorf("a host without own calls: %v", w.board.Fault)
		}
		if got, want := w.kinds(), []Kind{KindOpened, KindRequested, KindRequested, KindSaid, KindRefused}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		w.end()
	})
}

// TestBrokenBody: what came before a break is the board's; the break is the next answer.
func TestBrokenBody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.always(reply{head: device.Head{Status: 200}, pieces: []string{"half"}, err: io.ErrUnexpectedEOF})
		r, h := serial.Request{Target: []byte("/r1/poll"), Body: []byte("x")}, serial.Head{}
		if !w.board.Send(&r, &h) {
			t.Fatal(w.board.Fault)
		}
		if got, ok := body(w.board); ok || got != "half" || w.board.Fault != serial.ErrBroken {
			t.Errorf("%q, %v, %v", got, ok, w.board.Fault)
		}
		w.fetch = func(context.Context, *device.Request) (Answer, error) { return nil, errors.New("no route") }
		if w.board.Send(&r, &h) || w.board.Fault != serial.ErrBroken {
			t.Errorf("nobody there: %v", w.board.Fault)
		}
		if _, _, ok := w.board.Read(make([]byte, 9)); ok {
			t.Error("read without an answer")
		}
		w.end()
	})
}

// TestSlowServer: a server that takes its time is no lost frame. The request goes out
// once, though the board asks again and again.
func TestSlowServer(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.fetch = func(ctx context.Context, _ *device.Request) (Answer, error) {
			select {
			case <-time.After(20 * time.Second):
				return &reply{head: device.Head{Status: 204}}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		r, h := serial.Request{Target: []byte("/r1/poll"), Body: []byte("x")}, serial.Head{}
		start := time.Now()
		if !w.board.Send(&r, &h) || h.Status != 204 {
			t.Fatal(w.board.Fault)
		}
		if took := time.Since(start); took != 20*time.Second {
			t.Errorf("the answer took %v", took)
		}
		if len(w.asked) != 1 {
			t.Errorf("%d requests", len(w.asked))
		}
		// One that takes for ever ends at the board's own bound.
		w.fetch = func(ctx context.Context, _ *device.Request) (Answer, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		w.board.Busy = 5
		if w.board.Send(&r, &h) || w.board.Fault != serial.ErrBusy {
			t.Errorf("for ever: %v", w.board.Fault)
		}
		w.end()
	})
}

// TestBoardStartsAnew: what an earlier start left open ends, and its answer is nobody's.
func TestBoardStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		ended := make(chan struct{})
		w.fetch = func(ctx context.Context, _ *device.Request) (Answer, error) {
			if len(w.asked) > 1 {
				return &reply{head: device.Head{Status: 201}, pieces: []string{"new"}}, nil
			}
			<-ctx.Done()
			close(ended)
			// It is slow to end: the next call waits for it.
			<-time.After(3 * time.Second)
			return &reply{head: device.Head{Status: 200}, pieces: []string{"old"}}, nil
		}
		r, h := serial.Request{Target: []byte("/r1/poll"), Body: []byte("x")}, serial.Head{}
		w.board.Busy = 2
		if w.board.Send(&r, &h) {
			t.Fatal("an answer that never came")
		}
		again := &serial.Client{Port: w.board.Port, Nonce: 99}
		if !again.Send(&r, &h) || h.Status != 201 {
			t.Fatalf("%+v, %v", h, again.Fault)
		}
		<-ended
		if got, ok := body(again); !ok || got != "new" {
			t.Errorf("%q", got)
		}
		if got, want := w.kinds(), []Kind{KindOpened, KindOpened, KindRequested, KindRequested}; !slices.Equal(got, want) {
			t.Errorf("events %v, want %v", got, want)
		}
		w.end()
	})
}

// TestBridgeStartsAnew: the board learns at once that its answer is gone, and goes on.
func TestBridgeStartsAnew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		closed := 0
		w.always(reply{head: device.Head{Status: 200}, pieces: []string{"12345678"}, closed: &closed})
		r, h := serial.Request{Target: []byte("/r1/streams/x")}, serial.Head{}
		var buf [4]byte
		if !w.board.Send(&r, &h) {
			t.Fatal(w.board.Fault)
		}
		if n, _, ok := w.board.Read(buf[:]); !ok || n != 4 {
			t.Fatal(n, w.board.Fault)
		}
		w.end()
		if closed != 1 {
			t.Errorf("an answer was closed %d times", closed)
		}
		w.connect()
		if n, _, ok := w.board.Read(buf[:]); ok || w.board.Fault != serial.ErrSession {
			t.Errorf("%d bytes of an answer that is gone, %v", n, w.board.Fault)
		}
		if !w.board.Close() {
			t.Error(w.board.Fault)
		}
		if !w.board.Send(&r, &h) {
			t.Fatal(w.board.Fault)
		}
		if got, ok := body(w.board); !ok || got != "12345678" {
			t.Errorf("%q, %v", got, w.board.Fault)
		}
		w.end()
	})
}

// TestExtra: the host's own calls, each once, and not broken off by a new session.
func TestExtra(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var did []string
		w := &world{t: t}
		w.extra = func(op byte, p []byte) ([]byte, error) {
			<-time.After(2 * time.Second) // a flash chip at work
			did = append(did, fmt.Sprintf("%x %s", op, p))
			switch op {
			case 0x41:
				return nil, errors.New("worn out")
			case 0x42:
				return make([]byte, serial.MaxPayload+1), nil
			}
			return append([]byte("did "), p...), nil
		}
		w.connect()
		var into [16]byte
		n, ok := w.board.Call(0x40, []byte("a"), []byte("b"), []byte("c"), into[:])
		if !ok || string(into[:n]) != "did abc" {
			t.Errorf("%q, %v", into[:n], w.board.Fault)
		}
		for _, op := range []byte{0x41, 0x42} {
			if _, ok := w.board.Call(op, nil, nil, nil, into[:]); ok || w.board.Fault != serial.ErrHost {
				t.Errorf("op %x: %v", op, w.board.Fault)
			}
		}
		w.board.Busy = 2
		if _, ok := w.board.Call(0x43, []byte("lost"), nil, nil, into[:]); ok {
			t.Error("no answer was waited for, and it came")
		}
		w.board.Busy = 0
		if n, ok := w.board.Call(0x44, nil, nil, nil, into[:]); !ok || string(into[:n]) != "did " {
			t.Errorf("%q, %v", into[:n], w.board.Fault)
		}
		if want := []string{"40 abc", "41 ", "42 ", "43 lost", "44 "}; !slices.Equal(did, want) {
			t.Errorf("did %q, want %q", did, want)
		}
		w.end()
	})
}

// TestNoise: noise fills no log, and what comes behind it is taken.
func TestNoise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		if w.board.Time() == 0 {
			t.Fatal(w.board.Fault)
		}
		if _, err := w.line.Write(bytes.Repeat([]byte("noise\xC0"), 1000)); err != nil {
			t.Fatal(err)
		}
		if w.board.Time() == 0 {
			t.Error(w.board.Fault)
		}
		if got := len(w.events); got != 11 { // the session; 1, 2, 4 ... 512 damaged
			t.Errorf("%d events", got)
		}
		w.line.Close()
		if err := <-w.served; !errors.Is(err, io.EOF) {
			t.Errorf("a line that ended: %v", err)
		}
	})
}

// TestAllowed: a board makes its bridge fetch what a device asks for, and nothing else.
func TestAllowed(t *testing.T) {
	for _, good := range []string{"/r1/poll", "/r1/streams/00ff?fresh=12&origin=1", "/r1/keylists/latest", v1.ManifestPath, v1.ChunkPath + "?chunk_number=3", v1.StatusPath, v1.RollbackPath} {
		if !Allowed([]byte(good)) {
			t.Errorf("%s is refused", good)
		}
	}
	for _, bad := range []string{"", "/", "/r1/", "/r1", "/api/v1/releases", "/r1/../api/v1/releases", "/r1/..", "//example.com/r1/x", "/r1//x", "http://example.com/r1/poll", "@example.com/r1/poll",
		"/r1/poll#x", "/r1/%2e%2e/api", "/r1/po ll", "/r1/poll\r\nHost: x", "/r1/\x00", "/r1/poll\\x", v1.ManifestPath + "/x", "/R1/poll", ":80/r1/poll", ".example.com/r1/poll"} {
		if Allowed([]byte(bad)) {
			t.Errorf("%q is fetched", bad)
		}
	}
}

// TestForbiddenTarget: it is refused before anything is asked, and told without what a
// terminal would obey. So is what can't stand in a header.
func TestForbiddenTarget(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.always(reply{head: device.Head{Status: 200}})
		var h serial.Head
		for _, r := range []serial.Request{{Target: []byte("/api/v1/\x1b[2J")}, {Target: []byte("/r1/poll"), Device: "a\r\nX: y"}, {Target: []byte("/r1/poll"), MAC: []byte("\n")}} {
			if w.board.Send(&r, &h) || w.board.Fault != serial.ErrTarget {
				t.Errorf("%q: %v", r.Target, w.board.Fault)
			}
		}
		if len(w.asked) != 0 {
			t.Errorf("%d requests", len(w.asked))
		}
		if e := w.events[1]; e.Kind != KindRefused || e.Target != "/api/v1/?[2J" {
			t.Errorf("%+v", e)
		}
		w.end()
	})
}
