// Package rollout moves rollouts on. What follows from what is Step, a pure
// function; the engine beside it reads, calls it and stores, and can be run twice
// without harm: a step is stored only over the version that it was made from.
// docs/design/rollouts.md has the same as a table. It imports the domain alone.
package rollout

import (
	"fmt"
	"math"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Input is what a step sees, beside the rollout.
type Input struct {
	Now    time.Time      // the wall's: for the start alone
	Clock  fleet.Clock    // everything else is measured by it
	Counts []fleet.Counts // by phase
	Census int            // devices that the phase waits for; -1: not counted this time
	// Nearest is the lowest place of a device that a phase by percent would wait for if it reached
	// that far; 0: there is none.
	Nearest float64
	Say     fleet.Command // of a person; "": none
	Why     string        // the person's
}

// Step is what becomes of a rollout. changed=false: nothing, and next is r. next.Version
// is one higher, and effects are what is done with it. err is a command that does not
// fit the state. Rules, numbered for the tests:
//
//	S1  a person's word comes before all else, and alone
//	S2  it begins when its time has come, and has begun from then on
//	S3  failures above the threshold, by their lower bound, in the phase or in all of
//	    it, stop it: it pauses, or reverts where that was asked for and enough
//	    devices with own keys failed
//	S4  the same of devices that could not reach the server pauses it, and never reverts
//	S5  a phase that takes too long, or can't succeed any more, pauses it
//	S6  a phase has passed when enough of its devices confirmed; after its soak the
//	    next begins. Nothing passes on no evidence at all: a share of a fleet that is
//	    nobody becomes its first device
//	S7  after the last phase it is complete: who comes later gets the release too,
//	    and S3 and S4 still hold
//	S8  it is reverted when nobody runs the release by it and nobody is on the way to
//	S9  what a person forgave by going on counts no more
func Step(r fleet.Rollout, in Input) (next fleet.Rollout, effects []fleet.Effect, changed bool, err error) {
	s := &stepper{Rollout: r, in: in}
	for i := range in.Counts {
		s.total = s.total.Plus(in.Counts[i])
	}
	if r.Phase < len(in.Counts) {
		s.phase = in.Counts[r.Phase]
	}
	if in.Say != "" { // S1
		err = s.command()
	} else {
		s.tick()
	}
	if err != nil || !s.changed {
		return r, nil, false, err
	}
	s.Version++
	return s.Rollout, s.effects, true, nil
}

type stepper struct {
	fleet.Rollout
	in      Input
	phase   fleet.Counts // the current one's
	total   fleet.Counts
	effects []fleet.Effect
	changed bool
}

func (s *stepper) log(event, format string, args ...any) {
	s.changed = true
	s.effects = append(s.effects, fleet.Effect{Event: event, Detail: fleet.CleanText(fmt.Sprintf(format, args...), fleet.MaxText)})
}

// to goes to a state, for a reason.
func (s *stepper) to(state fleet.RolloutState, event, format string, args ...any) {
	s.State, s.Reason = state, fleet.CleanText(fmt.Sprintf(format, args...), fleet.MaxText)
	s.log(event, "rollout %d of %s %s is %s: %s", s.ID, s.Product, s.ReleaseVersion, state, s.Reason)
}

func (s *stepper) command() error {
	refuse := func(hint string) error {
		return &fleet.Error{Code: fleet.CodeConflict, Message: fmt.Sprintf("rollout %d is %s: %s does not fit", s.ID, s.State, s.in.Say), Hint: hint}
	}
	why := s.in.Why
	if why == "" {
		why = fleet.DefaultReason
	}
	running := s.State == fleet.RolloutRunning || s.State == fleet.RolloutComplete
	switch s.in.Say {
	case fleet.CommandPause:
		if !running && s.State != fleet.RolloutScheduled {
			return refuse("")
		}
		s.to(fleet.RolloutPaused, fleet.EventRollout, "%s", why)
	case fleet.CommandResume:
		if s.State != fleet.RolloutPaused {
			return refuse("")
		}
		s.Forgiven = fleet.Evidence{Confirmed: s.total.Confirmed, Bad: s.total.Bad(), Unproven: s.total.Unproven} // S9
		s.Began, s.Passed = s.in.Clock, 0
		switch {
		case s.in.Now.Before(s.Course.StartAt) && s.total.Offered == 0 && s.Phase == 0:
			s.to(fleet.RolloutScheduled, fleet.EventRollout, "resumed: %s", why)
		case s.Complete():
			s.to(fleet.RolloutComplete, fleet.EventRollout, "resumed: %s", why)
		default:
			s.to(fleet.RolloutRunning, fleet.EventRollout, "resumed: %s", why)
		}
	case fleet.CommandCancel:
		if !running && s.State != fleet.RolloutScheduled && s.State != fleet.RolloutPaused {
			return refuse("")
		}
		s.to(fleet.RolloutCancelled, fleet.EventRollout, "%s", why)
	case fleet.CommandForce:
		switch s.State {
		case fleet.RolloutScheduled:
			s.begin("begun before its time: %s", why)
		case fleet.RolloutRunning:
			s.advance("the next phase by force: " + why)
		default:
			return refuse("a paused rollout is resumed first")
		}
	case fleet.CommandRevert:
		if !running && s.State != fleet.RolloutPaused {
			return refuse("")
		}
		s.revert(fleet.EventRollout, "%s", why)
	default:
		return fleet.Errorf(fleet.CodeInvalid, "a rollout knows no command %q", s.in.Say)
	}
	return nil
}

func (s *stepper) begin(format string, args ...any) {
	s.Began, s.Passed, s.Expected = s.in.Clock, 0, -1
	s.to(fleet.RolloutRunning, fleet.EventRollout, format, args...)
}

func (s *stepper) revert(event, format string, args ...any) {
	s.to(fleet.RolloutReverting, event, format, args...)
	s.effects = append(s.effects, fleet.Effect{Revert: true})
}

func (s *stepper) tick() {
	switch s.State {
	case fleet.RolloutScheduled:
		if !s.in.Now.Before(s.Course.StartAt) { // S2
			s.begin("phase 1 of %d (%s) has begun", len(s.Course.Phases), s.Course.Phases[0])
		}
	case fleet.RolloutRunning:
		if s.in.Census >= 0 && s.in.Census != s.Expected {
			s.Expected, s.changed = s.in.Census, true
		}
		if p, _ := s.CurrentPhase(); p.Kind == fleet.PhasePercent && s.in.Census == 0 && s.total.Confirmed == 0 && s.in.Nearest > 0 {
			s.Reach, s.Expected = math.Nextafter(s.in.Nearest, 2), 1
			s.log(fleet.EventRollout, "rollout %d: nobody is in %s: the first device, at %s, is taken", s.ID, p, rate(s.in.Nearest))
		}
		if !s.failed() && !s.passes() {
			s.stuck()
		}
	case fleet.RolloutComplete:
		s.failed() // S7
	case fleet.RolloutReverting:
		s.reverting()
	}
}

// judged are the outcomes that a threshold looks at.
type judged struct{ bad, good, unproven int }

func of(c fleet.Counts) judged { return judged{c.Bad(), c.Confirmed, c.Unproven} }

// without takes away what was forgiven. A device that failed then and confirmed since
// leaves fewer than there were.
func (j judged) without(e fleet.Evidence) judged {
	return judged{max(j.bad-e.Bad, 0), max(j.good-e.Confirmed, 0), max(j.unproven-e.Unproven, 0)}
}

// failed looks at the phase and at all of the rollout. Of the phase alone what was
// forgiven can't be taken away, so after a resume all of it counts since then.
func (s *stepper) failed() bool {
	p, _ := s.CurrentPhase()
	looks := []judged{of(s.total).without(s.Forgiven)}
	if s.Forgiven == (fleet.Evidence{}) && !s.Complete() {
		looks = append(looks, of(s.phase))
	}
	for _, j := range looks {
		if fleet.Above(j.bad, j.bad+j.good, p.Fail) { // S3
			why := fmt.Sprintf("%d of %d failed, which is above %s for sure (at least %s)", j.bad, j.bad+j.good, rate(p.Fail), rate(fleet.LowerBound(j.bad, j.bad+j.good)))
			if s.Course.OnFailure != fleet.OnFailureRevert {
				s.to(fleet.RolloutPaused, fleet.EventRolloutNo, "%s", why)
			} else if n := s.total.OwnBad; n < s.Course.MinRevert {
				s.to(fleet.RolloutPaused, fleet.EventRolloutNo, "%s; %d failed under keys of their own, and an automatic revert needs %d", why, n, s.Course.MinRevert)
			} else {
				s.revert(fleet.EventRolloutNo, "%s", why)
			}
			return true
		}
	}
	for _, j := range looks {
		if n := j.bad + j.good + j.unproven; fleet.Above(j.unproven, n, p.Fail) { // S4
			s.to(fleet.RolloutPaused, fleet.EventRolloutNo, "%d of %d could not reach the server on trial, which says nothing of the image: look at the network first", j.unproven, n)
			return true
		}
	}
	return false
}

// need is how many devices of the phase have to confirm. S6
func (s *stepper) need() int {
	p, _ := s.CurrentPhase()
	if s.Expected <= 0 {
		return 0
	}
	return max(int(math.Floor(p.Success*float64(s.Expected)+1e-9)), 1)
}

// among is of how many devices a text speaks: those that the phase waits for, by the last
// census, or those that came in by it since, if they are more.
func (s *stepper) among() int { return max(s.Expected, s.phase.Offered-s.phase.Aside, 0) }

func (s *stepper) passes() bool {
	p, _ := s.CurrentPhase()
	need := s.need()
	enough := s.Expected > 0 && s.phase.Confirmed >= need ||
		s.Expected == 0 && s.total.Confirmed > 0 && s.phase.Progress == 0
	if !enough {
		return false
	}
	if s.Passed == 0 {
		s.Passed, s.changed = s.in.Clock, true
		if p.Soak > 0 {
			s.log(fleet.EventRollout, "rollout %d: phase %d (%s) has passed, %d of %d confirmed; it soaks for %s", s.ID, s.Phase+1, p, s.phase.Confirmed, s.among(), p.Soak)
		}
	}
	if s.in.Clock.Since(s.Passed) < p.Soak {
		return true
	}
	s.advance(fmt.Sprintf("phase %d (%s) has passed, %d of %d confirmed", s.Phase+1, p, s.phase.Confirmed, s.among()))
	return true
}

// advance goes to the next phase, or to the end.
func (s *stepper) advance(why string) {
	s.Phase++
	s.Began, s.Passed, s.Expected = s.in.Clock, 0, -1
	if s.Complete() { // S7
		s.Expected = 0
		s.to(fleet.RolloutComplete, fleet.EventRollout, "%s", why)
		s.effects = append(s.effects, fleet.Effect{Supersede: true})
		return
	}
	s.to(fleet.RolloutRunning, fleet.EventRollout, "%s; phase %d of %d (%s) has begun", why, s.Phase+1, len(s.Course.Phases), s.Course.Phases[s.Phase])
}

// stuck: S5.
func (s *stepper) stuck() {
	p, _ := s.CurrentPhase()
	lost := max(of(s.phase).bad-s.Forgiven.Bad, 0)
	if need := s.need(); s.Expected > 0 && s.phase.Progress == 0 && s.phase.Retrying == 0 && lost > 0 && s.Expected-of(s.phase).bad < need {
		s.to(fleet.RolloutPaused, fleet.EventRolloutNo, "phase %d (%s) can't succeed: %d of %d failed, and %d have to confirm", s.Phase+1, p, of(s.phase).bad, s.among(), need)
		return
	}
	if p.Most > 0 && s.in.Clock.Since(s.Began) >= p.Most {
		s.to(fleet.RolloutPaused, fleet.EventRolloutNo, "phase %d (%s) took longer than %s: %d of %d confirmed", s.Phase+1, p, p.Most, s.phase.Confirmed, s.among())
	}
}

// reverting orders back who came to run the release since, until nobody does. S8
func (s *stepper) reverting() {
	switch {
	case s.total.ToRevert > 0:
		s.log(fleet.EventRollout, "rollout %d: %d more go back", s.ID, s.total.ToRevert)
		s.effects = append(s.effects, fleet.Effect{Revert: true})
	case s.total.Reverting == 0 && s.total.Progress == 0:
		s.to(fleet.RolloutReverted, fleet.EventRollout, "%s", s.Reason)
	}
}

func rate(f float64) string { return fmt.Sprintf("%.1f%%", 100*f) }
