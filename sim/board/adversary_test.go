package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/sim/nor"
)

// What an adversary of the native wire may do to a board, and how it is watched.
// The property of every test: flash never holds a byte in the target that is not a
// signed release's at its place, the running slot is left alone, and the board ends
// with the right image or says why not, within bounds.

// watch holds every operation of a chip against that, right after it happened.
type watch struct {
	w       *nativeWorld
	g       geometry
	signed  [][]byte // images that may be in the target
	last    nor.Op
	some    bool // last is one that was not looked at yet
	erases  int  // of the target
	program int
}

func (w *nativeWorld) watch(g geometry, signed ...*nativeRelease) *watch {
	o := &watch{w: w, g: g}
	for _, r := range signed {
		o.signed = append(o.signed, r.image)
	}
	w.b.Chip.SetLog(func(op nor.Op) {
		o.look()
		o.last, o.some = op, true
	})
	return o
}

// look judges the last operation, which is in the cells by now.
func (o *watch) look() {
	if !o.some {
		return
	}
	o.some = false
	for slot := range 2 {
		base := 0x10000 + uint32(slot*o.g.slotSize)
		if o.last.Off < base || o.last.Off >= base+uint32(o.g.slotSize) {
			continue
		}
		switch {
		case boot.Slot(slot) == o.w.run:
			o.w.t.Fatalf("%v: in the running slot", o.last)
		case o.last.Kind == nor.Erase:
			o.erases++
		default:
			o.program++
			end := o.last.Off + o.last.Len - base
			if !o.prefixOfOne(o.w.b.Chip.Raw()[base:base+end], false) {
				o.w.t.Fatalf("%v: slot %d does not hold the beginning of a signed image", o.last, slot)
			}
		}
	}
}

// prefixOfOne says whether got is what one signed image begins with, and padding
// behind it; or, as a whole, one that is all there, with whatever behind it.
func (o *watch) prefixOfOne(got []byte, whole bool) bool {
	for _, img := range o.signed {
		n := min(len(got), len(img))
		if bytes.Equal(got[:n], img[:n]) && (whole && n == len(img) || !whole && blank(got[n:])) {
			return true
		}
	}
	return false
}

func blank(p []byte) bool { return len(bytes.Trim(p, "\xFF")) == 0 }

// worn is how often the most worn sector was erased, wherever it is.
func (o *watch) worn() (most uint32) {
	for off := uint32(0); off < o.w.b.Chip.Geometry().Size; off += 4096 {
		most = max(most, o.w.b.Chip.Wear(off))
	}
	return most
}

// hours runs the board for so much virtual time at most, or until stop.
func (w *nativeWorld) hours(n float64, reason boot.ResetReason, o *watch, stop func(device.Event) bool) {
	w.t.Helper()
	if err := w.span(n, reason, o, stop); err != nil {
		w.t.Fatal(err)
	}
}

// hoursOrCut says whether the power was cut.
func (w *nativeWorld) hoursOrCut(n float64, o *watch, stop func(device.Event) bool) bool {
	w.t.Helper()
	err := w.span(n, boot.ResetPowerOn, o, stop)
	if err != nil && !errors.Is(err, ErrPowerCut) {
		w.t.Fatal(err)
	}
	return err != nil
}

func (w *nativeWorld) span(n float64, reason boot.ResetReason, o *watch, stop func(device.Event) bool) error {
	w.t.Helper()
	end, done := w.clock.Now+uint64(n*3_600_000), false
	app := w.app(1)
	app.Clock = &w.clock
	app.Seed = w.clock.Now // a start's random bits are its own
	app.OnEvent = func(e device.Event) {
		w.events = append(w.events, e)
		if e.Kind == device.EventStaged && !o.prefixOfOne(w.slot(int(e.Slot)), true) {
			w.t.Fatalf("slot %d is staged and holds no signed image", e.Slot)
		}
		done = done || stop(e)
	}
	app.Stop = func() bool { return done || w.clock.Now >= end }
	err := w.b.Run(context.Background(), reason, app)
	if err == nil {
		o.look()
	}
	return err
}

// reasons are all that the board said.
func (w *nativeWorld) reasons() (all []device.Reason, unreachable bool) {
	for _, e := range w.events {
		switch e.Kind {
		case device.EventFailed, device.EventRefused:
			if e.Reason != device.ReasonNone {
				all = append(all, e.Reason)
			}
		case device.EventUnreachable:
			unreachable = true
		}
	}
	return all, unreachable
}

// part is what an answer is to.
type part string

const (
	partPoll     part = "poll"
	partList     part = "key list"
	partManifest part = "manifest"
	partStream   part = "stream"
	partReport   part = "report"
)

var parts = []part{partPoll, partList, partManifest, partStream, partReport}

func partOf(r device.Request) part {
	for p, prefix := range map[part]string{partPoll: "/r1/poll", partList: "/r1/keylists/", partManifest: "/r1/manifests/",
		partStream: "/r1/streams/", partReport: "/r1/report"} {
		if strings.HasPrefix(string(r.Target), prefix) {
			return p
		}
	}
	panic(fmt.Sprintf("request for %s", r.Target))
}

// attack changes the answers to one part. It keeps no state but what env has.
type attack struct {
	name string
	on   []part // nil: all
	do   func(e *env, r device.Request, a *nativeAnswer)
	// gets: the board gets its release all the same.
	gets bool
}

// env is what an adversary has collected.
type env struct {
	s      *nativeServer
	other  *nativeRelease // signed, newer or older, not on offer
	first  map[part][]byte
	poison int // requests that an attack was tried on
}

const portalPage = "<!DOCTYPE html><html><head><title>Sign in to Guest WiFi</title></head><body>Please accept our terms.</body></html>\n"

var portal = []byte(strings.Repeat(portalPage, 20))

// asked makes an answer claim to be exactly what was asked for.
func asked(r device.Request, a *nativeAnswer) {
	if r.Ranged {
		a.head = device.Head{Status: 206, From: r.From, To: r.To, Total: a.head.Total}
	}
}

func status(s uint16) func(*env, device.Request, *nativeAnswer) {
	return func(_ *env, _ device.Request, a *nativeAnswer) { a.head, a.body = device.Head{Status: s}, portal }
}

// cutAt ends the body after so many bytes, from its end where n is negative.
func cutAt(n int, broken bool) attack {
	name := fmt.Sprintf("cut at %d", n)
	if broken {
		name += ", the connection breaks"
	}
	return attack{name: name, do: func(_ *env, _ device.Request, a *nativeAnswer) {
		at := n
		if n < 0 {
			at += len(a.body)
		}
		if at < 0 || at >= len(a.body) {
			at = max(0, len(a.body)-1)
		}
		a.body = a.body[:at]
		if broken {
			a.end = context.DeadlineExceeded
		}
	}}
}

// flipAt flips a bit of the byte that lies so many 16ths into the body.
func flipAt(sixteenth int) attack {
	return attack{name: fmt.Sprintf("flipped at %d/16", sixteenth), do: func(_ *env, _ device.Request, a *nativeAnswer) {
		if len(a.body) > 0 {
			a.body[(len(a.body)-1)*sixteenth/16] ^= 1 << (sixteenth % 8)
		}
	}}
}

func attacks() []attack {
	list := []attack{
		{name: "no answer", do: func(_ *env, _ device.Request, a *nativeAnswer) { a.fail = true }},
		{name: "404", do: status(404)},
		{name: "401", do: status(401)},
		{name: "416", do: status(416)},
		{name: "500", do: status(500)},
		{name: "302 that nobody followed", do: status(302)},
		{name: "captive portal", do: func(_ *env, _ device.Request, a *nativeAnswer) { a.head, a.body = device.Head{Status: 200}, portal }},
		{name: "captive portal that knows ranges", do: func(e *env, r device.Request, a *nativeAnswer) {
			a.body = portal
			asked(r, a)
		}},
		{name: "captive portal without end", do: func(_ *env, r device.Request, a *nativeAnswer) {
			a.body, a.more = portal, true
			asked(r, a)
		}},
		{name: "nothing", do: func(_ *env, _ device.Request, a *nativeAnswer) { a.body = nil }},
		{name: "zeros without end", do: func(_ *env, _ device.Request, a *nativeAnswer) { a.body, a.more = nil, true }},
		{name: "an error page without end", do: func(_ *env, _ device.Request, a *nativeAnswer) {
			a.head, a.body, a.more = device.Head{Status: 503}, nil, true
		}},
		{name: "coded", do: func(_ *env, _ device.Request, a *nativeAnswer) { a.head.Coded = true }},
		{name: "frozen", do: func(e *env, r device.Request, a *nativeAnswer) {
			// The first answer of its kind is good for ever. What names itself by a digest
			// is allowed to be.
			if p := partOf(r); e.first[p] == nil {
				e.first[p] = bytes.Clone(a.body)
				a.fail = true
			} else {
				a.body = bytes.Clone(e.first[p])
			}
		}, on: []part{partPoll, partReport}},
		{name: "a byte at a time", gets: true, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.most = 1 }},
		{name: "slow", gets: true, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.most, a.slow = 7, 300 }},
	}
	for _, broken := range []bool{false, true} {
		for _, n := range []int{0, 1, 31, 32, 33, 1023, 1024, 1025, 1055, 1056, 1057, 2000, -33, -32, -1} {
			list = append(list, cutAt(n, broken))
		}
	}
	for i := range 17 {
		list = append(list, flipAt(i))
	}
	return append(append(list, streamAttacks()...), exchangeAttacks()...)
}

// streamAttacks are those that know what a stream is.
func streamAttacks() []attack {
	const record = 1024 + 32
	only := []part{partStream}
	// records has f see the answer as records, each with its number.
	records := func(f func(e *env, i int, rec []byte)) func(*env, device.Request, *nativeAnswer) {
		return func(e *env, r device.Request, a *nativeAnswer) {
			at := 0
			if r.Ranged {
				at = int(r.From)
			}
			for off := (record - at%record) % record; off < len(a.body); off += record {
				f(e, (at+off)/record, a.body[off:min(off+record, len(a.body))])
			}
		}
	}
	whole := func(e *env, a *nativeAnswer) []byte { return e.s.offer.stream }
	return []attack{
		{name: "neighbours swapped", on: only, do: func(e *env, r device.Request, a *nativeAnswer) {
			records(func(e *env, i int, rec []byte) {
				n := (i ^ 1) * record
				if s := whole(e, a); n+len(rec) <= len(s) {
					copy(rec, s[n:])
				}
			})(e, r, a)
		}},
		{name: "the first record everywhere", on: only, do: records(func(e *env, i int, rec []byte) { copy(rec, e.s.offer.stream) })},
		{name: "a later record early", on: only, do: records(func(e *env, i int, rec []byte) {
			if n := (i + 3) * record; n+len(rec) <= len(e.s.offer.stream) {
				copy(rec, e.s.offer.stream[n:])
			} else {
				rec[0] ^= 1
			}
		})},
		{name: "another signed release's stream", on: only, do: records(func(e *env, i int, rec []byte) { copy(rec, e.other.stream[i*record:]) })},
		{name: "every other record of another signed release", on: only, do: records(func(e *env, i int, rec []byte) {
			if i%2 == 1 {
				copy(rec, e.other.stream[i*record:])
			}
		})},
		{name: "the chunk of one release, the hash of another", on: only, do: records(func(e *env, i int, rec []byte) {
			if o := e.other.stream[i*record:]; len(rec) == record {
				copy(rec[1024:], o[1024:record])
			} else {
				rec[0] ^= 1
			}
		})},
		{name: "a byte too much before it", on: only, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.body = append([]byte{0}, a.body...) }},
		{name: "another part than was asked for", on: only, gets: true, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.head.From++ }},
		{name: "a shorter part than was asked for", on: only, gets: true, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.head.To-- }},
		{name: "a part of another file", on: only, gets: true, do: func(_ *env, _ device.Request, a *nativeAnswer) { a.head.Total++ }},
		{name: "multipart", on: only, do: func(_ *env, _ device.Request, a *nativeAnswer) {
			a.head = device.Head{Status: 206}
			a.body = append([]byte("--sep\r\nContent-Type: application/octet-stream\r\n\r\n"), a.body...)
		}},
		{name: "range ignored", on: only, gets: true, do: func(e *env, r device.Request, a *nativeAnswer) {
			a.head, a.body = device.Head{Status: 200}, bytes.Clone(e.s.offer.stream)
		}},
		{name: "range answered with 416", on: only, gets: true, do: func(e *env, r device.Request, a *nativeAnswer) {
			if r.Ranged {
				status(416)(e, r, a)
			}
		}},
		{name: "range ignored, and poisoned", on: only, do: func(e *env, r device.Request, a *nativeAnswer) {
			a.head, a.body = device.Head{Status: 200}, bytes.Clone(e.s.offer.stream)
			a.body[len(a.body)/2] ^= 4
		}},
		{name: "poisoned at its middle", on: only, do: records(func(e *env, i int, rec []byte) {
			if i == 8 {
				rec[100] ^= 4
			}
		})},
		{name: "poisoned at its end", on: only, do: records(func(e *env, i int, rec []byte) {
			if len(rec) < record {
				rec[len(rec)-1] ^= 4
			}
		})},
		{name: "poisoned cache before a good origin", on: only, gets: true, do: func(e *env, r device.Request, a *nativeAnswer) {
			if !strings.Contains(string(r.Target), "origin=1") && len(a.body) > 0 {
				e.poison++
				a.body[0] ^= 1
			}
		}},
		{name: "poisoned cache that a fresh query goes around", on: only, gets: true, do: func(e *env, r device.Request, a *nativeAnswer) {
			if !strings.Contains(string(r.Target), "fresh=") && len(a.body) > 0 {
				e.poison++
				a.body[0] ^= 1
			}
		}},
	}
}

// exchangeAttacks are those of somebody who has what MACs need, or can read what
// was said to others.
func exchangeAttacks() []attack {
	// answer is a poll's, with an offer, changed and under a MAC that is right.
	answer := func(change func(e *env, a *native.Answer), key *native.SoftMAC) func(*env, device.Request, *nativeAnswer) {
		return func(e *env, r device.Request, a *nativeAnswer) {
			var m native.Answer
			var p native.Poll
			if p.Decode(r.Body, e.s.mac()) != 0 || m.Decode(a.body, e.s.mac(), []byte(e.s.device), p.Nonce, p.Random) != 0 {
				e.s.t.Fatal("an honest answer is not understood")
			}
			change(e, &m)
			mac := key
			if mac == nil {
				mac = e.s.mac()
			}
			body, err := m.Encode(make([]byte, native.MaxBody), mac)
			if err != 0 {
				e.s.t.Fatal(err)
			}
			a.body = bytes.Clone(body)
		}
	}
	var secret [32]byte
	secret[0] = 1
	var h digest.SHA256
	stranger := new(native.Keys)
	stranger.Derive(&secret, &h)
	only := []part{partPoll}
	return []attack{
		{name: "to another nonce", on: only, do: answer(func(_ *env, m *native.Answer) { m.Nonce++ }, nil)},
		{name: "to another device", on: only, do: answer(func(_ *env, m *native.Answer) { m.Device = []byte("board-2") }, nil)},
		{name: "to other random bits", on: only, do: answer(func(_ *env, m *native.Answer) {
			m.Random = bytes.Clone(m.Random)
			m.Random[0] ^= 1
		}, nil)},
		{name: "to no random bits", on: only, do: answer(func(_ *env, m *native.Answer) { m.Random = nil }, nil)},
		{name: "under another device's key", on: only, do: answer(func(*env, *native.Answer) {}, &native.SoftMAC{Keys: stranger, Run: new(digest.SHA256)})},
		{name: "the poll itself", on: only, do: func(_ *env, r device.Request, a *nativeAnswer) { a.body = bytes.Clone(r.Body) }},
		{name: "the report itself", on: []part{partReport}, do: func(_ *env, r device.Request, a *nativeAnswer) { a.body = bytes.Clone(r.Body) }},
		{name: "an older signed release's manifest", on: []part{partManifest}, do: func(e *env, _ device.Request, a *nativeAnswer) {
			a.body = bytes.Clone(e.other.envelope)
		}},
	}
}

// adversaryWorld is a board that is offered B while C is signed too.
func adversaryWorld(t testing.TB) (*nativeWorld, geometry, *nativeRelease, *nativeRelease) {
	g := standard()
	g.imgSize = 16<<10 + 480
	w := newNativeWorld(t, g, image(t, 8192, "A", BehaveOK))
	b := w.p.release(t, image(t, g.imgSize, "B", BehaveOK), "B", 5, g.chunk)
	c := w.p.release(t, image(t, g.imgSize, "C", BehaveOK), "C", 6, g.chunk)
	w.s.put(c)
	w.s.put(b)
	return w, g, b, c
}
