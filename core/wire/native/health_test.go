//go:build !tinygo

package native

import (
	"bytes"
	"testing"
)

func TestHealth(t *testing.T) {
	buf := make([]byte, MaxHealth)
	for _, h := range []Health{{}, {FreeRAM: 1}, {Reset: 7, Signal: 255}, {Battery: 100}, {FreeRAM: 1<<32 - 1, Reset: 255, Battery: 100, Signal: 255}} {
		p := h.Encode(buf)
		var got Health
		if err := got.Decode(p); err != 0 || got != h || (p == nil) != (h == Health{}) {
			t.Errorf("%+v: % x, %+v %v", h, p, got, err)
		}
		if p != nil && h.Encode(make([]byte, len(p)-1)) != nil {
			t.Errorf("%+v fits %d bytes", h, len(p)-1)
		}
	}
}

// What is wrong is no health, and no reason to refuse the poll that it came with.
func TestHealthShelf(t *testing.T) {
	for _, c := range []struct {
		name, cbor string
		want       Health
		err        Error
	}{
		{"a number", "05", Health{}, ErrForm},
		{"an empty map", "a0", Health{}, 0},
		{"a battery of 101 %", "a2 0005 021865", Health{FreeRAM: 5}, 0},
		{"a signal of 256 dB", "a1 03190100", Health{}, ErrField},
		{"a text", "a1 006161", Health{}, ErrForm},
		{"free RAM above 32 bits", "a1 001b0000000100000000", Health{}, ErrField},
		{"a field that is not known", "a2 0005 0400", Health{}, ErrUnknown},
		{"a note", "a2 0005 2000", Health{FreeRAM: 5}, 0},
		{"cut", "a2 0005", Health{}, ErrForm},
		{"more behind it", "a1 0005 00", Health{}, ErrForm},
	} {
		p := unhex(t, string(bytes.ReplaceAll([]byte(c.cbor), []byte(" "), nil)))
		got := Health{Battery: 1}
		if err := got.Decode(p); err != c.err || got != c.want {
			t.Errorf("%s: %+v %v", c.name, got, err)
		}
		// The poll around it stands.
		body := load(t).body(t, "poll-health")
		mac := macOf(t, MessagePoll)
		m := split(t, body[:len(body)-MACSize])
		if c.err == ErrForm {
			continue // some are no CBOR at all
		}
		var poll Poll
		m[-1] = p
		if err := poll.Decode(sealed(m.join(), MessagePoll, mac), mac); err != 0 || !bytes.Equal(poll.Health, p) {
			t.Errorf("%s: % x %v", c.name, poll.Health, err)
		}
	}
	body := load(t).body(t, "poll-health")
	mac := macOf(t, MessagePoll)
	m := split(t, body[:len(body)-MACSize])
	m[-1] = append([]byte{0x54}, make([]byte, 20)...)
	var poll Poll
	if err := poll.Decode(sealed(m.join(), MessagePoll, mac), mac); err != 0 || poll.Health != nil {
		t.Errorf("too long: % x %v", poll.Health, err)
	}
}

func FuzzHealth(f *testing.F) {
	f.Add((&Health{FreeRAM: 120_000, Reset: 4, Battery: 80, Signal: 67}).Encode(make([]byte, MaxHealth)))
	f.Fuzz(func(t *testing.T, p []byte) {
		var h, again Health
		if h.Decode(p) != 0 {
			if h != (Health{}) {
				t.Fatalf("refused, and %+v", h)
			}
			return
		}
		if err := again.Decode(h.Encode(make([]byte, MaxHealth))); err != 0 || again != h {
			t.Fatalf("%+v came back as %+v, %v", h, again, err)
		}
	})
}
