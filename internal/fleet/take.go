package fleet

import "time"

// Candidate is a release that a report may be about, and the device's deployment
// of it, nil where there is none. A nil Release means there is no such candidate.
type Candidate struct {
	Release    *Release
	Deployment *Deployment
}

// Candidates are what a store looks up for a report; v1 reports name no release.
type Candidates struct {
	Offer  Candidate // what the caller says is on offer
	Named  Candidate // of the device's product and the version that the report names, if another
	Latest Candidate // the device's latest deployment (Deployments.Deployment)
}

// retryGrace is how long after an order to retry the outcome of a boot is taken
// for that of the try before, sent again because its acknowledgement was lost: a
// new try has to download and to reboot first.
const retryGrace = time.Minute

// TakeReport judges a report: which deployment it is about (choose), what becomes
// of that (ApplyReport) and of the device. Stores call it inside the transaction
// that read its arguments and store what it returns; a deployment without a
// State is not stored.
func TakeReport(d Device, c Candidates, rep Report, proven bool, now time.Time) (Device, Deployment, []Event) {
	if proven {
		// A deployment that somebody made up must not draw a proven report to itself.
		c = Candidates{Offer: c.Offer.proven(), Named: c.Named.proven(), Latest: c.Latest.proven()}
		if c.Latest.Deployment == nil {
			c.Latest = Candidate{}
		}
	}
	s := readReport(rep)
	told := d.RollbackWanted && !d.RollbackSentAt.IsZero()
	if last := c.Latest; proven && told && last.Release != nil && last.Deployment.State == StateConfirmed &&
		s.boot == BootSuccess && s.version != "" && s.version != last.Release.Version {
		// Told to go back, it runs something else now: it went back, without the word for it.
		yes := true
		rep.Rollback, rep.Error = &yes, &d.RollbackReason
		s = readReport(rep)
	}
	target := choose(told, c, s)
	dep := Deployment{Device: d.ID}
	if target.Deployment != nil {
		dep = *target.Deployment
	}
	if proven && RetryDue(d, dep) && s.begins(d, now) {
		dep = Deployment{Device: d.ID, StartedAt: later(now, d.RetryAt), Proven: true, Rollout: dep.Rollout, Phase: dep.Phase, Tries: dep.Tries}
	}
	was := dep
	dep, events := ApplyReport(&dep, target.Release, rep, proven, now)
	if proven && dep.State != "" && dep != was {
		if dep.Class = ""; told && dep.State == StateReverted {
			dep.Class = ClassOrdered
		}
		if d.Assurance == AssuranceOwn {
			dep.Assurance = AssuranceOwn
		} else {
			dep.Assurance = AssuranceShared // its MAC was right, and it has no key of its own
		}
		d.Failures, dep.Tries = failuresAfter(d.Failures, dep.Tries, was, dep)
	}
	answered := s.answersOrder(told) || told && s.bootAnswers(underWay(target))
	return updateDevice(d, s, proven, told, answered, now), dep, events
}

func (c Candidate) proven() Candidate {
	if c.Deployment != nil && !c.Deployment.Proven {
		c.Deployment = nil
	}
	return c
}

// begins: the report is of a try that was ordered, not of the one before.
func (s said) begins(d Device, now time.Time) bool {
	outcome := s.boot == BootFailed || s.rollback
	return !outcome || now.Sub(d.RetryAt) >= retryGrace
}

// choose finds the deployment that a report is about.
func choose(told bool, c Candidates, s said) Candidate {
	offer := c.Offer
	if offer.Release == nil {
		offer = c.Latest
	}
	named := s.version != "" && (offer.Release == nil || s.version != offer.Release.Version)
	switch {
	case s.rollback && named:
		// The version is that which failed or, with some clients, that which runs now. Where the
		// offer is under way and the named one is not, it is the offer that failed.
		if c.Named.Deployment == nil || underWay(offer) && !underWay(c.Named) {
			if told && !underWay(offer) {
				return c.Latest
			}
			return offer
		}
		if told && c.Latest.Release != nil && c.Named.Release.ID != c.Latest.Release.ID {
			return c.Latest
		}
		return c.Named
	case s.rollback && s.version == "" && told && s.boot != BootFailed:
		return c.Latest // the order was about what it had
	case s.answersOrder(told):
		return Candidate{}
	case named && c.Named.Deployment != nil:
		return c.Named
	case s.version == "" && s.chunks < 0 && offer.Deployment == nil && underWay(c.Latest):
		return c.Latest // what is on offer came up while that one was on its way
	}
	return offer
}

// answersOrder: told to go back, the device says why it can't, and nothing else.
func (s said) answersOrder(told bool) bool {
	return told && s.err != "" && s.version == "" && s.boot == "" && s.chunks < 0 && s.verified == nil && !s.rollback
}

// bootAnswers: a boot after the order is its answer even if nothing else is said.
// All of a v1 report's fields are optional, so a device that went back may never
// say a version: an order that outlived that would swap its slots for ever. A
// success that names a version is judged by it, and one that ends a trial
// (underWay) is the trial's, not the order's.
func (s said) bootAnswers(trial bool) bool {
	return s.boot == BootFailed || s.boot == BootSuccess && s.version == "" && !trial
}

func underWay(c Candidate) bool {
	return c.Deployment != nil && c.Deployment.State != "" && !c.Deployment.State.Ended()
}

// updateDevice notes what a report taught of the device itself. What is said
// without proof in the name of a device that has proven itself is not noted.
// told: it was ordered to go back; answered: this is its answer, in other words.
func updateDevice(d Device, s said, proven, told, answered bool, now time.Time) Device {
	silent := d.silent()
	if !proven && !silent {
		return d
	}
	if proven {
		d.Signed = true
	}
	if now.After(d.LastSeen) {
		d.LastSeen = now
	}
	changed := false
	if s.boot == BootSuccess && s.version != "" {
		// A version heard for the first time is a change only if it was told to go back.
		changed = s.version != d.RunningVersion && (d.RunningVersion != "" || told)
		d.RunningVersion = s.version
	}
	if d.RollbackWanted && (s.rollback || changed || answered) {
		// A silent device clears only an order that it was given: it is not repeated (RollbackDue).
		if proven || told {
			d.RollbackWanted, d.RollbackReason, d.RollbackSentAt = false, "", time.Time{}
		}
	}
	return d
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
