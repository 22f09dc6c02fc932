package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
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

func (n *Native) poll(u *Updater) Need {
	switch n.step {
	case stepAccept:
		n.accept(u)
		return Need{}
	case stepJudge:
		n.judge(u)
		return Need{}
	}
	if u.io.state == ioNone {
		if now := u.c.Port.Millis(); n.final && now < u.wakeAt {
			return Need{Kind: NeedTime, Wait: u.wakeAt - now}
		}
		return n.ask(u)
	}
	switch n.step {
	case stepPoll:
		n.polled(u)
	case stepList:
		n.gotList(u)
	case stepManifest:
		n.gotManifest(u)
	}
	return Need{}
}

// ask sends what the present step wants.
func (n *Native) ask(u *Updater) Need {
	t := text{buf: u.buf}
	switch n.step {
	case stepList:
		t.add(listTarget)
		if n.rotated {
			t.number(n.heldGen + 1) // a device goes from generation to generation
		} else {
			t.add("latest")
		}
		return n.get(u, t.bytes(), len(u.buf))
	case stepManifest:
		t.add(manifestTarget)
		t.hex(n.root[:])
		return n.get(u, t.bytes(), int(n.manifestLen))
	}
	if !u.nonceReady() {
		return Need{}
	}
	if n.c.Profile == native.ProfileSigned {
		trust := &n.c.Judge.trust
		if trust.Load(n.store(u), u.buf) != 0 {
			u.failing = ReasonTrust
			u.event(EventFailed, ReasonTrust)
			n.leave(u)
			return Need{}
		}
		n.held, n.heldGen = trust.Version, trust.Generation
	}
	t.add(pollTarget)
	body, err := n.encodePoll(u, u.buf[t.n:])
	if err != 0 {
		u.failing = ReasonState // its own configuration does not fit: NewNative rules it out
		n.leave(u)
		return Need{}
	}
	return n.post(u, t.bytes(), body)
}

func (n *Native) encodePoll(u *Updater, buf []byte) ([]byte, native.Error) {
	nonce, _ := u.next()
	r := &u.rec
	m := native.Poll{
		Device: n.c.Device, Hardware: n.c.Hardware, Nonce: nonce, Boot: r.BootCount, Key: n.c.Key, Profile: n.c.Profile,
		Epoch: r.Floors.Epoch, Sequence: r.Floors.Stamp, SecurityVersion: r.Floors.Security,
		ListVersion: n.held, ListGeneration: n.heldGen,
		Envelope: uint32(len(u.buf)), Chunk: uint32(u.chunkTo), Security: n.c.Security,
		SecureVersion: n.c.SecureVersion, HasSecureVersion: n.c.HasSecure, Running: uint8(u.c.Boot.Running()),
	}
	if n.c.Format == manifest.FormatESP {
		m.HasChip, m.Chip = true, u.c.Chip
	}
	for i := range u.c.Slots {
		if i < native.MaxSlots {
			m.Slots[i] = u.c.Slots[i].Size()
			m.SlotCount++
		}
	}
	if r.Confirmed.Digest != ([32]byte{}) && r.Confirmed.Slot == u.c.Boot.Running() {
		m.Digest = r.Confirmed.Digest[:]
		if r.Trial.Image.Digest == r.Confirmed.Digest && r.Trial.Image.VersionLen > 0 {
			m.Version = r.Trial.Image.Version[:r.Trial.Image.VersionLen]
		}
	}
	if u.rel.known && u.rel.Stamp != 0 {
		m.InProgress, m.Progress = u.rel.Stamp, u.jnl.newest.written
	}
	// Random bits, so that a counter that was set back repeats no message.
	for i := range n.random {
		n.random[i] = byte(u.c.Port.Random())
	}
	m.Random = n.random[:]
	return m.Encode(buf, n.c.MAC)
}

// leave ends a poll that came to nothing by the device's own fault.
func (n *Native) leave(u *Updater) {
	n.step, n.final = stepPoll, false
	u.hangUp()
	u.putDown()
}

// away: no answer, or none that counts.
func (n *Native) away(u *Updater) {
	u.hangUp()
	polled := n.step != stepPoll
	n.step = stepPoll
	u.io.head.RetryAfter = 0 // nothing outside an authenticated body is believed
	if n.final {
		u.event(EventUnreachable, ReasonNone)
		if u.tries++; u.tries < networkTries {
			u.wakeAt = u.c.Port.Millis() + u.backoff()
			return
		}
		// What is in flash stays there; the journal has it.
		n.final = false
		u.parkDownload()
		return
	}
	u.unreachable()
	if polled {
		u.park() // each poll was answered: counting those that were not slows nothing down
	}
}

// polled acts on the answer to a poll.
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
			n.jumps, n.step, n.final = maxJumps, stepPoll, false
			if u.trial {
				u.enter(phaseTrial)
			} else {
				u.parkDownload()
			}
			u.pollAt = u.c.Port.Millis() + parkCap
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
	if !n.final {
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
		n.final, n.judgedBy = false, 0
		u.cancelled()
		return
	case a.Revert != 0 && a.Revert != n.order:
		n.order = a.Revert
		u.hangUp()
		n.final = false
		u.enter(phaseCheckBack)
		return
	}
	n.rotated = a.ListGeneration > n.heldGen
	if n.c.Profile == native.ProfileSigned && (n.rotated || a.ListVersion > n.held) {
		u.hangUp()
		n.step = stepList
		if n.lists++; n.lists > maxLists {
			u.failing = ReasonKeyList
			u.event(EventFailed, ReasonKeyList)
			n.lists = 0
			n.leave(u)
		}
		return
	}
	n.lists = 0
	if !a.HasOffer {
		u.hangUp()
		n.final, n.judgedBy = false, 0
		u.nothing()
		return
	}
	n.offered(u, &a.Offer)
}

// comeBack takes the server's wish, clamped.
func (n *Native) comeBack(u *Updater, seconds uint32) {
	least, most := uint64(n.c.MinPollMillis), uint64(n.c.MaxPollMillis)
	if least == 0 {
		least = minPoll
	}
	if most == 0 {
		most = maxPoll
	}
	ms := uint64(seconds) * 1000
	if ms < least {
		ms = least
	}
	if ms > most {
		ms = most
	}
	u.c.PollMillis = uint32(ms)
}

// offered goes for the manifest, unless it is the one that was judged by the list
// that is held.
func (n *Native) offered(u *Updater, o *native.Offer) {
	// A head is enough: what is staged is what was judged, whatever is on offer.
	same := digest.Equal(o.Manifest[:len(n.judged)], n.judged[:])
	// An older one displaces nothing, here neither: a cancel does.
	stays := n.final && (same || o.Epoch < u.rel.Epoch || o.Epoch == u.rel.Epoch && o.Sequence < u.rel.Stamp)
	if n.judgedBy == n.held+1 && (stays || same && n.settled) {
		u.hangUp()
		if n.final {
			n.final = false
			u.enter(phaseStage)
			return
		}
		u.event(EventUpToDate, ReasonNone)
		u.toIdle()
		return
	}
	if o.ManifestLength == 0 || o.ManifestLength > uint32(len(u.buf)) {
		n.refuse(u, ReasonManifest)
		return
	}
	copy(n.root[:], o.Manifest)
	copy(n.judged[:], o.Manifest)
	copy(n.file[:], o.Stream)
	n.manifestLen, n.hint = uint16(o.ManifestLength), o.Chunk
	n.judgedBy, n.settled = 0, false
	u.hangUp()
	n.step = stepManifest
}

// refuse ends an offer that is not even a release that could be named.
func (n *Native) refuse(u *Updater, r Reason) {
	u.hangUp()
	n.step, n.final = stepPoll, false
	u.failing = r
	u.event(EventFailed, r)
	u.putDown()
}

// gotList begins to judge a key list.
func (n *Native) gotList(u *Updater) {
	if !n.ok(u) {
		n.away(u)
		return
	}
	j := n.c.Judge
	*j = Judge{}
	err := j.envelope.Parse(u.in())
	if err == 0 {
		err = j.acceptance.Begin(&j.envelope, &j.list, n.store(u))
	}
	// The envelope lies in the buffer; nothing is sent or read until it is judged.
	n.manifestLen = u.io.got
	u.hangUp()
	if err != 0 {
		n.badList(u)
		return
	}
	n.step = stepAccept
}

func (n *Native) accept(u *Updater) {
	j := n.c.Judge
	done, err := j.acceptance.Step(n.c.Verifier)
	if !done {
		return
	}
	if err != 0 {
		n.badList(u)
		return
	}
	if j.acceptance.Same {
		n.badList(u) // a cache, or somebody, keeps the newer one back
		return
	}
	n.step = stepPoll // with the new list, ask again
	size, err := manifest.CompactInPlace(u.buf[:n.manifestLen], &j.envelope, &j.list, n.c.Product)
	if err != 0 {
		n.badList(u)
		return
	}
	s, ok := u.c.Store.(TrustStore)
	if !ok || s.SetTrust(uint32(size)) != nil {
		n.badList(u)
		return
	}
	n.judgedBy = 0
	u.rec.SpentStamp, u.rec.Spent = 0, 0 // the people with roots spoke; sequences may begin anew
	u.event(EventKeyList, ReasonNone)
	u.saveThen(phasePoll, 0)
}

// badList: a key list that the device's own roots don't stand for. Nothing is
// taken until there is a right one.
func (n *Native) badList(u *Updater) { n.refuse(u, ReasonKeyList) }

// gotManifest begins to judge the manifest.
func (n *Native) gotManifest(u *Updater) {
	if !n.ok(u) && !(u.io.state == ioDone && full(u) && u.io.head.Status == 200) {
		n.away(u)
		return
	}
	p := u.in()
	j := n.c.Judge
	*j = Judge{}
	u.hash.Reset()
	u.hash.Write(p)
	u.hash.Sum(&u.sum)
	u.hangUp()
	if !digest.Equal(u.sum[:], n.root[:]) {
		// A cache, a portal, or the line: the digest came under the MAC.
		u.io.head.Status = 0
		n.away(u)
		return
	}
	if j.envelope.Parse(p) != 0 {
		n.refuse(u, ReasonManifest)
		return
	}
	if n.c.Profile == native.ProfileSigned {
		if j.signatures.BeginManifest(&j.envelope, n.store(u)) != 0 {
			n.refuse(u, ReasonSignature)
			return
		}
	}
	n.step = stepJudge
}

// judge counts signatures, then holds the manifest against the device, before the
// first erase.
func (n *Native) judge(u *Updater) {
	j := n.c.Judge
	f := manifest.Floors{Epoch: u.rec.Floors.Epoch, Sequence: u.rec.Floors.Stamp, Security: u.rec.Floors.Security}
	if n.c.Profile == native.ProfileSigned {
		done, err := j.signatures.Step(n.c.Verifier)
		if !done {
			return
		}
		if err != 0 {
			n.refuse(u, ReasonSignature)
			return
		}
		f.Listed, f.ListEpoch, f.ListFloor = true, j.signatures.Trust.Epoch, j.signatures.Trust.Floor
	}
	n.step = stepPoll
	n.judgedBy = n.held + 1
	m := &j.manifest
	if m.Parse(j.envelope.Payload) != 0 {
		n.refuse(u, ReasonManifest)
		return
	}
	if u.rel.known {
		f.InProgress, f.InProgressEpoch = u.rel.Stamp, u.rel.Epoch
	}
	s := u.slot()
	d := manifest.DeviceFacts{Product: n.c.Product, Hardware: n.c.Hardware, Format: n.c.Format, Chip: u.c.Chip,
		Slot: uint8(u.target), SlotAddress: s.Base(), SlotSize: s.Size(), Chunk: uint32(u.chunkTo)}
	why := manifest.Check(m, &d, &f)
	rel := releaseOf(m)
	if n.final {
		n.final = false
		if rel.Digest == u.rel.Digest && rel.Stamp == u.rel.Stamp && rel.Epoch == u.rel.Epoch {
			n.cleared(u, why)
			return
		} // else something else is on offer by now, which displaces it or waits
	}
	n.settled = true // but where it is taken
	if why == manifest.ErrSequence && rel.Epoch == f.Epoch && rel.Stamp == f.Sequence && rel.Digest == u.rec.Confirmed.Digest {
		// It is what this device confirmed: nothing to do, and nothing wrong.
		u.event(EventUpToDate, ReasonNone)
		u.putDown()
		return
	}
	if why == manifest.ErrProgress {
		u.failing = ReasonOlder
		u.event(EventFailed, ReasonOlder)
		u.putDown()
		return
	}
	raw := n.raw(m)
	if why == 0 && raw == nil {
		why = manifest.ErrChunk
	}
	if why != 0 {
		u.rel, u.inst = rel, install{}
		u.refuse(reasonOf(why))
		return
	}
	copy(n.root[:], raw.Root)
	rel.chunk = raw.Chunk
	n.tries, n.plain, n.doubt = 0, false, false
	u.consider(rel)
	n.settled = u.phase == phaseReload // put down at once
}

// raw is the raw stream of the manifest in the chunk size that the server announced,
// which is in hint until then.
func (n *Native) raw(m *manifest.Manifest) *manifest.Raw {
	for i := range m.Image.Streams[:m.Image.NStreams] {
		if r := &m.Image.Streams[i]; r.Chunk == n.hint {
			return r
		}
	}
	return nil
}

// cleared is the verdict right before the switch.
func (n *Native) cleared(u *Updater, why manifest.Error) {
	if why != 0 {
		u.fail(reasonOf(why))
		return
	}
	u.enter(phaseStage)
}

// releaseOf copies what outlives the buffer.
func releaseOf(m *manifest.Manifest) release {
	seconds := m.ConfirmSeconds
	if seconds > 0xFFFF {
		seconds = 0xFFFF
	}
	r := release{Image: state.Image{Size: m.Image.Size, Stamp: m.Sequence, Epoch: m.Epoch, Security: m.SecurityVersion,
		TrialSeconds: uint16(seconds), NoContact: !m.Contact}}
	copy(r.Digest[:], m.Image.Digest)
	r.VersionLen = uint8(copy(r.Version[:], m.Version))
	return r
}

// reasonOf is the reason under which the server hears why a manifest was refused.
func reasonOf(e manifest.Error) Reason {
	switch e {
	case manifest.ErrProduct:
		return ReasonProduct
	case manifest.ErrHardware, manifest.ErrFormat, manifest.ErrChip, manifest.ErrComponent:
		return ReasonHardware
	case manifest.ErrEpoch:
		return ReasonEpoch
	case manifest.ErrSequence:
		return ReasonSequence
	case manifest.ErrProgress:
		return ReasonOlder
	case manifest.ErrSecurity:
		return ReasonSecurity
	case manifest.ErrSlot, manifest.ErrAddress:
		return ReasonSlot
	case manifest.ErrTooLarge:
		return ReasonTooLarge
	case manifest.ErrChunk:
		return ReasonChunkSize
	}
	return ReasonManifest
}

// wayBack says whether the slot that an ordered way back leads to may run again:
// only what this device confirmed before, and no lower than its floors.
func (u *Updater) wayBack() (boot.Slot, bool) {
	p, f := &u.rec.Previous, &u.rec.Floors
	if p.Digest == ([32]byte{}) || p.Slot == u.c.Boot.Running() || int(p.Slot) >= len(u.c.Slots) {
		return 0, false
	}
	if p.Security < f.Security || p.Epoch < f.Epoch || p.Size > u.c.Slots[p.Slot].Size() {
		return 0, false
	}
	return p.Slot, true
}
