package device

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// What an offer has to prove before anything is erased for it: the key list that it
// leans on, then the manifest, then what this device asks of either.

// offered goes for the manifest, unless it is the one that was judged by the list
// that is held.
//
//go:noinline
func (n *Native) offered(u *Updater, o *native.Offer) {
	// A head is enough: what is staged is what was judged, whatever is on offer.
	same := digest.Equal(o.Manifest[:len(n.judged)], n.judged[:])
	// An older one displaces nothing, here neither: a cancel does.
	stays := u.final && (same || o.Epoch < u.rel.Epoch || o.Epoch == u.rel.Epoch && o.Sequence < u.rel.Stamp)
	if n.judgedBy == n.held+1 && (stays || same && n.settled) {
		u.hangUp()
		if u.final {
			u.final = false
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
	if p := n.patches(); p != nil {
		p.offered(u, o)
	}
	n.manifestLen, n.hint = uint16(o.ManifestLength), o.Chunk
	n.judgedBy, n.settled = 0, false
	u.hangUp()
	n.step = stepManifest
}

// refuse ends an offer that is not even a release that could be named.
func (n *Native) refuse(u *Updater, r Reason) {
	u.hangUp()
	n.step, u.final = stepPoll, false
	u.blame(r)
	u.putDown()
}

// gotManifest begins to judge the manifest.
//
//go:noinline
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
	if n.c.Profile.by.begin(n, manifest.KindManifest) != 0 {
		n.refuse(u, ReasonSignature)
		return
	}
	n.step = stepJudge
}

// judge counts signatures, then holds the manifest against the device, before the
// first erase.
//
//go:noinline
func (n *Native) judge(u *Updater) {
	c := n.c
	j := c.Judge
	f := &j.floors // in the struct: what meets an interface escapes
	*f = manifest.Floors{Epoch: u.rec.Floors.Epoch, Sequence: u.rec.Floors.Stamp, Security: u.rec.Floors.Security}
	done, err := c.Profile.by.check(n, f)
	if !done {
		return
	}
	if err != 0 {
		n.refuse(u, ReasonSignature)
		return
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
	d := manifest.DeviceFacts{Product: c.Product, Hardware: c.Hardware, Format: c.Format, Chip: u.c.Chip,
		Slot: uint8(u.target), SlotAddress: s.Base(), SlotSize: s.Size(), Chunk: uint32(u.chunkTo)}
	why := manifest.Check(m, &d, f)
	rel := &j.release
	releaseOf(m, rel)
	if u.final {
		u.final = false
		if same(&rel.Digest, &u.rel.Digest) && rel.Stamp == u.rel.Stamp && rel.Epoch == u.rel.Epoch {
			n.cleared(u, why)
			return
		} // else something else is on offer by now, which displaces it or waits
	}
	n.settled = true // but where it is taken
	if why == manifest.ErrSequence && rel.Epoch == f.Epoch && rel.Stamp == f.Sequence && same(&rel.Digest, &u.rec.Confirmed.Digest) {
		// It is what this device confirmed: nothing to do, and nothing wrong.
		u.event(EventUpToDate, ReasonNone)
		u.putDown()
		return
	}
	if why == manifest.ErrProgress {
		u.blame(ReasonOlder)
		u.putDown()
		return
	}
	raw := n.raw(m)
	if why == 0 && raw == nil {
		why = manifest.ErrChunk
	}
	if why != 0 {
		u.rel.set(rel)
		u.drop(0)
		u.refuse(reasonOf(why))
		return
	}
	copy(n.root[:], raw.Root)
	if p := n.patches(); p != nil {
		p.judged(m)
	}
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
func releaseOf(m *manifest.Manifest, r *release) {
	seconds := m.ConfirmSeconds
	if seconds > 0xFFFF {
		seconds = 0xFFFF
	}
	r.Size, r.Stamp, r.Epoch, r.Security = m.Image.Size, m.Sequence, m.Epoch, m.SecurityVersion
	r.TrialSeconds, r.NoContact = uint16(seconds), !m.Contact
	copy(r.Digest[:], m.Image.Digest)
	r.VersionLen = uint8(copy(r.Version[:], m.Version))
}

// reasonOf is the reason under which the server hears why a manifest was refused.
//
//go:noinline
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
