package fleet

import (
	"fmt"
	"time"
)

// Names of the native wire's events, beside those of v1 that mean the same.
const (
	EventOffer         = "offer"          // what the device may get, or why nothing; when that changes
	EventState         = "state"          // the device reported a state
	EventWireRaised    = "wire_raised"    // it spoke a stronger wire than before
	EventWireRefused   = "wire_refused"   // it spoke a weaker one
	EventWireReset     = "wire_reset"     // an operator lets it speak any again
	EventRestarted     = "restarted"      // its counters began anew
	EventKeyAdded      = "key_added"      // one more native key lives
	EventKeyRetired    = "key_retired"    // it polled with a newer one
	EventEnrolled      = "enrolled"       // a token made it known
	EventEnrolWaits    = "enrol_waits"    // a device came with a token, and needs a person's yes
	EventEnrolApproved = "enrol_approved" //
	EventEnrolToken    = "enrol_token"    // made or revoked
	EventKeyList       = "keylist_added"  //
	EventPolicy        = "policy_set"     // of a product
	EventPublished     = "release_published"
	EventStreamKey     = "stream_key_made" // the server's own
)

// ApplyNativeReport is what becomes of a device and its deployment by a report. r is
// the release that the report names by product, epoch, sequence and image, nil
// where there is none: then it is only logged. dep is the device's deployment of
// r, nil where there is none. A returned deployment without a State is not
// stored. All of it is proven: a report without the right MAC does not get here.
//
// Rules, numbered for the tests:
//
//	N1 the device says what it does, and that is what its deployment is: nothing is
//	   guessed
//	N2 what begins after an end is another try, and starts now, or at the order to
//	   retry where that is later: so an order is used up
//	N3 an order to go back is kept until the device reports that it went back, or,
//	   once told, that it can't: of the image that it had confirmed
//	N4 a failure that follows another of the same deployment is a further try; one
//	   that was ordered is none. Failures in a row count until something is confirmed
func ApplyNativeReport(d Device, r *Release, dep *Deployment, rep NativeReport, now time.Time) (Device, Deployment, []Event) {
	d.Signed = true
	d.LastSeen = later(d.LastSeen, now)
	ordered := rep.State == StateReverted && d.RollbackWanted
	if ordered {
		rep.Class = ClassOrdered
	}
	told := d.RollbackWanted && !d.RollbackSentAt.IsZero()
	wasConfirmed := dep != nil && dep.State == StateConfirmed
	if told && (rep.State == StateReverted || (rep.State == StateFailed || rep.State == StateSkipped) && (wasConfirmed || r == nil)) { // N3
		d.RollbackWanted, d.RollbackReason, d.RollbackSentAt = false, "", time.Time{}
	}
	event := Event{Time: now, Device: d.ID, Name: EventState, Proven: true}
	detail := string(rep.State)
	if rep.Reason != "" {
		detail += ": " + rep.Reason
	}
	if r == nil {
		what := "an image without a release"
		if rep.Sequence != 0 {
			what = fmt.Sprintf("release %d of epoch %d, which is not known here", rep.Sequence, rep.Epoch)
		}
		event.Detail = CleanText(fmt.Sprintf("%s (%s)", detail, what), MaxText)
		return d, Deployment{}, []Event{event}
	}
	was := Deployment{Device: d.ID}
	if dep != nil {
		was = *dep
	}
	next := was
	if was.State == "" || !was.Proven || was.State.Ended() && (!rep.State.Ended() || RetryDue(d, was)) {
		next = Deployment{Device: d.ID, StartedAt: now, Rollout: was.Rollout, Phase: was.Phase, Tries: was.Tries, RawOnly: was.RawOnly} // N2
		if was.Proven && was.State.Ended() {
			next.StartedAt = later(now, d.RetryAt)
		}
	}
	next.ReleaseID, next.Version, next.Proven, next.UpdatedAt = r.ID, r.Version, true, now
	next.State, next.Reason = rep.State, CleanText(rep.Reason, MaxText) // N1
	next.ChunksTotal = r.Chunks()
	next.Class, next.Assurance = "", AssuranceOwn
	next.RawOnly = next.RawOnly || rep.DerivedFailed // N5
	if rep.State == StateFailed || rep.State == StateReverted {
		next.Class = rep.Class
	}
	d.Failures, next.Tries = failuresAfter(d.Failures, next.Tries, was, next)
	switch rep.State {
	case StateVerifying, StateRebooting, StateTrial, StateConfirmed:
		next.ChunksReceived = next.ChunksTotal
		next.Verified = rep.State != StateVerifying
	case StateDownloading:
		next.ChunksReceived = min(int(int64(rep.Bytes)/int64(r.ChunkSize)), next.ChunksTotal)
		next.Verified = false
		if int64(rep.Bytes) >= r.Image.Size {
			next.ChunksReceived = next.ChunksTotal
		}
	}
	if rep.State == StateConfirmed {
		d.RunningVersion = r.Version
	}
	event.Version = r.Version
	switch rep.State {
	case StateDownloading:
		if rep.Reason != "" { // a try ended for what lies on the way; the next goes on
			event.Name, event.Detail = EventDeviceError, CleanText(detail, MaxText)
			break
		}
		if was.State == StateDownloading && !logChunk(was.ChunksReceived, next.ChunksReceived, max(next.ChunksTotal, 1)) {
			return d, next, nil
		}
		if next.ChunksReceived == 0 {
			event.Detail = CleanText(detail, MaxText)
			break
		}
		event.Name, event.Detail = EventChunkReceived, fmt.Sprintf("%d of %d chunks", next.ChunksReceived, next.ChunksTotal)
	case StateConfirmed:
		event.Name, event.Detail = EventCompleted, "the device runs it"
	case StateReverted:
		event.Name, event.Detail = EventRollback, CleanText("the device went back"+colon(rep.Reason), MaxText)
	case StateFailed:
		event.Name, event.Detail = EventFailed, CleanText(detail, MaxText)
	default:
		event.Detail = CleanText(detail, MaxText)
	}
	return d, next, []Event{event}
}

// failuresAfter counts a device's failures in a row, and a deployment's tries, when
// it goes from one state to another. N4
func failuresAfter(failures, tries int, was, next Deployment) (int, int) {
	switch {
	case next.State == StateConfirmed:
		return 0, 0
	case next.State != StateFailed && next.State != StateReverted, next.Class == ClassOrdered:
		return failures, tries
	case was.State == next.State && was.Proven && next.StartedAt.Equal(was.StartedAt):
		return failures, tries // the same end, told again
	}
	return failures + 1, tries + 1
}
