package fleet

import (
	"fmt"
	"time"
)

// Verdict is why a device is offered a release, or none. Frozen: it is in the
// API and in documents.
type Verdict string

const (
	VerdictNoRelease Verdict = "no_release" // nothing is published for its product
	VerdictNewest    Verdict = "newest"     // offered
	VerdictRetry     Verdict = "retry"      // offered again, by an operator's order
	VerdictConfirmed Verdict = "confirmed"  // it runs the newest
	VerdictFoundBad  Verdict = "found_bad"  // it failed or went back
	VerdictCancelled Verdict = "cancelled"  // an operator took the deployment back
)

// Decision is what a device may get now, and why.
type Decision struct {
	// Release is nil where there is nothing for the device.
	Release *Release
	// PublishedAt is the stamp that the device is shown, whole seconds: the release's own, or
	// the order's to try again, which is later.
	PublishedAt time.Time
	Verdict     Verdict
	Why         string // one sentence for people

	Rollout int64      // that decided; 0: none
	Admit   *Admission // the device comes into it by this decision
}

// ProductOf is the product whose releases a device gets. products are those
// that have releases, each once.
func ProductOf(d Device, products []string) string {
	if d.Product != "" {
		return d.Product
	}
	if len(products) == 1 {
		return products[0]
	}
	return DefaultProduct
}

// Products lists the products that have releases, each once, in the order of
// their first.
func Products(releases []Release) []string {
	var ps []string
	seen := make(map[string]bool)
	for _, r := range releases {
		if !seen[r.Product] {
			seen[r.Product] = true
			ps = append(ps, r.Product)
		}
	}
	return ps
}

// Newest is the release that devices of a product get: the published one with
// the latest stamp that is in no channel. Nil where there is none.
func Newest(releases []Release, product string) *Release {
	var newest *Release
	for i := range releases {
		r := &releases[i]
		if r.Product != product || r.State != ReleasePublished || r.Channel != "" {
			continue
		}
		if newest == nil || r.PublishedAt.After(newest.PublishedAt) {
			newest = r
		}
	}
	return newest
}

// OfferFor decides what a device may get. newest is the newest published release
// of its product, nil where there is none; dep is its deployment of that release
// (Deployments.DeploymentOf), nil where there is none. A deployment that no MAC
// proves decides nothing: whoever forges the reports of a silent device must not
// be able to keep an update from it.
func OfferFor(d Device, newest *Release, dep *Deployment, now time.Time) Decision {
	if newest == nil || newest.State != ReleasePublished {
		return Decision{Verdict: VerdictNoRelease, Why: "nothing is published for this product"}
	}
	offer := Decision{Release: newest, PublishedAt: shownStamp(d, newest), Verdict: VerdictNewest,
		Why: fmt.Sprintf("%s is the newest release of %s", newest.Version, newest.Product)}
	if dep == nil || dep.ReleaseID != newest.ID || !dep.Proven {
		return offer
	}
	if RetryDue(d, *dep) {
		offer.Verdict = VerdictRetry
		offer.Why = fmt.Sprintf("%s %s here %s ago; an operator ordered another try", newest.Version, dep.State, ago(dep.UpdatedAt, now))
		return offer
	}
	none := func(v Verdict, format string, args ...any) Decision {
		return Decision{Verdict: v, Why: fmt.Sprintf(format, args...)}
	}
	switch dep.State {
	case StateConfirmed:
		return none(VerdictConfirmed, "%s is confirmed on this device", newest.Version)
	case StateFailed, StateReverted:
		why := dep.Reason
		if why == "" {
			why = "no reason given"
		}
		return none(VerdictFoundBad, "%s %s here (%s); it is not tried again until an operator says so", newest.Version, dep.State, why)
	case StateCancelled:
		return none(VerdictCancelled, "the deployment of %s was cancelled", newest.Version)
	}
	return offer
}

// V1Catalogue is what a decision needs of the releases as v1 devices have them (ForV1).
type V1Catalogue struct {
	Plan     *Plan
	Products []string
	ByID     map[int64]*Release
	Newest   map[string]*Release // by product
	Terms    map[string]Terms    // by product
}

// NewV1Catalogue prepares releases (ForV1) and rollouts, both of which it keeps.
func NewV1Catalogue(releases []Release, rollouts RolloutSnapshot) *V1Catalogue {
	c := &V1Catalogue{Plan: NewPlan(rollouts), Products: Products(releases), ByID: make(map[int64]*Release, len(releases)), Newest: make(map[string]*Release), Terms: rollouts.Terms}
	for i := range releases {
		c.ByID[releases[i].ID] = &releases[i]
	}
	for _, p := range c.Products {
		if n := Newest(releases, p); n != nil {
			c.Newest[p] = n
		}
	}
	return c
}

// Wanted is what Decide wants to see of the device's deployments.
func (c *V1Catalogue) Wanted(d Device) Wanted {
	product := ProductOf(d, c.Products)
	if c.Plan.Governs(product) {
		return Wanted{c.Plan.Releases(product), c.Plan.Limited(product)}
	}
	if n := c.Newest[product]; n != nil {
		return Wanted{Releases: []int64{n.ID}}
	}
	return Wanted{}
}

// Decide is what a v1 device may get: by rollouts where the product has any, else its
// newest release. The rules that were looked at go to t, if not nil.
func (c *V1Catalogue) Decide(d *NativeDevice, now time.Time, t *Trace) Decision {
	product := ProductOf(d.Device, c.Products)
	terms := c.Terms[product]
	if why := terms.judge(product, d.Assurance, WireV1, false, t); why != "" { // it does not say what its bootloader does
		return Decision{Verdict: VerdictTerms, Why: CleanText(why, MaxText)}
	}
	if c.Plan.Governs(product) {
		w := &v1Side{c: c, d: d, product: product}
		p := c.Plan.decide(question{d: &d.Device, product: product, usage: d.Usage, clock: d.Clock, now: now, t: t}, w)
		out := Decision{Release: p.release, Verdict: p.verdict, Why: p.why, Rollout: p.rollout, Admit: p.admit}
		if p.release != nil {
			out.PublishedAt = shownStamp(d.Device, p.release)
		}
		return out
	}
	t.add(0, "rollouts", RulePass, "%s has no rollout: its newest release is for all of its devices", product)
	newest := c.Newest[product]
	var dep *Deployment
	for i := range d.Deployments {
		if newest != nil && d.Deployments[i].ReleaseID == newest.ID {
			dep = &d.Deployments[i]
		}
	}
	out := OfferFor(d.Device, newest, dep, now)
	if out.Release != nil {
		_, why := terms.judgeRelease(newest, 0, t)
		if !terms.allows(newest.ChunkSize) {
			why = fmt.Sprintf("%s takes chunks of %s bytes, and %s has some of %d", product, terms.ChunksText(), newest.Version, newest.ChunkSize)
		}
		if why != "" {
			out = Decision{Verdict: VerdictTerms, Why: why}
		}
	}
	result := RuleStop
	if out.Release != nil {
		result = RuleOffer
	}
	t.add(0, "newest", result, "%s", out.Why)
	return out
}

// v1Side is a device on v1, for Plan.decide: it says a version and nothing else.
type v1Side struct {
	c       *V1Catalogue
	d       *NativeDevice
	product string
}

func (s *v1Side) pick(release int64) (*Release, Verdict, string) {
	if r := s.c.ByID[release]; r != nil && r.State == ReleasePublished {
		return r, "", ""
	}
	return nil, VerdictNoRelease, "its release is withdrawn, or not for devices on v1"
}

// has goes by the order in which releases were published, as a v1 device does.
func (s *v1Side) has(r *Release) string {
	if s.d.RunningVersion == "" {
		return ""
	}
	for _, o := range s.c.ByID {
		if o.Product == s.product && o.Version == s.d.RunningVersion && !o.PublishedAt.Before(r.PublishedAt) {
			return fmt.Sprintf("the device runs %s, which is no older than %s", o.Version, r.Version)
		}
	}
	return ""
}

func (s *v1Side) deployment(r *Release) *Deployment {
	for i := range s.d.Deployments {
		if s.d.Deployments[i].ReleaseID == r.ID {
			return &s.d.Deployments[i]
		}
	}
	return nil
}

func (s *v1Side) terms(r *Release, rollout int64, t *Trace) (rule, why string) {
	return s.c.Terms[s.product].judgeRelease(r, rollout, t)
}

func (s *v1Side) unfit(r *Release) string {
	if t := s.c.Terms[s.product]; !t.allows(r.ChunkSize) {
		return fmt.Sprintf("%s takes chunks of %s bytes, and it has some of %d", s.product, t.ChunksText(), r.ChunkSize)
	}
	return ""
}
func (s *v1Side) busy(*Release) bool     { return false }
func (s *v1Side) bytes(r *Release) int64 { return r.Image.Size }

// RetryDue says whether an operator ordered another try of what the deployment
// found bad, and the try has not begun: a deployment that begins by order
// starts at the order's stamp or later.
func RetryDue(d Device, dep Deployment) bool {
	return dep.State.Ended() && d.RetryAt.After(dep.StartedAt) && d.RetryAt.After(dep.UpdatedAt)
}

// Ended says that a deployment is over: only an order begins another.
func (s DeploymentState) Ended() bool {
	switch s {
	case StateConfirmed, StateReverted, StateFailed, StateCancelled, StateSkipped:
		return true
	}
	return false
}

// shownStamp is never earlier than one the device was shown before: stores
// publish after every order to retry, and order retries after every publishing
// (NextPublish, NextRetry).
func shownStamp(d Device, r *Release) time.Time {
	if d.RetryAt.After(r.PublishedAt) {
		return d.RetryAt
	}
	return r.PublishedAt
}

// NextPublish is the stamp of a release published now: whole seconds, UTC, later
// than last, which is the latest stamp that a device of the product may have
// been shown: of its releases and of all orders to retry.
func NextPublish(now, last time.Time) time.Time { return nextStamp(now, last) }

// NextRetry is the stamp of an order to retry given now: whole seconds, UTC,
// not before now (it must be later than the deployment's end) and later than
// last, which is the newest release's stamp or that of the order before.
func NextRetry(now, last time.Time) time.Time { return nextStamp(now.Add(time.Second), last) }

func nextStamp(now, last time.Time) time.Time {
	t := now.UTC().Truncate(time.Second)
	if !last.IsZero() && !t.After(last) {
		t = last.UTC().Truncate(time.Second).Add(time.Second)
	}
	return t
}

func ago(t, now time.Time) string {
	return max(now.Sub(t), 0).Round(time.Second).String()
}

// RollbackRepeat is how often a device is told the same order at most: it has
// time to reboot into the other slot and report.
const RollbackRepeat = 10 * time.Minute

// DefaultReason is an order's where the operator gave none.
const DefaultReason = "ordered by an operator"

// RollbackDue says whether the device is to be told now that an operator wants
// it to go back. A device that can prove who it is hears it until it reports; a
// silent one hears it once, as from the original server: its report clears
// nothing, and an order repeated for ever would swap its slots every ten minutes.
func RollbackDue(d Device, now time.Time) bool {
	if !d.RollbackWanted {
		return false
	}
	if d.RollbackSentAt.IsZero() {
		return true
	}
	if d.silent() {
		return false
	}
	since := now.Sub(d.RollbackSentAt)
	// A clock that was set back must not silence the order for long.
	return since >= RollbackRepeat || since < 0
}

// silent: nothing that the device ever said was proven.
func (d Device) silent() bool { return !d.Signed && d.Nonce == 0 }
