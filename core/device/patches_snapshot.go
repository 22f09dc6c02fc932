package device

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Where a stream's model goes on over restart points (patch.FlagKeep), a restart point
// is worth something only with the model as it was there: a snapshot, in one half of the
// scratch area (docs/format/state.md). It is written and read back before the journal
// names its point, and the other half keeps that of the point before: whenever power
// fails, the journal's point has its snapshot. A snapshot is believed by nobody: whatever
// it holds, the applier stays within its bounds, and the image is proven in the end.
//
//	snapshot  from the half's start, as long as the stream's layout has it
//	seal 32 B at the next program unit: "RNLM" u32, format u8, 0 0 0, head of the stream's
//	          root u32, place in the stream u32, made u32, length of the snapshot u32, its
//	          CRC-32, CRC-32 of the 28 bytes before
const (
	sealMagic  = 0x4D4C4E52
	sealFormat = 1
	sealBytes  = 32
)

// snapshotStep is where the writing or the reading of one is; in phaseResume one is read.
// install.done is how many bytes of it are erased, written or read, install.crc the CRC-32
// of those: no image is at work in them.
type snapshotStep uint8

const (
	snapshotNone  snapshotStep = iota
	snapshotErase              // a sector a Step
	snapshotWrite
	snapshotSeal // from then on it is one
	snapshotRead // to see that it is in flash, or back into the applier
)

// halfSize is what a half of the scratch area has in whole sectors, bytes.
func (p *Patches) halfSize() uint32 {
	half := p.scratch.Size() / 2
	return half - half%p.scratch.EraseSize()
}

// sealAt is where the seal of the stream's snapshots stands in a half, and where it ends.
func (p *Patches) sealAt() (at, end uint32) {
	unit := p.scratch.ProgramSize()
	at = roundUp(p.applier.SnapshotLen(), unit)
	return at, at + roundUp(sealBytes, unit)
}

// keepsModel: a reset may go on at the restart points of the stream at work.
func (p *Patches) keepsModel() bool {
	if !p.applier.Kept() {
		return true // it begins anew there, and nothing has to be kept
	}
	if p.scratch == nil {
		return false
	}
	_, end := p.sealAt()
	return end <= p.halfSize()
}

// snapshot does one flash operation, or reads 4 KiB at most, towards a snapshot that is
// in flash, or back in the applier. The output buffer is free: at restart points
// everything that was made is in flash.
//
//go:noinline
func (p *Patches) snapshot(n *Native, u *Updater) {
	in, base := &u.inst, uint32(p.half)*p.halfSize()
	seal, end := p.sealAt()
	var err error
	switch p.snap {
	case snapshotErase:
		sector := p.scratch.EraseSize()
		err = p.scratch.Erase(base+in.done, sector)
		if in.done += sector; in.done >= end {
			p.snap, in.done = snapshotWrite, 0
		}
	case snapshotWrite:
		b := p.snapshotPiece(in)
		p.applier.Snapshot(b, in.done)
		in.crc = digest.CRC32(in.crc, b)
		whole := p.out[:roundUp(uint32(len(b)), p.scratch.ProgramSize())]
		p.scratch.Blank(whole[len(b):])
		err = p.scratch.Program(whole, base+in.done)
		if in.done += uint32(len(b)); in.done == p.applier.SnapshotLen() {
			p.snap = snapshotSeal
		}
	case snapshotSeal:
		b := p.out[:end-seal]
		p.scratch.Blank(b)
		p.seal(u, b)
		err = p.scratch.Program(b, base+seal)
		p.snap, in.done, in.crc = snapshotRead, 0, 0
	case snapshotRead:
		for left := hashBytesPerStep; left >= len(p.out); left -= len(p.out) {
			b := p.snapshotPiece(in)
			if len(b) == 0 {
				p.snapshotEnd(n, u, base+seal)
				return
			}
			if err = p.scratch.ReadAt(b, base+in.done); err != nil {
				break
			}
			in.crc = digest.CRC32(in.crc, b)
			in.done += uint32(len(b))
			if u.phase == phaseResume {
				// Before it is known to be the one: if it is not, the other half's goes over all of
				// it, or the applier begins anew.
				p.applier.Restore(b, in.done-uint32(len(b)))
			}
		}
	}
	if err != nil {
		p.noSnapshot(n, u)
	}
}

// snapshotEnd: all of one is read, and its seal says whether it is the one.
func (p *Patches) snapshotEnd(n *Native, u *Updater, seal uint32) {
	b, want := p.out[:sealBytes], p.out[sealBytes:2*sealBytes]
	p.seal(u, want)
	if p.scratch.ReadAt(b, seal) != nil || !digest.Equal(b, want) {
		p.noSnapshot(n, u)
		return
	}
	p.startSnapshot(u, snapshotNone)
	if u.phase == phaseResume {
		p.word = wordSnapshot
		return
	}
	p.notePoint(n, u)
}

// startSnapshot goes to a step, from the snapshot's first byte on.
func (p *Patches) startSnapshot(u *Updater, s snapshotStep) {
	p.snap, u.inst.done, u.inst.crc = s, 0, 0
}

// snapshotPiece is the output buffer, as long as what comes next.
func (p *Patches) snapshotPiece(in *install) []byte {
	if left := p.applier.SnapshotLen() - in.done; left < uint32(len(p.out)) {
		return p.out[:left]
	}
	return p.out
}

// seal puts the seal of a snapshot at the restart point where the applier stands, or is
// to go on.
func (p *Patches) seal(u *Updater, b []byte) {
	le := binary.LittleEndian
	place := p.point.at
	if u.phase != phaseResume {
		place = p.linkAt()
	}
	le.PutUint32(b, sealMagic)
	le.PutUint32(b[4:], sealFormat)
	copy(b[8:12], p.root[:])
	le.PutUint32(b[12:], place)
	le.PutUint32(b[16:], p.applier.Made())
	le.PutUint32(b[20:], p.applier.SnapshotLen())
	le.PutUint32(b[24:], u.inst.crc)
	le.PutUint32(b[28:], digest.CRC32(0, b[:28]))
}

// saveSnapshot begins one of where the applier stands, over the older of the two.
func (p *Patches) saveSnapshot(u *Updater) {
	p.half ^= 1
	p.startSnapshot(u, snapshotErase)
}

// findSnapshot begins to look for that of the point where the stream is to go on. Both
// halves are looked at: an update to the same release before this one may have left one
// for the same point, too.
func (p *Patches) findSnapshot(n *Native, u *Updater) {
	p.half = 0
	p.startSnapshot(u, snapshotRead)
	if !p.keepsModel() { // there was a scratch area, and there is none any more
		p.half = 1
		p.noSnapshot(n, u)
	}
}

// noSnapshot: what was to be one is none. That costs the restart point, and no more:
// the stream goes on, or is begun anew, where what is in flash is compared, not written.
//
//go:noinline
func (p *Patches) noSnapshot(n *Native, u *Updater) {
	p.half ^= 1
	switch {
	case u.phase != phaseResume:
		if p.point.made == 0 { // no half holds one yet: the next is tried in the other
			p.half ^= 1
		}
		p.startSnapshot(u, snapshotNone)
	case p.half == 1:
		p.startSnapshot(u, snapshotRead)
	default:
		p.startSnapshot(u, snapshotNone)
		keep := p.keep
		p.anew(n, u)
		p.keep = keep
	}
}
