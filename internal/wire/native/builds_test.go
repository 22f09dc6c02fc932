package native

import (
	"bytes"
	"strings"
	"testing"
	"time"

	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// inSlot publishes the build for a slot of a release.
func (w *rig) inSlot(version string, sequence uint32, slot uint8) fleet.Release {
	w.t.Helper()
	return w.publishAs(version, version+string('a'+rune(slot)), sequence, func(m *release.Manifest) { m.Image.Slot = &slot })
}

// A device gets each release in the build for the slot that it writes, in turn; what is
// published for the slot that it runs from is not offered, and it is told why.
func TestBuildsInTurn(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	zero := w.inSlot("1.0", 7, 0)
	b.nothing()
	one := w.inSlot("1.0", 7, 1)
	b.offered(one)
	if d := w.fleetDevice("pump-1"); d.Slots != 2 || d.RunningSlot != 0 {
		t.Errorf("%+v", d)
	}
	b.report(one, core.StateDownloading, 0)
	b.report(one, core.StateTrial, 0)
	// On trial it runs from slot 1, with nothing confirmed. What it is told then moves no deployment.
	b.poll.Running, b.poll.Boot = 1, b.poll.Boot+1
	b.offered(zero)
	if p := w.deployment("pump-1"); p.ReleaseID != one.ID || p.State != fleet.StateTrial {
		t.Errorf("%+v", p)
	}
	b.report(one, core.StateConfirmed, 0)
	b.poll.Epoch, b.poll.Sequence, b.poll.Version = 1, 7, []byte("1.0")
	b.nothing()
	if p, d := w.deployment("pump-1"), w.fleetDevice("pump-1"); p.ReleaseID != one.ID || p.State != fleet.StateConfirmed || d.RunningSlot != 1 {
		t.Errorf("%+v %+v", p, d)
	}
	next := w.inSlot("2.0", 8, 0)
	w.inSlot("2.0", 8, 1)
	b.offered(next)

	want := []string{"offer: 1.0 is the newest release, but the device would refuse it: published for slot 0 only, which it runs from",
		"offer: 1.0 for slot 1 is the newest", "offer: 1.0 is confirmed", "offer: 2.0 for slot 0 is the newest"}
	var offers []string
	for _, line := range w.timeline("pump-1") {
		if strings.HasPrefix(line, "offer: ") {
			offers = append(offers, line)
		}
	}
	if len(offers) != len(want) {
		t.Fatalf("%q", offers)
	}
	for i, line := range offers {
		if !strings.HasPrefix(line, want[i]) {
			t.Errorf("%q, not %q", line, want[i])
		}
	}
}

// What failed in one build is not tried in the other, and an order to try again holds for both.
func TestBuildFoundBad(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	b := w.board("pump-1")
	zero, one := w.inSlot("1.0", 7, 0), w.inSlot("1.0", 7, 1)
	b.offered(one)
	b.report(one, core.StateReverted, 2)
	b.nothing()
	b.poll.Running = 1 // flashed by hand
	b.nothing()
	w.advance(time.Second)
	w.ok(nil, w.store.OrderRetry(t.Context(), "pump-1", w.now()))
	if a := b.offered(zero); !bytes.Equal(a.Retry, zero.Image.Digest[:]) {
		t.Errorf("%+v", a)
	}
}

// A withdrawal of either build takes back both, wherever a device runs from.
func TestBuildsWithdrawn(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	before := w.publish("0.9", 6, nil)
	zero, one := w.inSlot("1.0", 7, 0), w.inSlot("1.0", 7, 1)
	a, b := w.board("pump-1"), w.board("pump-2")
	b.poll.Running = 1
	a.offered(one)
	b.offered(zero)
	a.poll.InProgress, a.poll.Progress, b.poll.InProgress, b.poll.Progress = 7, 2048, 7, 2048
	w.ok(w.store.Withdraw(t.Context(), zero.ID, w.now()))
	for _, d := range []*board{a, b} {
		if got := d.offered(before); got.Cancel != 7 {
			t.Errorf("%s: %+v", d.id, got)
		}
	}
}
