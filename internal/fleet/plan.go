package fleet

import (
	"fmt"
	"time"
)

// Plan is the rollouts of one generation of the catalogue, ready to decide by. It
// does not change.
type Plan struct {
	products map[string]*productPlan
	held     map[int64]bool // releases whose newest rollout is paused or was taken back, and no other goes on
}

// productPlan is there for a product that ever had a rollout, or is moved by them alone.
type productPlan struct {
	inForce []*planned // newest first
	// ended are the releases whose newest rollout was taken back: who has one in progress drops it.
	ended map[int64]RolloutState
}

// planned is a rollout with what its texts say.
type planned struct {
	Rollout
	filter Filter
	groups []Filter // by phase
	window Window
	broken error // it decides nothing: its texts can't be read any more
}

// NewPlan prepares a snapshot. One that can't be read is held as broken: it offers
// nothing, and says why.
func NewPlan(s RolloutSnapshot) *Plan {
	p := &Plan{products: map[string]*productPlan{}, held: map[int64]bool{}}
	groups := map[string]string{}
	for _, g := range s.Groups {
		groups[g.Name] = g.Filter
	}
	seen := map[int64]bool{}
	for _, product := range s.Only {
		p.products[product] = &productPlan{ended: map[int64]RolloutState{}}
	}
	for _, r := range s.Rollouts {
		switch _, seen := p.held[r.ReleaseID]; r.State {
		case RolloutRunning, RolloutComplete:
			p.held[r.ReleaseID] = false
		case RolloutPaused, RolloutReverting, RolloutReverted, RolloutCancelled:
			if !seen {
				p.held[r.ReleaseID] = true
			}
		}
		pp := p.products[r.Product]
		if pp == nil {
			pp = &productPlan{ended: map[int64]RolloutState{}}
			p.products[r.Product] = pp
		}
		if !seen[r.ReleaseID] {
			seen[r.ReleaseID] = true
			switch r.State {
			case RolloutCancelled, RolloutReverting, RolloutReverted:
				pp.ended[r.ReleaseID] = r.State
			}
		}
		if !r.State.InForce() {
			continue
		}
		pp.inForce = append(pp.inForce, prepare(r, groups))
	}
	return p
}

func prepare(r Rollout, groups map[string]string) *planned {
	pl := &planned{Rollout: r, groups: make([]Filter, len(r.Course.Phases))}
	pl.filter, pl.broken = ParseFilter(r.Course.To)
	if pl.broken == nil {
		pl.window, pl.broken = ParseWindow(r.Course.Window)
	}
	for i, ph := range r.Course.Phases {
		if ph.Kind != PhaseGroup || pl.broken != nil {
			continue
		}
		text, ok := groups[ph.Group]
		if !ok {
			pl.broken = Errorf(CodeInvalid, "there is no group %q", ph.Group)
			break
		}
		pl.groups[i], pl.broken = ParseFilter(text)
	}
	return pl
}

// Governs says whether rollouts decide for the product; else its newest release is
// for all of its devices.
func (p *Plan) Governs(product string) bool { return p != nil && p.products[product] != nil }

// Holds says whether what devices began of a release is not to go on: its rollout is
// paused, or was taken back and no other gives it out. A wire whose devices fetch piece
// by piece asks for each.
func (p *Plan) Holds(release int64) bool { return p != nil && p.held[release] }

// Releases are those that a device of the product may be given by rollouts, and those
// that it may have to drop, by the ids that the rollouts name.
func (p *Plan) Releases(product string) (ids []int64) {
	if !p.Governs(product) {
		return nil
	}
	for _, r := range p.products[product].inForce {
		ids = append(ids, r.ReleaseID)
	}
	return ids
}

// Limited are the rollouts of the product whose next devices have to be counted.
func (p *Plan) Limited(product string) (ids []int64) {
	if !p.Governs(product) {
		return nil
	}
	for _, r := range p.products[product].inForce {
		if r.limited() {
			ids = append(ids, r.ID)
		}
	}
	return ids
}

func (r *planned) limited() bool {
	_, _, counted := r.countPhase()
	return r.State == RolloutRunning && counted || r.Course.Concurrency > 0 || r.Course.BytesPerSec > 0
}

// countPhase is the last phase so far that takes a number of devices: while it is
// open, whoever asks may come in.
func (r *planned) countPhase() (index, count int, ok bool) {
	for i := min(r.Phase, len(r.Course.Phases)-1); i >= 0; i-- {
		if p := r.Course.Phases[i]; p.Kind == PhaseCount {
			return i, p.Count, i == r.Phase
		}
	}
	return 0, 0, false
}

// member is the first phase so far that the device belongs to by its place or its
// group; -1: none.
func (r *planned) member(x *facts) int {
	place := -1.0
	for i, p := range r.Course.Phases[:min(r.Phase+1, len(r.Course.Phases))] {
		switch p.Kind {
		case PhasePercent:
			if place < 0 {
				place = Place(r.ID, x.d.ID)
			}
			if place < max(p.Percent/100, r.Reach) {
				return i
			}
		case PhaseGroup:
			// One whose filter fails for the device is not in the group.
			if in, err := x.match(r.groups[i]); err == nil && in {
				return i
			}
		}
	}
	return -1
}

// Usage is what a rollout's budgets have spent, as a poll's statement counts it.
type Usage struct {
	Rollout int64
	Joined  int   // deployments, of all its phases
	Active  int   // of them on their way, and heard of
	NextAt  Clock // when bytes per second let the next begin
}

// Admission is what has to hold still when a device comes into a rollout: the store
// looks again in the transaction that writes it down.
type Admission struct {
	Rollout     int64
	Version     int64 // of the rollout; at another one it is decided again
	Phase       int
	ReleaseID   int64
	Count       int // 0: no phase by number
	Concurrency int
	Hold        time.Duration // for which bytes per second let nobody else begin
	Assurance   Assurance
	Silence     time.Duration
}

// RateSlack is how far ahead of their rate streams may begin: the clock moves in
// steps (internal/rollout), and a device that asks between two must not wait for
// its next poll.
const RateSlack = 15 * time.Second

// Verdicts of rollouts. Frozen, as the others.
const (
	VerdictRollout     Verdict = "rollout"      // offered by one
	VerdictNotTargeted Verdict = "not_targeted" // no rollout is for the device
	VerdictPhase       Verdict = "phase"        // its phase has not come
	VerdictPaused      Verdict = "paused"
	VerdictStart       Verdict = "start"  // it has not begun
	VerdictWindow      Verdict = "window" // out of its maintenance window
	VerdictBudget      Verdict = "budget" // as many are on their way as may be
	VerdictQuarantine  Verdict = "quarantine"
	VerdictBackoff     Verdict = "backoff" // it is tried again later
	VerdictBusy        Verdict = "busy"    // it has a newer release in progress
	VerdictBroken      Verdict = "broken"  // the rollout can't be read
)

// side is what a wire knows of releases: methods because each is one rule's question.
type side interface {
	// pick is the rollout's release in the build for the device. verdict is why there is none.
	pick(release int64) (r *Release, verdict Verdict, why string)
	// terms is why the product's terms leave the release out: the rule and the reason; "" each: they
	// take it. What they asked goes to t.
	terms(r *Release, rollout int64, t *Trace) (rule, why string)
	// has says why the device has the release, or a later one; "": it has not.
	has(r *Release) string
	deployment(r *Release) *Deployment
	// unfit says why the device would refuse it; "": it would not.
	unfit(r *Release) string
	// busy says that the device is at a later release than r, which it would not give up.
	busy(r *Release) bool
	// bytes of its stream.
	bytes(r *Release) int64
}

// question is what a decision rests on, beside the plan and the wire.
type question struct {
	d       *Device
	ask     *NativeAsk // nil: not said
	product string
	usage   []Usage
	clock   Clock
	now     time.Time
	t       *Trace
}

// planDecision is what rollouts say of a device.
type planDecision struct {
	release *Release
	verdict Verdict
	why     string
	rollout int64
	retry   bool
	admit   *Admission // it comes in by this decision
}

// decide goes through the product's rollouts, the newest first, and through the
// rules of each, in this order:
//
//	start       it has begun
//	target      its filter takes the device
//	release     its release is published, and for this hardware
//	signer      who signed it is who may, by the terms of the product
//	confirm     its manifest wants contact, where they ask for that
//	has         the device has neither that release nor a later one
//	busy        nor is it at a later one
//	outcome     it did not end badly here, or is to be tried again
//	quarantine  the device did not fail too often in a row
//	phase       it is in a phase that has begun
//	paused      the rollout goes on
//	window      it is in its maintenance window
//	concurrency not too many are on their way
//	rate        the streams that began leave room
//	fit         the device would take it
//
// The first that says next leaves the device to the rollout before; the first that
// says stop ends it: nothing older instead. What has begun here is not stopped by
// phase, window and budgets.
func (p *Plan) decide(q question, w side) planDecision {
	pp := p.products[q.product]
	x := &facts{d: q.d, ask: q.ask, product: q.product}
	var last planDecision
	for _, r := range pp.inForce {
		out, next := r.decide(q, w, x)
		if !next {
			return out
		}
		// The newest that would have had something for the device says it best.
		if last.verdict == "" || last.verdict == VerdictNotTargeted {
			last = out
		}
	}
	if last.verdict == "" {
		last = planDecision{verdict: VerdictNotTargeted, why: fmt.Sprintf("%s is moved by rollouts, and none is in force", q.product)}
		q.t.add(0, "rollouts", RuleStop, "%s", last.why)
	}
	return last
}

func (r *planned) decide(q question, w side, x *facts) (out planDecision, next bool) {
	out.rollout = r.ID
	say := func(result, rule string, v Verdict, format string, args ...any) (planDecision, bool) {
		why := CleanText(fmt.Sprintf(format, args...), MaxText)
		q.t.add(r.ID, rule, result, "%s", why)
		out.verdict, out.why = v, fmt.Sprintf("rollout %d: %s", r.ID, why)
		return out, result == RuleNext
	}
	pass := func(rule, format string, args ...any) {
		if q.t != nil {
			q.t.add(r.ID, rule, RulePass, format, args...)
		}
	}
	if r.broken != nil {
		return say(RuleStop, "target", VerdictBroken, "it can't be read: %v", r.broken)
	}
	switch r.State {
	case RolloutScheduled:
		return say(RuleNext, "start", VerdictStart, "%s begins at %s", r.ReleaseVersion, r.Course.StartAt.UTC().Format(time.RFC3339))
	case RolloutReverting:
		return say(RuleNext, "start", VerdictPaused, "%s is being taken back: %s", r.ReleaseVersion, r.Reason)
	}
	pass("start", "it has begun and is %s", r.State)
	if in, err := x.match(r.filter); err != nil {
		return say(RuleNext, "target", VerdictNotTargeted, "its filter, %s, fails for this device: %v", r.filter, err)
	} else if !in {
		return say(RuleNext, "target", VerdictNotTargeted, "its filter, %s, does not take this device", r.filter)
	}
	if r.filter.text == "" {
		pass("target", "it is for every device of %s", q.product)
	} else {
		pass("target", "its filter, %s, takes this device", r.filter)
	}
	rel, v, why := w.pick(r.ReleaseID)
	if rel == nil {
		return say(RuleNext, "release", v, "%s", why)
	}
	pass("release", "%s is published, and for this device's hardware", rel.Name())
	if rule, why := w.terms(rel, r.ID, q.t); rule != "" {
		return say(RuleNext, rule, VerdictTerms, "%s", why)
	}
	if why := w.has(rel); why != "" {
		return say(RuleStop, "has", VerdictConfirmed, "%s", why)
	}
	pass("has", "the device has neither %s nor a later release", rel.Version)
	if w.busy(rel) {
		return say(RuleNext, "busy", VerdictBusy, "the device is at a later release than %s", rel.Version)
	}
	dep := w.deployment(rel)
	if dep != nil && !dep.Proven {
		dep = nil // what nobody proved decides nothing
	}
	begun := dep != nil && dep.Rollout == r.ID && !dep.State.Ended()
	if dep != nil && dep.State.Ended() {
		if out, stop := r.again(q, rel, dep, say); stop {
			return out, false
		}
		out.retry = true
		begun = dep.Rollout == r.ID
		pass("outcome", "%s %s here (%s) and is tried again", rel.Version, dep.State, orNone(dep.Reason))
	} else {
		pass("outcome", "%s has not ended badly on this device", rel.Version)
	}
	forced := q.d.Forced == r.ID
	if n := r.Course.Quarantine; n > 0 && q.d.Failures >= n && !forced && !out.retry {
		return say(RuleStop, "quarantine", VerdictQuarantine, "%d releases in a row failed on this device: it gets nothing until an operator says so", q.d.Failures)
	}
	pass("quarantine", "%d releases in a row failed on this device", q.d.Failures)
	var u Usage
	for i := range q.usage {
		if q.usage[i].Rollout == r.ID {
			u = q.usage[i]
		}
	}
	phase, count := r.member(x), 0
	switch {
	case begun:
		phase = dep.Phase
		pass("phase", "it came in with phase %d", phase+1)
	case forced:
		phase = max(phase, 0)
		pass("phase", "an operator forced it in")
	case phase >= 0:
		pass("phase", "it belongs to phase %d (%s), and phase %d of %d is on", phase+1, r.Course.Phases[phase], min(r.Phase+1, len(r.Course.Phases)), len(r.Course.Phases))
	default:
		i, n, open := r.countPhase()
		switch {
		case !open:
			return say(RuleNext, "phase", VerdictPhase, "its place is %.2f%% and phase %d of %d (%s) is on: its own has not come", 100*Place(r.ID, q.d.ID), min(r.Phase+1, len(r.Course.Phases)), len(r.Course.Phases), r.Course.Phases[min(r.Phase, len(r.Course.Phases)-1)])
		case u.Joined >= n:
			return say(RuleNext, "phase", VerdictPhase, "phase %d takes %d devices and has them", i+1, n)
		}
		phase, count = i, n
		pass("phase", "phase %d takes %d devices and has %d", i+1, n, u.Joined)
	}
	if r.State == RolloutPaused {
		return say(RuleStop, "paused", VerdictPaused, "it is paused: %s", r.Reason)
	}
	pass("paused", "it goes on")
	if !begun && !forced {
		if out, stop := r.budgets(q, u, say, pass); stop {
			return out, false
		}
	}
	if why := w.unfit(rel); why != "" {
		return say(RuleStop, "fit", VerdictUnfit, "the device would refuse %s: %s", rel.Version, why)
	}
	pass("fit", "the device would take %s", rel.Version)
	if !begun {
		a := &Admission{Rollout: r.ID, Version: r.Version, Phase: phase, ReleaseID: rel.ID, Count: count, Concurrency: r.Course.Concurrency, Assurance: q.d.Assurance, Silence: r.Course.Silence}
		if rate := r.Course.BytesPerSec; rate > 0 {
			a.Hold = time.Duration(float64(w.bytes(rel)) / float64(rate) * float64(time.Second))
		}
		if forced {
			a.Count, a.Concurrency = 0, 0
		}
		out.admit = a
	}
	out.release = rel
	v = VerdictRollout
	if out.retry {
		v = VerdictRetry
	}
	return say(RuleOffer, "offer", v, "%s, phase %d of %d", rel.Name(), phase+1, len(r.Course.Phases))
}

type sayFunc func(result, rule string, v Verdict, format string, args ...any) (planDecision, bool)

// again says whether a deployment that ended is tried again. stop: it is not, or not yet.
func (r *planned) again(q question, rel *Release, dep *Deployment, say sayFunc) (out planDecision, stop bool) {
	if dep.State == StateConfirmed {
		// It had it, and has it no more: only v1 devices get here, which say their version.
		out, _ = say(RuleStop, "outcome", VerdictConfirmed, "%s is confirmed on this device", rel.Version)
		return out, true
	}
	if RetryDue(*q.d, *dep) {
		return out, false
	}
	wait, ok := RetryAfter(dep.Class, dep.Tries, r.Course.BackoffScale)
	switch {
	case dep.State == StateSkipped:
		out, _ = say(RuleStop, "outcome", VerdictSkipped, "the device skipped %s (%s); it is not offered again until an operator says so", rel.Version, orNone(dep.Reason))
	case dep.State == StateCancelled && dep.Rollout != r.ID:
		return out, false // taken back with a rollout, and given again by another
	case dep.State == StateCancelled:
		out, _ = say(RuleStop, "outcome", VerdictCancelled, "the deployment of %s was cancelled", rel.Version)
	case !ok:
		out, _ = say(RuleStop, "outcome", VerdictFoundBad, "%s %s here (%s); it is not tried again until an operator says so", rel.Version, dep.State, orNone(dep.Reason))
	case q.clock.Since(dep.Heard) < wait:
		out, _ = say(RuleStop, "outcome", VerdictBackoff, "%s %s here (%s), try %d; the next is %s after it", rel.Version, dep.State, orNone(dep.Reason), dep.Tries, wait)
	default:
		return out, false
	}
	return out, true
}

func (r *planned) budgets(q question, u Usage, say sayFunc, pass func(rule, format string, args ...any)) (out planDecision, stop bool) {
	if r.window != (Window{}) {
		zone := time.UTC
		if name := q.d.Attributes[ZoneAttribute]; name != "" {
			// A name that was good once and is none here: UTC, as for a device without one.
			if z, err := LoadZone(name); err == nil {
				zone = z
			}
		}
		local := q.now.In(zone)
		if !r.window.Open(local) {
			out, _ = say(RuleStop, "window", VerdictWindow, "it begins updates from %s, and it is %s in %s", r.Course.Window, local.Format("15:04"), zone)
			return out, true
		}
		pass("window", "it begins updates from %s, and it is %s in %s", r.Course.Window, local.Format("15:04"), zone)
	}
	if n := r.Course.Concurrency; n > 0 {
		if u.Active >= n {
			out, _ = say(RuleStop, "concurrency", VerdictBudget, "%d devices are on their way, and %d may be", u.Active, n)
			return out, true
		}
		pass("concurrency", "%d devices are on their way, and %d may be", u.Active, n)
	}
	if r.Course.BytesPerSec > 0 {
		if u.NextAt > q.clock.After(RateSlack) {
			out, _ = say(RuleStop, "rate", VerdictBudget, "the streams that began take all of %d bytes a second for %s", r.Course.BytesPerSec, u.NextAt.Since(q.clock).Round(time.Second))
			return out, true
		}
		pass("rate", "%d bytes a second leave room for one more stream", r.Course.BytesPerSec)
	}
	return out, false
}

func orNone(reason string) string {
	if reason == "" {
		return "no reason given"
	}
	return reason
}

// Membership is what the engine asks of each device that is known: does a phase wait
// for it?
type Membership struct{ r *planned }

// Members prepares that for a rollout in force; ok is false where it is not in the plan.
func (p *Plan) Members(rollout int64, product string) (m Membership, ok bool) {
	if !p.Governs(product) {
		return m, false
	}
	for _, r := range p.products[product].inForce {
		if r.ID == rollout {
			return Membership{r}, r.broken == nil
		}
	}
	return m, false
}

// Targets says whether its filter takes the device, and to which of the phases that
// have begun the device belongs by place or group; -1: to none, as yet.
func (m Membership) Targets(d *Device, a *NativeAsk, product string) (phase int, in bool) {
	x := &facts{d: d, ask: a, product: product}
	if in, err := x.match(m.r.filter); err != nil || !in {
		return -1, false
	}
	return m.r.member(x), true
}

// Awaits says whether a rollout's phase waits for a device, as far as its last poll
// tells: the release is for its hardware, it has none as new, and the filter takes
// it. phase is that which it belongs to by place or group; -1: none, as yet. a is
// what it asked last (ParseAsk): many devices ask the same, so it is the caller's to keep.
func (o *NativeOffers) Awaits(r *Rollout, d *Device, a *NativeAsk) (phase int, waits bool) {
	m, ok := o.plan.Members(r.ID, r.Product)
	if !ok || ProductOf(*d, o.products) != r.Product {
		return -1, false
	}
	if a != nil {
		s := &nativeSide{o: o, d: &NativeDevice{Device: *d}, a: a, product: r.Product}
		rel, _, _ := s.pick(r.ReleaseID)
		if rel == nil || s.has(rel) != "" {
			return -1, false
		}
		if rule, _ := s.picked.terms.judgeRelease(rel, 0, nil); rule != "" {
			return -1, false
		}
		if rule, _ := o.terms[r.Product].device(r.Product, AssuranceOwn, a.Wire, a.Rollback); rule != "" {
			return -1, false
		}
	} else if rule, _ := o.terms[r.Product].device(r.Product, d.Assurance, WireV1, false); rule != "" {
		return -1, false
	} else if d.RunningVersion == r.ReleaseVersion {
		return -1, false // over v1 a device says its version alone
	}
	return m.Targets(d, a, r.Product)
}
