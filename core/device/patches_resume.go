package device

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
)

// patchStep is where the beginning of a derived stream is: all of it before the first
// erase.
type patchStep uint8

const (
	patchSheet    patchStep = iota // fetching the sheet
	patchJudge                     // its signature, a share a Step
	patchBase                      // hashing the image that the patch starts from
	patchStart                     //
	patchPreamble                  // the stream's beginning, and from its restart point on
	patchWalk                      // proving what is in the slot
)

const sheetTarget = "/r1/sheets/"

// resume ends in phaseProtect, where the stream begins; in resumed, where it goes on;
// or in fallBack.
//
//go:noinline
func (p *Patches) resume(n *Native, u *Updater) Need {
	switch p.step {
	case patchSheet:
		if u.io.state != ioNone {
			return p.gotSheet(n, u)
		}
		if wait := u.early(); wait > 0 {
			return Need{Kind: NeedTime, Wait: wait}
		}
		t := text{buf: u.buf}
		t.add(sheetTarget)
		t.hex(p.before[:])
		n.busy = false
		return n.get(u, t.bytes(), int(p.sheetLen))
	case patchJudge:
		p.judge(n, u)
	case patchBase:
		p.hashBase(n, u)
	case patchStart:
		p.start(n, u)
	case patchPreamble:
		return p.pump(n, u)
	case patchWalk:
		p.walk(n, u)
	}
	return Need{}
}

// gotSheet begins to judge it. Its digest came under the answer's MAC.
//
//go:noinline
func (p *Patches) gotSheet(n *Native, u *Updater) Need {
	whole := n.ok(u) || u.io.state == ioDone && full(u) && u.io.head.Status == 200
	status := u.io.head.Status
	in := u.in()
	u.hangUp()
	u.io.head = Head{}
	switch {
	case whole && same(u.digestOf(in), &p.before):
	case status == 404, whole && u.tries+1 >= chunkTries:
		p.fallBack(n, u, ReasonSheet)
		return Need{}
	default:
		return u.fetchFailed(ReasonNone)
	}
	u.tries = 0
	e := &n.c.Judge.envelope
	if e.Parse(in) != 0 || n.c.Profile.by.begin(n, manifest.KindSheet) != 0 {
		p.fallBack(n, u, ReasonSheet)
		return Need{}
	}
	p.step = patchJudge
	return Need{}
}

// judge holds the sheet against the manifest and the device.
//
//go:noinline
func (p *Patches) judge(n *Native, u *Updater) {
	j := n.c.Judge
	done, err := n.c.Profile.by.check(n, &j.floors)
	if !done {
		return
	}
	var s manifest.Sheet
	if err != 0 || s.Parse(j.envelope.Payload) != 0 || !digest.Equal(s.ImageRoot, p.imageRoot[:]) {
		p.fallBack(n, u, ReasonSheet)
		return
	}
	run := u.running()
	switch {
	case !p.takes(s.Profile), s.Chunk > uint32(u.chunkTo), u.rel.Size > patch.MaxImage:
		p.fallBack(n, u, ReasonPatchMemory)
		return
	case s.Kind != manifest.StreamPatch:
	case int(run) >= len(u.c.Slots), s.BaseSize > u.c.Slots[run].Size(), s.BaseSize > patch.MaxImage:
		p.fallBack(n, u, ReasonBase) // a factory image is no slot's
		return
	}
	p.kind, p.base, p.shape = s.Kind, s.BaseSize, stream.Shape{Size: s.Length, Chunk: s.Chunk}
	copy(p.root[:], s.Root)
	copy(p.hash[:], s.BaseDigest)
	u.inst.done = 0
	u.hash.Reset()
	p.step = patchBase
}

// hashBase proves what the patch starts from, before anything is erased for it.
//
//go:noinline
func (p *Patches) hashBase(n *Native, u *Updater) {
	if p.kind == manifest.StreamPatch {
		done, err := u.hashNext(u.running(), p.base, false)
		if err == nil && !done {
			return
		}
		u.hash.Sum(&u.sum)
		if err != nil || !same(&u.sum, &p.hash) {
			p.fallBack(n, u, ReasonBase)
			return
		}
	}
	u.inst.done = 0
	p.step = patchStart
}

// start sets the applier up, at the stream's beginning or where the journal has it go on.
//
//go:noinline
func (p *Patches) start(n *Native, u *Updater) {
	p.active, p.hand = true, false
	p.snap, p.half = snapshotNone, uint8(u.jnl.top&1) // so that both halves wear alike
	p.at, p.fed = 0, 0
	u.inst.written = 0
	p.next.slot = u.slot()
	c := patch.Config{NewSize: u.rel.Size, New: p.to, Out: p.out, Memory: p.memory}
	if p.kind == manifest.StreamPatch {
		p.old.slot = &u.c.Slots[u.running()]
		c.Old, c.OldSize = p.from, p.base
	}
	if n.v.Begin(p.shape, &p.root) != 0 || p.applier.Begin(c) != 0 {
		p.fallBack(n, u, ReasonSheet)
		return
	}
	u.event(EventDerived, ReasonNone)
	if p.pointFound(u) && p.applier.ResumeAt(p.point.made) == 0 {
		p.step = patchPreamble
		return
	}
	p.point = patchPoint{}
	p.goOn(u)
}

// pointFound: the journal says where this very stream goes on, and what is in flash.
func (p *Patches) pointFound(u *Updater) bool {
	j := &u.jnl
	if p.word == wordLost || !u.goOn || !j.found {
		return false
	}
	p.keep = j.newest.written - j.newest.written%u.sector()
	at := &p.point.made
	return j.point(&p.point, &j.newest, u.buf) && p.point.of(&p.root) && p.point.at < p.shape.Size &&
		*at > 0 && *at <= p.keep && *at%u.sector() == 0 && *at%p.imageChunk == 0
}

// goOn goes on behind what is made. What is erased is what lies behind the bytes that
// are kept; those before are made anew, and found to be there.
func (p *Patches) goOn(u *Updater) {
	if p.keep == 0 && p.word != wordLost && !u.jnl.found {
		u.enter(phaseProtect)
		return
	}
	u.inst.written = p.keep
	u.resumed()
	u.inst.written = p.applier.Made()
}

// seek goes on at the restart point, with the record whose hash the journal kept, and
// with the model as it was there.
func (p *Patches) seek(n *Native, u *Updater) {
	n.endStream(u)
	p.at, p.fed, p.hand = p.point.at, p.point.at, false
	copy(p.hash[:], p.point.hash[:])
	if p.applier.Kept() {
		p.findSnapshot(n, u)
	}
}

// atLink: the applier is where the journal says that flash is. The hash that stands
// there is that of the image's chain; from it the walk comes to the signed root, or not.
func (p *Patches) atLink(n *Native, u *Updater) {
	n.endStream(u)
	p.hand = false // the walk takes the buffer
	image := stream.Shape{Size: u.rel.Size, Chunk: p.imageChunk}
	if p.applier.Made() != p.point.made || n.walk.Begin(image, p.applier.Made()/image.Chunk, p.applier.Link()) != 0 {
		p.anew(n, u)
		return
	}
	p.step = patchWalk
}

//go:noinline
func (p *Patches) walk(n *Native, u *Updater) {
	off, size := n.walk.Next(uint32(u.chunkTo))
	b := u.buf[:size]
	if u.slot().ReadAt(b, off) != nil {
		u.fail(ReasonFlashRead)
		return
	}
	if !n.walk.Take(b, u.hash) {
		return
	}
	if !n.walk.Proven(&p.imageRoot) {
		p.anew(n, u)
		return
	}
	p.goOn(u)
}

// anew: what is in flash is not what the journal says, so the stream is begun again.
func (p *Patches) anew(n *Native, u *Updater) {
	n.endStream(u)
	u.event(EventStartOver, ReasonDamaged)
	p.word, p.keep, p.step = wordLost, 0, patchStart
}
