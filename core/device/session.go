package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/state"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// ioState is where a request and its answer are.
type ioState uint8

const (
	ioNone   ioState = iota
	ioSend           // the caller has still to send Request()
	ioBody           // the answer is being fed
	ioDone           // answered whole
	ioBroken         // no answer, or not a whole one
)

// layout is where a request lies in the chunk buffer: the ends of its parts, one
// behind the other.
type layout struct {
	target, body, nonce, stamp, mac uint16
}

// Request is what NeedSend wants sent. It lies in the chunk buffer: it is gone
// after Response.
func (u *Updater) Request() v1.Request {
	l, b := &u.req, u.c.Chunk
	r := v1.Request{Method: "GET", Target: b[:l.target], DeviceID: u.wire.ID(),
		Nonce: b[l.body:l.nonce], Timestamp: b[l.nonce:l.stamp], MAC: b[l.stamp:l.mac]}
	if l.body > l.target {
		r.Method, r.Body = "POST", b[l.target:l.body]
	}
	return r
}

// Response is the head of the answer: its status, and Retry-After in
// milliseconds, 0 if absent.
func (u *Updater) Response(status int, retryAfterMillis uint64) {
	if u.io != ioSend {
		return
	}
	if status < 0 || status > 999 {
		status = 0
	}
	if retryAfterMillis > maxRetryAfter {
		retryAfterMillis = maxRetryAfter
	}
	u.status, u.retryMs, u.io = uint16(status), retryAfterMillis, ioBody
}

// Feed takes the next piece of the body. p may lie in the scratch buffer.
func (u *Updater) Feed(p []byte) {
	if u.io != ioBody || u.status != 200 {
		return
	}
	// The error is kept by the answer and comes again from End.
	if err := u.ans.Feed(p); err != nil {
		u.io = ioDone
	}
}

// EndOfBody: the body was read whole.
func (u *Updater) EndOfBody() {
	if u.io == ioBody {
		u.io = ioDone
	}
}

// Broken: the request could not be sent, or its answer not read.
func (u *Updater) Broken() {
	if u.io != ioNone {
		u.io = ioBroken
	}
}

// exchange says whether the caller still has work with the request.
func (u *Updater) exchange() (Need, bool) {
	switch u.io {
	case ioSend:
		return Need{Kind: NeedSend}, true
	case ioBody:
		return Need{Kind: NeedBytes}, true
	}
	return Need{}, false
}

// nonceReady reserves nonces before they are used (write before act). It returns
// false where the state has to be written first; the phase is entered again then.
func (u *Updater) nonceReady() bool {
	if !u.signed {
		return true
	}
	if u.nonce < u.reserved {
		return true
	}
	u.reserved = u.nonce + nonceBlock
	if u.c.Store == nil {
		return true
	}
	u.rec.NonceLimit = u.reserved
	u.saveThen(u.phase, u.sub)
	return false
}

// send starts an exchange; the answer is parsed as kind k.
func (u *Updater) send(req v1.Request, err error, k v1.Kind) Need {
	if err != nil { // the request does not fit: MinChunkBuffer rules it out
		u.io = ioBroken
		return Need{}
	}
	l := &u.req
	l.target = uint16(len(req.Target))
	l.body = l.target + uint16(len(req.Body))
	l.nonce = l.body + uint16(len(req.Nonce))
	l.stamp = l.nonce + uint16(len(req.Timestamp))
	l.mac = l.stamp + uint16(len(req.MAC))
	u.ans.Begin(k, u.c.Chunk)
	u.status, u.io = 0, ioSend
	return Need{Kind: NeedSend}
}

func (u *Updater) next() (nonce uint64, unix uint32) {
	u.nonce++
	unix = u.c.Port.Unix()
	if t := uint64(unix) << 8; u.c.Store == nil && t > u.nonce {
		u.nonce = t // it may have started within a second that it had used before
	}
	if unix == 0 {
		unix = uint32(u.c.Port.Millis() / 1000) // a clockless device counts from its start
	}
	return u.nonce, unix
}

// answered ends an exchange and says how it went: whole is an answer with status
// 200 that parsed.
func (u *Updater) answered() (whole bool) {
	io := u.io
	u.io = ioNone
	if io != ioDone || u.status != 200 {
		return false
	}
	return u.ans.End() == nil
}

func (u *Updater) pollRollback() Need {
	if u.io == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next()
		req, err := u.wire.RollbackStatus(u.c.Chunk, n, t)
		return u.send(req, err, v1.KindRollback)
	}
	switch {
	case u.answered():
		u.tries = 0
		if u.ans.Rollback && !u.trial {
			u.enter(phaseCheckBack)
			return Need{}
		}
	case u.status != 200 && u.status != 404:
		// Busy, broken or not for us: asking on at once would only add to it.
		u.unreachable()
		return Need{}
	}
	// An old server without this call answers 404: the manifest decides then.
	u.enter(phasePollManifest)
	return Need{}
}

func (u *Updater) pollManifest() Need {
	if u.io == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next()
		req, err := u.wire.Manifest(u.c.Chunk, n, t)
		return u.send(req, err, v1.KindManifest)
	}
	if !u.answered() {
		u.unreachable()
		return Need{}
	}
	u.tries = 0
	u.contact = true
	if u.trial {
		u.enter(phaseTrial)
		return Need{}
	}
	u.consider()
	return Need{}
}

// unreachable waits longer each time. Progress is kept.
func (u *Updater) unreachable() {
	reason := ReasonNone
	if u.status == 401 || u.status == 403 {
		reason = ReasonNotAuthorized
	}
	u.event(EventUnreachable, reason)
	if u.tries < 255 {
		u.tries++
	}
	u.pollAt = u.c.Port.Millis() + u.backoff()
	if u.trial {
		u.enter(phaseTrial)
		return
	}
	u.enter(phaseIdle)
}

// consider decides what to do with the answer of a poll.
func (u *Updater) consider() {
	o := &u.ans.Offer
	if !o.Present {
		if u.rel.known && u.jnl.newest.written < u.rel.Size && u.jnl.on() {
			// An explicit nothing: the operator took the release back.
			u.event(EventFailed, ReasonCancelled)
			u.enter(phaseDiscard)
			return
		}
		u.event(EventUpToDate, ReasonNone)
		u.toIdle()
		return
	}
	if u.isSame && u.same.head == idOf(&o.Digest, 0).head {
		u.event(EventUpToDate, ReasonNone)
		u.toIdle()
		return
	}
	if u.failing != ReasonNone && u.failed == idOf(&o.Digest, o.Stamp) {
		u.toIdle()
		return
	}
	tr := &u.rec.Trial
	if tr.Open && o.Digest == tr.Image.Digest {
		u.toIdle() // it is staged again in a while
		return
	}
	if r := u.refusal(o); r != ReasonNone {
		u.refuse(o, r)
		return
	}
	old := &u.rel
	if old.known && (old.Digest != o.Digest || old.Size != o.Size || old.chunk != o.ChunkSize) {
		if o.Stamp != 0 && old.Stamp != 0 && o.Stamp <= old.Stamp && u.jnl.newest.written < old.Size {
			u.failing = ReasonOlder
			u.event(EventFailed, ReasonOlder)
			u.toIdle()
			return
		}
		old.known = false
	}
	u.wire.Hash().Reset()
	u.inst.done = 0
	// Is it what runs already? The slot itself is asked, nothing that was noted.
	if run := u.c.Boot.Running(); int(run) < len(u.c.Slots) && o.Size <= u.c.Slots[run].Size() {
		u.enter(phaseHashRunning)
		return
	}
	u.take()
}

// refusal is why an offer is not taken, from its numbers alone.
func (u *Updater) refusal(o *v1.Offer) Reason {
	tr := &u.rec.Trial
	switch {
	case o.Size == 0:
		return ReasonEmpty
	case o.ChunkSize == 0 || o.ChunkSize > uint32(len(u.c.Chunk)):
		return ReasonChunkSize
	case o.Size > u.slot().Size():
		return ReasonTooLarge // before the first erase
	case u.rec.IsBad(&o.Digest, o.Stamp):
		return ReasonBadImage
	case tr.Stagings >= maxStagings && o.Digest == tr.Image.Digest && o.Stamp <= tr.Image.Stamp:
		return ReasonGaveUp
	}
	return ReasonNone
}

// refuse reports once a start.
func (u *Updater) refuse(o *v1.Offer, r Reason) {
	u.failing = r
	u.setRelease(o)
	u.failed = idOf(&o.Digest, o.Stamp)
	u.rel.known = false
	u.event(EventFailed, r)
	if u.warned {
		u.toIdle()
		return
	}
	u.warned = true
	u.say(sayFailed, phaseIdle)
}

func (u *Updater) setRelease(o *v1.Offer) {
	u.rel.Digest, u.rel.Size, u.rel.Stamp = o.Digest, o.Size, o.Stamp
	u.rel.Version, u.rel.VersionLen = o.Version, o.VersionLen
	u.rel.chunk, u.rel.known = o.ChunkSize, true
}

// hashSlot compares a slot's first bytes with the offer's digest: the running
// slot, then, on a board without a store, the target whose record says that it
// went back.
func (u *Updater) hashSlot() {
	o := &u.ans.Offer
	slot := u.c.Boot.Running()
	if u.phase == phaseHashTarget {
		slot = u.target
	}
	done, err := u.hashNext(slot, o.Size, false)
	if err == nil && !done {
		return
	}
	u.wire.Hash().Sum(&u.mac)
	equal := err == nil && u.mac == o.Digest
	switch {
	case equal && u.phase == phaseHashRunning:
		u.same, u.isSame = idOf(&o.Digest, 0), true
		u.event(EventUpToDate, ReasonNone)
		if u.rec.Outcome == state.OutcomeNone && u.c.Store == nil && u.verdict == boot.VerdictOnTrial {
			// A board without a store learns its version only now.
			u.setRelease(o)
			u.rec.Trial.Image = u.rel.Image
			u.rel.known = false
			u.rec.Outcome = state.OutcomeConfirmed
			u.verdict = boot.VerdictNone
		}
		u.toIdle()
	case equal && u.c.Port.ResetReason() == boot.ResetPowerOn:
		// It went back, and somebody unplugged the board: perhaps in its trial. What
		// stands there is whole, so it is proven and staged, not fetched again.
		u.setRelease(o)
		u.rel.chunk = restaged
		u.inst = install{written: o.Size}
		u.beginVerify()
	case equal:
		u.refuse(o, ReasonTriedHere)
	case u.phase == phaseHashRunning && u.c.Store == nil && u.wentBack(u.target):
		u.wire.Hash().Reset()
		u.inst.done = 0
		u.enter(phaseHashTarget)
	default:
		u.take()
	}
}

func (u *Updater) wentBack(s boot.Slot) bool {
	st := u.c.Boot.State(s)
	return st == boot.RecordAborted || st == boot.RecordInvalid
}

// take starts the download of the offer, or goes on with it.
func (u *Updater) take() {
	resume := u.rel.known && u.jnl.found
	u.setRelease(&u.ans.Offer)
	if tr := &u.rec.Trial; tr.Open {
		// A newer release displaces one that waits to be staged again.
		tr.Open = false
		u.stageAt = 0
	}
	found := u.jnl
	if !resume {
		u.jnl.use(u.journalArea())
		u.jnl.top, u.jnl.at = found.top, found.at
	}
	u.inst = install{}
	u.planResume()
	u.event(EventOffer, ReasonNone)
	if resume && u.inst.resumable {
		u.jnl.rewind()
		u.enter(phaseWalk)
		return
	}
	u.enter(phaseProtect)
}

func (u *Updater) fetch() Need {
	if u.io == ioNone {
		if now := u.c.Port.Millis(); now < u.wakeAt {
			return Need{Kind: NeedTime, Wait: u.wakeAt - now}
		}
		if u.inst.written >= u.rel.Size {
			u.beginVerify()
			return Need{}
		}
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next()
		req, err := u.wire.Chunk(u.c.Chunk, u.inst.written/u.rel.chunk, n, t)
		return u.send(req, err, v1.KindChunk)
	}
	whole := u.answered()
	if !whole && u.status != 200 {
		return u.fetchFailed(ReasonNone)
	}
	if r := u.checkChunk(whole); r != ReasonNone {
		return u.fetchFailed(r)
	}
	u.tries = 0
	u.inst.inHand, u.inst.done = u.ans.Length, 0
	u.afterErase()
	return Need{}
}

// checkChunk is what stands between the network and flash (I1).
func (u *Updater) checkChunk(whole bool) Reason {
	a := &u.ans
	want := u.rel.Size - u.inst.written
	if want > u.rel.chunk {
		want = u.rel.chunk
	}
	switch {
	case !whole || !a.HasMAC:
		return ReasonChunkAnswer
	case a.HasNumber && a.Number != u.inst.written/u.rel.chunk:
		return ReasonChunkNumber
	case a.Length != want || a.HasSize && a.Size != want:
		return ReasonChunkLength
	}
	u.wire.ChunkMAC(u.c.Chunk[:want], &u.mac)
	if !digest.Equal(u.mac[:], a.MAC[:]) {
		return ReasonChunkMAC
	}
	return ReasonNone
}

// fetchFailed waits and tries again. A wrong chunk, too often, fails the
// deployment; a network that is away only sends the updater back to polling.
func (u *Updater) fetchFailed(r Reason) Need {
	u.tries++
	if r != ReasonNone {
		u.event(EventRefused, r)
		if u.tries >= chunkTries {
			u.fail(r)
			return Need{}
		}
	} else {
		u.event(EventUnreachable, ReasonNone)
		if u.tries >= networkTries || u.status == 404 || u.status == 401 || u.status == 403 {
			// The release may be gone, or another one on offer: ask.
			u.pollAt = u.c.Port.Millis() + u.backoff()
			u.parkDownload()
			return Need{}
		}
	}
	u.wakeAt = u.c.Port.Millis() + u.backoff()
	return Need{Kind: NeedTime, Wait: u.wakeAt - u.c.Port.Millis()}
}

// parkDownload leaves a download as a reset would: the journal is read again, and
// a poll that offers the same release resumes from what it says.
func (u *Updater) parkDownload() {
	resumable := u.inst.resumable
	u.rel.known, u.inst = false, install{}
	if resumable {
		u.enter(phaseReload)
		return
	}
	u.enter(phaseIdle)
}

// afterErase goes on with the chunk in hand: erase, note an erase, or program.
func (u *Updater) afterErase() {
	in := &u.inst
	switch {
	case in.note:
		in.note = false
		u.then = phaseErase
		u.enter(phaseNote)
	case in.erased < roundUp(in.written+in.inHand, u.slot().Geometry().EraseSize):
		u.enter(phaseErase)
	default:
		in.done = 0
		u.enter(phaseProgram)
	}
}

func (u *Updater) finishChunk() {
	done, err := u.readBack()
	if err != nil {
		u.fail(ReasonFlashRead)
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

// afterChunk reports progress now and then.
func (u *Updater) afterChunk() {
	n := (u.inst.written + u.rel.chunk - 1) / u.rel.chunk
	if n%u.c.ReportEvery == 0 && u.inst.written < u.rel.Size {
		u.say(sayProgress, phaseFetch)
		return
	}
	u.enter(phaseFetch)
}

func (u *Updater) chunks() uint32 { return (u.rel.Size + u.rel.chunk - 1) / u.rel.chunk }

// report sends what saying says, once. A report that does not get through is dropped,
// but for the outcome of a trial, which is kept in flash until it is acknowledged.
func (u *Updater) report() Need {
	if u.io == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next()
		r := u.words()
		req, err := u.wire.Report(u.c.Chunk, &r, n, t)
		return u.send(req, err, v1.KindAck)
	}
	acked := u.answered() && u.ans.Success
	if acked {
		u.event(EventReported, ReasonNone)
	}
	if u.saying == sayOutcome {
		if acked {
			u.rec.Outcome = state.OutcomeNone
			u.tries = 0
			u.saveThen(phaseIdle, 0)
			return Need{}
		}
		u.tries++
		u.wakeAt = u.c.Port.Millis() + u.backoff()
	}
	p := u.then
	if p == phaseIdle {
		if u.pollAt <= u.c.Port.Millis() {
			u.toIdle()
		}
	}
	u.enter(p)
	return Need{}
}
