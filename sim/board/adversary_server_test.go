package board

import (
	"bytes"
	"crypto/ed25519"
	"math"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/release"
)

// A server that is taken over has every device's key, and no key that signs. What it
// can do is here too: docs/security.md says exactly that much.
func TestServerTakenOver(t *testing.T) {
	start := func(t *testing.T) (*nativeWorld, geometry) {
		w, g := trusting(t, newTrustees(t, 1, 1))
		w.list(w.p.roots...)
		return w, g
	}
	make := func(t *testing.T, w *nativeWorld, g geometry, name string, sequence uint32, change ...func(*release.Manifest)) *nativeRelease {
		return w.p.release(t, image(t, g.imgSize, name, BehaveOK), name, sequence, g.chunk, change...)
	}
	security := func(v uint32) func(*release.Manifest) {
		return func(m *release.Manifest) { m.SecurityVersion = v }
	}
	t.Run("can withhold", func(t *testing.T) {
		w, g := start(t)
		make(t, w, g, "B", 1)
		w.hours(24, boot.ResetPowerOn, w.watch(g), never)
		if w.run != 0 || w.s.polls < 1000 {
			t.Errorf("slot %d runs after %d polls", w.run, w.s.polls)
		}
	})
	t.Run("can choose among signed releases", func(t *testing.T) {
		w, g := start(t)
		b, c := make(t, w, g, "B", 2), make(t, w, g, "C", 3)
		make(t, w, g, "D", 4) // the newest, which it keeps back
		if !w.takes(g, b) || !w.takes(g, c) {
			t.Error("a signed release above the floor was refused")
		}
	})
	t.Run("can't go below the floors", func(t *testing.T) {
		w, g := start(t)
		if !w.takes(g, make(t, w, g, "B", 5, security(3))) {
			t.Fatal("not taken")
		}
		w.refuses(g, make(t, w, g, "old", 4, security(3)), device.ReasonSequence)
		w.refuses(g, make(t, w, g, "unsafe", 6, security(2)), device.ReasonSecurity)
	})
	t.Run("can't make a release", func(t *testing.T) {
		w, g := start(t)
		good := make(t, w, g, "B", 1)
		for name, forge := range map[string]func(*nativeRelease){
			"signed by itself": func(r *nativeRelease) {
				mine := w.p.releases
				w.p.releases = []ed25519.PrivateKey{keyOf(0x66)}
				*r = *make(t, w, g, "evil", 9)
				w.p.releases = mine
			},
			"a good signature over other words": func(r *nativeRelease) {
				r.envelope = bytes.Replace(r.envelope, []byte("\x61B"), []byte("\x61X"), 1)
				if bytes.Equal(r.envelope, good.envelope) {
					t.Fatal("nothing was forged")
				}
			},
		} {
			r := *good
			r.envelope = bytes.Clone(good.envelope)
			forge(&r)
			w.refuses(g, &r, device.ReasonSignature)
			_ = name
		}
	})
	t.Run("can't put other bytes behind a manifest", func(t *testing.T) {
		w, g := start(t)
		good, other := make(t, w, g, "B", 1), make(t, w, g, "C", 2)
		mixed := *good // its manifest, with the other's stream, by the other's name
		mixed.stream, mixed.file = other.stream, other.file
		if w.takes(g, &mixed) {
			t.Fatal("taken")
		}
		if !w.s.said(native.StateFailed, device.ReasonRecord) {
			t.Errorf("not reported: %+v", w.s.reports)
		}
		for _, r := range w.s.reports {
			if r.State == native.StateFailed && r.Bytes != 0 {
				t.Errorf("record 0 is wrong, the report names byte %d", r.Bytes)
			}
		}
	})
	t.Run("can't promise a key list", func(t *testing.T) {
		w, g := start(t)
		good := make(t, w, g, "B", 1)
		said := *w.s.trust
		said.Version = 9
		w.s.trust = &said
		w.refuses(g, good, device.ReasonKeyList)
	})
}

// Two rollouts that fight over a device: the one with the higher sequence gets it,
// and the other has to wait; what was fetched is lost to a higher one only.
func TestRolloutsThatFight(t *testing.T) {
	for _, higher := range []bool{true, false} {
		w, g, b, c := adversaryWorld(t)
		first, second := c, b // with the higher sequence, and the lower
		if higher {
			first, second = b, c
		}
		o := w.watch(g, first, second)
		w.s.put(first)
		w.hours(1, boot.ResetPowerOn, o, past(12288))
		w.forget()
		w.s.turn = func() { // each has its turn
			w.s.put([]*nativeRelease{first, second}[w.s.polls%2])
		}
		w.hours(3, boot.ResetPowerOn, o, at(device.EventConfirmed))
		w.targetIs(c.image)
		if _, older := w.saw(device.EventFailed, device.ReasonOlder); !higher && !older {
			t.Errorf("nothing was said: %v", w.events)
		}
		if limit := len(c.stream) - 8192 + 3*1056; !higher && w.s.fetched > limit {
			t.Errorf("%d bytes fetched, at most %d: the lower one cost the progress", w.s.fetched, limit)
		}
	}
}

// A report of a wrong record says which one it is.
func TestWrongRecordIsNamed(t *testing.T) {
	w, g, b, _ := adversaryWorld(t)
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		if from, at := int(r.From), 7*1056; a.data && from <= at && at < from+len(a.body) {
			a.body[at-from] ^= 1
		}
	}
	w.hours(2, boot.ResetPowerOn, w.watch(g, b), never)
	named := 0
	for _, r := range w.s.reports {
		if r.State == native.StateFailed && device.Reason(r.Reason) == device.ReasonRecord {
			if r.Bytes != 7*1024 {
				t.Errorf("record 7 is wrong, the report names byte %d", r.Bytes)
			}
			named++
		}
	}
	if named == 0 {
		t.Errorf("nothing was reported: %+v", w.s.reports)
	}
}

// turns is a server that offers releases in turn, takes back what is begun, and
// orders what else it may, for days.
type turns struct {
	name  string
	noJrn bool
	// turn is called before a poll is answered.
	turn func(w *nativeWorld, all []*nativeRelease, polls int)
	// drop has streams break off after so many bytes; 0: never.
	drop int
	// ends: the board ends with one of them all the same.
	ends bool
}

// Offers that alternate, cancels, retries: erases are bounded over a week with
// resets, and a newer release is taken all the same.
func TestAlternatingOffers(t *testing.T) {
	offer := func(w *nativeWorld, r *nativeRelease) { w.s.put(r); w.s.cancel = 0 }
	for _, c := range []turns{
		{name: "cancelled as soon as it is begun", drop: 3000, turn: func(w *nativeWorld, all []*nativeRelease, n int) {
			offer(w, all[0])
			if n%2 == 1 {
				w.s.put(nil)
				w.s.cancel = all[0].m.Sequence
			}
		}},
		{name: "two in turn, with cancels", drop: 3000, turn: func(w *nativeWorld, all []*nativeRelease, n int) {
			offer(w, all[n/2%2])
			if n%2 == 1 {
				w.s.cancel = w.s.offer.m.Sequence
				w.s.put(nil)
			}
		}},
		{name: "two in turn", drop: 3000, ends: true, turn: func(w *nativeWorld, all []*nativeRelease, n int) { offer(w, all[n%2]) }},
		{name: "two in turn, without a journal", drop: 3000, noJrn: true, ends: true, turn: func(w *nativeWorld, all []*nativeRelease, n int) { offer(w, all[n%2]) }},
		{name: "a crashing one, ordered again and again", turn: func(w *nativeWorld, all []*nativeRelease, n int) {
			offer(w, all[3])
			w.s.retry = all[3].m.Image.Digest[:]
		}},
		{name: "nothing, right before the switch", turn: func(w *nativeWorld, all []*nativeRelease, n int) {
			offer(w, all[0])
			if w.up.Status().Erased > 0 {
				w.s.put(nil)
			}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			alternate(t, c)
		})
	}
}

func alternate(t *testing.T, c turns) {
	g := standard()
	g.imgSize = 24 << 10
	if g.noJrnl = c.noJrn; c.noJrn {
		g.imgSize = g.slotSize - 4096
	}
	w := newNativeWorld(t, g, image(t, 8192, "A", BehaveOK))
	var all []*nativeRelease
	for i, b := range []Behaviour{BehaveOK, BehaveOK, BehaveOK, BehavePanic} {
		name := string(rune('B' + i))
		all = append(all, w.p.release(t, image(t, g.imgSize, name, b), name, uint32(5+i), g.chunk))
	}
	o := w.watch(g, all...)
	w.s.turn = func() { c.turn(w, all, w.s.polls) }
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		switch partOf(r) {
		case partManifest:
			for _, m := range all { // it keeps every manifest
				if bytes.HasSuffix(r.Target, []byte(hexOf(sum(m.envelope)))) {
					a.head, a.body = device.Head{Status: 200}, bytes.Clone(m.envelope)
				}
			}
		case partStream:
			if c.drop > 0 && len(a.body) > c.drop {
				a.body, a.end = a.body[:c.drop], errPart
			}
		}
	}
	w.s.put(all[0])
	for range 7 { // a reset a day
		w.hours(24, boot.ResetPowerOn, o, never)
	}
	if _, ended := w.saw(device.EventConfirmed, 0); ended != c.ends {
		t.Fatalf("confirmed %v", ended)
	}
	if o.erases == 0 {
		t.Fatal("nothing was erased: nothing was begun")
	}
	// Sixteen that were given up, and what one that gets nowhere may cost: an erase of a
	// sector, or two, an hour.
	if worn := o.worn(); worn > 320 {
		t.Errorf("a sector was erased %d times in a week, after %d polls", worn, w.s.polls)
	}
	t.Logf("%d polls, %d erases of the target, a sector %d times", w.s.polls, o.erases, o.worn())
	// A newer release needs somebody who signs.
	w.s.turn, w.s.mangle, w.s.cancel, w.s.retry = nil, nil, 0, nil
	next := w.p.release(t, image(t, g.imgSize, "next", BehaveOK), "next", 50, g.chunk)
	o.signed = append(o.signed, next.image)
	w.s.put(next)
	w.hours(3, boot.ResetPowerOn, o, func(device.Event) bool { return w.up.State().Confirmed.Digest == next.m.Image.Digest })
	if w.up.State().Confirmed.Digest != next.m.Image.Digest {
		reasons, _ := w.reasons()
		t.Errorf("the newer release was not taken: %v", reasons)
	}
}

// A nonce that is said to be the highest there is, or always above the device's: the
// state is written for it, so both are bounded.
func TestNoncesThatJump(t *testing.T) {
	for name, highest := range map[string]func(nonce uint64) uint64{
		"the last one there is":  func(uint64) uint64 { return math.MaxUint64 },
		"the last that is taken": func(uint64) uint64 { return 1<<62 - 1 },
		"above, always":          func(n uint64) uint64 { return n + 1000 },
	} {
		t.Run(name, func(t *testing.T) {
			w, g, b, _ := adversaryWorld(t)
			o := w.watch(g, b)
			w.s.mangle = func(r device.Request, a *nativeAnswer) {
				var p native.Poll
				if partOf(r) != partPoll || p.Decode(r.Body, w.s.mac()) != 0 {
					return
				}
				m := native.Answer{Device: []byte(w.s.device), Random: p.Random, Nonce: p.Nonce, Highest: highest(p.Nonce), ComeBack: 60}
				body, err := m.Encode(make([]byte, native.MaxBody), w.s.mac())
				if err != 0 {
					t.Fatal(err)
				}
				a.body = bytes.Clone(body)
			}
			w.hours(24, boot.ResetPowerOn, o, never)
			if worn := o.worn(); worn > 40 || w.s.polls == 0 || len(w.s.requests) > 1500 {
				t.Errorf("a sector was erased %d times in a day, %d requests", worn, len(w.s.requests))
			}
			w.s.mangle = nil
			w.hours(2, boot.ResetUnknown, o, at(device.EventConfirmed))
			w.targetIs(b.image)
		})
	}
}
