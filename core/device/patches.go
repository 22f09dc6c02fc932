package device

import (
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// Patches is what a device needs to take patches and compressed streams over the
// native wire, for a NativeConfig of its own: docs/design/patches-device.md. Where
// none is made, nothing of it is linked.
//
// A derived stream only says how the image's bytes come. What is in the slot is proven
// as after a raw stream, and whatever a derived stream fails of, the raw one goes on
// from where it got: the release does not fail for it.
type Patches struct {
	mode   patchMode
	step   patchStep
	kind   uint8 // manifest.StreamCompressed or StreamPatch
	reason Reason
	active bool // it makes the image in progress
	made   bool // it made what is in the slot
	hand   bool // the buffer holds record v.Index()-1, proven
	word   patchWord
	half   uint8 // of scratch: the one with point's snapshot, or where one is written or read
	snap   snapshotStep

	sheetLen uint16  // of the sheet in the offer in hand, bytes; 0: it names no derived stream
	failed   imageID // the release that none is tried for again

	shape stream.Shape // of the derived stream
	base  uint32       // bytes of the image that it starts from
	at    uint32       // of its payload: what is fed next
	keep  uint32       // of the image: so much is in flash already, says the journal; it is compared, not written
	fed   uint32       // where what the applier counts from lies in it
	point patchPoint   // where the journal has it go on

	file   [32]byte // of the stream file
	root   [32]byte // of the derived stream
	hash   [32]byte // of the record in hand; of the image that it starts from, until that is proven
	before [32]byte // and of the one before; SHA-256 of the sheet's envelope, until records come
	// The image's own chain, in which restart points speak: the manifest's first raw stream's.
	imageChunk uint32 // bytes
	imageRoot  [32]byte

	// Made to interfaces where a Patches is made, and nowhere else: TinyGo has every call
	// of an interface compare with each type that is made to one anywhere in the program.
	old, next slotSource
	from, to  patch.Source

	scratch *flash.Area // nil: none
	out     []byte
	memory  []uint16
	applier patch.Applier
}

// slotSource is a slot that is read, and nothing else.
type slotSource struct{ slot *flash.Area }

// ReadAt is patch.Source's.
func (s *slotSource) ReadAt(p []byte, off uint32) error { return s.slot.ReadAt(p, off) }

// patchMode is how a release comes, decided once an offer.
type patchMode uint8

const (
	patchUndecided patchMode = iota
	patchRaw
	patchDerived
)

// PatchConfig is the memory of a Patches. The caller keeps it for that alone.
type PatchConfig struct {
	// Memory is patch.LargeWords, or patch.SmallWords for streams that were made for it.
	Memory []uint16
	// Out is where output waits for flash: a power of two, 256 to 4,096 bytes, and a
	// multiple of the chip's program unit, of Scratch's too.
	Out []byte
	// Scratch is where snapshots of the model are kept, so that a stream whose model goes
	// on over restart points is gone on with after a reset: two halves of whole sectors
	// (docs/porting.md has the sizes). nil, or one that is too small for the stream's profile:
	// such a stream is begun anew.
	Scratch *flash.Area
}

// What a device sets aside for each profile in all, record buffer included: the sheet's
// ram is not above it. Bytes (core/patch, TestWorkingSet).
const (
	largeRAM = 16384
	smallRAM = 8192
)

const minOut = 256 // bytes: a journal's entry is written from there, too

// NewPatches refuses memory that no stream could use.
func NewPatches(p *Patches, c *PatchConfig) error {
	makesPatches()
	native.MakesDerived()
	*p = Patches{}
	n := len(c.Out)
	if len(c.Memory) < patch.SmallWords || n < minOut || n > programPerStep || n&(n-1) != 0 {
		return ErrPatches
	}
	p.memory, p.out = c.Memory, c.Out
	if c.Scratch != nil && c.Scratch.Size() != 0 {
		p.scratch = c.Scratch
	}
	p.from, p.to = &p.old, &p.next
	return nil
}

// attach holds the memory against the board.
func (p *Patches) attach(u *Updater) error {
	if len(p.out) == 0 || uint32(len(p.out))%u.c.Slots[0].ProgramSize() != 0 {
		return ErrPatches
	}
	if p.scratch != nil && uint32(len(p.out))%p.scratch.ProgramSize() != 0 {
		return ErrPatches
	}
	return nil
}

// patches is what the board takes derived streams with, nil: it takes none.
func (n *Native) patches() *Patches {
	if !patchesMade {
		return nil
	}
	return n.c.Patches
}

// patching is the Patches at work on the image in progress; nil: records are its chunks.
func (u *Updater) patching() *Patches {
	if !patchesMade || u.w.native == nil {
		return nil
	}
	if p := u.w.native.c.Patches; p != nil && p.active {
		return p
	}
	return nil
}

// says is what a poll tells of it.
func (p *Patches) says() native.Derived {
	if p.takes(patch.ProfileLarge) {
		return native.Derived{Version: patch.Version, Profiles: 1<<patch.ProfileSmall | 1<<patch.ProfileLarge, RAM: largeRAM}
	}
	return native.Derived{Version: patch.Version, Profiles: 1 << patch.ProfileSmall, RAM: smallRAM}
}

// takes reports whether there is memory for a profile.
func (p *Patches) takes(profile uint8) bool {
	switch profile {
	case patch.ProfileLarge:
		return len(p.memory) >= patch.LargeWords
	case patch.ProfileSmall:
		return true
	}
	return false
}

// offered keeps what an offer says of a derived stream.
func (p *Patches) offered(u *Updater, o *native.Offer) {
	p.mode = patchUndecided
	p.sheetLen = 0
	if o.Sheet != nil && o.SheetLength <= uint32(len(u.buf)) {
		p.sheetLen = uint16(o.SheetLength)
		copy(p.before[:], o.Sheet)
		copy(p.file[:], o.Derived)
	}
}

// judged keeps of a manifest what a sheet has to fit.
func (p *Patches) judged(m *manifest.Manifest) {
	p.made = false
	s := &m.Image.Streams[0]
	p.imageChunk = s.Chunk
	copy(p.imageRoot[:], s.Root)
}

// patchWord is what became of the journal's word on where a stream goes on.
type patchWord uint8

const (
	wordCounts   patchWord = iota
	wordSnapshot           // it was followed, with a snapshot, for which nobody answers but the image's digest
	wordLost               // the stream was begun anew
)

// decide says whether the image comes by the derived stream. What a raw stream began,
// or what failed before, the raw one ends: the journal remembers both over a reset.
func (p *Patches) decide(n *Native, u *Updater) {
	p.active, p.made, p.hand, p.word, p.keep = false, false, false, wordCounts, 0
	p.mode, p.step = patchDerived, patchSheet
	switch {
	case p.sheetLen == 0, n.plain, n.doubt, p.failed.is(&u.rel.Digest, u.rel.Stamp):
		p.mode = patchRaw
	case !u.goOn || !u.jnl.found:
	case u.jnl.newest.written >= u.rel.Size:
		p.mode = patchRaw // all of it is there, to be proven
	default:
		derived, err := u.jnl.isDerived(u.buf)
		if err != nil || !derived {
			p.mode = patchRaw
		}
	}
}

// fallBack has the raw stream go on from what is in the slot, and the server told why.
// Nothing derived is tried for this release again.
func (p *Patches) fallBack(n *Native, u *Updater, r Reason) {
	n.endStream(u)
	writing := u.phase == phaseFetch || u.phase == phaseVerify
	p.mode, p.active, p.made, p.hand = patchRaw, false, false, false
	p.failed.set(&u.rel.Digest, u.rel.Stamp)
	p.reason = r
	u.event(EventFullStream, r)
	n.tries, u.tries, u.wakeAt = 0, 0, 0
	if writing {
		// What was made so far is a hint, as after a reset, and no more.
		in, j := &u.inst, &u.jnl
		n.doubt = u.phase == phaseVerify // the walk from the end is known to fail
		at := in.written
		if at < p.keep {
			at = p.keep
		}
		if at < u.rel.Size {
			at -= at % u.span()
		}
		p.opened(u)
		u.goOn, j.found, j.newest = true, true, entry{written: at}
	}
	in := &u.inst
	in.inHand, in.done = 0, 0
	u.say(sayFullStream, phaseResume)
}

// opened: the journal was opened in this start, and may be again: the sector that was
// written last is erased last.
func (p *Patches) opened(u *Updater) {
	if u.inst.resumable {
		u.jnl.at = 1 - u.jnl.turn&1
	}
}

// digestOf is the SHA-256 of p, in u.sum.
func (u *Updater) digestOf(p []byte) *[digest.Size]byte {
	u.hash.Reset()
	u.hash.Write(p)
	u.hash.Sum(&u.sum)
	return &u.sum
}
