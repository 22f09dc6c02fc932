package device

import (
	"github.com/runnel-fota/runnel/core/patch"
)

// pump drives the applier: proven records go in as they come, and what comes out is
// written in order. In phaseResume nothing comes out.
//
//go:noinline
func (p *Patches) pump(n *Native, u *Updater) Need {
	if p.snap != snapshotNone {
		p.snapshot(n, u)
		return Need{}
	}
	if u.inst.written == p.applier.Made() {
		p.applier.Wrote()
	}
	switch p.applier.Step() {
	case patch.Hungry:
		return p.feed(n, u)
	case patch.Full:
		return p.write(n, u)
	case patch.Seek:
		p.seek(n, u)
	case patch.Restart:
		if u.phase == phaseResume {
			p.atLink(n, u)
			break
		}
		p.note(n, u)
	case patch.Done:
		if u.inst.written < u.rel.Size {
			return p.write(n, u)
		}
		p.done(n, u)
	default:
		if u.phase == phaseResume {
			p.anew(n, u) // where the journal says, nothing goes on
			break
		}
		p.wrong(n, u)
	}
	return Need{}
}

// wrong: the stream, or what it made, is not what it is to be. Where it was gone on with by
// a snapshot, that may be at fault.
func (p *Patches) wrong(n *Native, u *Updater) {
	if p.word == wordSnapshot {
		p.startOver(n, u)
		return
	}
	p.fallBack(n, u, ReasonPatch)
}

// startOver begins the stream anew, and what is written up to here is compared. Where
// that differs it comes to this again, and the sector is written again with all behind it.
func (p *Patches) startOver(n *Native, u *Updater) {
	keep := u.inst.written - u.inst.written%u.sector()
	p.made = false
	p.opened(u)
	u.enter(phaseResume)
	p.anew(n, u)
	p.keep = keep
}

// write has what was made written: first what it goes to erased.
func (p *Patches) write(n *Native, u *Updater) Need {
	in := &u.inst
	switch {
	case in.written < p.keep:
		p.compare(n, u)
	case u.eraseDue():
		u.enter(phaseErase)
	default:
		u.chunkInHand(u.chunkLen())
	}
	return Need{}
}

// compare finds that what was made is in flash already, or starts over.
func (p *Patches) compare(n *Native, u *Updater) {
	in := &u.inst
	if in.inHand == 0 {
		in.inHand, in.done = u.chunkLen(), 0
	}
	if _, err := u.readBack(); err == nil {
		return
	}
	p.startOver(n, u)
}

// done: the image is made and in flash.
func (p *Patches) done(n *Native, u *Updater) {
	if p.at != p.shape.Size {
		p.wrong(n, u) // it goes on behind its end
		return
	}
	n.endStream(u)
	p.active, p.made = false, true
	u.beginVerify()
}

// feed hands the applier what it takes of the record in hand, or has the next one come.
func (p *Patches) feed(n *Native, u *Updater) Need {
	if p.at == p.shape.Size {
		p.applier.End()
		return Need{}
	}
	i := p.at / p.shape.Chunk
	off := p.at - i*p.shape.Chunk
	if p.hand {
		took := uint32(p.applier.Feed(u.buf[off:p.shape.ChunkLen(i)]))
		p.at += took
		if off+took == p.shape.ChunkLen(i) {
			p.hand = false
			if n.v.Index() == n.until && u.phase == phaseFetch && !n.v.Done() {
				n.endStream(u)
				u.say(sayProgress, phaseFetch)
			}
		}
		return Need{}
	}
	if n.v.Index() != i && n.v.GoOn(i, &p.hash) != 0 { // one that was in hand, and is lost
		p.fallBack(n, u, ReasonPatch)
		return Need{}
	}
	n.v.Expected(&u.sum)
	taken, need := n.next(u)
	if taken {
		if !same(&u.sum, &p.hash) {
			p.before, p.hash = p.hash, u.sum
		}
		p.hand, u.tries = true, 0
	}
	return need
}

// streamFailed tries again, and takes the raw stream where the derived one is not
// there, or not what its sheet says.
func (p *Patches) streamFailed(n *Native, u *Updater, r Reason) Need {
	switch {
	case r != ReasonNone:
		if n.tries++; n.tries >= chunkTries || u.tries+1 >= chunkTries {
			p.fallBack(n, u, r)
			return Need{}
		}
	case u.io.head.Status == 404:
		p.fallBack(n, u, ReasonStream)
		return Need{}
	}
	u.io.head.RetryAfter = 0
	return u.fetchFailed(r)
}
