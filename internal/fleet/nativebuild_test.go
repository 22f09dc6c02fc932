package fleet

import (
	"slices"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/release"
)

// inSlot is the build for a slot of release (1, sequence): its id is sequence*10 + slot.
func inSlot(t testing.TB, sequence uint32, slot uint8) SignedRelease {
	t.Helper()
	r := signedAs(t, 1, sequence, func(m *release.Manifest) {
		m.Image.Slot = &slot
		m.Image.Digest = release.Hash{byte(sequence), slot}
	})
	r.ID, r.HasSlot, r.Slot = int64(sequence)*10+int64(slot), true, slot
	return r
}

// F6: of a release in several builds the one for the slot that is written.
func TestNativeBuilds(t *testing.T) {
	gone := func(s SignedRelease) SignedRelease { s.State = ReleaseWithdrawn; return s }
	both := func(sequence uint32) []SignedRelease {
		return []SignedRelease{inSlot(t, sequence, 0), inSlot(t, sequence, 1)}
	}
	dep := func(id int64, s DeploymentState) *Deployment {
		return &Deployment{Device: "d", ReleaseID: id, State: s, Proven: true, StartedAt: at(1), UpdatedAt: at(2)}
	}
	runs := func(slot int) func(*NativeAsk) { return func(a *NativeAsk) { a.Running = slot } }
	for _, c := range []struct {
		name     string
		releases []SignedRelease
		d        Device
		dep      *Deployment
		ask      func(*NativeAsk)
		verdict  Verdict
		release  int64 // 0: none
		why, key string
	}{
		{name: "runs from 0", releases: both(9), verdict: VerdictNewest, release: 91, why: "v1.9 for slot 1 is the newest", key: "newest/90"},
		{name: "runs from 1", releases: both(9), ask: runs(1), verdict: VerdictNewest, release: 90, why: "for slot 0", key: "newest/90"},
		{name: "in another order", releases: []SignedRelease{inSlot(t, 9, 1), inSlot(t, 9, 0)}, ask: runs(1), verdict: VerdictNewest, release: 90},
		{name: "factory runs", releases: both(9), ask: runs(FactoryImage), verdict: VerdictNewest, release: 90},
		{name: "one slot, factory runs", releases: both(9), ask: func(a *NativeAsk) { a.Slots, a.Running = []uint32{8192}, FactoryImage }, verdict: VerdictNewest, release: 90},
		{name: "of three the next", releases: append(both(9), inSlot(t, 9, 2)), ask: func(a *NativeAsk) { a.Slots, a.Running = []uint32{8192, 8192, 8192}, 1 }, verdict: VerdictNewest, release: 92},
		{name: "after the last the first", releases: append(both(9), inSlot(t, 9, 2)), ask: func(a *NativeAsk) { a.Slots, a.Running = []uint32{8192, 8192, 8192}, 2 }, verdict: VerdictNewest, release: 90},

		{name: "for the running slot only", releases: both(9)[:1], verdict: VerdictUnfit, why: "published for slot 0 only, which it runs from", key: "unfit/90"},
		{name: "for slots that it does not write", releases: []SignedRelease{inSlot(t, 9, 0), inSlot(t, 9, 3)}, verdict: VerdictUnfit, why: "published for slots 0, 3 only, and it writes to slot 1"},
		{name: "for a slot that it does not have", releases: []SignedRelease{inSlot(t, 9, 7)}, verdict: VerdictUnfit, why: "published for slot 7 only, and it writes to slot 1"},
		{name: "too large for the slot it fits", releases: both(9), ask: func(a *NativeAsk) { a.Slots = []uint32{8192, 4999} }, verdict: VerdictUnfit, why: "slot"},

		{name: "F1 nothing older instead", releases: []SignedRelease{inSlot(t, 8, 1), inSlot(t, 9, 0)}, verdict: VerdictUnfit, why: "slot 0 only", key: "unfit/90"},
		{name: "F1 nor one for any slot", releases: []SignedRelease{signedAs(t, 1, 8, nil), inSlot(t, 9, 0)}, verdict: VerdictUnfit},
		{name: "F1 the newer one for any slot", releases: append(both(8), signedAs(t, 1, 9, nil)), verdict: VerdictNewest, release: 9},
		{name: "F1 confirmed by the other build", releases: both(9), ask: func(a *NativeAsk) { a.Epoch, a.Sequence, a.Running = 1, 9, 1 }, verdict: VerdictConfirmed, key: "confirmed/90"},
		{name: "F1 the next for the slot before", releases: append(both(9), both(10)...), ask: func(a *NativeAsk) { a.Epoch, a.Sequence, a.Running = 1, 9, 1 }, verdict: VerdictNewest, release: 100},
		{name: "F1 withdrawn", releases: append(both(8), gone(inSlot(t, 9, 0)), gone(inSlot(t, 9, 1))), verdict: VerdictNewest, release: 81},

		{name: "F2 failed with this build", releases: both(9), dep: dep(91, StateFailed), verdict: VerdictFoundBad},
		{name: "F2 failed with the other", releases: both(9), dep: dep(90, StateFailed), verdict: VerdictFoundBad, key: "found_bad/90"},
		{name: "F2 failed with another release", releases: append(both(8), both(9)...), dep: dep(81, StateFailed), verdict: VerdictNewest, release: 91},
		{name: "F2 of nothing that is known", releases: both(9), dep: dep(77, StateFailed), verdict: VerdictNewest, release: 91},
		{name: "F2 by order", releases: both(9), d: Device{RetryAt: at(3)}, dep: dep(90, StateFailed), verdict: VerdictRetry, release: 91},
		{name: "F2 on trial with the other", releases: both(9), dep: dep(91, StateTrial), ask: runs(1), verdict: VerdictNewest, release: 90, key: "newest/90"},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := NewNativeOffers(NativeSnapshot{Releases: c.releases, List: listFor(t, 1, 0), Products: []string{"p"}})
			a := ask()
			if c.ask != nil {
				c.ask(&a)
			}
			c.d.ID, c.d.Product = "d", "p"
			got := o.Decide(deviceWith(c.d, c.dep), a, at(9), nil)
			var id int64
			if got.Release != nil {
				id = got.Release.ID
			}
			if got.Verdict != c.verdict || id != c.release || !strings.Contains(got.Why, c.why) || c.key != "" && got.Key != c.key {
				t.Errorf("%s of %d (%s), key %s", got.Verdict, id, got.Why, got.Key)
			}
			if want := o.Wanted("p", a).Releases; id != 0 && !slices.Equal(want, []int64{id}) {
				t.Errorf("wanted %d", want)
			}
		})
	}
}

// F3 and F6: by whichever build, what is withdrawn is cancelled, and said once.
func TestNativeCancelBuilds(t *testing.T) {
	a, b := inSlot(t, 9, 0), inSlot(t, 9, 1)
	a.State, b.State = ReleaseWithdrawn, ReleaseWithdrawn
	for _, list := range [][]SignedRelease{{a, b}, {b, a}} {
		o := NewNativeOffers(NativeSnapshot{Releases: list, List: listFor(t, 1, 0)})
		for _, running := range []int{0, 1} {
			in := ask()
			in.Running, in.InProgress = running, 9
			if got := o.Decide(deviceWith(Device{Product: "p"}, nil), in, at(0), nil); got.Cancel != 9 || got.Key != "no_release/0/cancel90" {
				t.Errorf("from slot %d: %+v", running, got)
			}
		}
	}
}

func TestTarget(t *testing.T) {
	for _, c := range []struct {
		slots, running, target int
		ok                     bool
	}{
		{2, 0, 1, true}, {2, 1, 0, true}, {3, 1, 2, true}, {3, 2, 0, true}, {1, 0, 0, false}, {0, 0, 0, false}, {0, FactoryImage, 0, false},
		{2, FactoryImage, 0, true}, {1, FactoryImage, 0, true}, {16, 15, 0, true},
	} {
		got, ok := NativeAsk{Slots: make([]uint32, c.slots), Running: c.running}.Target()
		if ok != c.ok || ok && got != c.target {
			t.Errorf("%d slots, runs from %d: %d %v", c.slots, c.running, got, ok)
		}
	}
}
