package serial

import (
	"encoding/hex"
	"encoding/json"
	"testing"

	"github.com/runnel-fota/runnel/core/internal/chiptest"
)

// scripted is a line on which the bridge says what the vectors have, each frame when
// the board has sent the one before.
type scripted struct {
	t      *testing.T
	frames []vector
	sent   text
	back   []byte
}

type vector struct{ Name, From, Frame string }

func (s *scripted) Put(b byte) {
	s.sent = append(s.sent, b)
	if b != end || len(s.sent) == 1 {
		return
	}
	if len(s.frames) == 0 {
		s.t.Fatalf("the board says more than the vectors have: % x", []byte(s.sent))
	}
	v := s.frames[0]
	if got := hex.EncodeToString(s.sent); v.From != "board" || got != v.Frame {
		s.t.Fatalf("%s (%s):\n%s, sent is\n%s", v.Name, v.From, v.Frame, got)
	}
	s.sent, s.frames = nil, s.frames[1:]
	for len(s.frames) > 0 && s.frames[0].From == "bridge" {
		p, err := hex.DecodeString(s.frames[0].Frame)
		if err != nil {
			s.t.Fatal(err)
		}
		s.back, s.frames = append(s.back, p...), s.frames[1:]
	}
}

func (s *scripted) Get(uint32) (byte, bool) {
	if len(s.back) == 0 {
		return 0, false
	}
	b := s.back[0]
	s.back = s.back[1:]
	return b, true
}

func readVectors(t *testing.T) []vector {
	text := chiptest.Read(t, "../../../testdata/vectors/serial.json")
	var all struct{ Frames []vector }
	if err := json.Unmarshal(text, &all); err != nil || len(all.Frames) < 20 {
		t.Fatal(len(all.Frames), err)
	}
	return all.Frames
}

// TestVectorsBoard: the board's end of the conversation, byte for byte.
func TestVectorsBoard(t *testing.T) {
	s := &scripted{t: t, frames: readVectors(t)}
	c := &Client{Port: s, Nonce: 0x01020303}
	var h Head
	if !c.Send(&Request{Target: []byte("/r1/poll"), Body: []byte{0xA1, 0xC0, 0xDB, 0xDC, 0xDD}}, &h) || h != (Head{Status: 503, RetryAfter: 7}) {
		t.Fatalf("%+v, %v", h, c.Fault)
	}
	if !c.Close() {
		t.Fatal(c.Fault)
	}
	r := Request{Target: []byte("/api/inverter/fota/status"), Device: "old-1", Nonce: []byte("17"), Timestamp: []byte("1800000000"), MAC: []byte("beef"), Body: []byte("{}")}
	if c.Send(&r, &h) || c.Fault != ErrBroken {
		t.Fatal(c.Fault)
	}
	if !c.Send(&Request{Target: []byte("/r1/streams/00ff"), Ranged: true, From: 1056, To: 0xC0DBDCDD}, &h) ||
		h != (Head{Status: 206, Coded: true, From: 1056, To: 0xC0DBDCDD, Total: 0xC0DBDCDE}) {
		t.Fatalf("%+v, %v", h, c.Fault)
	}
	var p [1024]byte
	if n, end, ok := c.Read(p[:]); n != 40 || end || !ok || p[0] != 0xB8 || p[39] != 0xDF {
		t.Fatal(n, end, c.Fault)
	}
	if n, end, ok := c.Read(p[:]); n != 3 || !end || !ok || string(p[:3]) != "end" {
		t.Fatal(n, end, c.Fault)
	}
	if !c.Say(13, 46, 255, 1068032) || c.Time() != 1_800_000_000 {
		t.Fatal(c.Fault)
	}
	if _, ok := c.Call(OpHost, []byte("a"), []byte("b"), []byte("c"), nil); ok || c.Fault != ErrHost {
		t.Fatal(c.Fault)
	}
	if len(s.frames) != 0 {
		t.Errorf("%d frames were not said", len(s.frames))
	}
}

// TestVectorsBridge: and the bridge's.
func TestVectorsBridge(t *testing.T) {
	frames := readVectors(t)
	var out text
	h := Host{Out: &out, Session: 0xC0DA}
	answers := map[string]func(){
		"poll-head": func() { h.Answer(headOf(Head{Status: 503, RetryAfter: 7})) },
		"closed":    func() { h.Answer() }, "v1-unreachable": func() { h.Answer() }, "said": func() { h.Answer() },
		"stream-head": func() {
			h.Answer(headOf(Head{Status: 206, Coded: true, From: 1056, To: 0xC0DBDCDD, Total: 0xC0DBDCDE}))
		},
		"bytes": func() {
			p := []byte{Piece(false, false)}
			for b := 0xB8; b < 0xE0; b++ {
				p = append(p, byte(b))
			}
			h.Answer(p)
		},
		"bytes-end":   func() { h.Answer([]byte{Piece(true, false)}, []byte("end")) },
		"unix":        func() { h.Answer([]byte{0x00, 0xD2, 0x49, 0x6B}) },
		"own-refused": func() { h.Refuse(ErrHost) },
	}
	for _, v := range frames {
		p, err := hex.DecodeString(v.Frame)
		if err != nil {
			t.Fatal(err)
		}
		if v.From == "board" {
			for _, b := range p {
				h.Feed(b)
			}
			continue
		}
		if f := answers[v.Name]; f != nil {
			f()
		}
		if got := hex.EncodeToString(out); got != v.Frame {
			t.Fatalf("%s:\n%s, said is\n%s", v.Name, v.Frame, got)
		}
		out = nil
	}
}

func headOf(h Head) []byte {
	var b [HeadBytes]byte
	h.Encode(&b)
	return b[:]
}
