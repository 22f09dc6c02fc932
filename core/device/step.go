package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/state"
)

// phase is where the updater is. Phases that talk to flash are split into steps
// by sub; phases that talk to the server go through exchange.
type phase uint8

const (
	phaseStart phase = iota
	phaseReload
	phaseSave
	phaseReport
	phaseIdle
	phasePoll
	phaseHashRunning
	phaseHashTarget
	phaseResume
	phaseProtect
	phaseOpenJournal
	phaseFetch
	phaseErase
	phaseProgram
	phaseReadBack
	phaseNote
	phaseDiscard
	phaseVerify
	phaseStage
	phaseReset
	phaseTrial
	phaseConfirm
	phaseReject
	phaseCheckBack
	phaseRevert
	phaseUnname
)

//go:noinline
func (p phase) String() string {
	switch p {
	case phaseStart, phaseReload:
		return "starting"
	case phaseSave:
		return "saving state"
	case phaseReport:
		return "reporting"
	case phaseIdle:
		return "idle"
	case phasePoll:
		return "polling"
	case phaseHashRunning, phaseHashTarget:
		return "comparing"
	case phaseResume:
		return "proving what is in flash"
	case phaseProtect, phaseOpenJournal, phaseDiscard:
		return "preparing"
	case phaseFetch, phaseErase, phaseProgram, phaseReadBack, phaseNote:
		return "downloading"
	case phaseVerify:
		return "verifying"
	case phaseStage:
		return "staging"
	case phaseReset:
		return "rebooting"
	case phaseTrial:
		return "trial"
	case phaseConfirm:
		return "confirming"
	case phaseReject, phaseCheckBack, phaseRevert, phaseUnname:
		return "reverting"
	}
	return "unknown"
}

// Step does one bounded thing and says what is needed next: one erase, or one
// program of at most 4 KiB, or reads of at most 4 KiB of a slot and one sector of
// the journal.
//
//go:noinline
func (u *Updater) Step() Need {
	if u.io.drop {
		u.io.drop = false
		return Need{Kind: NeedClose}
	}
	switch u.io.state {
	case ioSend:
		return Need{Kind: NeedSend}
	case ioBody, ioDone:
		if u.w.by.body(u) {
			return Need{Kind: NeedBytes}
		}
	}
	switch u.phase {
	case phaseStart:
		u.start()
	case phaseReload:
		u.loadJournal(u.sub)
		if u.sub++; u.sub == 2 {
			u.enter(phaseIdle)
		}
	case phaseSave:
		u.save()
	case phaseReport:
		return u.w.by.report(u)
	case phaseIdle:
		return u.idle()
	case phasePoll:
		return u.w.by.poll(u)
	case phaseHashRunning, phaseHashTarget:
		u.hashSlot()
	case phaseResume:
		return u.w.by.resume(u)
	case phaseProtect:
		u.protect()
	case phaseOpenJournal, phaseNote:
		u.writeNote()
	case phaseFetch:
		// v1 erases before it asks for a chunk; a stream is asked for first, comes while
		// flash works, and is there: nothing is erased for one that is not.
		if u.eraseDue() && (u.io.state != ioNone) == u.chained() && (!u.chained() || u.headOK()) {
			u.enter(phaseErase)
			break
		}
		return u.w.by.fetch(u)
	case phaseErase:
		if err := u.eraseNext(); err != nil {
			u.fail(ReasonFlashErase)
			break
		}
		u.event(EventErase, ReasonNone)
		if u.inst.note {
			u.inst.note = false
			u.then = phaseErase
			u.enter(phaseNote)
			break
		}
		u.enter(phaseFetch)
	case phaseProgram:
		if err := u.programNext(); err != nil {
			u.flashFailed(ReasonFlashProgram)
			break
		}
		if u.inst.done >= u.inst.inHand {
			u.inst.done = 0
			u.phase = phaseReadBack
		}
	case phaseReadBack:
		u.finishChunk()
	case phaseDiscard:
		u.discard()
	case phaseVerify:
		u.verify()
	case phaseStage:
		u.stage()
	case phaseReset:
		return Need{Kind: NeedReset}
	case phaseTrial:
		return u.onTrial()
	case phaseConfirm:
		u.confirm()
	case phaseReject:
		u.reject()
	case phaseCheckBack:
		u.checkBack()
	case phaseRevert:
		u.revert()
	case phaseUnname:
		u.unname()
	}
	return Need{}
}

func (u *Updater) enter(p phase) { u.phase, u.sub = p, 0 }

// saveThen writes the state, then goes to p at step sub. Without a store it goes
// there at once.
//
//go:noinline
func (u *Updater) saveThen(p phase, sub uint8) {
	if u.c.Store == nil {
		u.phase, u.sub = p, sub
		return
	}
	u.phase, u.saveNext, u.sub = phaseSave, p, sub
}

//go:noinline
func (u *Updater) save() {
	done, err := u.c.Store.Save(&u.rec, u.buf)
	if err != nil {
		// The older copy is in force. Nothing was acted upon yet (write before
		// act), so what was to follow must not happen.
		u.failing = ReasonState
		u.rec.NonceLimit = u.nonce // what was to be reserved may be not
		u.event(EventFailed, ReasonState)
		u.drop(0)
		u.pollAt = u.millis() + uint64(u.c.PollMillis)
		u.wakeAt = u.pollAt // or a report would try again at once, and wear the sector out
		u.enter(phaseIdle)
		return
	}
	if done {
		u.phase = u.saveNext
	}
}

// What many ask of the port and the records stands once: a call through an interface
// takes more code than one of a function.

//go:noinline
func (u *Updater) millis() uint64 { return u.c.Port.Millis() }

//go:noinline
func (u *Updater) running() boot.Slot { return u.c.Boot.Running() }

//go:noinline
func (u *Updater) record(s boot.Slot) boot.RecordState { return u.c.Boot.State(s) }

// start reads what flash says and judges the reset.
//
//go:noinline
func (u *Updater) start() {
	switch u.sub {
	case 0:
		if u.c.Store != nil {
			// A board whose state can't be read goes on as a new one.
			if err := u.c.Store.Load(&u.rec, u.buf); err != nil {
				u.rec = state.Record{}
			}
		}
		u.rec.BootCount++
		u.nonce = u.rec.NonceLimit
		// A board without a store, or with a lost one, goes on above its counter by
		// its clock: 256 nonces a second are more than it can use.
		if t := uint64(u.c.Port.Unix()) << 8; t > u.nonce {
			u.nonce = t
		}
		u.rec.NonceLimit = u.nonce // none is reserved
	case 1:
		if err := u.c.Boot.Load(); err != nil {
			u.blame(ReasonBootRecord)
		}
		u.pickTarget()
		u.useJournal()
	case 2, 3:
		u.loadJournal(u.sub - 2)
	case 4:
		if u.rel.known && u.finished(&u.rel.Digest) {
			u.rel.known = false
		}
		u.judge()
		return
	}
	u.sub++
}

// loadJournal reads one of the journal's sectors. What can't be read is no journal.
func (u *Updater) loadJournal(i uint8) {
	if !u.jnl.on() {
		return
	}
	if err := u.jnl.loadSector(i, u.target, &u.rel, u.buf); err != nil {
		u.rel.known = false
	}
}

// finished: the image's download is over, however its trial ended.
func (u *Updater) finished(d *[32]byte) bool {
	return same(d, &u.rec.Trial.Image.Digest) && u.rec.Trial.Stagings > 0 ||
		same(d, &u.rec.Confirmed.Digest) || u.rec.IsBad(d, 0)
}

// idle waits for the next thing that is due.
//
//go:noinline
func (u *Updater) idle() Need {
	now := u.millis()
	switch {
	case u.outcomeDue() && now >= u.wakeAt:
		u.say(sayOutcome, phaseIdle)
		return Need{}
	case u.stageAt != 0 && now >= u.stageAt && !u.trial:
		u.stageAt = 0
		u.stageAgain()
		return Need{}
	case now >= u.pollAt:
		u.enter(phasePoll)
		return Need{}
	}
	at := u.pollAt
	if u.stageAt > now && u.stageAt < at {
		at = u.stageAt
	}
	if u.outcomeDue() && u.wakeAt < at { // and above now: see the first case
		at = u.wakeAt
	}
	return Need{Kind: NeedTime, Wait: uint32(at - now)}
}

// outcomeDue: an outcome has to be reported. One of an image that goes back is none
// as long as that still runs, because the boot record could not be written.
func (u *Updater) outcomeDue() bool {
	tr := &u.rec.Trial
	return u.rec.Outcome != state.OutcomeNone && !(tr.Rejected && tr.Slot == u.running())
}

func (u *Updater) toIdle() {
	u.pollLater()
	u.enter(phaseIdle)
}

func (u *Updater) pollLater() { u.pollAt = u.millis() + uint64(u.jitter(u.c.PollMillis)) }

// early is how long nothing is to be sent yet, 0: now. Milliseconds.
func (u *Updater) early() uint32 {
	if now := u.millis(); now < u.wakeAt {
		return uint32(u.wakeAt - now)
	}
	return 0
}

// jitter spreads devices: between 7/8 and 9/8 of ms.
func (u *Updater) jitter(ms uint32) uint32 {
	q := ms / 4
	if q == 0 {
		return ms
	}
	return ms - q/2 + u.c.Port.Random()%q
}

// backoff is the wait after the tries-th failure in a row, or what the server asked for.
//
//go:noinline
func (u *Updater) backoff() uint32 {
	d := uint32(backoffBase)
	for i := uint8(1); i < u.tries && d < backoffCap; i++ {
		d *= 2
	}
	if d > backoffCap {
		d = backoffCap
	}
	d = d/2 + u.c.Port.Random()%(d/2+1)
	if ms := u.io.head.RetryAfter * 1000; ms > d { // at most maxRetryAfter
		d = ms
	}
	u.io.head.RetryAfter = 0
	return d
}

// fail ends the deployment: nothing of it is tried again under this digest and
// stamp until the next start, and the server is told why.
//
//go:noinline
func (u *Updater) fail(r Reason) {
	u.failing = r
	u.failed.set(&u.rel.Digest, u.rel.Stamp)
	u.event(EventFailed, r)
	u.drop(u.inst.written) // how far it came is reported
	u.tries = 0
	u.say(sayFailed, phaseIdle)
	if badAtOnce(r) {
		u.rec.MarkBad(&u.rel.Digest, u.rel.Stamp)
		u.rec.Spend(u.rel.Stamp)
		u.saveThen(phaseReport, 0)
	}
}

// badAtOnce: the release itself is at fault, as far as this device can know, and
// is not tried again unless the operator says so.
func badAtOnce(r Reason) bool {
	return r == ReasonDigest || r == ReasonImage || r == ReasonNotBootable
}

// backSlot is where a way back leads: a slot whose record is VALID, else any
// other that has one, else the factory image.
//
//go:noinline
func (u *Updater) backSlot() (boot.Slot, bool) {
	best, found := boot.Factory, false
	for i := range u.c.Slots {
		s := boot.Slot(i)
		if s == u.running() {
			continue
		}
		switch u.record(s) {
		case boot.RecordValid:
			return s, true
		case boot.RecordUndefined:
			best, found = s, true
		}
	}
	if found {
		return best, true
	}
	return boot.Factory, u.c.HasFactory
}
