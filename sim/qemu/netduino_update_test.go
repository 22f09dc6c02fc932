package qemu

import (
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// An update with signatures, in records of 1 KiB and then of 4 KiB.
func TestNetduinoUpdate(t *testing.T) {
	b := newHostBench(t, 1, 0)
	two, three := b.release("2.0.0", 2, 1024, Healthy), b.release("3.0.0", 3, 4096, Healthy)
	b.update(two, "2.0.0", 1)
	b.update(three, "3.0.0", 0)
	b.end()
}

// update offers a release until it is confirmed, and looks what starts then.
func (b *hostBench) update(release int, version string, slot boot.Slot) {
	b.t.Helper()
	b.Server.Offer = release
	b.run(func(l *Lab) bool { return l.Server.Heard[release].Confirmed })
	b.starts(slot, version)
	if got, want := b.Server.Fetched[release], b.book.Releases[release].Served(true); got != want {
		b.t.Errorf("%d bytes of the stream of %s were fetched, it has %d", got, version, want)
	}
}

// refused offers a release, and judges that it was refused with a reason before a byte
// of its slot was erased and of its stream was fetched.
func (b *hostBench) refused(release int, slot boot.Slot, why device.Reason) {
	b.t.Helper()
	b.Server.Offer = release
	erases, events := b.erases(slot), len(b.Events)
	b.run(b.more(3))
	if n := b.erases(slot) - erases; n != 0 || b.Server.Fetched[release] != 0 {
		b.t.Errorf("%d sectors were erased and %d bytes fetched", n, b.Server.Fetched[release])
	}
	for _, e := range b.Events[events:] {
		if e.Kind == device.EventFailed && e.Reason == why {
			return
		}
	}
	b.t.Errorf("the chip said %+v, want %v", b.Events[events:], why)
}

// erases of a slot so far, in sectors.
func (b *hostBench) erases(slot boot.Slot) (n uint32) {
	m := &NetduinoMap
	for off := m.Slots[slot]; off < m.Slots[slot]+m.SlotSize; off += m.Sector {
		n += b.Flash.NOR.Wear(off)
	}
	return n
}

// A manifest that another key signed is refused; a good one is taken after it.
func TestNetduinoForged(t *testing.T) {
	b := newHostBench(t, 2, short)
	forger, err := labserver.NewBook()
	if err != nil {
		t.Fatal(err)
	}
	forger.Raw = true
	if err := forger.Rotate(); err != nil { // its release key is another one
		t.Fatal(err)
	}
	if _, err := forger.Add("2.0.0", b.build("2.0.0", Healthy), 2, 0, 1024); err != nil {
		t.Fatal(err)
	}
	b.book.Releases = append(b.book.Releases, forger.Releases...)
	b.refused(0, 1, device.ReasonSignature)
	b.update(b.release("3.0.0", 3, 1024, Healthy), "3.0.0", 1)
	b.end()
}

// The roots sign their successors and another release key. What that signed is taken;
// what the one before signed is so no more.
func TestNetduinoRotation(t *testing.T) {
	b := newHostBench(t, 3, short)
	b.update(b.release("2.0.0", 2, 4096, Healthy), "2.0.0", 1)
	old := b.release("4.0.0", 4, 1024, Healthy)
	if err := b.book.Rotate(); err != nil {
		t.Fatal(err)
	}
	b.Server.List++
	three := b.release("3.0.0", 3, 1024, Healthy)
	b.refused(old, 0, device.ReasonSignature)
	if !b.said(device.EventKeyList) {
		t.Error("no key list was accepted")
	}
	b.update(three, "3.0.0", 0)
	b.end()
}

// Images that are no good: each goes back, is reported with its reason, and not tried
// again.
func TestNetduinoBadImage(t *testing.T) {
	for i, c := range []struct {
		name  string
		fault Fault
		want  device.Reason
	}{
		{"crash", Crashes, device.ReasonCrashed},
		{"hang", Hangs, device.ReasonCrashed},
		{"overflow", Overflows, device.ReasonCrashed},
		{"self-test", FailsSelfTest, device.ReasonSelfTest},
		{"mute", Mute, device.ReasonGaveUp},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newHostBench(t, 10+uint64(i), short)
			if c.fault == Overflows {
				b.OnEnd = nil // its stack is used to the end
			}
			bad := b.release("2.0.0", 2, 1024, c.fault)
			b.Server.Offer = bad
			b.run(func(l *Lab) bool { return l.Server.Heard[bad].Ended })
			if h := b.Server.Heard[bad]; !h.Said(c.want) || h.Confirmed {
				t.Errorf("the server heard %+v, want %v", h, c.want)
			}
			fetched := b.Server.Total()
			b.run(b.more(2))
			if b.Server.Total() != fetched || fetched != b.book.Releases[bad].Served(true) {
				t.Errorf("%d bytes were fetched, %d after it had gone back", b.Server.Total(), b.Server.Total()-fetched)
			}
			b.starts(0, "1.0.0")
			b.end()
		})
	}
}

// The power goes in the middle of a download: what is in flash is not fetched again.
func TestNetduinoResume(t *testing.T) {
	b := newHostBench(t, 5, 3*short)
	two := b.release("2.0.0", 2, 4096, Healthy)
	b.Server.Offer = two
	whole := b.book.Releases[two].Served(true)
	cuts := int64(0)
	for at := whole / 4; at < whole; at += whole / 4 {
		b.run(func(l *Lab) bool { return l.Server.Total() >= at })
		cuts++
	}
	b.run(func(l *Lab) bool { return l.Server.Heard[two].Confirmed })
	b.starts(1, "2.0.0")
	again := b.Server.Total() - whole
	if again > cuts*(2*4096+64) {
		t.Errorf("%d bytes were fetched again after %d cuts", again, cuts)
	}
	if !b.said(device.EventResume) {
		t.Error("it never said that it resumes")
	}
	t.Logf("%d bytes fetched again after %d cuts", again, cuts)
	b.end()
}
