package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/state"
)

// nonceReady reserves nonces before they are used (write before act). It returns
// false where the state has to be written first; the phase is entered again then.
//
//go:noinline
func (u *Updater) nonceReady() bool {
	if v1Made && !u.signed {
		return true
	}
	if u.nonce < u.rec.NonceLimit {
		return true
	}
	u.rec.NonceLimit = u.nonce + nonceBlock
	if u.c.Store == nil {
		return true
	}
	u.saveThen(u.phase, u.sub)
	return false
}

//go:noinline
func (u *Updater) next() uint64 {
	u.nonce++
	if t := uint64(u.c.Port.Unix()) << 8; u.c.Store == nil && t > u.nonce {
		u.nonce = t // it may have started within a second that it had used before
	}
	return u.nonce
}

// unreachable waits longer each time. Progress is kept.
//
//go:noinline
func (u *Updater) unreachable() {
	reason := ReasonNone
	if u.io.head.Status == 401 || u.io.head.Status == 403 {
		reason = ReasonNotAuthorized
	}
	u.event(EventUnreachable, reason)
	if u.tries < 255 {
		u.tries++
	}
	u.pollAt = u.millis() + uint64(u.backoff())
	if u.trial {
		u.enter(phaseTrial)
		return
	}
	u.enter(phaseIdle)
}

// reached: the server gave an answer that counts.
func (u *Updater) reached() {
	u.tries = 0
	u.contact = true
	if u.trial {
		u.enter(phaseTrial)
	}
}

// nothing: the server said in so many words that there is no release.
func (u *Updater) nothing() {
	if u.rel.known && u.jnl.newest.written < u.rel.Size && u.jnl.on() {
		u.cancelled() // the operator took it back
		return
	}
	u.event(EventUpToDate, ReasonNone)
	u.toIdle()
}

// cancelled: what was fetched is for nothing, so it is counted before it is gone.
func (u *Updater) cancelled() {
	u.event(EventFailed, ReasonCancelled)
	if u.chained() {
		u.rec.Spend(u.rel.Stamp)
		u.saveThen(phaseDiscard, 0)
		return
	}
	u.enter(phaseDiscard)
}

// consider decides what to do with what is on offer. What it does not take it puts
// down again: the release in progress is then read from the journal anew.
//
//go:noinline
func (u *Updater) consider(o *release) {
	old := &u.rel
	u.goOn = old.known && same(&old.Digest, &o.Digest) && old.Size == o.Size && old.chunk == o.chunk
	older := o.Stamp != 0 && old.Stamp != 0 && (o.Epoch < old.Epoch || o.Epoch == old.Epoch && o.Stamp <= old.Stamp)
	u.ends = old.known && !u.goOn
	waits := old.known && !u.goOn && older && u.jnl.newest.written < old.Size
	old.set(o)
	u.restart(0)
	tr := &u.rec.Trial
	switch {
	case u.isSame && u.same.is(&u.rel.Digest, 0):
		u.event(EventUpToDate, ReasonNone)
		u.putDown()
		return
	case u.failing != ReasonNone && u.failed.is(&u.rel.Digest, u.rel.Stamp), tr.Open && same(&u.rel.Digest, &tr.Image.Digest):
		u.putDown() // found wanting in this start; or it is staged again in a while
		return
	case waits:
		u.blame(ReasonOlder)
		u.putDown()
		return
	}
	if r := u.refusal(&u.rel); r != ReasonNone {
		u.refuse(r)
		return
	}
	u.hash.Reset()
	// Is it what runs already? The slot itself is asked, nothing that was noted.
	if run := u.running(); int(run) < len(u.c.Slots) && u.rel.Size <= u.c.Slots[run].Size() {
		u.enter(phaseHashRunning)
		return
	}
	u.take()
}

// refusal is why an offer is not taken, from its numbers alone.
//
//go:noinline
func (u *Updater) refusal(o *release) Reason {
	tr := &u.rec.Trial
	switch {
	case o.Size == 0:
		return ReasonEmpty
	case o.chunk == 0 || o.chunk > uint32(len(u.chunk())):
		return ReasonChunkSize
	case o.Size > u.slot().Size():
		return ReasonTooLarge // before the first erase
	case u.rec.IsBad(&o.Digest, o.Stamp):
		return ReasonBadImage
	case tr.Stagings >= maxStagings && same(&o.Digest, &tr.Image.Digest) && o.Stamp <= tr.Image.Stamp:
		return ReasonGaveUp
	case u.chained() && o.Stamp <= u.rec.SpentStamp && (u.rec.Spent > maxSpent || u.rec.Spent == maxSpent && !u.goOn):
		return ReasonSpent // the last one that was begun may end
	}
	return ReasonNone
}

// refuse reports once a start.
func (u *Updater) refuse(r Reason) {
	u.failing = r
	u.failed.set(&u.rel.Digest, u.rel.Stamp)
	u.event(EventFailed, r)
	if u.warned {
		u.putDown()
		return
	}
	u.warned = true
	u.pollLater()
	u.say(sayFailed, phaseReload)
}

// putDown ends what was begun with a release that is not taken: of what is in
// progress in flash, the journal tells anew.
func (u *Updater) putDown() {
	u.drop(0)
	u.pollLater()
	u.enter(phaseReload)
}

// hashSlot compares a slot's first bytes with the offer's digest: the running
// slot, then, on a board without a store, the target whose record says that it
// went back.
//
//go:noinline
func (u *Updater) hashSlot() {
	o := &u.rel
	slot := u.running()
	if u.phase == phaseHashTarget {
		slot = u.target
	}
	done, err := u.hashNext(slot, o.Size, false)
	if err == nil && !done {
		return
	}
	u.hash.Sum(&u.sum)
	equal := err == nil && same(&u.sum, &o.Digest)
	switch {
	case equal && u.phase == phaseHashRunning:
		u.same.set(&o.Digest, 0)
		u.isSame = true
		u.event(EventUpToDate, ReasonNone)
		if u.rec.Outcome == state.OutcomeNone && u.c.Store == nil && u.verdict == boot.VerdictOnTrial {
			// A board without a store learns its version only now.
			u.rec.Trial.Image.Set(&o.Image)
			u.rec.Outcome = state.OutcomeConfirmed
			u.verdict = boot.VerdictNone
		}
		u.putDown()
	case equal && u.c.Port.ResetReason() == boot.ResetPowerOn:
		// It went back, and somebody unplugged the board: perhaps in its trial. What
		// stands there is whole, so it is proven and staged, not fetched again.
		o.chunk = restaged
		u.restart(o.Size)
		u.beginVerify()
	case equal:
		u.refuse(ReasonTriedHere)
	case u.phase == phaseHashRunning && u.c.Store == nil && u.wentBack(u.target):
		u.hash.Reset()
		u.inst.done = 0
		u.enter(phaseHashTarget)
	default:
		u.take()
	}
}

func (u *Updater) wentBack(s boot.Slot) bool {
	st := u.record(s)
	return st == boot.RecordAborted || st == boot.RecordInvalid
}

// take starts the download of the offer, or goes on with it.
//
//go:noinline
func (u *Updater) take() {
	resume := u.goOn && u.jnl.found
	if tr := &u.rec.Trial; tr.Open {
		// A newer release displaces one that waits to be staged again.
		tr.Open = false
		u.stageAt = 0
	}
	if !resume {
		top, at := u.jnl.top, u.jnl.at
		u.useJournal()
		u.jnl.top, u.jnl.at = top, at
	}
	u.restart(0)
	u.planResume()
	u.event(EventOffer, ReasonNone)
	if u.chained() || resume && u.inst.resumable {
		if !u.chained() {
			u.jnl.rewind()
		}
		u.enter(phaseResume)
		// Where there is no journal nobody knows what an offer ends: each other one counts.
		if u.chained() && (u.ends || !u.inst.resumable && u.rel.Stamp != u.rec.SpentStamp) {
			u.rec.Spend(u.rel.Stamp)
			u.saveThen(phaseResume, 0)
			u.parks = 0
		}
		return
	}
	u.enter(phaseProtect)
}

// chunkLen is how many bytes the next chunk has.
func (u *Updater) chunkLen() uint32 {
	if p := u.patching(); p != nil {
		return p.applier.Made() - u.inst.written
	}
	if left := u.rel.Size - u.inst.written; left < u.rel.chunk {
		return left
	}
	return u.rel.chunk
}

// chunkInHand: the next chunk lies in the chunk buffer and was found right. Where it
// goes is erased already.
func (u *Updater) chunkInHand(n uint32) {
	u.tries = 0
	u.inst.inHand, u.inst.done = n, 0
	u.enter(phaseProgram)
}

// eraseDue: what the next chunk goes to is not erased yet. It is before the chunk is
// asked for, while the buffer is free.
func (u *Updater) eraseDue() bool {
	in := &u.inst
	return in.written < u.rel.Size && in.erased < roundUp(in.written+u.chunkLen(), u.sector())
}

// fetchFailed waits and tries again. A wrong chunk, too often, fails the
// deployment; a network that is away only sends the updater back to polling. A wrong
// record is the network's doing too, for its release is signed: that is reported,
// and tried again when the server still wants it.
//
//go:noinline
func (u *Updater) fetchFailed(r Reason) Need {
	u.tries++
	if r != ReasonNone {
		u.event(EventRefused, r)
		if u.tries >= chunkTries {
			if !u.chained() {
				u.fail(r)
				return Need{}
			}
			u.blame(r)
			u.parkDownload()
			u.tries = 0
			u.say(sayFailed, phaseReload)
			return Need{}
		}
	} else {
		u.event(EventUnreachable, ReasonNone)
		if u.tries >= networkTries || u.io.head.Status == 404 || u.io.head.Status == 401 || u.io.head.Status == 403 {
			// The release may be gone, or another one on offer: ask.
			u.parkDownload()
			return Need{}
		}
	}
	wait := u.backoff()
	u.wakeAt = u.millis() + uint64(wait)
	return Need{Kind: NeedTime, Wait: wait}
}

// parkDownload leaves a download as a reset would: the journal is read again, and
// a poll that offers the same release resumes from what it says. How far it came
// stays for a report.
func (u *Updater) parkDownload() {
	u.park()
	u.drop(u.inst.written)
	u.enter(phaseReload)
}

// patience is the wait after something that got nowhere, twice as long each time
// until flash gets on: trying again may cost a sector's erase.
func (u *Updater) patience() uint32 {
	d := uint32(parkCap)
	if u.parks < 12 {
		d = backoffBase << u.parks
		u.parks++
	}
	return d/2 + u.c.Port.Random()%(d/2+1)
}

// park puts the next poll off.
func (u *Updater) park() {
	d := u.patience()
	if b := u.backoff(); d < b {
		d = b // or what the server asked for
	}
	u.pollAt = u.millis() + uint64(d)
}

// flashFailed: a chunk could not be programmed, or reads back wrong. Where an entry's
// word for "erased" was taken, the entry may be what is wrong: then everything is
// erased anew, once, before flash is blamed.
//
//go:noinline
func (u *Updater) flashFailed(r Reason) {
	if u.inst.written >= u.inst.believed {
		u.fail(r)
		return
	}
	u.event(EventStartOver, ReasonDamaged)
	u.hangUp()
	u.jnl.newest, u.jnl.found, u.goOn = entry{}, false, false
	u.inst = install{resumable: u.inst.resumable}
	if u.chained() {
		u.enter(phaseResume)
		return
	}
	u.enter(phaseProtect)
}

//go:noinline
func (u *Updater) finishChunk() {
	done, err := u.readBack()
	if err != nil {
		u.flashFailed(ReasonFlashRead)
		return
	}
	if !done {
		return
	}
	u.event(EventChunk, ReasonNone)
	u.then = phaseFetch
	if u.noteDue() {
		u.enter(phaseNote)
		return
	}
	u.afterChunk()
}

// reportSpan is how many chunks lie between two reports of progress.
func (u *Updater) reportSpan() uint32 {
	switch {
	case u.c.ReportEvery != 0:
		return u.c.ReportEvery
	case u.chained():
		return nativeReportBytes / u.rel.chunk
	}
	return defaultReportEvery
}

// afterChunk reports progress now and then.
func (u *Updater) afterChunk() {
	due := u.pauses
	if !u.chained() {
		due = (u.inst.written+u.rel.chunk-1)/u.rel.chunk%u.reportSpan() == 0
	}
	if due && u.inst.written < u.rel.Size {
		u.say(sayProgress, phaseFetch)
		return
	}
	u.enter(phaseFetch)
}

func (u *Updater) chunks() uint32 { return (u.rel.Size + u.rel.chunk - 1) / u.rel.chunk }
