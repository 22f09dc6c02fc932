package fleet

import (
	"fmt"
	"math"
	"time"
)

// Names of events. The first group is the v1 wire's and frozen with it; the rest
// is ours.
const (
	EventUploaded           = "firmware_uploaded"
	EventHashVerified       = "firmware_hash_verified"
	EventChunkingStarted    = "chunking_started"
	EventChunkReceived      = "chunk_received"
	EventVerified           = "firmware_verified"
	EventVerificationFailed = "verification_failed"
	EventBootStatus         = "boot_status"
	EventCompleted          = "fota_completed"
	EventBootFailed         = "boot_failed"
	EventRollback           = "rollback_triggered" // ordered by an operator, or done by a device

	EventFailed         = "fota_failed"  // the device gave up before the boot
	EventDeviceError    = "device_error" // the device's words, without a change of its deployment
	EventWithdrawn      = "release_withdrawn"
	EventDeviceAdded    = "device_added"
	EventProductKey     = "product_key_set"
	EventRetryOrdered   = "retry_ordered"
	EventNonceReset     = "nonce_reset"
	EventTokenAdded     = "token_added"
	EventTokenRevoked   = "token_revoked"
	maxBootCount        = 1_000_000
	maxBootStatus       = 32 // bytes of one that we don't know
	chunkEventsPerImage = 10
)

// What boot_status says on the v1 wire.
const (
	BootPendingReboot = "pending_reboot"
	BootSuccess       = "success"
	BootFailed        = "failed"
)

// said is a report with every field in its bounds: what is out of them was not said.
type said struct {
	chunks    int // -1: not said
	total     int // -1: not said
	progress  float64
	verified  *bool
	boot      string
	version   string
	bootCount int // -1: not said
	rollback  bool
	err       string
}

func readReport(rep Report) said {
	s := said{chunks: -1, total: -1, progress: -1, bootCount: -1, verified: rep.Verified}
	if p := rep.TotalChunks; p != nil && *p > 0 {
		s.total = *p
	}
	if p := rep.ChunkReceived; p != nil && *p >= 0 {
		s.chunks = *p
	}
	if p := rep.Progress; p != nil && !math.IsNaN(*p) && *p >= 0 && *p <= 100 {
		s.progress = *p
	}
	if p := rep.BootStatus; p != nil {
		s.boot = CleanText(*p, maxBootStatus)
	}
	if p := rep.NewVersion; p != nil && ValidateVersion(*p) == nil {
		s.version = *p
	}
	if p := rep.BootCount; p != nil && *p >= 0 && *p <= maxBootCount {
		s.bootCount = *p
	}
	if p := rep.Rollback; p != nil {
		s.rollback = *p
	}
	if p := rep.Error; p != nil {
		s.err = CleanText(*p, MaxText)
	}
	return s
}

// ApplyReport is what becomes of a deployment by a report about release r, and
// what goes to the log. dep is the device's deployment of r; nil or one without
// a State: none has begun. A returned deployment without a State has not begun
// either and is not stored. r nil: the report is about no release that is known,
// and only logged.
//
// Rules, numbered for the tests:
//
//	R1 a report without proof changes nothing of a deployment that has one, and
//	   nothing that it made passes for proven: the first proven report starts
//	   afresh
//	R2 a report that names another version, or another number of chunks, is not
//	   about r (a way back may name the version that it led to)
//	R3 what ended stays ended: only an order begins again. Two exceptions: a
//	   device that runs r has confirmed it, whatever was thought; one that failed
//	   in mid-download may go on above the chunk it had
//	R4 success confirms only what was on its way to the boot, or is named
//	R5 of an image's chunks the first, the last and every tenth part are logged
func ApplyReport(dep *Deployment, r *Release, rep Report, proven bool, now time.Time) (Deployment, []Event) {
	a := applier{said: readReport(rep), r: r, proven: proven, now: now}
	if dep != nil {
		a.was = *dep
	}
	a.dep = a.was
	if r != nil {
		a.bound()
	}
	if a.changes() {
		if proven && !a.was.Proven && a.was.State != "" {
			a.dep = Deployment{Device: a.was.Device, Rollout: a.was.Rollout, Phase: a.was.Phase} // R1
		}
		a.download()
		a.verify()
		a.fault()
		a.boot()
		a.rollBack()
		a.seal()
	} else {
		a.logOnly()
	}
	return a.dep, a.events
}

// applier applies one report. Its methods run in the order of an update's life,
// so one report may carry a deployment through several states.
type applier struct {
	said
	r      *Release
	proven bool
	now    time.Time
	was    Deployment
	dep    Deployment
	events []Event
	faulty bool // the text of the error was used up by an event
}

// bound drops counts that r's image can't have, and derives the count of a
// report that has a percentage alone.
func (a *applier) bound() {
	n := a.r.Chunks()
	if a.chunks > n {
		a.chunks = -1
	}
	if a.chunks < 0 && a.progress >= 0 && a.verified == nil && a.said.boot == "" && a.err == "" {
		a.chunks = int(a.progress / 100 * float64(n))
	}
}

// changes says whether the report may touch the deployment: R1, R2.
func (a *applier) changes() bool {
	if a.r == nil || (a.was.Proven && !a.proven) {
		return false
	}
	if a.total >= 0 && a.total != a.r.Chunks() {
		return false
	}
	return a.version == "" || a.version == a.r.Version || a.rollback
}

func (a *applier) event(name, format string, args ...any) {
	v := a.version
	if a.r != nil {
		v = a.r.Version
	}
	a.events = append(a.events, Event{Time: a.now, Device: a.was.Device, Version: v, Name: name,
		Detail: CleanText(fmt.Sprintf(format, args...), MaxText), Proven: a.proven})
}

func (a *applier) ended() bool { return a.dep.State.Ended() }

// active: something has begun and is not over.
func (a *applier) active() bool { return a.dep.State != "" && !a.ended() }

// names: the report says in so many words that it is about r.
func (a *applier) names() bool { return a.version == a.r.Version }

// begin starts a deployment that has no state yet.
func (a *applier) begin() {
	if a.dep.State != "" {
		return
	}
	if a.dep.StartedAt.IsZero() { // an order to retry has set it
		a.dep.StartedAt = a.now
	}
}

func (a *applier) download() {
	n, total := a.chunks, a.r.Chunks()
	if n < 0 {
		return
	}
	if a.ended() {
		switch {
		case !a.proven && n < total:
			// Nothing rests on it: show what the device does now.
			a.dep = Deployment{Device: a.dep.Device}
		case a.dep.State == StateFailed && n > a.dep.ChunksReceived:
			a.dep.State = StateDownloading // R3
		default:
			return
		}
	}
	a.begin()
	if logChunk(a.dep.ChunksReceived, n, total) {
		a.event(EventChunkReceived, "%d of %d chunks", n, total)
	}
	a.dep.ChunksReceived = n
	a.dep.Reason = ""
	switch {
	case n < total:
		a.dep.State, a.dep.Verified, a.dep.BootStatus = StateDownloading, false, ""
		if a.err != "" {
			// The device names trouble and goes on.
			a.dep.Reason, a.faulty = a.err, true
			a.event(EventDeviceError, "%s", a.err)
		}
	case a.dep.State != StateRebooting:
		a.dep.State = StateVerifying
	}
}

// logChunk is R5: prev and n are counts, of total.
func logChunk(prev, n, total int) bool {
	if n == prev || n == 0 {
		return false
	}
	return prev == 0 || n == total || prev*chunkEventsPerImage/total != n*chunkEventsPerImage/total
}

func (a *applier) verify() {
	if a.verified == nil || a.ended() {
		return
	}
	if *a.verified {
		if a.dep.Verified {
			return
		}
		a.begin()
		a.dep.Verified = true
		if a.dep.State != StateRebooting {
			a.dep.State = StateVerifying
		}
		a.event(EventVerified, "SHA-256 of the image in flash is right, says the device")
		return
	}
	// Many clients send false along with every chunk: that is no verdict.
	alone := a.chunks < 0 && a.progress < 0
	verdict := alone || a.err != "" && !a.faulty
	// Of a client whose first word is the verdict, an error says that it is one.
	begins := a.dep.State == "" && alone && a.err != ""
	if !verdict || a.said.boot != "" || a.rollback || !a.active() && !begins && !a.names() {
		return
	}
	why := a.err
	if why == "" {
		why = "verification failed"
	}
	a.fail(why)
	a.event(EventVerificationFailed, "%s", why)
}

// fault takes an error that came with nothing else that explains it.
func (a *applier) fault() {
	if a.err == "" || a.faulty || a.said.boot != "" || a.rollback {
		return
	}
	if a.active() || a.dep.State == "" && a.names() {
		a.fail(a.err)
		a.event(EventFailed, "%s", a.err)
		return
	}
	a.event(EventDeviceError, "%s", a.err)
}

func (a *applier) fail(why string) {
	a.begin()
	a.dep.State, a.dep.Reason, a.faulty = StateFailed, why, true
}

func (a *applier) boot() {
	switch a.said.boot {
	case "":
	case BootPendingReboot:
		if a.ended() || a.dep.BootStatus == BootPendingReboot {
			return
		}
		a.begin()
		a.dep.State, a.dep.BootStatus = StateRebooting, BootPendingReboot
		a.event(EventBootStatus, "%s%s", BootPendingReboot, a.counted())
	case BootSuccess:
		a.event(EventBootStatus, "%s%s", BootSuccess, a.counted())
		onItsWay := a.dep.State == StateRebooting || a.dep.State == StateVerifying && a.dep.Verified
		if a.rollback || !a.names() && !onItsWay || a.dep.State == StateConfirmed { // R4
			return
		}
		a.begin()
		a.dep.State, a.dep.BootStatus, a.dep.Reason = StateConfirmed, BootSuccess, a.err
		a.event(EventCompleted, "the device runs it%s", colon(a.err))
	case BootFailed:
		if a.dep.State == StateFailed || a.dep.State == StateReverted || a.dep.State == StateCancelled {
			return
		}
		why := a.err
		if why == "" {
			why = "the image did not boot"
		}
		a.fail(why)
		a.dep.BootStatus = BootFailed
		a.event(EventBootFailed, "%s%s", why, a.counted())
	default:
		a.event(EventBootStatus, "%s%s", a.said.boot, a.counted())
	}
}

func (a *applier) rollBack() {
	if !a.rollback || a.dep.State == StateReverted {
		return
	}
	why := a.err
	if why == "" {
		why = a.dep.Reason
	}
	if why == "" {
		why = "the device went back"
	}
	a.begin()
	a.dep.State, a.dep.Reason = StateReverted, why
	a.event(EventRollback, "the device went back: %s", why)
}

// seal fills in what every deployment has. What ended and did not change keeps
// its time: that is when it ended (RetryDue).
func (a *applier) seal() {
	if a.dep.State == "" {
		a.dep = a.was // nothing has begun: what was known stays
		return
	}
	if a.dep == a.was && a.ended() {
		return
	}
	a.dep.ReleaseID, a.dep.Version = a.r.ID, a.r.Version
	a.dep.ChunksTotal = a.r.Chunks()
	a.dep.Proven = a.proven
	a.dep.UpdatedAt = a.now
}

// logOnly writes down what was said, where it changes nothing.
func (a *applier) logOnly() {
	if n := a.chunks; n > 0 {
		total := a.total
		if total < 0 && a.r != nil {
			total = a.r.Chunks()
		}
		if total > 0 && n <= total && logChunk(n-1, n, total) {
			a.event(EventChunkReceived, "%d of %d chunks%s", n, total, a.aside())
		}
	}
	if v := a.verified; v != nil {
		if *v {
			a.event(EventVerified, "says the device%s", a.aside())
		} else if a.err != "" {
			a.event(EventVerificationFailed, "%s%s", a.err, a.aside())
			a.faulty = true
		}
	}
	if b := a.said.boot; b == BootFailed {
		a.event(EventBootFailed, "%s%s", a.err, a.aside())
		a.faulty = true
	} else if b != "" {
		a.event(EventBootStatus, "%s%s%s", b, a.counted(), a.aside())
	}
	if a.rollback {
		a.event(EventRollback, "the device went back%s%s", colon(a.err), a.aside())
		a.faulty = true
	}
	if a.err != "" && !a.faulty {
		a.event(EventDeviceError, "%s%s", a.err, a.aside())
	}
}

// aside says why a report changed nothing.
func (a *applier) aside() string {
	switch {
	case a.was.Proven && !a.proven:
		return " (not proven: logged only)"
	case a.version != "" && (a.r == nil || a.version != a.r.Version):
		return fmt.Sprintf(" (about %s)", a.version)
	case a.r == nil:
		return ""
	}
	return " (about another image)"
}

func (a *applier) counted() string {
	if a.bootCount < 0 {
		return ""
	}
	return fmt.Sprintf(", boot %d", a.bootCount)
}

func colon(s string) string {
	if s == "" {
		return ""
	}
	return ": " + s
}
