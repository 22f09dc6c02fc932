package device

import (
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// resume proves what is in flash: the 32 bytes before the resume point are its
// record's hash, believed by nobody, and the walk back over the slot with it ends at
// the signed root or not. The journal, or the first blank sector, only says where to
// try.
func (n *Native) resume(u *Updater) Need {
	in := &u.inst
	switch u.sub {
	case 0:
		n.tries, n.busy, n.have = 0, false, false
		done, err := n.findHint(u)
		if err != nil {
			u.fail(ReasonFlashRead)
			return Need{}
		}
		if done {
			u.sub = 1
		}
	case 1: // ask for the hash
		if n.v.Begin(u.shape(), &n.root) != 0 {
			u.fail(ReasonManifest)
			return Need{}
		}
		if n.hint == 0 || n.plain {
			in.written = 0
			n.provenTo(u, 0)
			return Need{}
		}
		if n.hint == u.shape().Records() {
			u.sub = 3
			return Need{}
		}
		if now := u.c.Port.Millis(); now < u.wakeAt {
			return Need{Kind: NeedTime, Wait: u.wakeAt - now}
		}
		u.sub = 2
		return n.request(u, n.hint, windowHash)
	case 2: // it is being read
		if !n.headOK(u) || !full(u) {
			n.endStream(u)
			u.sub = 1
			return n.streamFailed(u, n.rangeReason(u))
		}
		u.sub = 3
	case 3: // begin the walk
		var hash [32]byte
		copy(hash[:], u.buf)
		if n.v.Resume(n.hint, &hash) != 0 || n.v.Walk(&n.walk) != 0 {
			u.fail(ReasonManifest)
			return Need{}
		}
		n.have = true // the window's 32 bytes were used; the record comes next
		u.sub = 4
	case 4:
		done, err := n.walk.Step(u.slot(), u.chunk(), u.hash)
		if err != nil {
			n.endStream(u)
			u.fail(ReasonFlashRead)
			return Need{}
		}
		if !done {
			return Need{}
		}
		if n.v.Prove(&n.walk, &n.root) {
			n.provenTo(u, n.hint)
			return Need{}
		}
		n.endStream(u)
		n.stepBack(u)
	}
	return Need{}
}

// provenTo goes on behind record i.
func (n *Native) provenTo(u *Updater, i uint32) {
	in := &u.inst
	in.written = i * u.shape().Chunk
	if i == u.shape().Records() {
		in.written = u.shape().Size
	}
	n.tries = 0
	if i == 0 && !u.jnl.found {
		u.enter(phaseProtect)
		return
	}
	u.resumed()
}

// stepBack: the walk did not end at the root. The same point is tried once more over
// a new connection before flash is blamed; then a step back, three times at most;
// then from the start.
func (n *Native) stepBack(u *Updater) {
	u.sub = 1
	n.tries++
	step := uint32(1)
	if s := u.slot().Geometry().EraseSize; s > u.shape().Chunk {
		step = s / u.shape().Chunk
	}
	switch {
	case n.tries == 1 && n.hint < u.shape().Records():
	case n.tries >= walkTries || n.hint <= step:
		u.event(EventStartOver, ReasonDamaged)
		n.hint = 0
	default:
		n.hint = (n.hint - 1) / step * step
	}
}

// findHint says where to try: what the journal says is written, or, without a
// journal, the sector before the first blank one. One sector is looked at a step.
func (n *Native) findHint(u *Updater) (done bool, err error) {
	in := &u.inst
	if u.goOn && u.jnl.found {
		n.hint = u.jnl.newest.written / u.shape().Chunk
		if u.jnl.newest.written >= u.shape().Size {
			n.hint = u.shape().Records()
		}
		return true, nil
	}
	g := u.slot().Geometry()
	if u.inst.resumable || !g.ErasedReadable || g.EraseSize == 0 {
		n.hint = 0 // a journal, and nothing in it; or a chip on which blank can't be told
		return true, nil
	}
	blank, err := n.blank(u, in.done)
	if err != nil {
		return false, err
	}
	if !blank {
		if in.done += g.EraseSize; in.done < u.shape().Size {
			return false, nil
		}
	}
	at := in.done
	in.done = 0
	if at < g.EraseSize {
		n.hint = 0
		return true, nil
	}
	n.hint = (at - g.EraseSize) / u.shape().Chunk
	return true, nil
}

// blank looks at the beginning of a sector: programs run upwards, so one that was
// begun begins there.
func (n *Native) blank(u *Updater, off uint32) (bool, error) {
	g := u.slot().Geometry()
	p := u.chunk()
	if uint32(len(p)) > g.EraseSize {
		p = p[:g.EraseSize]
	}
	if err := u.slot().ReadAt(p, off); err != nil {
		return false, err
	}
	for _, b := range p {
		if b != g.ErasedByte {
			return false, nil
		}
	}
	return true, nil
}

// request asks for the stream from record i on, with the early bytes before it.
func (n *Native) request(u *Updater, i, early uint32) Need {
	t := text{buf: u.buf}
	t.add(streamTarget)
	t.hex(n.file[:])
	if n.tries >= bustAfter {
		t.add("?fresh=")
		t.number(u.c.Port.Random())
		if n.tries >= originAfter {
			t.add("&origin=1")
		}
	}
	// A request ends with a whole number of report spans, so that reports go between two.
	span := u.reportSpan()
	n.until = (i/span + 1) * span
	if last := u.shape().Records(); n.until+span/4 > last {
		n.until = last // what is left is not worth two round trips
	}
	to := u.shape().Start(n.until)
	if n.until == u.shape().Records() {
		to = u.shape().FileLen()
	}
	l := &u.io.req
	*l = layout{}
	l.target = uint16(t.n)
	l.body, l.nonce, l.stamp, l.mac = l.target, l.target, l.target, l.target
	u.io.from, u.io.to = uint32(u.shape().Start(i))-early, uint32(to-1)
	u.io.ranged = !n.plain
	if n.plain {
		n.until = u.shape().Records()
	}
	n.busy, n.have = true, false
	first := early
	if first == 0 {
		first = u.shape().RecordLen(i)
	}
	return u.send(0, int(first))
}

// headOK: exactly what was asked for, uncoded, or nothing.
func (n *Native) headOK(u *Updater) bool {
	h := &u.io.head
	if u.io.state == ioBroken || h.Coded {
		return false
	}
	if !u.io.ranged {
		return h.Status == 200
	}
	return h.Status == 206 && h.From == u.io.from && h.To == u.io.to && uint64(h.Total) == u.shape().FileLen()
}

// rangeReason tells an answer that ignores what was asked from no answer.
func (n *Native) rangeReason(u *Updater) Reason {
	switch h := &u.io.head; {
	case h.Coded, h.Status == 206, h.Status == 416, h.Status == 200 && u.io.ranged:
		return ReasonStream
	}
	return ReasonNone
}

func (n *Native) endStream(u *Updater) {
	n.busy, n.have = false, false
	u.hangUp()
}

// streamFailed waits and tries again: around caches where what came was wrong, and
// with whole files where nobody knows ranges.
func (n *Native) streamFailed(u *Updater, r Reason) Need {
	if r != ReasonNone {
		n.tries++
		if r == ReasonStream && n.tries == chunkTries-1 && !n.plain {
			n.plain = true
			if u.inst.written > 0 || u.phase == phaseResume {
				u.event(EventStartOver, ReasonStream)
				u.inst = install{resumable: u.inst.resumable}
				u.enter(phaseResume)
				u.sub = 1
			}
		}
	}
	u.io.head.RetryAfter = 0
	return u.fetchFailed(r)
}

func (n *Native) fetch(u *Updater) Need {
	switch {
	case n.v.Done():
		n.endStream(u)
		u.beginVerify()
		return Need{}
	case u.io.state == ioNone:
		if now := u.c.Port.Millis(); now < u.wakeAt {
			return Need{Kind: NeedTime, Wait: u.wakeAt - now}
		}
		return n.request(u, n.v.Index(), 0)
	case n.have && n.v.Index() >= n.until:
		n.endStream(u) // the next request goes on, on the same connection
		return Need{}
	case n.have:
		n.have = false
		n.window(u, u.shape().RecordLen(n.v.Index()))
		return Need{}
	case !n.headOK(u):
		r := n.rangeReason(u)
		n.endStream(u)
		return n.streamFailed(u, r)
	case !full(u):
		n.endStream(u) // the line broke in the middle of a record
		return n.streamFailed(u, ReasonNone)
	}
	length := u.shape().ChunkLen(n.v.Index())
	if n.v.Accept(u.in(), u.hash) != 0 {
		n.endStream(u)
		return n.streamFailed(u, ReasonRecord)
	}
	n.have, n.tries = true, 0
	u.chunkInHand(length)
	return Need{}
}

func (n *Native) report(u *Updater) Need {
	if n.busy {
		n.endStream(u)
		return Need{}
	}
	if u.io.state == ioNone {
		if !u.nonceReady() {
			return Need{}
		}
		t := text{buf: u.buf}
		t.add(reportTarget)
		if !n.again {
			n.number++
		}
		m := n.words(u)
		m.Nonce, _ = u.next()
		body, err := m.Encode(u.buf[t.n:], n.c.MAC)
		if err != 0 {
			u.reported(false)
			return Need{}
		}
		return n.post(u, t.bytes(), body)
	}
	var a native.Ack
	acked := n.ok(u) && a.Decode(u.in(), n.c.MAC, n.c.Device, u.nonce, u.rec.BootCount, n.number) == 0
	u.io.head.RetryAfter = 0
	u.hangUp()
	n.again = !acked && u.saying == sayOutcome
	u.reported(acked)
	return Need{}
}

// words of a report.
func (n *Native) words(u *Updater) native.Report {
	m := native.Report{Device: n.c.Device, Key: n.c.Key, Boot: u.rec.BootCount, Number: n.number,
		Bytes: u.inst.written, Reason: uint16(u.failing)}
	im := &u.rel.Image
	switch u.saying {
	case sayProgress:
		m.State, m.Reason = native.StateDownloading, 0
	case sayVerified:
		m.State, m.Reason = native.StateRebooting, 0
	case sayFailed:
		m.State = native.StateFailed
	case sayOutcome:
		im = &u.rec.Trial.Image
		m.Reason, m.Bytes = uint16(outcomeReason(u.rec.Outcome)), im.Size
		switch u.rec.Outcome {
		case state.OutcomeConfirmed, state.OutcomeConfirmedElsewhere:
			m.State = native.StateConfirmed
		case state.OutcomeUnproven:
			m.State = native.StateUnproven
		case state.OutcomeGaveUp:
			m.State = native.StateFailed
		default:
			m.State = native.StateReverted
		}
	}
	m.Epoch, m.Sequence, m.Digest = im.Epoch, im.Stamp, im.Digest[:]
	return m
}

// shape is what the layout of the stream in progress follows from.
func (u *Updater) shape() stream.Shape { return stream.Shape{Size: u.rel.Size, Chunk: u.rel.chunk} }
