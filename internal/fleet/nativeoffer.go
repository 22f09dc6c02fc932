package fleet

import (
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/core/manifest"
)

// Verdicts that only the native wire comes to. Frozen, as the others.
const (
	VerdictHardware  Verdict = "other_hardware" // releases are for other hardware
	VerdictUnfit     Verdict = "unfit"          // the device would refuse it
	VerdictSkipped   Verdict = "skipped"        // it said that it skips it
	VerdictReverting Verdict = "reverting"      // an operator wants it to go back
	VerdictWeaker    Verdict = "weaker_wire"    // it spoke a stronger wire before
)

// NativeDecision is what a device may get now, and why.
type NativeDecision struct {
	// Release is nil where there is nothing for the device; Stream is the raw one that carries it, and
	// Derived, if not nil, is offered beside it.
	Release *SignedRelease
	Stream  Stream
	Derived *Stream
	Verdict Verdict
	Why     string // one sentence for people
	// Key is what the timeline remembers: it is written when that changes.
	Key string

	Cancel uint32  // sequence whose progress the device drops; 0: none
	Revert uint32  // number of the order to go back; 0: none
	Retry  *Digest // image that it may try again; nil: none

	Known   bool       // the device has a deployment of Release, in whichever build
	Rollout int64      // that decided; 0: none
	Admit   *Admission // the device comes into it by this decision; nil: it is in, or there is none

	derived *derivedStream // Derived, with its sheet
}

// NativeOffers is a snapshot of what native devices may get. It does not change.
type NativeOffers struct {
	Generation                  int64
	ListVersion, ListGeneration uint32 // of the newest key list; 0: none
	// Damaged are releases whose manifest can't be read: nobody gets them.
	Damaged []int64

	products []string
	list     *manifest.KeyList
	releases map[string][]*nativeRelease // by product
	plan     *Plan
	terms    map[string]Terms // by product
}

type nativeRelease struct {
	SignedRelease
	m       manifest.Manifest // views into Envelope
	terms   Terms             // of its product
	derived []derivedStream   // that devices may get, the smallest first
}

// NewNativeOffers prepares a snapshot, which it keeps.
func NewNativeOffers(s NativeSnapshot) *NativeOffers {
	o := &NativeOffers{Generation: s.Generation, products: s.Products, releases: make(map[string][]*nativeRelease), terms: s.Terms,
		plan: NewPlan(RolloutSnapshot{Rollouts: s.Rollouts, Groups: s.Groups, Only: s.Only})}
	if s.List != nil {
		o.ListVersion, o.ListGeneration = s.List.Version, s.List.Generation
		var e manifest.Envelope
		l := &manifest.KeyList{}
		if e.Parse(s.List.Envelope) == 0 && l.Parse(e.Payload) == 0 {
			o.list = l
		}
	}
	for _, sr := range s.Releases {
		r := &nativeRelease{SignedRelease: sr, terms: s.Terms[sr.Product]}
		var e manifest.Envelope
		if e.Parse(r.Envelope) != 0 || r.m.Parse(e.Payload) != 0 {
			o.Damaged = append(o.Damaged, r.ID)
			continue
		}
		o.releases[r.Product] = append(o.releases[r.Product], r)
	}
	for _, list := range o.releases {
		for _, r := range list {
			o.readDerived(r) // names bases by releases: all are there
		}
	}
	return o
}

// newer orders releases of a product: epoch before sequence.
func newer(epoch, sequence, thanEpoch, thanSequence uint32) bool {
	return epoch > thanEpoch || epoch == thanEpoch && sequence > thanSequence
}

// newest is the published release of the product for the hardware, in the build for
// the slot that the device writes to, or in any where there is none; some: there are
// published ones for other hardware. What is in a channel is not for all.
func (o *NativeOffers) newest(product string, a NativeAsk) (best *nativeRelease, some bool) {
	return o.best(product, a, func(r *nativeRelease) bool { return r.Channel == "" })
}

// best is the newest of those that of takes.
func (o *NativeOffers) best(product string, a NativeAsk, of func(*nativeRelease) bool) (best *nativeRelease, some bool) {
	target, has := a.Target()
	for _, r := range o.releases[product] {
		if r.State != ReleasePublished || !of(r) {
			continue
		}
		some = true
		switch {
		case !r.m.For(a.Hardware):
		case best == nil, newer(r.Epoch, r.Sequence, best.Epoch, best.Sequence):
			best = r
		case !newer(best.Epoch, best.Sequence, r.Epoch, r.Sequence) && has && r.fits(target) && !best.fits(target): // F6
			best = r
		}
	}
	return best, some
}

// name is the first id of the release's builds, so that what is said of it is the
// same from whichever slot a device asks.
func (o *NativeOffers) name(r *nativeRelease) int64 {
	id := r.ID
	for _, b := range o.releases[r.Product] {
		if b.SameRelease(r.Release) {
			id = min(id, b.ID)
		}
	}
	return id
}

// isBuild says whether id is a build of the release.
func (o *NativeOffers) isBuild(id int64, r *nativeRelease) bool {
	for _, b := range o.releases[r.Product] {
		if b.ID == id {
			return b.SameRelease(r.Release)
		}
	}
	return false
}

// Wanted is what Decide wants to see of a device's deployments and of rollouts'
// budgets: it depends on the product and on what the device says of itself, not on what it did.
type Wanted struct {
	Releases []int64 // whose deployments, in whichever build
	Rollouts []int64 // whose devices have to be counted
}

// Wanted is what a poll has to read. product is the device's own, empty where it has none.
func (o *NativeOffers) Wanted(product string, a NativeAsk) Wanted {
	product = ProductOf(Device{Product: product}, o.products)
	if o.plan.Governs(product) {
		return Wanted{o.plan.Releases(product), o.plan.Limited(product)}
	}
	// What it did with a release that it has confirmed, or a newer one, decides nothing (F1).
	if r, _ := o.newest(product, a); r != nil && newer(r.Epoch, r.Sequence, a.Epoch, a.Sequence) {
		return Wanted{Releases: []int64{r.ID}}
	}
	return Wanted{}
}

// Equal says whether they want the same.
func (w Wanted) Equal(o Wanted) bool {
	return slices.Equal(w.Releases, o.Releases) && slices.Equal(w.Rollouts, o.Rollouts)
}

// Decide is what a device may get: the same function for a poll and for who asks
// why. d has what Wanted names; the rules that were looked at go to t, if not nil. The device judges all of
// it again, by the same code (core/manifest): what it would refuse is not offered, so that it
// does not fetch for nothing. Rules, numbered for the tests:
//
//	F0 of a product that has rollouts they decide (Plan); the rest is for one that has none
//	F1 the newest release of the product for its hardware, by epoch and sequence,
//	   that is published, in no channel, and above what the device confirmed; nothing
//	   older instead
//	F2 what ended badly here is not tried again until an operator says so
//	F3 what is withdrawn, or taken back with its rollout, while the device has it in
//	   progress is cancelled
//	F4 while an operator wants it to go back nothing is offered
//	F5 the largest chunks that fit its buffer
//	F6 of a release in several builds the one for the slot that it writes to; what
//	   one build did here (F2, F3) counts for all of them
//	F7 the terms of the product take the device, and the release (Terms)
func (o *NativeOffers) Decide(d *NativeDevice, a NativeAsk, now time.Time, t *Trace) NativeDecision {
	product := ProductOf(d.Device, o.products)
	out, id := o.decide(d, product, a, now, t)
	out.Key = string(out.Verdict) + "/" + strconv.FormatInt(id, 10)
	if out.Rollout != 0 {
		out.Key += fmt.Sprintf("/r%d", out.Rollout)
	}
	if out.derived != nil {
		out.Key += out.derived.keyOf()
		t.add(out.Rollout, "stream", RulePass, "it comes as %s; the raw stream has %d", out.derived.why, out.Stream.Length)
	}
	if r := o.inProgress(product, a.InProgress); r != nil { // F3
		gone := ""
		if r.State == ReleaseWithdrawn {
			gone = "withdrawn"
		} else if o.takenBack(product, r) && (out.Release == nil || !r.SameRelease(out.Release.Release)) {
			gone = "taken back"
		}
		if gone != "" {
			out.Cancel = a.InProgress
			out.Key += fmt.Sprintf("/cancel%d", o.name(r))
			out.Why = CleanText(fmt.Sprintf("%s is %s, its download is cancelled; %s", r.Version, gone, out.Why), MaxText)
			t.add(0, "cancel", RulePass, "%s is %s, and the device has it in progress: its download is cancelled", r.Version, gone)
		}
	}
	if out.Verdict == VerdictReverting {
		out.Revert = max(d.RollbackNumber, 1)
		out.Key += fmt.Sprintf("/order%d", out.Revert)
	}
	return out
}

// takenBack says whether the newest rollout of the release was cancelled or reverted.
func (o *NativeOffers) takenBack(product string, r *nativeRelease) bool {
	if !o.plan.Governs(product) {
		return false
	}
	for id := range o.plan.products[product].ended {
		if o.isBuild(id, r) {
			return true
		}
	}
	return false
}

// deploymentOf is what the device did last with the release, in whichever build.
func (o *NativeOffers) deploymentOf(d *NativeDevice, r *nativeRelease) (last *Deployment) {
	for i := range d.Deployments {
		p := &d.Deployments[i]
		if !o.isBuild(p.ReleaseID, r) {
			continue
		}
		if last == nil || p.Proven && !last.Proven || p.Proven == last.Proven && p.UpdatedAt.After(last.UpdatedAt) {
			last = p
		}
	}
	return last
}

// inProgress is the release that a device means by a sequence: a poll does not say
// the epoch, and a device has no older one in progress than it was offered. Nor does
// it say the build: they are withdrawn together.
func (o *NativeOffers) inProgress(product string, sequence uint32) (best *nativeRelease) {
	if sequence == 0 {
		return nil
	}
	for _, r := range o.releases[product] {
		if r.Sequence == sequence && (best == nil || r.Epoch > best.Epoch) {
			best = r
		}
	}
	return best
}

// decide answers with the id by which the decision's release is named (name), 0: none.
func (o *NativeOffers) decide(d *NativeDevice, product string, a NativeAsk, now time.Time, t *Trace) (NativeDecision, int64) {
	if d.RollbackWanted { // F4
		reason := d.RollbackReason
		if reason == "" {
			reason = DefaultReason
		}
		why := CleanText("it is to go back to the image before: "+reason, MaxText)
		t.add(0, "order", RuleStop, "%s", why)
		return NativeDecision{Verdict: VerdictReverting, Why: why}, o.newestName(product, a)
	}
	t.add(0, "order", RulePass, "no order to go back waits for this device")
	// F7: of a native key there is one device.
	if why := o.terms[product].judge(product, AssuranceOwn, a.Wire, a.Rollback, t); why != "" {
		return NativeDecision{Verdict: VerdictTerms, Why: CleanText(why, MaxText)}, o.newestName(product, a)
	}
	if o.plan.Governs(product) { // F0
		return o.planned(d, product, a, now, t)
	}
	t.add(0, "rollouts", RulePass, "%s has no rollout: its newest release is for all of its devices", product)
	out := o.implicit(d, product, a, now, t)
	result := RuleStop
	if out.Release != nil {
		result = RuleOffer
	}
	t.add(0, "newest", result, "%s", out.Why)
	return out, o.newestName(product, a)
}

func (o *NativeOffers) newestName(product string, a NativeAsk) int64 {
	if r, _ := o.newest(product, a); r != nil {
		return o.name(r)
	}
	return 0
}

// planned is what rollouts decide.
func (o *NativeOffers) planned(d *NativeDevice, product string, a NativeAsk, now time.Time, t *Trace) (NativeDecision, int64) {
	w := &nativeSide{o: o, d: d, a: &a, product: product}
	p := o.plan.decide(question{d: asking(&d.Device, &a), ask: &a, product: product, usage: d.Usage, clock: d.Clock, now: now, t: t}, w)
	out := NativeDecision{Verdict: p.verdict, Why: p.why, Rollout: p.rollout, Admit: p.admit}
	if p.release == nil {
		return out, 0
	}
	r := w.picked
	o.carry(&out, d, r, &a, r.stream(a.Chunk))
	if p.retry {
		out.Retry = &r.Image.Digest
	}
	return out, o.name(r)
}

// implicit is the rule of a product without rollouts: the newest for all.
func (o *NativeOffers) implicit(d *NativeDevice, product string, a NativeAsk, now time.Time, t *Trace) NativeDecision {
	none := func(v Verdict, format string, args ...any) NativeDecision {
		return NativeDecision{Verdict: v, Why: CleanText(fmt.Sprintf(format, args...), MaxText)}
	}
	r, some := o.newest(product, a)
	switch {
	case r == nil && some:
		return none(VerdictHardware, "no release of %s is for its hardware", product)
	case r == nil:
		if _, channels := o.best(product, a, func(*nativeRelease) bool { return true }); channels {
			return none(VerdictNoRelease, "every release of %s is in a channel, and those are given out by rollouts alone", product)
		}
		return none(VerdictNoRelease, "no signed release of %s is published", product)
	case !newer(r.Epoch, r.Sequence, a.Epoch, a.Sequence): // F1
		return none(VerdictConfirmed, "%s is confirmed on this device, or a newer one", r.Version)
	}
	if _, why := r.terms.judgeRelease(&r.Release, 0, t); why != "" { // F7
		return none(VerdictTerms, "%s", why)
	}
	out := NativeDecision{Verdict: VerdictNewest, Why: CleanText(fmt.Sprintf("%s is the newest release of %s for its hardware", r.Name(), product), MaxText)}
	if dep := o.deploymentOf(d, r); dep != nil && dep.Proven { // F2
		why := orNone(dep.Reason)
		switch {
		case RetryDue(d.Device, *dep):
			out.Verdict, out.Retry = VerdictRetry, &r.Image.Digest
			out.Why = CleanText(fmt.Sprintf("%s %s here %s ago; an operator ordered another try", r.Version, dep.State, ago(dep.UpdatedAt, now)), MaxText)
		case dep.State == StateFailed, dep.State == StateReverted:
			return none(VerdictFoundBad, "%s %s here (%s); it is not tried again until an operator says so", r.Version, dep.State, why)
		case dep.State == StateSkipped:
			return none(VerdictSkipped, "the device skipped %s (%s); it is not offered again until an operator says so", r.Version, why)
		case dep.State == StateCancelled:
			return none(VerdictCancelled, "the deployment of %s was cancelled", r.Version)
		}
	}
	if why := o.unfit(r, product, a); why != "" {
		return none(VerdictUnfit, "%s is the newest release, but the device would refuse it: %s", r.Version, why)
	}
	s := r.stream(a.Chunk)
	if s == nil {
		return none(VerdictUnfit, "%s can't be served: %s", r.Version, r.noStream(a.Chunk))
	}
	o.carry(&out, d, r, &a, s)
	return out
}

// Products are those that have releases, for ProductOf.
func (o *NativeOffers) Products() []string { return o.products }
