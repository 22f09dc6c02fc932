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
//
//go:noinline
func (n *Native) resume(u *Updater) Need {
	if p := n.patches(); p != nil && p.mode != patchRaw {
		if p.mode == patchUndecided {
			p.decide(n, u)
		}
		if p.mode == patchDerived {
			return p.resume(n, u)
		}
	}
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
		if n.hint == 0 {
			in.written = 0
			n.provenTo(u, 0)
			return Need{}
		}
		if n.plain || n.doubt {
			in.written = 0
			u.sub = 5
			return Need{}
		}
		if n.hint == u.shape().Records() {
			u.sub = 3
			return Need{}
		}
		if wait := u.early(); wait > 0 {
			return Need{Kind: NeedTime, Wait: wait}
		}
		u.sub = 2
		return n.request(u, n.hint, windowHash)
	case 2: // it is being read
		if !u.headOK() || !full(u) {
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
		// Read here, not by the walk: what it would be handed is an interface.
		off, size := n.walk.Next(uint32(u.chunkTo))
		p := u.buf[:size]
		if u.slot().ReadAt(p, off) != nil {
			n.endStream(u)
			u.fail(ReasonFlashRead)
			return Need{}
		}
		if !n.walk.Take(p, u.hash) {
			return Need{}
		}
		if n.v.Prove(&n.walk, &n.root) {
			n.provenTo(u, n.hint)
			return Need{}
		}
		n.endStream(u)
		n.stepBack(u)
	case 5:
		return n.pass(u)
	case 6:
		n.compare(u)
	}
	return Need{}
}

// pass takes the stream from its beginning, past what is in flash: where nobody
// knows ranges, and where walks don't end at the root. The records come with the
// root's word, so what differs is flash, and nothing in flash is given up on the
// word of a network.
//
//go:noinline
func (n *Native) pass(u *Updater) Need {
	if n.have && n.v.Index() == n.hint {
		n.provenTo(u, n.hint) // and the same answer goes on
		return Need{}
	}
	taken, need := n.next(u)
	if taken {
		if !n.plain { // else what came so far comes again with the next try
			u.tries = 0
		}
		u.inst.inHand, u.inst.done = u.shape().ChunkLen(n.v.Index()-1), 0
		u.sub = 6
	}
	return need
}

// compare holds the record that was taken against flash.
//
//go:noinline
func (n *Native) compare(u *Updater) {
	at := u.inst.written
	done, err := u.readBack()
	switch {
	case err != nil:
		u.event(EventStartOver, ReasonDamaged)
		n.endStream(u)
		n.hint = at / u.shape().Chunk
		n.hint -= n.hint % n.stride(u) // the whole sector is in doubt
		u.inst.inHand, u.inst.done = 0, 0
		n.tries, n.doubt = 0, false
		u.sub = 1
	case done:
		u.sub = 5
	}
}

// stride is how many records a sector holds, at least one.
func (n *Native) stride(u *Updater) uint32 {
	if s := u.sector(); s > u.shape().Chunk {
		return s / u.shape().Chunk
	}
	return 1
}

// provenTo goes on behind record i.
//
//go:noinline
func (n *Native) provenTo(u *Updater, i uint32) {
	in := &u.inst
	in.written = i * u.shape().Chunk
	if i == u.shape().Records() {
		in.written = u.shape().Size
	}
	n.tries, n.doubt = 0, false
	if i == 0 && !u.jnl.found {
		u.enter(phaseProtect)
		return
	}
	u.resumed()
}

// stepBack: the walk did not end at the root. The same point is tried once more over
// a new connection before flash is blamed; then a step back, three times at most;
// then the stream itself decides.
//
//go:noinline
func (n *Native) stepBack(u *Updater) {
	u.sub = 1
	n.tries++
	step := n.stride(u)
	switch {
	case n.tries == 1 && n.hint < u.shape().Records():
	case n.tries >= walkTries || n.hint <= step:
		n.doubt = true
		u.inst.done = 0
		u.sub = 0 // from what was noted at first
		// If it comes to this again before flash got on, then less and less often.
		u.wakeAt = u.millis() + uint64(u.patience())
	default:
		n.hint = (n.hint - 1) / step * step
	}
}

// findHint says where to try: what the journal says is written, or, without a
// journal, the sector before the first blank one. One sector is looked at a step.
//
//go:noinline
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
//
//go:noinline
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
//
//go:noinline
func (n *Native) request(u *Updater, i, early uint32) Need {
	t := text{buf: u.buf}
	t.add(streamTarget)
	s, file := u.shape(), n.file[:]
	if p := u.patching(); p != nil {
		file = p.file[:]
	}
	t.hex(file)
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
	last := s.Records()
	if n.until+span/4 > last {
		n.until = last // what is left is not worth two round trips
	}
	if n.plain {
		n.until = last
	}
	record := s.Chunk + stream.HashSize // a file that is longer than 32 bits is in no slot
	to := n.until * record
	if n.until == last {
		to -= stream.HashSize + (last*s.Chunk - s.Size) // the last one has no hash and may be short
	}
	l := &u.io.req
	*l = layout{}
	l.target = uint16(t.n)
	l.body = l.target
	u.io.from, u.io.to = i*record-early, to-1
	u.io.ranged = !n.plain
	n.busy, n.have = true, false
	first := early
	if first == 0 {
		first = s.RecordLen(i)
	}
	return u.send(0, int(first))
}

// headOK: exactly what was asked for, uncoded, or nothing.
func (u *Updater) headOK() bool {
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
	case u.io.state == ioBroken:
		return ReasonNone
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
//
//go:noinline
func (n *Native) streamFailed(u *Updater, r Reason) Need {
	if p := u.patching(); p != nil {
		return p.streamFailed(n, u, r)
	}
	if r != ReasonNone {
		n.tries++
		n.plain = n.plain || r == ReasonStream && n.tries == chunkTries-1
	}
	if n.plain && u.phase == phaseFetch && n.v.Index() > 0 {
		n.hint = n.v.Index() - n.v.Index()%n.stride(u)
		u.inst = install{resumable: u.inst.resumable, written: u.inst.written}
		u.enter(phaseResume)
	}
	if n.plain && u.phase == phaseResume {
		u.sub = 1
	}
	u.io.head.RetryAfter = 0
	return u.fetchFailed(r)
}

//go:noinline
func (n *Native) fetch(u *Updater) Need {
	if p := u.patching(); p != nil {
		return p.pump(n, u)
	}
	if n.v.Done() {
		n.endStream(u)
		u.beginVerify()
		return Need{}
	}
	tries := u.tries
	taken, need := n.next(u)
	if taken {
		u.pauses = n.v.Index() == n.until // a report goes between two requests
		u.chunkInHand(u.shape().ChunkLen(n.v.Index() - 1))
		if n.plain {
			u.tries = tries // the next try begins at the beginning: that one came proves little
		}
	}
	return need
}

// next brings the next record into the window and has it proven.
//
//go:noinline
func (n *Native) next(u *Updater) (taken bool, need Need) {
	switch {
	case u.io.state == ioNone:
		if wait := u.early(); wait > 0 {
			return false, Need{Kind: NeedTime, Wait: wait}
		}
		return false, n.request(u, n.v.Index(), 0)
	case n.have && n.v.Index() >= n.until:
		n.endStream(u) // the next request goes on, on the same connection
	case n.have:
		n.have = false
		n.window(u, u.shape().RecordLen(n.v.Index()))
	case !u.headOK():
		r := n.rangeReason(u)
		n.endStream(u)
		return false, n.streamFailed(u, r)
	case !full(u):
		n.endStream(u) // the line broke in the middle of a record
		return false, n.streamFailed(u, ReasonNone)
	case n.v.Accept(u.in(), u.hash) != 0:
		n.endStream(u)
		return false, n.streamFailed(u, ReasonRecord)
	default:
		n.have, n.tries = true, 0
		return true, Need{}
	}
	return false, Need{}
}

//go:noinline
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
		var m native.Report
		n.words(u, &m)
		m.Nonce = u.next()
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
//
//go:noinline
func (n *Native) words(u *Updater, m *native.Report) {
	m.Device, m.Key, m.Boot, m.Number = n.c.Device, n.c.Key, u.rec.BootCount, n.number
	m.Bytes, m.Reason = u.inst.written, uint16(u.failing)
	im := &u.rel.Image
	switch u.saying {
	case sayProgress:
		m.State, m.Reason = native.StateDownloading, 0
	case sayVerified:
		m.State, m.Reason = native.StateRebooting, 0
	case sayFailed:
		m.State = native.StateFailed
	case sayFullStream:
		if p := n.patches(); p != nil {
			m.State, m.Reason = native.StateDownloading, uint16(p.reason)
		}
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
}

// shape is what the layout of the stream in progress follows from.
func (u *Updater) shape() stream.Shape {
	if p := u.patching(); p != nil {
		return p.shape
	}
	return stream.Shape{Size: u.rel.Size, Chunk: u.rel.chunk}
}
