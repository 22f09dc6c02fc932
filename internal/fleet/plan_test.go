package fleet

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/release"
)

// rolloutOf is rollout 5, of release 9, with those phases, running its first.
func rolloutOf(t testing.TB, phases string, change func(*Rollout)) Rollout {
	t.Helper()
	list, err := ParsePhases(phases, Phase{Success: DefaultSuccess, Fail: DefaultFail})
	if err != nil {
		t.Fatal(err)
	}
	r := Rollout{ID: 5, Product: "p", ReleaseID: 9, ReleaseVersion: "v1.9", Version: 3, State: RolloutRunning, Reason: "because", Course: Course{Phases: list, Quarantine: 3}}
	r.Course.Fill()
	if change != nil {
		change(&r)
	}
	return r
}

// near and far have places below and above a tenth in rollout 5.
const near, far = "d3", "d"

// A row a rule of Plan.decide, by the native wire.
func TestDecideByRollout(t *testing.T) {
	if Place(5, near) >= 0.1 || Place(5, far) < 0.1 {
		t.Fatalf("places %g and %g", Place(5, near), Place(5, far))
	}
	dep := func(s DeploymentState, change func(*Deployment)) *Deployment {
		p := &Deployment{ReleaseID: 9, State: s, Proven: true, Reason: "because", StartedAt: at(1), UpdatedAt: at(2), Rollout: 5, Heard: 100}
		if change != nil {
			change(p)
		}
		return p
	}
	withdrawn := func(s SignedRelease) SignedRelease { s.State = ReleaseWithdrawn; return s }
	hour := Clock(time.Hour / time.Microsecond)
	for _, c := range []struct {
		name     string
		rollouts []Rollout // nil: the rollout with "10%,100%"
		change   func(*Rollout)
		phases   string
		groups   []Group
		releases []SignedRelease
		id       string // "": far
		d        func(*Device)
		dep      *Deployment
		usage    []Usage
		clock    Clock
		now      time.Time
		ask      func(*NativeAsk)
		verdict  Verdict
		release  int64
		rule     string // that decided
		why      string
		admit    bool
		cancel   uint32
	}{
		{name: "not begun", change: func(r *Rollout) { r.State = RolloutScheduled }, id: near, verdict: VerdictStart, rule: "start"},
		{name: "in", id: near, verdict: VerdictRollout, release: 9, rule: "offer", admit: true, why: "rollout 5: v1.9, phase 1 of 2"},
		{name: "its place has not come", verdict: VerdictPhase, rule: "phase", why: "its place is"},
		{name: "second phase", change: func(r *Rollout) { r.Phase = 1 }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true, why: "phase 2 of 2"},
		{name: "complete, and it came later", change: func(r *Rollout) { r.Phase, r.State = 2, RolloutComplete }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "reach", change: func(r *Rollout) { r.Reach = 0.999999 }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "target", change: func(r *Rollout) { r.Course.To = `hardware == "r2"` }, id: near, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "no target", change: func(r *Rollout) { r.Course.To = `"beta" in tags` }, id: near, verdict: VerdictNotTargeted, rule: "target", why: `"beta" in tags`},
		{name: "tagged since", change: func(r *Rollout) { r.Course.To = `"beta" in tags` }, id: near, d: func(d *Device) { d.Tags = []string{"beta"} }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "broken", change: func(r *Rollout) { r.Course.To = `gone == 1` }, id: near, verdict: VerdictBroken, rule: "target"},
		{name: "other hardware", id: near, ask: func(a *NativeAsk) { a.Hardware = []byte("r9") }, verdict: VerdictHardware, rule: "release", why: "r9"},
		{name: "withdrawn", releases: []SignedRelease{withdrawn(signedAs(t, 1, 9, nil))}, id: near, verdict: VerdictNoRelease, rule: "release"},
		{name: "has it", id: near, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 9 }, verdict: VerdictConfirmed, rule: "has"},
		{name: "has a later one: no way down", id: near, ask: func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 10 }, verdict: VerdictConfirmed, rule: "has", why: "later"},
		{name: "busy with a later one", id: near, releases: []SignedRelease{signedAs(t, 1, 9, nil), signedAs(t, 1, 11, nil)}, ask: func(a *NativeAsk) { a.InProgress = 11 }, verdict: VerdictBusy, rule: "busy"},
		{name: "failed", id: near, dep: dep(StateFailed, nil), verdict: VerdictFoundBad, rule: "outcome", why: "because"},
		{name: "failed, and nobody proved it", id: near, dep: dep(StateFailed, func(p *Deployment) { p.Proven = false }), verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "skipped", id: near, dep: dep(StateSkipped, nil), verdict: VerdictSkipped, rule: "outcome"},
		{name: "cancelled", id: near, dep: dep(StateCancelled, nil), verdict: VerdictCancelled, rule: "outcome"},
		{name: "cancelled by another rollout", id: near, dep: dep(StateCancelled, func(p *Deployment) { p.Rollout = 4 }), verdict: VerdictRetry, release: 9, rule: "offer", admit: true},
		{name: "by order", id: near, dep: dep(StateFailed, nil), d: func(d *Device) { d.RetryAt = at(3) }, verdict: VerdictRetry, release: 9, rule: "offer"},
		{name: "flash, too early", id: near, dep: dep(StateFailed, func(p *Deployment) { p.Class, p.Tries = ClassFlash, 1 }), clock: 99 + hour, verdict: VerdictBackoff, rule: "outcome"},
		{name: "flash, an hour later", id: near, dep: dep(StateFailed, func(p *Deployment) { p.Class, p.Tries = ClassFlash, 1 }), clock: 100 + hour, verdict: VerdictRetry, release: 9, rule: "offer"},
		{name: "flash, three times", id: near, dep: dep(StateFailed, func(p *Deployment) { p.Class, p.Tries = ClassFlash, 3 }), clock: 99 * hour, verdict: VerdictFoundBad, rule: "outcome"},
		{name: "quarantine", id: near, d: func(d *Device) { d.Failures = 3 }, verdict: VerdictQuarantine, rule: "quarantine"},
		{name: "no quarantine", id: near, d: func(d *Device) { d.Failures = 2 }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "a number, open", phases: "2,100%", usage: []Usage{{Rollout: 5, Joined: 1}}, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "a number, full", phases: "2,100%", usage: []Usage{{Rollout: 5, Joined: 2}}, verdict: VerdictPhase, rule: "phase", why: "takes 2 devices and has them"},
		{name: "a number, passed", phases: "2,10%", change: func(r *Rollout) { r.Phase = 1 }, verdict: VerdictPhase, rule: "phase"},
		{name: "a group's", phases: "group:g,100%", groups: []Group{{Name: "g", Filter: `id == "d"`}}, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "not in the group", phases: "group:g,100%", groups: []Group{{Name: "g", Filter: `id == "x"`}}, verdict: VerdictPhase, rule: "phase"},
		{name: "the group is gone", phases: "group:g,100%", verdict: VerdictBroken, rule: "target", why: `no group "g"`},
		{name: "came in, and the filter of its phase changed", dep: dep(StateDownloading, nil), verdict: VerdictRollout, release: 9, rule: "offer"},
		{name: "forced", d: func(d *Device) { d.Forced, d.Failures = 5, 9 }, change: func(r *Rollout) { r.Course.Concurrency = 1 }, usage: []Usage{{Rollout: 5, Active: 1}}, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "forced into another", d: func(d *Device) { d.Forced = 4 }, verdict: VerdictPhase, rule: "phase"},
		{name: "paused", change: func(r *Rollout) { r.State = RolloutPaused }, id: near, verdict: VerdictPaused, rule: "paused", why: "because"},
		{name: "paused, on its way", change: func(r *Rollout) { r.State = RolloutPaused }, dep: dep(StateDownloading, nil), verdict: VerdictPaused, rule: "paused"},
		{name: "paused, forced", change: func(r *Rollout) { r.State = RolloutPaused }, d: func(d *Device) { d.Forced = 5 }, verdict: VerdictPaused, rule: "paused"},
		{name: "night there", change: func(r *Rollout) { r.Course.Window = "22:00-04:00" }, id: near, d: func(d *Device) { d.Attributes = map[string]string{ZoneAttribute: "Asia/Tokyo"} },
			now: time.Date(2026, 7, 1, 14, 0, 0, 0, time.UTC), verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "day here", change: func(r *Rollout) { r.Course.Window = "22:00-04:00" }, id: near, now: time.Date(2026, 7, 1, 14, 0, 0, 0, time.UTC), verdict: VerdictWindow, rule: "window", why: "14:00 in UTC"},
		{name: "day here, on its way", change: func(r *Rollout) { r.Course.Window = "22:00-04:00" }, dep: dep(StateDownloading, nil), now: time.Date(2026, 7, 1, 14, 0, 0, 0, time.UTC), verdict: VerdictRollout, release: 9, rule: "offer"},
		{name: "a place of the concurrency", change: func(r *Rollout) { r.Course.Concurrency = 2 }, id: near, usage: []Usage{{Rollout: 5, Active: 1}}, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "no place of the concurrency", change: func(r *Rollout) { r.Course.Concurrency = 2 }, id: near, usage: []Usage{{Rollout: 5, Active: 2}}, verdict: VerdictBudget, rule: "concurrency"},
		{name: "room for a stream", change: func(r *Rollout) { r.Course.BytesPerSec = 1000 }, id: near, usage: []Usage{{Rollout: 5, NextAt: 100 + Clock(RateSlack/time.Microsecond)}}, clock: 100, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "no room for a stream", change: func(r *Rollout) { r.Course.BytesPerSec = 1000 }, id: near, usage: []Usage{{Rollout: 5, NextAt: 101 + Clock(RateSlack/time.Microsecond)}}, clock: 100, verdict: VerdictBudget, rule: "rate"},
		{name: "unfit", id: near, ask: func(a *NativeAsk) { a.Chunk = 100 }, verdict: VerdictUnfit, rule: "fit"},
		{name: "order to go back", id: near, d: func(d *Device) { d.RollbackWanted = true }, verdict: VerdictReverting, rule: "order"},
		{name: "cancelled while it downloads", change: func(r *Rollout) { r.State = RolloutCancelled }, dep: dep(StateDownloading, nil), ask: func(a *NativeAsk) { a.InProgress = 9 }, verdict: VerdictNotTargeted, cancel: 9, rule: "rollouts", why: "taken back"},
		{name: "reverting while it downloads", change: func(r *Rollout) { r.State = RolloutReverting }, dep: dep(StateDownloading, nil), ask: func(a *NativeAsk) { a.InProgress = 9 }, verdict: VerdictPaused, cancel: 9, rule: "start"},
		{name: "the newer of two", rollouts: []Rollout{rolloutOf(t, "100%", func(r *Rollout) { r.ID, r.ReleaseID, r.ReleaseVersion = 6, 8, "v1.8" }), rolloutOf(t, "100%", nil)},
			releases: []SignedRelease{signedAs(t, 1, 9, nil), signedAs(t, 1, 8, nil)}, verdict: VerdictRollout, release: 8, rule: "offer", admit: true},
		{name: "the older, until its phase comes", rollouts: []Rollout{rolloutOf(t, "10%", func(r *Rollout) { r.ID, r.ReleaseID = 7, 10 }), rolloutOf(t, "100%", func(r *Rollout) { r.State, r.Phase = RolloutComplete, 1 })},
			releases: []SignedRelease{signedAs(t, 1, 9, nil), signedAs(t, 1, 10, nil)}, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "cancelled, and given again by a newer one", rollouts: []Rollout{rolloutOf(t, "100%", func(r *Rollout) { r.ID = 6 }), rolloutOf(t, "100%", func(r *Rollout) { r.State = RolloutCancelled })},
			ask: func(a *NativeAsk) { a.InProgress = 9 }, verdict: VerdictRollout, release: 9, rule: "offer", admit: true},
		{name: "only ended ones: no release for all", rollouts: []Rollout{rolloutOf(t, "100%", func(r *Rollout) { r.State = RolloutReverted })}, verdict: VerdictNotTargeted, rule: "rollouts"},
		{name: "another product's", rollouts: []Rollout{rolloutOf(t, "10%", func(r *Rollout) { r.Product = "q" })}, verdict: VerdictNewest, release: 9, rule: "newest"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.phases == "" {
				c.phases = "10%,100%"
			}
			if c.rollouts == nil {
				c.rollouts = []Rollout{rolloutOf(t, c.phases, c.change)}
			}
			if c.releases == nil {
				c.releases = []SignedRelease{signedAs(t, 1, 9, nil)}
			}
			if c.id == "" {
				c.id = far
			}
			if c.now.IsZero() {
				c.now = at(9)
			}
			o := NewNativeOffers(NativeSnapshot{Generation: 1, Releases: c.releases, List: listFor(t, 1, 0), Products: []string{"p"}, Rollouts: c.rollouts, Groups: c.groups})
			a := ask()
			if c.ask != nil {
				c.ask(&a)
			}
			d := deviceWith(Device{ID: c.id, Product: "p"}, c.dep)
			if c.d != nil {
				c.d(&d.Device)
			}
			d.Usage, d.Clock = c.usage, c.clock
			var trace Trace
			got := o.Decide(d, a, c.now, &trace)
			if quiet := o.Decide(d, a, c.now, nil); fmt.Sprint(quiet.Key, quiet.Why) != fmt.Sprint(got.Key, got.Why) {
				t.Errorf("who asks why is told %s, a poll %s", got.Why, quiet.Why)
			}
			var id int64
			if got.Release != nil {
				id = got.Release.ID
			}
			if got.Verdict != c.verdict || id != c.release || !strings.Contains(got.Why, c.why) || got.Cancel != c.cancel || (got.Admit != nil) != c.admit {
				t.Errorf("%s of %d, cancel %d, admit %+v: %s\n%+v", got.Verdict, id, got.Cancel, got.Admit, got.Why, trace.Rules)
			}
			decided := ""
			for _, r := range trace.Rules {
				if r.Text == "" {
					t.Errorf("%+v says nothing", r)
				}
				if r.Name != "cancel" && r.Result != RulePass {
					decided = r.Name
				}
			}
			if decided != c.rule {
				t.Errorf("%s decided:\n%+v", decided, trace.Rules)
			}
			if a := got.Admit; a != nil && (a.Version != 3 || a.ReleaseID != id || a.Rollout != got.Rollout) {
				t.Errorf("%+v", a)
			}
		})
	}
}

// What a poll has to read of a product: fixed per generation and by what the device says of itself, whatever it did.
func TestWanted(t *testing.T) {
	snapshot := NativeSnapshot{Releases: []SignedRelease{signedAs(t, 1, 9, nil)}, List: listFor(t, 1, 0), Products: []string{"p"}}
	want := func(releases, rollouts string) {
		t.Helper()
		w := NewNativeOffers(snapshot).Wanted("p", ask())
		if fmt.Sprint(w.Releases) != releases || fmt.Sprint(w.Rollouts) != rollouts {
			t.Errorf("%+v, not %s and %s", w, releases, rollouts)
		}
	}
	want("[9]", "[]")
	snapshot.Rollouts = []Rollout{rolloutOf(t, "10%", nil)}
	want("[9]", "[]")
	snapshot.Rollouts = []Rollout{rolloutOf(t, "3,100%", nil), rolloutOf(t, "3,100%", func(r *Rollout) { r.ID, r.ReleaseID, r.Phase = 4, 8, 1 }),
		rolloutOf(t, "100%", func(r *Rollout) { r.ID, r.ReleaseID, r.Course.Concurrency = 3, 7, 5 }), rolloutOf(t, "1", func(r *Rollout) { r.ID, r.State = 2, RolloutCancelled })}
	want("[9 8 7]", "[5 3]")
}

// Awaits is the engine's look at a device that may be away: by what it asked last.
func TestAwaits(t *testing.T) {
	r := rolloutOf(t, "10%,100%", func(r *Rollout) { r.Course.To = `hardware != "r1"` })
	o := NewNativeOffers(NativeSnapshot{Releases: []SignedRelease{signedAs(t, 1, 9, func(m *release.Manifest) { m.Hardware = [][]byte{[]byte("r1"), []byte("r2")} })}, List: listFor(t, 1, 0), Products: []string{"p"}, Rollouts: []Rollout{r}})
	for _, c := range []struct {
		name  string
		d     Device
		ask   func(*NativeAsk)
		phase int
		waits bool
	}{
		{"in the first phase", Device{ID: near, Product: "p", Hardware: "r2"}, nil, 0, true},
		{"not yet", Device{ID: far, Product: "p", Hardware: "r2"}, nil, -1, true},
		{"not targeted", Device{ID: near, Product: "p", Hardware: "r1"}, nil, -1, false},
		{"another product's", Device{ID: near, Product: "q", Hardware: "r2"}, nil, -1, false},
		{"other hardware", Device{ID: near, Product: "p", Hardware: "r9"}, func(a *NativeAsk) { a.Hardware = []byte("r9") }, -1, false},
		{"has it", Device{ID: near, Product: "p", Hardware: "r2"}, func(a *NativeAsk) { a.Epoch, a.Sequence = 1, 9 }, -1, false},
	} {
		a := ask()
		if c.ask != nil {
			c.ask(&a)
		}
		c.d.Ask = a.Text()
		if phase, waits := o.Awaits(&r, &c.d, ParseAsk(c.d.Ask)); phase != c.phase || waits != c.waits {
			t.Errorf("%s: phase %d, %v", c.name, phase, waits)
		}
	}
}

func TestAskText(t *testing.T) {
	a := ask()
	a.InProgress = 7 // changes with each download, and is not kept
	b := ParseAsk(a.Text())
	a.InProgress = 0
	if b == nil || fmt.Sprintf("%+v", *b) != fmt.Sprintf("%+v", a) {
		t.Errorf("%+v, not %+v", b, a)
	}
	if ParseAsk("") != nil || ParseAsk("{") != nil {
		t.Error("an ask of nothing")
	}
}
