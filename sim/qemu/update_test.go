package qemu

import (
	"bytes"
	"testing"

	"github.com/runnel-fota/runnel/core/device"
)

// An update inside the chip, and the next one back into the slot that it left.
func TestUpdate(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile.name, func(t *testing.T) { update(t, newBench(t, microbit(t, profile.tag))) })
	}
}

// profiles are how images believe manifests; the tag that they are built with.
var profiles = []struct{ name, tag string }{{"mac-only", ""}, {"signed", "signed"}}

func update(t *testing.T, b *bench) {
	two, three := b.release("2.0.0", 2, Healthy), b.release("3.0.0", 3, Healthy)
	b.Server.Offer = two
	b.run(func(*Lab) bool { return b.heard(two).Confirmed })
	b.starts(1, "2.0.0")
	if got, want := b.Server.Fetched[two+1], b.book.Releases[two+1].Served(true); got != want {
		t.Errorf("%d bytes of the stream were fetched, it has %d", got, want)
	}
	b.Server.Offer = three
	b.run(func(*Lab) bool { return b.heard(three).Confirmed })
	b.starts(0, "3.0.0")
	t.Logf("%d starts of the chip, %d calls on its line, images of %d bytes", b.Starts, b.Line.Calls, len(b.images["3.0.0"][0]))

	// The operator wants it to go back: to what it confirmed before.
	b.Server.Revert = true
	b.run(func(l *Lab) bool { return !l.Server.Revert })
	b.run(b.more(2))
	b.starts(1, "2.0.0")
}

// Images that are no good: each goes back, is reported with its reason, and not tried
// again.
func TestBadImage(t *testing.T) {
	for _, c := range []struct {
		name  string
		fault Fault
		want  device.Reason
	}{
		{"crash", Crashes, device.ReasonCrashed},
		{"hang", Hangs, device.ReasonCrashed},
		{"self-test", FailsSelfTest, device.ReasonSelfTest},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, microbit(t, ""))
			bad := b.release("2.0.0", 2, c.fault)
			b.Server.Offer = bad
			b.run(func(*Lab) bool { return b.heard(bad).Ended })
			h := b.heard(bad)
			if !h.Said(c.want) || h.Confirmed {
				t.Errorf("the server heard %+v, want %v", h, c.want)
			}
			fetched := b.Server.Total()
			b.run(b.more(3))
			if b.Server.Total() != fetched {
				t.Errorf("%d more bytes were fetched: it is tried again", b.Server.Total()-fetched)
			}
			b.starts(0, "1.0.0")

			// A good one is taken after it.
			good := b.release("3.0.0", 3, Healthy)
			b.Server.Offer = good
			b.run(func(*Lab) bool { return b.heard(good).Confirmed })
			b.starts(1, "3.0.0")
		})
	}
}

// An image that reaches no server is innocent: it is staged again, four times in all,
// and never called bad.
func TestMute(t *testing.T) {
	b := newBench(t, microbit(t, ""))
	mute := b.release("2.0.0", 2, Mute)
	b.Server.Offer = mute
	b.run(func(*Lab) bool { return b.heard(mute).Ended })
	if h := b.heard(mute); !h.Said(device.ReasonGaveUp) || h.Confirmed {
		t.Errorf("the server heard %+v", h)
	}
	b.starts(0, "1.0.0")
	if got, most := b.Server.Fetched[mute+1], b.book.Releases[mute+1].Served(true); got != most {
		t.Errorf("%d bytes were fetched for four stagings, want %d once", got, most)
	}
}

// A bit of the new image falls over between the switch and the start: the boot stage
// does not start it.
func TestDamagedBeforeStart(t *testing.T) {
	b := newBench(t, microbit(t, ""))
	two := b.release("2.0.0", 2, Healthy)
	b.Server.Offer = two
	b.OnReset = func(c *Chip) { c.Flash[SlotAt[1]+5000] ^= 4 }
	b.run(func(*Lab) bool { return b.heard(two).Ended })
	if h := b.heard(two); !h.Said(device.ReasonNotVerified) {
		t.Errorf("the server heard %+v", h)
	}
	b.OnReset = nil
	b.run(b.more(1))
	b.starts(0, "1.0.0")
}

// The power goes in the middle of a download: what is in flash is not fetched again.
func TestResume(t *testing.T) {
	b := newBench(t, microbit(t, ""))
	two := b.release("2.0.0", 2, Healthy)
	b.Server.Offer = two
	whole := b.book.Releases[two+1].Served(true)
	cuts := int64(0)
	for at := whole / 5; at < whole; at += whole / 5 {
		b.run(func(l *Lab) bool { return l.Server.Total() >= at })
		cuts++
	}
	b.run(func(*Lab) bool { return b.heard(two).Confirmed })
	b.starts(1, "2.0.0")
	again := b.Server.Total() - whole
	if again > cuts*4096+cuts*32 {
		t.Errorf("%d bytes were fetched again after %d cuts", again, cuts)
	}
	if !b.said(device.EventResume) {
		t.Error("it never said that it resumes")
	}
	t.Logf("%d bytes fetched again after %d cuts", again, cuts)
}

// What another key signed is refused before an erase, by a chip that checks signatures;
// and one that does not takes it: it believes its HMAC key alone.
func TestForged(t *testing.T) {
	for _, profile := range profiles {
		t.Run(profile.name, func(t *testing.T) {
			b := newBench(t, microbit(t, profile.tag))
			b.book.SignWith(0x3F)
			forged := b.release("2.0.0", 2, Healthy)
			b.book.SignWith(0)
			b.Server.Offer = forged
			if profile.tag == "" {
				b.run(func(*Lab) bool { return b.heard(forged).Confirmed })
				return
			}
			b.run(func(*Lab) bool { return b.refused(device.ReasonSignature) })
			b.run(b.more(2))
			slot := b.Chip.Flash[SlotAt[1]:RecordsAt]
			if !bytes.Equal(slot, b.start[SlotAt[1]:RecordsAt]) {
				t.Error("the target was touched")
			}
			if n := b.Server.Total(); n != 0 {
				t.Errorf("%d bytes of the stream were fetched", n)
			}
		})
	}
}

// Roots and release key change by a key list; what the old key signs counts no more.
func TestRotation(t *testing.T) {
	b := newBench(t, microbit(t, "signed"))
	if err := b.book.Rotate(); err != nil {
		t.Fatal(err)
	}
	b.Server.List = len(b.book.Lists) - 1
	two := b.release("2.0.0", 2, Healthy)
	b.Server.Offer = two
	b.run(func(*Lab) bool { return b.heard(two).Confirmed })
	b.starts(1, "2.0.0")
	if !b.said(device.EventKeyList) {
		t.Error("it never said that it took the key list")
	}
	b.book.SignWith(0x40) // the first list's
	old := b.release("3.0.0", 3, Healthy)
	b.book.SignWith(0)
	b.Server.Offer = old
	b.run(func(*Lab) bool { return b.refused(device.ReasonSignature) })
	b.starts(1, "2.0.0")
}
