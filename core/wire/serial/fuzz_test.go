package serial

import (
	"bytes"
	"hash/crc32"
	"testing"
)

// text is a queue of what an encoder put.
type text []byte

func (p *text) Put(b byte) { *p = append(*p, b) }

func frame(op, seq byte, session uint16, payload []byte) []byte {
	var p text
	var e Encoder
	e.Begin(&p, op, seq, session)
	e.Write(payload)
	e.End()
	return p
}

// slip takes the line apart by RFC 1055's own rules, in whole: what the decoder must
// agree with.
func slip(line []byte, most int) (whole [][]byte) {
	parts := bytes.Split(line, []byte{end})
	for _, raw := range parts[:len(parts)-1] { // behind the last END nothing has ended
		content, good := make([]byte, 0, len(raw)), true
		for i := 0; i < len(raw); i++ {
			b := raw[i]
			if b == esc {
				if i++; i == len(raw) || raw[i] != escEnd && raw[i] != escEsc {
					good = false
					break
				}
				b = map[byte]byte{escEnd: end, escEsc: esc}[raw[i]]
			}
			content = append(content, b)
		}
		n := len(content) - CRCSize
		if !good || n < HeaderSize || n > most {
			continue
		}
		sum := crc32.ChecksumIEEE(content[:n])
		if bytes.Equal(content[n:], []byte{byte(sum), byte(sum >> 8), byte(sum >> 16), byte(sum >> 24)}) {
			whole = append(whole, content[:n])
		}
	}
	return whole
}

func FuzzDecoder(f *testing.F) {
	for _, m := range malformed {
		f.Add([]byte(m.line), uint16(10))
	}
	f.Add(frame(OpSend, 1, 2, body(300)), uint16(400))
	f.Add(frame(0xC0, 0xDB, 0xC0DB, []byte{end, esc, escEnd, escEsc}), uint16(8))
	f.Fuzz(func(t *testing.T, line []byte, room uint16) {
		a, b := make([]byte, room%5), make([]byte, room)
		var d Decoder
		var got [][]byte
		for _, c := range line {
			if d.Feed(c, a, b) == Whole {
				got = append(got, append(bytes.Clone(a), b...)[:d.Len()])
			}
		}
		want := slip(line, len(a)+len(b))
		if len(got) != len(want) {
			t.Fatalf("%d frames, RFC 1055 has %d", len(got), len(want))
		}
		for i := range got {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d: % x, RFC 1055 has % x", i, got[i], want[i])
			}
		}
		// What is no frame leaves nothing behind: the next frame is taken, but for what it
		// ends itself.
		next := append([]byte{end}, frame(OpSay, 9, 9, []byte("x"))...)
		whole := false
		big := make([]byte, 64)
		for _, c := range next {
			whole = d.Feed(c, nil, big) == Whole || whole
		}
		if !whole {
			t.Fatal("the frame behind it was not taken")
		}
	})
}

func FuzzRequest(f *testing.F) {
	f.Add(make([]byte, requestHead))
	f.Add([]byte("\x01\x05\x00\x00\x00\x09\x00\x00\x00\x02\x01\x01\x01\x01/xdntm"))
	f.Add([]byte("\x00\x00\x00\x00\x00\x00\x00\x00\x00\x02\x01\x01\x01\x01/xdntmBODY"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var r Request
		if r.Decode(p) != 0 {
			return
		}
		// What is taken is what a board sends of it, byte for byte.
		w := newWire(func(h *Host) {
			if !bytes.Equal(h.Payload(), p) {
				t.Errorf("sent as % x, taken was % x", h.Payload(), p)
			}
			h.Answer(make([]byte, HeadBytes))
		})
		c := Client{Port: w}
		if !c.Send(&r, new(Head)) {
			t.Errorf("a request that is taken can't be sent: %v", c.Fault)
		}
	})
}

// FuzzCalls: the bridge's other decoders, and its end of the line as a whole.
func FuzzCalls(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 1, 0}, frame(OpOpen, 1, 0, []byte{Version, 1, 2, 3, 4}))
	f.Add([]byte{1, 2, 3, 4, 5, 6, 7}, frame(OpOpen, 1, 0, []byte{2, 1, 2, 3, 4}))
	f.Fuzz(func(t *testing.T, p, line []byte) {
		if _, most, err := DecodeRead(p); err == 0 && (len(p) != readCall || most < 1 || most > MaxRead) {
			t.Errorf("read % x: %d", p, most)
		}
		if _, _, _, _, err := DecodeSay(p); err == 0 != (len(p) == sayCall) {
			t.Errorf("say % x: %v", p, err)
		}
		s := &server{body: body(9)}
		w := newWire(s.serve)
		for _, b := range line {
			w.Put(b)
		}
		// Everything that it says is frames.
		for _, c := range slip(w.back, MaxContent) {
			if c[0]&Answer == 0 {
				t.Errorf("the bridge calls: % x", c)
			}
		}
		if n := bytes.Count(w.back, []byte{end}); n != 2*len(slip(w.back, MaxContent)) {
			t.Errorf("%d ENDs around %d frames", n, len(slip(w.back, MaxContent)))
		}
	})
}

// FuzzAnswer: the board's end, whatever comes back.
func FuzzAnswer(f *testing.F) {
	f.Add([]byte{}, uint8(10))
	f.Add(frame(OpOpen|Answer, 1, 0, []byte{Version, 1, 0, 0, 0, 7, 0}), uint8(10))
	f.Add(append(frame(OpOpen|Answer, 1, 0, []byte{Version, 1, 0, 0, 0, 7, 0}), frame(OpSend|Answer, 2, 7, make([]byte, headSize))...), uint8(1))
	f.Add(append(frame(OpOpen|Answer, 1, 0, []byte{Version, 1, 0, 0, 0, 7, 0}), frame(OpBusy, 2, 7, nil)...), uint8(1))
	f.Fuzz(func(t *testing.T, line []byte, room uint8) {
		p := &player{line: line}
		c := Client{Port: p, Tries: 2, Busy: 3}
		var h Head
		r := Request{Target: []byte("/r1/poll")}
		c.Send(&r, &h)
		buf := make([]byte, int(room)+1)
		guard := bytes.Repeat([]byte{0x5A}, 16)
		whole := append(buf, guard...)
		n, _, ok := c.Read(whole[:len(buf)])
		if n > len(buf) || !ok && n != 0 || !bytes.Equal(whole[len(buf):], guard) {
			t.Errorf("%d bytes, %v, and behind them % x", n, ok, whole[len(buf):])
		}
		into := whole[:len(buf)]
		if n, ok := c.Call(OpHost, nil, nil, nil, into); ok && n > len(into) || !bytes.Equal(whole[len(buf):], guard) {
			t.Errorf("%d bytes of a call into %d", n, len(into))
		}
		// Each call is sent at most Tries times between two of Busy, and each listens to
		// maxHeard bytes at most: it ends.
		if most := 2 * 2 * 3 * 4; p.calls > most {
			t.Errorf("%d frames were sent, more than %d", p.calls, most)
		}
	})
}

// player plays a line back, whatever is called.
type player struct {
	line  []byte
	ends  int
	calls int
}

func (p *player) Put(b byte) {
	if b == end {
		p.ends++
		p.calls = p.ends / 2
	}
}

func (p *player) Get(ms uint32) (byte, bool) {
	if len(p.line) == 0 || ms == 0 {
		return 0, false // nothing is there before it is asked for
	}
	b := p.line[0]
	p.line = p.line[1:]
	return b, true
}
