package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// nativeStep is where a poll is.
type nativeStep uint8

const (
	stepPoll     nativeStep = iota
	stepList                // fetching a key list
	stepAccept              // judging it, a signature a step
	stepManifest            // fetching the manifest on offer
	stepJudge               // judging it
)

//go:noinline
func (n *Native) poll(u *Updater) Need {
	if u.io.state == ioNone && u.final {
		if wait := u.early(); wait > 0 {
			return Need{Kind: NeedTime, Wait: wait}
		}
	}
	switch n.step {
	case stepList, stepAccept:
		return n.c.Profile.by.list(n, u)
	case stepJudge:
		n.judge(u)
	case stepManifest:
		if u.io.state == ioNone {
			t := text{buf: u.buf}
			t.add(manifestTarget)
			t.hex(n.root[:])
			return n.get(u, t.bytes(), int(n.manifestLen))
		}
		n.gotManifest(u)
	default:
		if u.io.state == ioNone {
			return n.ask(u)
		}
		n.polled(u)
	}
	return Need{}
}

// ask sends a poll.
//
//go:noinline
func (n *Native) ask(u *Updater) Need {
	if !u.nonceReady() {
		return Need{}
	}
	if !n.c.Profile.by.hold(n, u) {
		u.blame(ReasonTrust)
		n.leave(u)
		return Need{}
	}
	t := text{buf: u.buf}
	t.add(pollTarget)
	body, err := n.encodePoll(u, u.buf[t.n:])
	if err != 0 {
		u.failing = ReasonState // its own configuration does not fit: NewNative rules it out
		n.leave(u)
		return Need{}
	}
	return n.post(u, t.bytes(), body)
}

//go:noinline
func (n *Native) encodePoll(u *Updater, buf []byte) ([]byte, native.Error) {
	var m native.Poll
	n.describe(u, &m)
	return m.Encode(buf, n.c.MAC)
}

// describe is what a poll says. (Through a pointer, as words: what a function makes for
// itself alone is kept in registers, and spilled, field by field.)
//
//go:noinline
func (n *Native) describe(u *Updater, m *native.Poll) {
	c, r := n.c, &u.rec
	m.Device, m.Hardware, m.Key, m.Profile = c.Device, c.Hardware, c.Key, c.Profile.name
	m.Nonce, m.Boot = u.next(), r.BootCount
	m.Epoch, m.Sequence, m.SecurityVersion = r.Floors.Epoch, r.Floors.Stamp, r.Floors.Security
	m.ListVersion, m.ListGeneration = n.held, n.heldGen
	m.Envelope, m.Chunk = uint32(len(u.buf)), uint32(u.chunkTo)
	m.Security, m.SecureVersion, m.HasSecureVersion = c.Security, c.SecureVersion, c.HasSecure
	m.Running = uint8(u.running())
	if h, ok := u.c.Port.(Healthy); ok {
		m.Health = h.Health()
	}
	if c.Format == manifest.FormatESP {
		m.HasChip, m.Chip = true, u.c.Chip
	}
	for i := range u.c.Slots {
		if i < native.MaxSlots {
			m.Slots[i] = u.c.Slots[i].Size()
			m.SlotCount++
		}
	}
	if !r.Confirmed.None() && uint8(r.Confirmed.Slot) == m.Running {
		m.Digest = r.Confirmed.Digest[:]
		if same(&r.Trial.Image.Digest, &r.Confirmed.Digest) && r.Trial.Image.VersionLen > 0 {
			m.Version = r.Trial.Image.Version[:r.Trial.Image.VersionLen]
		}
	}
	if u.rel.known && u.rel.Stamp != 0 {
		m.InProgress, m.Progress = u.rel.Stamp, u.jnl.newest.written
	}
	if p := n.patches(); p != nil {
		m.Derived = p.says()
	}
	// Random bits, so that a counter that was set back repeats no message.
	var bits uint32 // of the chip's generator, which may take milliseconds for 32
	for i := range n.random {
		if i%4 == 0 {
			bits = u.c.Port.Random()
		}
		n.random[i] = byte(bits)
		bits >>= 8
	}
	m.Random = n.random[:]
}

// leave ends a poll that came to nothing by the device's own fault.
func (n *Native) leave(u *Updater) {
	n.step, u.final = stepPoll, false
	u.hangUp()
	u.putDown()
}

// away: no answer, or none that counts.
//
//go:noinline
func (n *Native) away(u *Updater) {
	u.hangUp()
	polled := n.step != stepPoll
	n.step = stepPoll
	u.io.head.RetryAfter = 0 // nothing outside an authenticated body is believed
	if u.final {
		u.event(EventUnreachable, ReasonNone)
		if u.tries++; u.tries < networkTries {
			u.wakeAt = u.millis() + uint64(u.backoff())
			return
		}
		// What is in flash stays there; the journal has it.
		u.final = false
		u.parkDownload()
		return
	}
	u.unreachable()
	if polled {
		u.park() // each poll was answered: counting those that were not slows nothing down
	}
}

// polled acts on the answer to a poll.
//
//go:noinline
func (n *Native) polled(u *Updater) {
	var a native.Answer
	if !n.ok(u) || a.Decode(u.in(), n.c.MAC, n.c.Device, u.nonce, n.random[:]) != 0 || a.Highest >= u.nonce && a.Highest >= maxNonce {
		n.away(u)
		return
	}
	if a.Highest >= u.nonce {
		// It was reflashed, or its counter was lost: go on above what the server knows.
		u.hangUp()
		u.nonce, u.rec.NonceLimit = a.Highest, a.Highest
		if n.jumps++; n.jumps > maxJumps {
			// Two devices with one key, perhaps. Each time costs a write of the state.
			n.jumps, n.step, u.final = maxJumps, stepPoll, false
			if u.trial {
				u.enter(phaseTrial)
			} else {
				u.parkDownload()
			}
			u.pollAt = u.millis() + parkCap
		}
		return
	}
	n.comeBack(u, a.ComeBack)
	if u.trial {
		u.hangUp()
		u.reached()
		return
	}
	u.contact = true
	if !u.final {
		u.tries = 0 // else a manifest that never comes would be asked for every second
	}
	if len(a.Retry) == digest.Size {
		copy(u.sum[:], a.Retry)
		u.failed, n.settled = imageID{}, false
		if u.rec.ForgetBad(&u.sum) {
			u.hangUp()
			u.saveThen(phasePoll, 0)
			return
		}
	}
	switch {
	case a.Cancel != 0 && u.rel.known && a.Cancel == u.rel.Stamp:
		u.hangUp()
		u.final, n.judgedBy = false, 0
		u.cancelled()
		return
	case a.Revert != 0 && a.Revert != n.order:
		n.order = a.Revert
		u.hangUp()
		u.final = false
		u.enter(phaseCheckBack)
		return
	}
	if n.c.Profile.by.behind(n, u, a.ListVersion, a.ListGeneration) {
		return
	}
	if !a.HasOffer {
		u.hangUp()
		u.final, n.judgedBy = false, 0
		u.nothing()
		return
	}
	n.offered(u, &a.Offer)
}

// comeBack takes the server's wish, clamped.
//
//go:noinline
func (n *Native) comeBack(u *Updater, seconds uint32) {
	least, most := n.c.MinPollMillis, n.c.MaxPollMillis
	if least == 0 {
		least = minPoll
	}
	if most == 0 {
		most = maxPoll
	}
	ms := most
	if seconds <= most/1000 {
		ms = seconds * 1000
	}
	if ms < least {
		ms = least
	}
	if ms > most {
		ms = most
	}
	u.c.PollMillis = ms
}

// wayBack says whether the slot that an ordered way back leads to may run again:
// only what this device confirmed before, and no lower than its floors.
func (u *Updater) wayBack() (boot.Slot, bool) {
	p, f := &u.rec.Previous, &u.rec.Floors
	if p.None() || p.Slot == u.running() || int(p.Slot) >= len(u.c.Slots) {
		return 0, false
	}
	if p.Security < f.Security || p.Epoch < f.Epoch || p.Size > u.c.Slots[p.Slot].Size() {
		return 0, false
	}
	return p.Slot, true
}
