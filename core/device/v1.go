package device

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/state"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// V1 speaks the original chunk protocol: a request a chunk, each with a MAC of its
// own. Its manifest is not authenticated (docs/security.md).
//
// The last feedBytes of the updater's buffer take the answer's text, the rest one
// chunk: the largest chunk size that it takes.
type V1 struct {
	wire v1.Wire
	ans  v1.Answer
	sub  uint8 // of a poll: 0 the way back, 1 the manifest
}

// Wire is for the Config.
func (w *V1) Wire() Wire { return Wire{by: (*overV1)(nil), v1: w} }

type overV1 struct{} // as overNative: a nil pointer

var _ protocol = (*overV1)(nil)

func (*overV1) attach(u *Updater) error { return u.w.v1.attach(u) }
func (*overV1) body(u *Updater) bool    { return u.w.v1.body(u) }
func (*overV1) poll(u *Updater) Need    { return u.w.v1.poll(u) }
func (*overV1) resume(u *Updater) Need  { return u.w.v1.resume(u) }
func (*overV1) fetch(u *Updater) Need   { return u.w.v1.fetch(u) }
func (*overV1) report(u *Updater) Need  { return u.w.v1.report(u) }

// NewV1 takes who the device is. The key is not kept.
func NewV1(w *V1, id v1.Identity) error {
	makesV1()
	*w = V1{}
	if len(id.Key) == 0 {
		return ErrIdentity
	}
	w.wire.SetIdentity(id)
	return nil
}

// feedBytes is how much of an answer's text is taken at once.
const feedBytes = 256

func (w *V1) attach(u *Updater) error {
	if len(u.buf) < MinChunkBuffer+feedBytes {
		return ErrBuffer
	}
	u.chunkTo, u.spareAt = uint16(len(u.buf)-feedBytes), uint16(len(u.buf)-feedBytes)
	u.hash = w.wire.Hash()
	u.signed = w.wire.Signed()
	return nil
}

func (w *V1) body(u *Updater) bool {
	if u.io.head.Status != 200 {
		return u.skim()
	}
	n := u.io.got
	u.io.got = 0
	if n > 0 && w.ans.Feed(u.buf[u.io.inFrom:u.io.inFrom+n]) != nil && u.io.state == ioBody {
		u.io.state = ioDone // wrong already: the error comes again from End
	}
	return u.io.state == ioBody
}

// ask sends a request whose answer is parsed as kind k.
func (w *V1) ask(u *Updater, req v1.Request, err error, k v1.Kind) Need {
	if err != nil { // the request does not fit: MinChunkBuffer rules it out
		u.io.state = ioBroken
		return Need{}
	}
	l := &u.io.req
	l.target = uint16(len(req.Target))
	l.body = l.target + uint16(len(req.Body))
	l.nonce = l.body + uint16(len(req.Nonce))
	l.stamp = l.nonce + uint16(len(req.Timestamp))
	l.mac = l.stamp + uint16(len(req.MAC))
	w.ans.Begin(k, u.chunk())
	return u.send(len(u.buf)-feedBytes, len(u.buf))
}

// time is what a request says of the time, in seconds: a clockless device counts from
// its start.
func (w *V1) time(u *Updater) uint32 {
	if t := u.c.Port.Unix(); t != 0 {
		return t
	}
	return uint32(u.millis() / 1000)
}

// answered ends an exchange and says how it went: whole is an answer with status
// 200 that parsed.
func (w *V1) answered(u *Updater) (whole bool) {
	whole = u.io.state == ioDone && u.io.head.Status == 200 && w.ans.End() == nil
	u.hangUp()
	return whole
}

func (w *V1) poll(u *Updater) Need {
	if u.io.state == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next(), w.time(u)
		if w.sub == 0 && !u.trial {
			req, err := w.wire.RollbackStatus(u.chunk(), n, t)
			return w.ask(u, req, err, v1.KindRollback)
		}
		w.sub = 1
		req, err := w.wire.Manifest(u.chunk(), n, t)
		return w.ask(u, req, err, v1.KindManifest)
	}
	whole := w.answered(u)
	if w.sub == 0 {
		switch {
		case whole:
			u.tries = 0
			if w.ans.Rollback {
				u.enter(phaseCheckBack)
				w.sub = 1 // what follows a way back that is none
				return Need{}
			}
		case u.io.head.Status != 200 && u.io.head.Status != 404:
			// Busy, broken or not for us: asking on at once would only add to it.
			u.unreachable()
			return Need{}
		}
		// An old server without this call answers 404: the manifest decides then.
		w.sub = 1
		return Need{}
	}
	w.sub = 0
	if !whole {
		u.unreachable()
		return Need{}
	}
	u.reached()
	if u.trial {
		return Need{}
	}
	o := &w.ans.Offer
	if !o.Present {
		u.nothing()
		return Need{}
	}
	r := release{chunk: o.ChunkSize}
	r.Size, r.Stamp, r.VersionLen = o.Size, o.Stamp, o.VersionLen
	copy(r.Digest[:], w.ans.Hash[:])
	copy(r.Version[:], o.Version[:])
	u.consider(&r)
	return Need{}
}

// resume holds what is in flash against the journal's CRCs: v1 has no chain.
func (w *V1) resume(u *Updater) Need {
	done, err := u.walkNext()
	if err != nil {
		u.fail(ReasonFlashRead)
		return Need{}
	}
	if done {
		u.resumed()
	}
	return Need{}
}

func (w *V1) fetch(u *Updater) Need {
	if u.io.state == ioNone {
		if wait := u.early(); wait > 0 {
			return Need{Kind: NeedTime, Wait: wait}
		}
		if u.inst.written >= u.rel.Size {
			u.beginVerify()
			return Need{}
		}
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next(), w.time(u)
		req, err := w.wire.Chunk(u.chunk(), u.inst.written/u.rel.chunk, n, t)
		return w.ask(u, req, err, v1.KindChunk)
	}
	whole := w.answered(u)
	if !whole && u.io.head.Status != 200 {
		return u.fetchFailed(ReasonNone)
	}
	if r := w.check(u, whole); r != ReasonNone {
		return u.fetchFailed(r)
	}
	u.chunkInHand(w.ans.Length)
	return Need{}
}

// check is what stands between the network and flash (I1).
func (w *V1) check(u *Updater, whole bool) Reason {
	a := &w.ans
	want := u.chunkLen()
	switch {
	case !whole || !a.HasMAC:
		return ReasonChunkAnswer
	case a.HasNumber && a.Number != u.inst.written/u.rel.chunk:
		return ReasonChunkNumber
	case a.Length != want || a.HasSize && a.Size != want:
		return ReasonChunkLength
	}
	w.wire.ChunkMAC(u.chunk()[:want], &u.sum)
	if !digest.Equal(u.sum[:], a.Hash[:]) {
		return ReasonChunkMAC
	}
	return ReasonNone
}

func (w *V1) report(u *Updater) Need {
	if u.io.state == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		n, t := u.next(), w.time(u)
		r := w.words(u)
		req, err := w.wire.Report(u.chunk(), &r, n, t)
		return w.ask(u, req, err, v1.KindAck)
	}
	u.reported(w.answered(u) && w.ans.Success)
	return Need{}
}

// words of a report.
func (w *V1) words(u *Updater) v1.Report {
	r := v1.Report{BootCount: u.rec.BootCount, HasBootCount: true}
	switch u.saying {
	case sayProgress:
		r.HasChunks, r.TotalChunks = true, u.chunks()
		r.ChunkReceived = (u.inst.written + u.rel.chunk - 1) / u.rel.chunk
		r.HasProgress, r.Progress = true, uint8(uint64(u.inst.written)*100/uint64(u.rel.Size))
	case sayVerified:
		if u.rel.chunk != restaged {
			r.HasChunks, r.ChunkReceived, r.TotalChunks = true, u.chunks(), u.chunks()
		}
		r.HasProgress, r.Progress = true, 100
		r.HasVerified, r.Verified = true, true
		r.BootStatus, r.NewVersion = v1.BootPendingReboot, u.Version()
	case sayFailed:
		r.HasVerified = badAtOnce(u.failing)
		r.Error, r.NewVersion = u.failing.String(), u.Version()
	case sayOutcome:
		im := &u.rec.Trial.Image
		r.Error = outcomeReason(u.rec.Outcome).String()
		switch u.rec.Outcome {
		case state.OutcomeConfirmed, state.OutcomeConfirmedElsewhere:
			r.HasVerified, r.Verified = true, true
			r.HasProgress, r.Progress = true, 100
			r.BootStatus, r.NewVersion = v1.BootSuccess, im.Version[:im.VersionLen]
		case state.OutcomeRevertedByOp:
			r.Rollback = true
		default:
			r.Rollback = true
			r.BootStatus, r.NewVersion = v1.BootFailed, im.Version[:im.VersionLen]
		}
	}
	return r
}
