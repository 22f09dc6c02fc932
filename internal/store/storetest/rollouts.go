package storetest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// course is one phase that everybody is in, at last.
func course(phases string, change func(*fleet.Course)) fleet.Course {
	list, err := fleet.ParsePhases(phases, fleet.Phase{Success: 0.8, Fail: 0.2, Soak: time.Hour})
	if err != nil {
		panic(err)
	}
	c := fleet.Course{Phases: list}
	c.Fill()
	if change != nil {
		change(&c)
	}
	return c
}

func (s *suite) mustRollout(r fleet.Release, phases string, change func(*fleet.Course)) fleet.Rollout {
	s.Helper()
	o, err := s.CreateRollout(ctx, fleet.Rollout{Product: r.Product, ReleaseID: r.ID, Course: course(phases, change)}, at(20))
	s.ok(err)
	return o
}

func (s *suite) step(o *fleet.Rollout, change func(*fleet.Rollout), effects ...fleet.Effect) {
	s.Helper()
	next := *o
	next.Version++
	change(&next)
	done, err := s.StepRollout(ctx, next, effects, at(30))
	s.ok(err)
	if !done {
		s.Fatalf("version %d was not %d", o.Version, next.Version-1)
	}
	*o = next
}

func (s *suite) running(o *fleet.Rollout) {
	s.Helper()
	s.step(o, func(r *fleet.Rollout) { r.State = fleet.RolloutRunning })
}

func (s *suite) rollouts() {
	r := s.mustPublishSigned("p", "1.0", 1, 1)
	g := s.generation()
	o := s.mustRollout(r, "1,10%,100%", func(c *fleet.Course) { c.To, c.StartAt = `slots == 2`, at(100) })
	if o.ID != 1 || o.Version != 1 || o.State != fleet.RolloutScheduled || o.Expected != -1 || o.ReleaseVersion != "1.0" || !o.CreatedAt.Equal(at(20)) || s.generation() != g+1 {
		s.Errorf("%+v, generation %d", o, s.generation())
	}
	s.reopen()
	got, err := s.Rollout(ctx, o.ID)
	s.ok(err)
	if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", o) {
		s.Errorf("%+v, not\n%+v", got, o)
	}
	_, err = s.Rollout(ctx, 99)
	s.code(err, fleet.CodeNotFound)
	for _, bad := range []fleet.Rollout{{Product: "p", ReleaseID: 99}, {Product: "q", ReleaseID: r.ID}} {
		_, err := s.CreateRollout(ctx, bad, at(20))
		if c := fleet.CodeOf(err); c != fleet.CodeNotFound && c != fleet.CodeConflict {
			s.Errorf("%+v: %v", bad, err)
		}
	}

	// A step counts over the version that it was made from, once.
	s.step(&o, func(r *fleet.Rollout) {
		r.State, r.Phase, r.Reason, r.Began, r.Passed, r.Expected, r.Reach, r.Forgiven = fleet.RolloutRunning, 1, "because", 7, 8, 9, 0.25, fleet.Evidence{Confirmed: 1, Bad: 2, Unproven: 3}
	}, fleet.Effect{Event: fleet.EventRollout, Detail: "moved"})
	stale := o
	stale.State = fleet.RolloutCancelled
	if done, err := s.StepRollout(ctx, stale, []fleet.Effect{{Event: fleet.EventRollout, Detail: "not me"}}, at(31)); done || err != nil {
		s.Errorf("%v %v", done, err)
	}
	s.reopen()
	got, err = s.Rollout(ctx, o.ID)
	s.ok(err)
	if o.ChangedAt = at(30); fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", o) || s.generation() != g+2 {
		s.Errorf("%+v, not\n%+v, generation %d", got, o, s.generation())
	}
	if events, _, err := s.Events(ctx, "", 1); err != nil || events[0].Name != fleet.EventRollout || events[0].Detail != "moved" || events[0].Version != "1.0" {
		s.Errorf("%+v %v", events, err)
	}
	if active, err := s.ActiveRollouts(ctx); err != nil || len(active) != 1 || active[0].ID != o.ID {
		s.Errorf("%+v %v", active, err)
	}

	// In the snapshots are those in force, and of each release the newest.
	two := s.mustRollout(r, "100%", nil)
	s.step(&o, func(r *fleet.Rollout) { r.State = fleet.RolloutCancelled })
	s.step(&two, func(r *fleet.Rollout) { r.State = fleet.RolloutCancelled })
	three := s.mustRollout(s.mustPublishSigned("p", "2.0", 2, 3), "100%", nil)
	want := fmt.Sprint([]int64{three.ID, two.ID})
	snapshot, err := s.RolloutSnapshot(ctx)
	s.ok(err)
	native, err := s.NativeSnapshot(ctx)
	s.ok(err)
	for _, list := range [][]fleet.Rollout{snapshot.Rollouts, native.Rollouts} {
		var ids []int64
		for _, r := range list {
			ids = append(ids, r.ID)
		}
		if fmt.Sprint(ids) != want {
			s.Errorf("%v, not %s", ids, want)
		}
	}
	if snapshot.Generation != s.generation() {
		s.Errorf("%d, not %d", snapshot.Generation, s.generation())
	}
	if list, err := s.ListRollouts(ctx, "p"); err != nil || len(list) != 3 || list[0].ID != three.ID {
		s.Errorf("%+v %v", list, err)
	}
	if list, err := s.ListRollouts(ctx, "q"); err != nil || len(list) != 0 {
		s.Errorf("%+v %v", list, err)
	}

	// Complete, it ends the older ones for the same devices, and others' stay.
	other := s.mustRollout(s.mustPublish("q", "1.0", at(40)), "100%", nil)
	four := s.mustRollout(r, "100%", func(c *fleet.Course) { c.To = "slots == 2" })
	five := s.mustRollout(r, "100%", func(c *fleet.Course) { c.To = "slots == 3" })
	six := s.mustRollout(r, "100%", func(c *fleet.Course) { c.To = "slots == 3" })
	s.step(&six, func(r *fleet.Rollout) { r.State, r.Phase = fleet.RolloutComplete, 1 }, fleet.Effect{Supersede: true})
	for id, want := range map[int64]fleet.RolloutState{three.ID: fleet.RolloutScheduled, other.ID: fleet.RolloutScheduled, four.ID: fleet.RolloutScheduled, five.ID: fleet.RolloutSuperseded, six.ID: fleet.RolloutComplete} {
		if r, err := s.Rollout(ctx, id); err != nil || r.State != want {
			s.Errorf("rollout %d: %s, not %s", id, r.State, want)
		}
	}
	all := s.mustRollout(r, "100%", nil)
	s.step(&all, func(r *fleet.Rollout) { r.State, r.Phase = fleet.RolloutComplete, 1 }, fleet.Effect{Supersede: true})
	if active, err := s.ActiveRollouts(ctx); err != nil || len(active) != 2 || active[0].ID != other.ID {
		s.Errorf("%+v %v", active, err)
	}
	for range fleet.MaxRollouts - 1 {
		s.mustRollout(r, "100%", nil)
	}
	_, err = s.CreateRollout(ctx, fleet.Rollout{Product: "p", ReleaseID: r.ID, Course: course("100%", nil)}, at(50))
	s.code(err, fleet.CodeConflict)
}

// rolloutRace: of two tickers with the same step one does it.
func (s *suite) rolloutRace() {
	o := s.mustRollout(s.mustPublishSigned("p", "1.0", 1, 1), "100%", nil)
	var wg sync.WaitGroup
	var n atomic.Int32
	for range 16 {
		wg.Go(func() {
			next := o
			next.Version++
			next.State = fleet.RolloutRunning
			done, err := s.StepRollout(ctx, next, nil, at(30))
			if err != nil {
				s.Error(err)
			}
			if done {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n.Load() != 1 {
		s.Errorf("done %d times", n.Load())
	}
}

// joins has a device come into a rollout by a poll.
func (s *suite) joins(o fleet.Rollout, device string, nonce uint64, change func(*fleet.Admission), refused bool) {
	s.Helper()
	a := fleet.Admission{Rollout: o.ID, Version: o.Version, Phase: o.Phase, ReleaseID: o.ReleaseID, Assurance: fleet.AssuranceOwn}
	if change != nil {
		change(&a)
	}
	taken, err := s.TakePoll(ctx, fleet.NativeChange{Device: device, Nonce: nonce, Now: at(40), Wire: fleet.WireSigned, Verdict: "rollout/1/r1", Admit: &a,
		Decision: &fleet.KeptDecision{At: at(40), Verdict: fleet.VerdictRollout, Rollout: o.ID, Version: "1.0", Why: "because"},
		Events:   []fleet.Event{{Time: at(40), Device: device, Name: fleet.EventOffer, Proven: true}}})
	s.ok(err)
	if !taken.Fresh || taken.Refused != refused {
		s.Errorf("%s: %+v", device, taken)
	}
}

func (s *suite) admissions() {
	r := s.mustPublishSigned("p", "1.0", 1, 1)
	o := s.mustRollout(r, "2,100%", func(c *fleet.Course) { c.Concurrency = 9 })
	for i := range 6 {
		s.addNative(fmt.Sprint("d", i), "p")
	}
	s.joins(o, "d0", 1, func(a *fleet.Admission) { a.Version++ }, true) // it moved since
	if d := s.poll("d0", r.ID); d.Verdict != "" || d.Deployment != nil || d.NativeNonce != 1 {
		s.Errorf("%+v", d)
	}
	s.wantNames("d0", fleet.EventDeviceAdded)
	s.running(&o)

	// By number: the third of two is turned away, and told so the next time.
	two := func(a *fleet.Admission) { a.Count = 2 }
	s.joins(o, "d0", 2, two, false)
	s.joins(o, "d1", 1, two, false)
	s.joins(o, "d2", 1, two, true)
	s.joins(o, "d1", 2, two, false) // who is in takes no other's place
	s.reopen()
	if p := s.deployment("d0"); p.State != fleet.StateOffered || p.Rollout != o.ID || p.Phase != 0 || !p.Proven || p.Assurance != fleet.AssuranceOwn || p.Heard == 0 {
		s.Errorf("%+v", p)
	}
	n, err := s.NativePoll(ctx, "d2", fleet.Wanted{Releases: []int64{r.ID}, Rollouts: []int64{o.ID}})
	s.ok(err)
	if len(n.Usage) != 1 || n.Usage[0] != (fleet.Usage{Rollout: o.ID, Joined: 2, Active: 2}) || n.Clock == 0 {
		s.Errorf("%+v", n.Usage)
	}
	last, err := s.LastDecisions(ctx, "d0")
	s.ok(err)
	if len(last) != 1 || last[0] != (fleet.KeptDecision{At: at(40), Verdict: fleet.VerdictRollout, Rollout: o.ID, Version: "1.0", Why: "because"}) {
		s.Errorf("%+v", last)
	}

	// At once: a place is free again when a deployment ends.
	atOnce := func(a *fleet.Admission) { a.Concurrency, a.Phase = 3, 1 }
	s.joins(o, "d2", 2, atOnce, false)
	s.joins(o, "d3", 1, atOnce, true)
	s.joins(o, "d3", 2, atOnce, true)
	rep := nativeReport(r, 9, 1, 1, fleet.StateConfirmed)
	rep.Device = "d0"
	s.ok(s.TakeReport(ctx, rep, at(51)))
	s.joins(o, "d3", 3, atOnce, false)

	// By bytes a second: each that begins holds up the next.
	slow := func(a *fleet.Admission) { a.Hold = time.Minute }
	s.joins(o, "d4", 1, slow, false)
	s.joins(o, "d5", 1, slow, true)
	from, _, err := s.ReadClock(ctx)
	s.ok(err)
	if saved, err := s.SaveClock(ctx, from, from.After(time.Minute-fleet.RateSlack), at(60)); !saved || err != nil {
		s.Errorf("%v %v", saved, err)
	}
	s.joins(o, "d5", 2, slow, false)

	// On v1 the same, by itself.
	s.addDevice("v1", at(0))
	k := fleet.KeptDecision{At: at(70), Verdict: fleet.VerdictRollout, Rollout: o.ID, Version: "1.0", Why: "v1"}
	a := fleet.Admission{Rollout: o.ID, Version: o.Version, ReleaseID: r.ID, Phase: 1, Assurance: fleet.AssuranceNone, Count: 2}
	if refused, err := s.Admit(ctx, "v1", a, k); !refused || err != nil {
		s.Errorf("%v %v", refused, err)
	}
	a.Count = 0
	if refused, err := s.Admit(ctx, "v1", a, k); refused || err != nil {
		s.Errorf("%v %v", refused, err)
	}
	if p := s.deployment("v1"); p.Proven || p.Rollout != o.ID || p.Assurance != fleet.AssuranceNone {
		s.Errorf("%+v", p)
	}
	s.wantNames("v1", fleet.EventDeviceAdded, fleet.EventOffer)
}

// keptDecisions are bounded, the newest stay.
func (s *suite) keptDecisions() {
	s.addNative("a", "p")
	for i := range fleet.KeepDecisions + 5 {
		s.taken(fleet.NativeChange{Device: "a", Nonce: uint64(i + 1), Now: at(1), Decision: &fleet.KeptDecision{At: at(float64(i)), Verdict: fleet.VerdictNewest, Why: fmt.Sprint("reason ", i)}}, true)
	}
	s.reopen()
	last, err := s.LastDecisions(ctx, "a")
	s.ok(err)
	if len(last) != fleet.KeepDecisions || last[0].Why != fmt.Sprint("reason ", fleet.KeepDecisions+4) || !last[0].At.Equal(at(float64(fleet.KeepDecisions+4))) {
		s.Errorf("%+v", last)
	}
}

// counted: what became of a rollout's devices, and who goes back.
func (s *suite) counted() {
	r := s.mustPublishSigned("p", "1.0", 1, 1)
	next := s.mustPublishSigned("p", "2.0", 2, 2)
	o := s.mustRollout(r, "10%,100%", func(c *fleet.Course) { c.Silence = time.Hour })
	s.running(&o)
	report := func(device string, r fleet.Release, nonce uint64, state fleet.DeploymentState, class fleet.Class) {
		s.Helper()
		rep := nativeReport(r, nonce, 1, uint32(nonce), state)
		rep.Device, rep.Class = device, class
		s.ok(s.TakeReport(ctx, rep, at(50+float64(nonce))))
	}
	for i, state := range []fleet.DeploymentState{fleet.StateConfirmed, fleet.StateConfirmed, fleet.StateFailed, fleet.StateTrial, fleet.StateConfirmed} {
		id := fmt.Sprint("d", i)
		s.addNative(id, "p")
		s.joins(o, id, 1, func(a *fleet.Admission) { a.Phase = i % 2 }, false)
		report(id, r, 2, state, fleet.ClassFlash)
	}
	report("d4", next, 3, fleet.StateConfirmed, "") // it runs a newer one since
	s.addNative("stranger", "p")
	report("stranger", r, 2, fleet.StateFailed, "")
	from, _, err := s.ReadClock(ctx)
	s.ok(err)
	count := func(clock fleet.Clock) string {
		s.Helper()
		o, err := s.Rollout(ctx, o.ID)
		s.ok(err)
		list, err := s.CountRollout(ctx, o, clock)
		s.ok(err)
		var sum [2]fleet.Counts
		for _, t := range list {
			sum[t.Phase].Count(t, fleet.AssuranceOwn)
		}
		return fmt.Sprintf("%d/%d/%d/%d/%d %d/%d/%d/%d/%d", sum[0].Offered, sum[0].Confirmed, sum[0].Failed, sum[0].Silent, sum[0].ToRevert, sum[1].Offered, sum[1].Confirmed, sum[1].Progress, sum[1].Silent, sum[1].ToRevert)
	}
	if got := count(from); got != "3/2/1/0/0 2/1/1/0/0" {
		s.Error(got)
	}
	// Silent for an hour of the fleet's clock; a word of any kind ends that.
	if got := count(from.After(time.Hour)); got != "3/2/1/0/0 2/1/0/1/0" {
		s.Error(got)
	}
	saved, err := s.SaveClock(ctx, from, from.After(time.Hour), at(0)) // the wall's does not matter
	s.ok(err)
	if again, err := s.SaveClock(ctx, from, from.After(2*time.Hour), at(0)); !saved || again || err != nil {
		s.Errorf("%v %v %v", saved, again, err)
	}
	_, err = s.SaveClock(ctx, from.After(time.Hour), from, at(0))
	s.code(err, fleet.CodeInvalid)
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "d3", Nonce: 9, At: at(1)}}))
	if got := count(from.After(time.Hour)); got != "3/2/1/0/0 2/1/1/0/0" {
		s.Error(got)
	}
	if d := s.device("d2"); d.Failures != 1 {
		s.Errorf("%+v", d)
	}
	if p := s.deployment("d2"); p.Class != fleet.ClassFlash || p.Tries != 1 || p.Rollout != o.ID {
		s.Errorf("%+v", p)
	}

	// Back go those who run it by the rollout, once.
	back := fleet.Effect{Revert: true}
	s.step(&o, func(r *fleet.Rollout) { r.State, r.Reason = fleet.RolloutReverting, "it burns" }, back)
	s.step(&o, func(*fleet.Rollout) {}, back)
	for id, want := range map[string]uint32{"d0": 1, "d1": 1, "d2": 0, "d3": 0, "d4": 0, "stranger": 0} {
		if d := s.device(id); d.RollbackNumber != want || d.RollbackWanted != (want > 0) || want > 0 && !strings.Contains(d.RollbackReason, "it burns") {
			s.Errorf("%s: %+v", id, d)
		}
	}
	s.taken(fleet.NativeChange{Device: "d0", Nonce: 20, Now: at(90), RevertTold: true}, true)
	report("d0", r, 21, fleet.StateReverted, "")
	if p, d := s.deployment("d0"), s.device("d0"); p.Class != fleet.ClassOrdered || d.Failures != 0 || d.RollbackWanted {
		s.Errorf("%+v %+v", p, d)
	}
	seen := map[string]int{}
	s.ok(s.Census(ctx, o, func(d *fleet.Device, phase int) { seen[d.ID] = phase }))
	if fmt.Sprint(seen) != "map[d0:0 d1:1 d2:0 d3:1 d4:0 stranger:-1]" {
		s.Error(seen)
	}
}

func (s *suite) groups() {
	g := s.generation()
	beta, err := s.SetGroup(ctx, fleet.Group{Name: "beta", Filter: `"beta" in tags`}, at(1))
	s.ok(err)
	_, err = s.SetGroup(ctx, fleet.Group{Name: "alpha", Product: "p", Filter: "true"}, at(2))
	s.ok(err)
	beta.Filter = `"lab" in tags`
	beta, err = s.SetGroup(ctx, beta, at(3))
	s.ok(err)
	for _, bad := range []fleet.Group{{Name: "a b", Filter: "true"}, {Name: "x"}, {Name: "x", Filter: "nope"}, {Name: "x", Filter: "true", Product: "/"}} {
		_, err := s.SetGroup(ctx, bad, at(4))
		s.code(err, fleet.CodeInvalid)
	}
	s.reopen()
	list, err := s.ListGroups(ctx)
	s.ok(err)
	if len(list) != 2 || list[0].Name != "alpha" || list[1] != beta || s.generation() != g+3 {
		s.Errorf("%+v, generation %d", list, s.generation())
	}
	o := s.mustRollout(s.mustPublishSigned("p", "1.0", 1, 1), "group:beta,100%", nil)
	s.code(s.DeleteGroup(ctx, "beta", at(5)), fleet.CodeConflict)
	s.step(&o, func(r *fleet.Rollout) { r.State = fleet.RolloutCancelled })
	s.ok(s.DeleteGroup(ctx, "beta", at(6)))
	s.code(s.DeleteGroup(ctx, "beta", at(7)), fleet.CodeNotFound)
}

func (s *suite) labels() {
	s.addNative("a", "p")
	s.ok(s.SetLabels(ctx, "a", []string{"beta", "lab"}, map[string]string{"site": "bremen"}, at(1)))
	s.code(s.SetLabels(ctx, "nobody", nil, nil, at(1)), fleet.CodeNotFound)
	s.code(s.SetLabels(ctx, "a", []string{"a b"}, nil, at(1)), fleet.CodeInvalid)
	s.reopen()
	for _, d := range []fleet.Device{s.device("a"), s.poll("a", 0).Device} {
		if fmt.Sprint(d.Tags, d.Attributes) != "[beta lab] map[site:bremen]" {
			s.Errorf("%+v", d)
		}
	}
	s.ok(s.SetLabels(ctx, "a", nil, nil, at(2)))
	if d := s.device("a"); len(d.Tags) != 0 || len(d.Attributes) != 0 {
		s.Errorf("%+v", d)
	}
	o := s.mustRollout(s.mustPublishSigned("p", "1.0", 1, 1), "100%", nil)
	s.ok(s.ForceDevice(ctx, o.ID, "a", at(3)))
	s.code(s.ForceDevice(ctx, o.ID, "nobody", at(3)), fleet.CodeNotFound)
	s.code(s.ForceDevice(ctx, 99, "a", at(3)), fleet.CodeNotFound)
	if d := s.device("a"); d.Forced != o.ID {
		s.Errorf("%+v", d)
	}
	s.ok(s.ForceDevice(ctx, 0, "a", at(4)))
	s.wantNames("a", fleet.EventDeviceAdded, fleet.EventLabels, fleet.EventLabels, fleet.EventForced, fleet.EventForced)
}

func (s *suite) rolloutPolicies() {
	g := s.generation()
	s.ok(s.OnlyByRollout(ctx, "p", true, at(1)))
	s.ok(s.OnlyByRollout(ctx, "q", true, at(1)))
	s.ok(s.OnlyByRollout(ctx, "q", false, at(2)))
	s.code(s.OnlyByRollout(ctx, "/", true, at(2)), fleet.CodeInvalid)
	s.reopen()
	list, err := s.ByRollout(ctx)
	s.ok(err)
	snapshot, err := s.RolloutSnapshot(ctx)
	s.ok(err)
	native, err := s.NativeSnapshot(ctx)
	s.ok(err)
	if fmt.Sprint(list, snapshot.Only, native.Only) != "[p] [p] [p]" || s.generation() != g+3 {
		s.Errorf("%v %v %v, generation %d", list, snapshot.Only, native.Only, s.generation())
	}
	// Nothing else of the product's policy changed.
	if p, err := s.Policy(ctx, "p"); err != nil || p.SignedOnly || p.ByOperator {
		s.Errorf("%+v %v", p, err)
	}
}
