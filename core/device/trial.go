package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
)

// judge acts on what the reset meant (boot.Judge has the table).
//
//go:noinline
func (u *Updater) judge() {
	tr := &u.rec.Trial
	run := u.running()
	u.verdict = boot.Judge(boot.Evidence{
		Trial: tr.Open, TrialSlot: tr.Slot, Confirming: tr.Confirming, Rejected: tr.Rejected,
		Running: run, RunningRecord: u.record(run), TrialRecord: u.record(tr.Slot),
		Reason: u.c.Port.ResetReason(),
	})
	u.event(EventVerdict, ReasonNone)
	switch u.verdict {
	case boot.VerdictNone:
		u.afterOrder()
	case boot.VerdictOnTrial:
		u.beginTrial()
	case boot.VerdictNoRollback:
		tr.Boots++
		if tr.Boots > maxTrialBoots {
			u.rejectWith(state.OutcomeBootsSpent)
			return
		}
		u.beginTrial()
		u.saveThen(phaseTrial, 0)
	case boot.VerdictConfirmed:
		u.endTrial(state.OutcomeConfirmed)
	case boot.VerdictConfirmedElsewhere:
		u.endTrial(state.OutcomeConfirmedElsewhere)
	case boot.VerdictBadCrash:
		u.wentWrong(state.OutcomeCrashed)
	case boot.VerdictBadImage:
		u.wentWrong(state.OutcomeNotVerified)
	case boot.VerdictRejected:
		u.wentWrong(u.rec.Outcome)
	default:
		u.wentWrong(state.OutcomeNone)
	}
}

// wentWrong ends the trial of an image that does not run, or stages it again later,
// once its record can't start it any more: what a cut left of one that was made
// INVALID may read as it was, and of one that was NEW otherwise each time.
func (u *Updater) wentWrong(o state.Outcome) {
	u.rec.Outcome = o
	u.enter(phaseUnname)
}

// afterOrder: no trial is open. The way back from the trial's slot may have been
// ordered, and a cut come between the state and the boot record: then it is taken
// now. Where it was taken, the record that it left may need an end, as in wentWrong.
func (u *Updater) afterOrder() {
	tr := &u.rec.Trial
	switch {
	case !tr.Rejected:
		u.enter(phaseIdle)
	case tr.Slot == u.running():
		u.enter(phaseCheckBack)
	default:
		u.enter(phaseUnname)
	}
}

// unname has no record start the trial's slot any more.
//
//go:noinline
func (u *Updater) unname() {
	tr := &u.rec.Trial
	if st := u.record(tr.Slot); st != boot.RecordNone && !u.wentBack(tr.Slot) {
		done, err := u.c.Boot.Step(boot.GoalProtect, tr.Slot)
		if err == nil && !done {
			return
		}
		// What can't be written now is written before the slot's next erase.
	}
	if tr.Open {
		// None that ends a trial is reported before it has: none is an unproven one that
		// was, or a trial that came to no end.
		if o := u.rec.Outcome; o == state.OutcomeNone || o == state.OutcomeUnproven {
			u.stageLater()
		} else {
			u.endTrial(o)
		}
		return
	}
	tr.Rejected = false // saved with the report's end
	u.enter(phaseIdle)
}

// endTrial closes the trial and keeps its end until it is reported.
//
//go:noinline
func (u *Updater) endTrial(o state.Outcome) {
	tr := &u.rec.Trial
	switch o {
	case state.OutcomeConfirmed, state.OutcomeConfirmedElsewhere:
		if u.rec.Confirmed.Slot != tr.Slot {
			u.rec.Previous.Copy(&u.rec.Confirmed) // its slot still holds it
		}
		im := &tr.Image
		u.rec.Confirmed.Set(im, tr.Slot)
		if u.chained() {
			u.rec.Floors.Raise(im) // at confirm only
		}
		u.rec.SpentStamp, u.rec.Spent = 0, 0 // what was on offer before is below the floors now
		tr.Stagings = 0
	case state.OutcomeCrashed, state.OutcomeNotVerified, state.OutcomeSelfTest, state.OutcomeBootsSpent:
		u.rec.MarkBad(&tr.Image.Digest, tr.Image.Stamp)
		tr.Stagings = 0
	}
	if o != state.OutcomeConfirmed && o != state.OutcomeConfirmedElsewhere {
		u.failing = outcomeReason(o)
		u.rec.Spend(tr.Image.Stamp)
		u.event(EventFailed, u.failing)
	} else {
		u.event(EventConfirmed, outcomeReason(o))
	}
	tr.Open, tr.Confirming, tr.Rejected = false, false, false
	u.rec.Outcome = o
	u.saveThen(phaseIdle, 0)
}

// stageLater: the new image may be innocent. The old one runs for a while first.
func (u *Updater) stageLater() {
	if u.rec.Trial.Stagings >= maxStagings {
		u.wentWrong(state.OutcomeGaveUp)
		return
	}
	u.stageAt = u.millis() + restageMillis
	u.enter(phaseIdle)
}

// restaged is the chunk size of a release that is staged again: it is in flash
// already and its chunks were counted the first time.
const restaged = 1

// stageAgain proves the slot anew before it is staged again.
func (u *Updater) stageAgain() {
	tr := &u.rec.Trial
	u.target = tr.Slot
	u.rel.Image.Set(&tr.Image)
	u.rel.known, u.rel.chunk = true, restaged
	u.restart(tr.Image.Size)
	u.beginVerify()
}

func (u *Updater) beginTrial() {
	u.trial, u.contact, u.selfTest = true, false, 0
	ms := uint64(u.c.TrialMillis)
	if s := u.rec.Trial.Image.TrialSeconds; u.rec.Trial.Open && s != 0 {
		ms = uint64(s) * 1000
	}
	u.trialBy = u.millis() + ms
	u.pollAt = 0
	u.event(EventTrial, ReasonNone)
	u.enter(phaseTrial)
}

// onTrial waits for the self-test, then for contact, then confirms. Only the
// running slot's record may change meanwhile (I3).
//
//go:noinline
func (u *Updater) onTrial() Need {
	now := u.millis()
	switch {
	case u.selfTest == 2:
		u.rejectWith(state.OutcomeSelfTest)
		return Need{}
	case u.selfTest == 1 && (u.contact || u.c.NoContact || u.rec.Trial.Open && u.rec.Trial.Image.NoContact):
		u.enter(phaseConfirm)
		return Need{}
	case now >= u.trialBy:
		if u.selfTest == 0 {
			u.rejectWith(state.OutcomeSelfTest)
		} else {
			u.rejectWith(state.OutcomeUnproven)
		}
		return Need{}
	case u.selfTest == 0:
		return Need{Kind: NeedSelfTest}
	case now >= u.pollAt:
		u.enter(phasePoll)
		return Need{}
	}
	wait := u.pollAt - now
	if left := u.trialBy - now; left < wait {
		wait = left
	}
	return Need{Kind: NeedTime, Wait: uint32(wait)}
}

// confirm notes the decision, makes the record VALID, then closes the trial.
//
//go:noinline
func (u *Updater) confirm() {
	switch u.sub {
	case 0:
		u.sub = 1
		if u.rec.Trial.Open {
			u.rec.Trial.Confirming = true
			u.saveThen(phaseConfirm, 1)
		}
	case 1:
		done, err := u.c.Boot.Step(boot.GoalConfirm, u.running())
		if err != nil {
			// The record is not VALID: at the next reset the bootloader goes back.
			u.blame(ReasonBootRecord)
			u.trial = false
			u.toIdle()
			return
		}
		if !done {
			return
		}
		u.trial = false
		if u.rec.Trial.Open {
			u.endTrial(state.OutcomeConfirmed)
			return
		}
		u.event(EventConfirmed, ReasonNone)
		u.pollAt = 0
		u.enter(phaseIdle)
	}
}

// rejectWith notes why before the record changes (write before act).
func (u *Updater) rejectWith(o state.Outcome) {
	u.rec.Outcome = o
	if u.rec.Trial.Open {
		u.rec.Trial.Rejected = true
	}
	u.failing = outcomeReason(o)
	u.event(EventReverting, u.failing)
	u.saveThen(phaseReject, 0)
}

// reject makes the running slot's record INVALID, so that the old slot starts.
//
//go:noinline
func (u *Updater) reject() {
	back, ok := u.backSlot()
	if !ok {
		// Nowhere to go: this image is the only one. Stay, and say so.
		u.trial = false
		u.blame(ReasonNoWayBack)
		u.toIdle()
		return
	}
	u.target = back
	u.enter(phaseRevert)
}

func (u *Updater) revert() {
	done, err := u.c.Boot.Step(boot.GoalRevert, u.target)
	if err != nil {
		u.trial = false
		u.fail(ReasonBootRecord)
		return
	}
	if done {
		u.enter(phaseReset)
	}
}

// checkBack proves that the other slot holds a whole image before an ordered way
// back is taken.
//
//go:noinline
func (u *Updater) checkBack() {
	if u.sub == 0 {
		back, ok := u.otherWhole()
		if !ok {
			u.noWayBack()
			return
		}
		u.target = back
		u.inst.done = 0
		u.c.Image.Begin(u.c.Chip, u.c.Slots[back].Size(), u.hash)
		u.sub = 1
		return
	}
	size := u.c.Slots[u.target].Size()
	if u.chained() {
		size = u.rec.Previous.Size
	}
	done, err := u.hashNext(u.target, size, true)
	if err == nil && !done {
		return
	}
	if err == nil {
		err = u.c.Image.End()
	}
	u.hash.Sum(&u.sum)
	if err == nil && u.chained() && !digest.Equal(u.sum[:], u.rec.Previous.Digest[:]) {
		err = flash.ErrRead // it is not what was confirmed there any more
	}
	u.inst.done = 0
	if err != nil {
		u.pickTarget()
		u.noWayBack()
		return
	}
	if !u.rec.Confirmed.None() {
		u.rec.MarkBad(&u.rec.Confirmed.Digest, u.rec.Confirmed.Stamp) // or the next poll would bring it back
	}
	u.rec.Trial.Open = false
	u.rec.Trial.Slot, u.rec.Trial.Rejected = u.running(), true // until it is left: afterOrder
	u.rec.Outcome = state.OutcomeRevertedByOp
	u.event(EventReverting, ReasonOrdered)
	u.saveThen(phaseRevert, 0)
}

// otherWhole is the slot that an ordered way back leads to: not the running one,
// and neither rejected nor in the middle of a download.
//
//go:noinline
func (u *Updater) otherWhole() (boot.Slot, bool) {
	if u.chained() {
		return u.wayBack()
	}
	for i := range u.c.Slots {
		s := boot.Slot(i)
		if s == u.running() || u.wentBack(s) {
			continue
		}
		if u.rel.known && s == u.target && u.jnl.newest.written < u.rel.Size {
			continue
		}
		return s, true
	}
	return 0, false
}

func (u *Updater) noWayBack() {
	u.blame(ReasonNoWayBack)
	u.say(sayFailed, phasePoll)
	if u.rec.Outcome == state.OutcomeRevertedByOp {
		// It was ordered before a cut, and there is no way any more.
		u.rec.Outcome, u.rec.Trial.Rejected = state.OutcomeNone, false
		u.rec.ForgetBad(&u.rec.Confirmed.Digest)
		u.saveThen(phaseReport, 0)
	}
}

// resumed goes on behind what was proven: in.written bytes.
func (u *Updater) resumed() {
	u.resumeAt()
	u.event(EventResume, ReasonNone)
	u.enter(phaseProtect)
}

// protect makes the records safe before the first erase of the target.
//
//go:noinline
func (u *Updater) protect() {
	done, err := u.c.Boot.Step(boot.GoalProtect, u.target)
	if err != nil {
		u.fail(ReasonBootRecord)
		return
	}
	if !done {
		return
	}
	u.wakeAt = 0
	if !u.inst.resumable {
		u.enter(phaseFetch)
		return
	}
	u.jnl.begin()
	u.then = phaseFetch
	u.enter(phaseOpenJournal)
}

// writeNote appends what is durable now to the journal, then goes where it was due.
//
//go:noinline
func (u *Updater) writeNote() {
	e, buf, p := u.inst.entry(), u.buf, u.patching()
	if p != nil {
		buf = p.out // nothing waits in it, whenever an entry is due
		p.entry(&e)
	}
	done, err := u.jnl.append(&e, u.target, &u.rel, p, buf)
	if err != nil {
		u.fail(ReasonJournal)
		return
	}
	if !done {
		return
	}
	if e.written > u.inst.noted {
		u.parks = 0 // it gets on
	}
	u.inst.noted = e.written
	switch {
	case u.phase == phaseOpenJournal:
		u.enter(phaseFetch)
	case u.then == phaseErase:
		u.enter(phaseFetch)
	default:
		u.afterChunk()
	}
}

func (u *Updater) discard() {
	done, err := u.jnl.discard()
	if err != nil {
		u.fail(ReasonJournal)
		return
	}
	if done {
		u.drop(0)
		u.toIdle()
	}
}

func (u *Updater) beginVerify() {
	u.inst.done = 0
	u.c.Image.Begin(u.c.Chip, u.slot().Size(), u.hash)
	u.event(EventVerifying, ReasonNone)
	u.enter(phaseVerify)
}

// verify reads the whole image back: its SHA-256 and the bootloader's own check,
// in one pass (I5).
//
//go:noinline
func (u *Updater) verify() {
	done, err := u.hashNext(u.target, u.rel.Size, true)
	if err != nil {
		u.fail(ReasonFlashRead)
		return
	}
	if !done {
		return
	}
	u.hash.Sum(&u.sum)
	if !digest.Equal(u.sum[:], u.rel.Digest[:]) {
		if n := u.w.native; patchesMade && n != nil && n.c.Patches != nil && n.c.Patches.made {
			n.c.Patches.wrong(n, u) // the patch is at fault, not the release
			return
		}
		u.fail(ReasonDigest)
		return
	}
	if err := u.c.Image.End(); err != nil {
		u.fail(ReasonImage)
		return
	}
	if !u.c.Port.Bootable(u.target) {
		u.fail(ReasonNotBootable)
		return
	}
	u.event(EventVerified, ReasonNone)
	if u.chained() {
		// A key list that came meanwhile, or the operator, may have thought again.
		u.final, u.wakeAt, u.tries = true, 0, 0
		u.enter(phasePoll)
		return
	}
	u.say(sayVerified, phaseStage)
}

// stage notes the trial, then switches the boot record, then resets.
//
//go:noinline
func (u *Updater) stage() {
	switch u.sub {
	case 0:
		tr := &u.rec.Trial
		n := uint8(0)
		if same(&tr.Image.Digest, &u.rel.Digest) && tr.Image.Stamp == u.rel.Stamp {
			n = tr.Stagings
		}
		tr.Open, tr.Confirming, tr.Rejected = true, false, false
		tr.Slot, tr.Stagings, tr.Boots = u.target, n+1, 0
		tr.Image.Set(&u.rel.Image)
		u.rec.Outcome = state.OutcomeNone
		u.saveThen(phaseStage, 1)
	case 1:
		done, err := u.c.Boot.Step(boot.GoalStage, u.target)
		if err != nil {
			u.rec.Trial.Open = false
			u.fail(ReasonBootRecord)
			return
		}
		if !done {
			return
		}
		u.event(EventStaged, ReasonNone)
		if u.chained() {
			u.say(sayVerified, phaseReset) // it holds the switch up no more
			return
		}
		u.enter(phaseReset)
	}
}
