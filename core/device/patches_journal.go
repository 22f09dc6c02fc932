package device

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// What the journal of a derived stream has beside: a mark in its header, and behind
// each entry where the stream goes on that made its bytes (docs/format/state.md). What
// goes before is an entry as any: without a derived stream it says what a raw one may
// build on.
//
//	point 48 B  at u32, head of the stream's root u32, hash of its record 32,
//	            made u32, CRC-32 of the 44 before, begun with the entry's
const (
	derivedMark  = 1 // byte 6 of the header
	pointBytes   = 48
	derivedEntry = entryBytes + pointBytes
)

// patchPoint is where a derived stream goes on.
type patchPoint struct {
	made   uint32   // of the image by then, bytes; 0: it begins anew
	at     uint32   // in its payload, bytes
	stream uint32   // head of its root
	hash   [32]byte // of the record that holds `at`
}

// of reports whether it is of the stream with this root.
func (p *patchPoint) of(root *[32]byte) bool { return p.stream == binary.LittleEndian.Uint32(root[:]) }

func (p *patchPoint) put(b []byte, crc uint32) {
	le := binary.LittleEndian
	le.PutUint32(b, p.at)
	le.PutUint32(b[4:], p.stream)
	copy(b[8:40], p.hash[:])
	le.PutUint32(b[40:], p.made)
	le.PutUint32(b[44:], digest.CRC32(crc, b[:44]))
}

// follows reads what stands behind the entry in b, and reports whether it is whole.
func (p *patchPoint) follows(b []byte) bool {
	le := binary.LittleEndian
	crc := le.Uint32(b[12:])
	b = b[entryBytes:derivedEntry]
	p.at, p.stream = le.Uint32(b), le.Uint32(b[4:])
	copy(p.hash[:], b[8:40])
	p.made = le.Uint32(b[40:])
	return le.Uint32(b[44:]) == digest.CRC32(crc, b[:44])
}

// noted reads back what was written behind the entry at off.
func (p *Patches) noted(j *journal, off uint32, buf []byte) bool {
	var q patchPoint
	return j.area.ReadAt(buf[:derivedEntry], off) == nil && q.follows(buf) && q == p.point
}

// entry makes of an install's entry what a derived stream may say. What is kept is there.
// Of two entries for the same bytes the one at a restart point is the newer.
func (p *Patches) entry(e *entry) {
	if e.written < p.keep {
		e.written = p.keep
	}
	e.erased = 0
	if p.point.made == e.written {
		e.erased = e.written
	}
}

// isDerived: the sector with the newest entry is a derived stream's.
func (j *journal) isDerived(buf []byte) (bool, error) {
	if err := j.area.ReadAt(buf[:headerBytes], uint32(j.at)*j.sector()); err != nil {
		return false, err
	}
	return buf[6] == derivedMark, nil
}

// point finds what stands behind entry e, and says whether it is whole.
func (j *journal) point(p *patchPoint, e *entry, buf []byte) bool {
	base := uint32(j.at) * j.sector()
	n := j.unit(derivedEntry)
	for at := j.unit(headerBytes); at+n <= j.sector(); at += n {
		if j.area.ReadAt(buf[:derivedEntry], base+at) != nil {
			return false
		}
		var got entry
		if got.parse(buf, j.headCRC[j.at&1]) && got == *e {
			return p.follows(buf)
		}
	}
	return false
}

// derivedSpan is how much of an image lies between two entries, bytes: an entry is four
// times as long as a raw stream's, and only says what need not be written again.
const derivedSpan = 8192

// note notes the restart point that the applier stands at, where flash is just as far
// and a sector ends: what is erased behind it is not believed after a reset. Where the
// model goes on, its snapshot comes first.
func (p *Patches) note(n *Native, u *Updater) {
	in := &u.inst
	if !in.resumable || in.written != p.applier.Made() || in.written%u.sector() != 0 || in.written < in.noted ||
		!p.keepsModel() || p.recordAt(n, p.linkAt()) == nil {
		return
	}
	if p.applier.Kept() {
		p.saveSnapshot(u)
		return
	}
	p.notePoint(n, u)
}

// linkAt is where in the payload the applier's restart point stands.
func (p *Patches) linkAt() uint32 { return p.fed + p.applier.LinkAt() }

// recordAt is the hash of the record that holds a place in the payload, if it is one of
// the last two.
func (p *Patches) recordAt(n *Native, at uint32) *[32]byte {
	switch n.v.Index() - at/p.shape.Chunk {
	case 1:
		return &p.hash
	case 2:
		return &p.before
	}
	return nil
}

// notePoint has the journal go on from where the applier stands.
func (p *Patches) notePoint(n *Native, u *Updater) {
	at := p.linkAt()
	p.point = patchPoint{made: u.inst.written, at: at, stream: binary.LittleEndian.Uint32(p.root[:]), hash: *p.recordAt(n, at)}
	u.then = phaseFetch
	u.enter(phaseNote)
}
