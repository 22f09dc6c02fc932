package device

import "github.com/runnel-fota/runnel/core/state"

// saying is what the next report is about. Its words are made when it is sent.
type saying uint8

const (
	sayProgress   saying = iota
	sayVerified          // the image in flash is proven, a reboot comes
	sayFailed            // failing says why
	sayOutcome           // how the last trial ended
	sayFullStream        // a derived stream is of no use, and why
)

// say sends a report, then goes to p.
//
//go:noinline
func (u *Updater) say(what saying, p phase) {
	u.saying, u.then = what, p
	u.enter(phaseReport)
}

// reported goes on behind a report. One that does not get through is dropped, but
// for the outcome of a trial, which is kept in flash until it is acknowledged.
//
//go:noinline
func (u *Updater) reported(acked bool) {
	if acked {
		u.event(EventReported, ReasonNone)
	}
	if u.saying == sayOutcome {
		if acked {
			u.rec.Outcome = state.OutcomeNone
			u.tries = 0
			u.saveThen(phaseIdle, 0)
			return
		}
		u.tries++
		u.wakeAt = u.millis() + uint64(u.backoff())
	}
	p := u.then
	if p == phaseIdle && u.pollAt <= u.millis() {
		u.toIdle()
	}
	u.enter(p)
}
