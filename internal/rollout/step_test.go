package rollout

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var t0 = time.Date(2026, 11, 26, 12, 0, 0, 0, time.UTC)

const second = fleet.Clock(time.Second / time.Microsecond)

// made is a rollout in its first phase since clock 1, which waits for ten devices.
func made(t testing.TB, phases string, change func(*fleet.Rollout)) fleet.Rollout {
	t.Helper()
	list, err := fleet.ParsePhases(phases, fleet.Phase{Success: 0.8, Fail: 0.2})
	if err != nil {
		t.Fatal(err)
	}
	r := fleet.Rollout{ID: 1, Product: "p", ReleaseVersion: "2.0", Version: 1, State: fleet.RolloutRunning, Began: 1, Expected: 10, Course: fleet.Course{Phases: list}}
	r.Course.Fill()
	if change != nil {
		change(&r)
	}
	return r
}

func TestStep(t *testing.T) {
	revert := func(r *fleet.Rollout) { r.Course.OnFailure = fleet.OnFailureRevert }
	for _, c := range []struct {
		name    string
		change  func(*fleet.Rollout)
		counts  fleet.Counts // of the first phase
		more    fleet.Counts // of the second
		in      func(*Input)
		state   fleet.RolloutState
		phase   int
		reason  string
		same    bool // nothing changed
		reverts bool
		ends    bool // supersedes
		refused bool
	}{
		{name: "S2 not its time", change: func(r *fleet.Rollout) { r.State, r.Course.StartAt = fleet.RolloutScheduled, t0.Add(time.Second) }, state: fleet.RolloutScheduled, same: true},
		{name: "S2 its time", change: func(r *fleet.Rollout) { r.State, r.Course.StartAt = fleet.RolloutScheduled, t0 }, state: fleet.RolloutRunning, reason: "phase 1 of 2 (10%) has begun"},
		{name: "S2 begun, and the clock is set back", change: func(r *fleet.Rollout) { r.Course.StartAt = t0.Add(time.Hour) }, state: fleet.RolloutRunning, same: true},
		{name: "S3 one of one", counts: fleet.Counts{Failed: 1, Progress: 2}, state: fleet.RolloutRunning, same: true},
		{name: "S3 one among three", counts: fleet.Counts{Failed: 1, Confirmed: 2, Progress: 1}, state: fleet.RolloutRunning, same: true},
		{name: "S3 two of two", counts: fleet.Counts{Failed: 2, Progress: 1}, state: fleet.RolloutPaused, reason: "2 of 2 failed"},
		{name: "S3 silence is failure", counts: fleet.Counts{Silent: 3, Progress: 1}, state: fleet.RolloutPaused, reason: "3 of 3 failed"},
		{name: "S3 devices that don't count", counts: fleet.Counts{Uncounted: 99, Progress: 1}, state: fleet.RolloutRunning, same: true},
		{name: "S3 reverts", change: revert, counts: fleet.Counts{Failed: 5, Confirmed: 3, OwnBad: 5}, state: fleet.RolloutReverting, reason: "5 of 8 failed", reverts: true},
		{name: "S3 too few to revert", change: revert, counts: fleet.Counts{Failed: 2, OwnBad: 2}, state: fleet.RolloutPaused, reason: "an automatic revert needs 3"},
		{name: "S3 shared keys don't revert", change: revert, counts: fleet.Counts{Failed: 9, OwnBad: 2}, state: fleet.RolloutPaused, reason: "an automatic revert needs 3"},
		{name: "S3 the phase, in spite of all before", change: func(r *fleet.Rollout) { r.Phase = 1 }, counts: fleet.Counts{Confirmed: 100}, more: fleet.Counts{Failed: 5, Confirmed: 3}, state: fleet.RolloutPaused, phase: 1, reason: "5 of 8"},
		{name: "S3 all of it, though no phase alone", change: func(r *fleet.Rollout) { r.Phase = 1 }, counts: fleet.Counts{Failed: 1}, more: fleet.Counts{Failed: 1, Progress: 1}, state: fleet.RolloutPaused, phase: 1, reason: "2 of 2"},
		{name: "S4 unproven pauses", change: revert, counts: fleet.Counts{Unproven: 4, OwnBad: 9}, state: fleet.RolloutPaused, reason: "could not reach the server"},
		{name: "S4 a few unproven", counts: fleet.Counts{Unproven: 1, Confirmed: 3}, state: fleet.RolloutRunning, same: true},
		{name: "S5 too long", change: func(r *fleet.Rollout) { r.Course.Phases[0].Most = time.Minute }, in: func(i *Input) { i.Clock = 1 + 60*second }, state: fleet.RolloutPaused, reason: "longer than 1m0s"},
		{name: "S5 not yet", change: func(r *fleet.Rollout) { r.Course.Phases[0].Most = time.Minute }, in: func(i *Input) { i.Clock = 60 * second }, state: fleet.RolloutRunning, same: true},
		{name: "S5 the wall's clock leaps", change: func(r *fleet.Rollout) { r.Course.Phases[0].Most = time.Minute }, in: func(i *Input) { i.Now = t0.AddDate(9, 0, 0) }, state: fleet.RolloutRunning, same: true},
		{name: "S5 can't succeed", change: func(r *fleet.Rollout) { r.Expected = 1 }, counts: fleet.Counts{Failed: 1}, state: fleet.RolloutPaused, reason: "can't succeed"},
		{name: "S5 it is tried again", change: func(r *fleet.Rollout) { r.Expected = 1 }, counts: fleet.Counts{Failed: 1, Retrying: 1}, state: fleet.RolloutRunning, same: true},
		{name: "S6 not enough", counts: fleet.Counts{Confirmed: 7}, state: fleet.RolloutRunning, same: true},
		{name: "S6 enough", counts: fleet.Counts{Confirmed: 8}, state: fleet.RolloutRunning, phase: 1, reason: "8 of 10 confirmed; phase 2 of 2 (100%) has begun"},
		{name: "S6 more came since they were counted", counts: fleet.Counts{Offered: 16, Confirmed: 14, Progress: 1, Aside: 1}, state: fleet.RolloutRunning, phase: 1, reason: "14 of 15 confirmed"},
		{name: "S5 more failed than were counted", change: func(r *fleet.Rollout) { r.Course.Phases[0].Fail = 1 }, counts: fleet.Counts{Offered: 16, Failed: 12, Confirmed: 4}, state: fleet.RolloutPaused, reason: "12 of 16 failed"},
		{name: "S6 two of three are enough", change: func(r *fleet.Rollout) { r.Expected = 3 }, counts: fleet.Counts{Confirmed: 2, Failed: 1}, state: fleet.RolloutRunning, phase: 1},
		{name: "S6 fewer are waited for than were", counts: fleet.Counts{Confirmed: 7}, in: func(i *Input) { i.Census = 8 }, state: fleet.RolloutRunning, phase: 1},
		{name: "S6 it soaks", change: func(r *fleet.Rollout) { r.Course.Phases[0].Soak = time.Hour }, counts: fleet.Counts{Confirmed: 8}, state: fleet.RolloutRunning},
		{name: "S6 it still soaks", change: func(r *fleet.Rollout) { r.Course.Phases[0].Soak, r.Passed = time.Hour, 2 }, counts: fleet.Counts{Confirmed: 8}, in: func(i *Input) { i.Clock = 1 + 3600*second }, state: fleet.RolloutRunning, same: true},
		{name: "S6 it has soaked", change: func(r *fleet.Rollout) { r.Course.Phases[0].Soak, r.Passed = time.Hour, 2 }, counts: fleet.Counts{Confirmed: 8}, in: func(i *Input) { i.Clock = 2 + 3600*second }, state: fleet.RolloutRunning, phase: 1},
		{name: "S6 it failed while it soaked", change: func(r *fleet.Rollout) { r.Course.Phases[0].Soak, r.Passed = time.Hour, 2 }, counts: fleet.Counts{Confirmed: 8, Failed: 8}, in: func(i *Input) { i.Clock = 2 + 3600*second }, state: fleet.RolloutPaused},
		{name: "S6 nobody, on no evidence", in: func(i *Input) { i.Census = 0 }, state: fleet.RolloutRunning},
		{name: "S6 nobody, and somebody is near", in: func(i *Input) { i.Census, i.Nearest = 0, 0.4 }, state: fleet.RolloutRunning},
		{name: "S6 nobody, after others confirmed", change: func(r *fleet.Rollout) { r.Phase = 1 }, counts: fleet.Counts{Confirmed: 1}, in: func(i *Input) { i.Census = 0 }, state: fleet.RolloutComplete, phase: 2, ends: true},
		{name: "S6 not counted yet", change: func(r *fleet.Rollout) { r.Expected = -1 }, counts: fleet.Counts{Confirmed: 8}, state: fleet.RolloutRunning, same: true},
		{name: "S7 the last", change: func(r *fleet.Rollout) { r.Phase = 1 }, more: fleet.Counts{Confirmed: 9, Failed: 1}, state: fleet.RolloutComplete, phase: 2, ends: true},
		{name: "S7 late failures", change: func(r *fleet.Rollout) { r.Phase, r.State = 2, fleet.RolloutComplete }, more: fleet.Counts{Confirmed: 5, Failed: 5}, state: fleet.RolloutPaused, phase: 2},
		{name: "S8 more came to run it", change: func(r *fleet.Rollout) { r.State = fleet.RolloutReverting }, counts: fleet.Counts{ToRevert: 1}, state: fleet.RolloutReverting, reverts: true},
		{name: "S8 on their way back", change: func(r *fleet.Rollout) { r.State = fleet.RolloutReverting }, counts: fleet.Counts{Reverting: 1}, state: fleet.RolloutReverting, same: true},
		{name: "S8 on their way to it", change: func(r *fleet.Rollout) { r.State = fleet.RolloutReverting }, counts: fleet.Counts{Progress: 1}, state: fleet.RolloutReverting, same: true},
		{name: "S8 all are back", change: func(r *fleet.Rollout) { r.State = fleet.RolloutReverting }, counts: fleet.Counts{Aside: 5}, state: fleet.RolloutReverted},
		{name: "S9 forgiven", change: func(r *fleet.Rollout) { r.Forgiven = fleet.Evidence{Bad: 5, Confirmed: 3} }, counts: fleet.Counts{Failed: 6, Confirmed: 5, Progress: 1}, state: fleet.RolloutRunning, same: true},
		{name: "S9 and again", change: func(r *fleet.Rollout) { r.Forgiven = fleet.Evidence{Bad: 5, Confirmed: 3} }, counts: fleet.Counts{Failed: 9, Confirmed: 5, Progress: 1}, state: fleet.RolloutPaused, reason: "4 of 6"},
		{name: "S9 fewer than were forgiven", change: func(r *fleet.Rollout) { r.Forgiven = fleet.Evidence{Bad: 9, Confirmed: 3} }, counts: fleet.Counts{Failed: 1, Confirmed: 5, Progress: 1}, state: fleet.RolloutRunning, same: true},

		{name: "S1 pause", in: func(i *Input) { i.Say, i.Why = fleet.CommandPause, "a storm" }, counts: fleet.Counts{Failed: 9, OwnBad: 9}, change: revert, state: fleet.RolloutPaused, reason: "a storm"},
		{name: "S1 pause twice", change: func(r *fleet.Rollout) { r.State = fleet.RolloutPaused }, in: func(i *Input) { i.Say = fleet.CommandPause }, refused: true},
		{name: "S1 resume", change: func(r *fleet.Rollout) { r.State = fleet.RolloutPaused }, in: func(i *Input) { i.Say = fleet.CommandResume }, counts: fleet.Counts{Failed: 9}, state: fleet.RolloutRunning, reason: "resumed"},
		{name: "S1 resume what was complete", change: func(r *fleet.Rollout) { r.State, r.Phase = fleet.RolloutPaused, 2 }, in: func(i *Input) { i.Say = fleet.CommandResume }, state: fleet.RolloutComplete, phase: 2},
		{name: "S1 resume before its time", change: func(r *fleet.Rollout) { r.State, r.Course.StartAt = fleet.RolloutPaused, t0.Add(1) }, in: func(i *Input) { i.Say = fleet.CommandResume }, state: fleet.RolloutScheduled},
		{name: "S1 resume what runs", in: func(i *Input) { i.Say = fleet.CommandResume }, refused: true},
		{name: "S1 cancel", in: func(i *Input) { i.Say = fleet.CommandCancel }, state: fleet.RolloutCancelled, reason: fleet.DefaultReason},
		{name: "S1 cancel what reverts", change: func(r *fleet.Rollout) { r.State = fleet.RolloutReverting }, in: func(i *Input) { i.Say = fleet.CommandCancel }, refused: true},
		{name: "S1 force", in: func(i *Input) { i.Say = fleet.CommandForce }, state: fleet.RolloutRunning, phase: 1, reason: "by force"},
		{name: "S1 force its start", change: func(r *fleet.Rollout) { r.State, r.Course.StartAt = fleet.RolloutScheduled, t0.Add(1) }, in: func(i *Input) { i.Say = fleet.CommandForce }, state: fleet.RolloutRunning},
		{name: "S1 force what is paused", change: func(r *fleet.Rollout) { r.State = fleet.RolloutPaused }, in: func(i *Input) { i.Say = fleet.CommandForce }, refused: true},
		{name: "S1 revert", in: func(i *Input) { i.Say, i.Why = fleet.CommandRevert, "recall" }, state: fleet.RolloutReverting, reason: "recall", reverts: true},
		{name: "S1 revert what is cancelled", change: func(r *fleet.Rollout) { r.State = fleet.RolloutCancelled }, in: func(i *Input) { i.Say = fleet.CommandRevert }, refused: true},
		{name: "S1 nonsense", in: func(i *Input) { i.Say = "stop" }, refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := made(t, "10%,100%", c.change)
			in := Input{Now: t0, Clock: 2, Counts: []fleet.Counts{c.counts, c.more}, Census: -1}
			if c.in != nil {
				c.in(&in)
			}
			next, effects, changed, err := Step(r, in)
			if c.refused {
				if err == nil || changed || next.Version != r.Version || next.State != r.State {
					t.Errorf("%v %+v", err, next)
				}
				return
			}
			if err != nil || next.State != c.state || next.Phase != c.phase || changed == c.same || !strings.Contains(next.Reason, c.reason) {
				t.Fatalf("%s, phase %d, changed %v: %s %v", next.State, next.Phase, changed, next.Reason, err)
			}
			if changed != (next.Version == r.Version+1) {
				t.Errorf("version %d", next.Version)
			}
			var reverts, ends bool
			for _, e := range effects {
				reverts, ends = reverts || e.Revert, ends || e.Supersede
			}
			if reverts != c.reverts || ends != c.ends {
				t.Errorf("%+v", effects)
			}
		})
	}
}

func TestReach(t *testing.T) {
	r := made(t, "10%,100%", nil)
	next, _, _, _ := Step(r, Input{Now: t0, Clock: 2, Counts: make([]fleet.Counts, 2), Census: 0, Nearest: 0.4})
	if next.Reach <= 0.4 || next.Reach > 0.4000001 || next.Expected != 1 {
		t.Errorf("reach %g, %d expected", next.Reach, next.Expected)
	}
}

func TestAdvance(t *testing.T) {
	for _, c := range []struct {
		name string
		was  time.Time
		gap  time.Duration
		want fleet.Clock
	}{
		{"a second", t0, time.Second, second},
		{"as long as may be", t0, maxGap, 60 * second},
		{"the server was down", t0, maxGap + 1, 0},
		{"set ahead by years", t0, 99999 * time.Hour, 0},
		{"set back", t0, -time.Hour, 0},
		{"never read before", time.Time{}, time.Second, second},
	} {
		if got := Advance(7, c.was, c.was.Add(c.gap)); got != 7+c.want {
			t.Errorf("%s: %d", c.name, got)
		}
	}
}

// world is a small model of a fleet: what became of each device of each phase.
type world struct {
	counts []fleet.Counts
	wall   time.Time
	clock  fleet.Clock
}

// TestStepProperties walks rollouts through random fleets, commands and clocks.
func TestStepProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		phases := rapid.SampledFrom([]string{"1,10%,100%", "100%", "5,group:g,50%", "10%,20%,30%,40%"}).Draw(t, "phases")
		list, err := fleet.ParsePhases(phases, fleet.Phase{Success: rapid.Float64Range(0.1, 1).Draw(t, "success"), Fail: rapid.Float64Range(0, 0.9).Draw(t, "fail"),
			Soak: time.Duration(rapid.IntRange(0, 20).Draw(t, "soak")) * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		r := fleet.Rollout{ID: 1, Version: 1, State: fleet.RolloutScheduled, Expected: -1, Course: fleet.Course{Phases: list, OnFailure: rapid.SampledFrom([]string{fleet.OnFailurePause, fleet.OnFailureRevert}).Draw(t, "on failure")}}
		r.Course.Fill()
		w := world{counts: make([]fleet.Counts, len(list)), wall: t0, clock: 1}
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			jump := rapid.SampledFrom([]time.Duration{time.Second, time.Second, 5 * time.Second, time.Hour, -time.Hour, -9999 * time.Hour, 9999 * time.Hour}).Draw(t, "jump")
			was := w.wall
			w.wall = w.wall.Add(jump)
			before := w.clock
			w.clock = Advance(w.clock, was, w.wall)
			if d := w.clock.Since(before); d < 0 || d > maxGap {
				t.Fatalf("the fleet's clock moved by %s", d)
			}
			c := &w.counts[min(r.Phase, len(list)-1)]
			c.Confirmed += rapid.IntRange(0, 3).Draw(t, "confirmed")
			c.Failed += rapid.SampledFrom([]int{0, 0, 0, 1, 3}).Draw(t, "failed")
			c.Unproven = rapid.SampledFrom([]int{0, 0, 0, 2, 9}).Draw(t, "unproven")
			c.Progress = rapid.IntRange(0, 2).Draw(t, "progress")
			c.OwnBad = rapid.IntRange(0, c.Failed).Draw(t, "own")
			in := Input{Now: w.wall, Clock: w.clock, Counts: w.counts, Census: rapid.IntRange(-1, 12).Draw(t, "census")}
			if rapid.IntRange(0, 9).Draw(t, "speaks") == 0 {
				in.Say = rapid.SampledFrom([]fleet.Command{fleet.CommandPause, fleet.CommandResume, fleet.CommandCancel, fleet.CommandForce, fleet.CommandRevert}).Draw(t, "command")
			}
			next, effects, changed, err := Step(r, in)
			again, _, changed2, err2 := Step(r, in)
			if changed2 != changed || (err == nil) != (err2 == nil) || again.State != next.State || again.Version != next.Version {
				t.Fatal("two answers to one question")
			}
			if err != nil {
				if in.Say == "" || next.Version != r.Version {
					t.Fatalf("%v", err)
				}
				continue
			}
			model(t, r, next, in, effects, changed)
			r = next
		}
	})
}

// model checks a step by rules that are told in other words than Step's.
func model(t *rapid.T, r, next fleet.Rollout, in Input, effects []fleet.Effect, changed bool) {
	if changed != (next.Version == r.Version+1) || !changed && (next.State != r.State || next.Phase != r.Phase) || !changed && len(effects) > 0 {
		t.Fatalf("version %d to %d, changed %v", r.Version, next.Version, changed)
	}
	if next.Phase < r.Phase || next.Phase > r.Phase+1 || next.Phase > len(r.Course.Phases) { // O2
		t.Fatalf("phase %d to %d", r.Phase, next.Phase)
	}
	if !r.State.InForce() && changed { // O3
		t.Fatalf("%s became %s", r.State, next.State)
	}
	if (next.State == fleet.RolloutComplete || r.State == fleet.RolloutComplete) && next.Phase != len(r.Course.Phases) {
		t.Fatalf("%s in phase %d", next.State, next.Phase)
	}
	var total fleet.Counts
	for _, c := range in.Counts {
		total = total.Plus(c)
	}
	if next.Phase > r.Phase && in.Say == "" {
		p, c := r.Course.Phases[r.Phase], in.Counts[r.Phase]
		if total.Confirmed == 0 || r.State != fleet.RolloutRunning {
			t.Fatalf("phase %d passed with nobody confirmed, %s", r.Phase, r.State)
		}
		expected := r.Expected
		if in.Census >= 0 {
			expected = in.Census
		}
		if expected < 0 || float64(c.Confirmed) < p.Success*float64(expected)-1 {
			t.Fatalf("phase %d passed with %d of %d", r.Phase, c.Confirmed, expected)
		}
	}
	for _, e := range effects {
		if e.Revert && in.Say == "" && r.State != fleet.RolloutReverting {
			if r.Course.OnFailure != fleet.OnFailureRevert || total.OwnBad < r.Course.MinRevert || total.Failed == 0 {
				t.Fatalf("reverts by itself on %+v", total)
			}
		}
	}
	if r.State == fleet.RolloutPaused && changed && in.Say == "" {
		t.Fatal("a pause ended by itself")
	}
	if in.Say == fleet.CommandResume && total.Bad() > 0 {
		still := in
		still.Say, still.Census = "", -1
		if after, _, _, _ := Step(next, still); after.State == fleet.RolloutPaused && strings.Contains(after.Reason, "failed, which is above") {
			t.Fatalf("what was forgiven stopped it again: %s", after.Reason)
		}
	}
}
