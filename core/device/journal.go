package device

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
)

// The journal of one download: two sectors, each a header that names the release
// followed by entries. Entries alternate between the sectors, because one torn
// program may disturb its whole sector (docs/design/journal.md has the bytes).
//
//	header 64 B  "RNLJ" u32, format u8, slot u8, 0 u16, session u32, size u32,
//	             chunk u32, stamp u32, digest 32, epoch u32, CRC-32 of the 60 bytes before
//	entry  16 B  written u32, erased u32, CRC-32 of the slot's first `written` bytes,
//	             CRC-32 of the 12 bytes before, begun with the header's CRC
//
// An entry stands alone: the newest whole one says everything. Both are padded to
// the chip's program unit. A session is one start of the updater: its sectors are
// always erased before use, so nothing is ever programmed behind a torn entry.
const (
	journalMagic  = 0x4A4C4E52
	journalFormat = 1
	headerBytes   = 64
	entryBytes    = 16
)

type entry struct {
	written uint32 // bytes from the slot's start that are programmed and read back
	erased  uint32 // bytes from the slot's start that are erased or written
	crc     uint32 // CRC-32 of the first `written` bytes
}

type journal struct {
	area    flash.Area // the board's partition, or the tail of the target
	off     bool       // this download has no journal
	session uint32
	newest  entry
	next    [2]uint32 // where the next entry goes; at the sector's end: erase first
	headCRC [2]uint32 // of the header that stands in the sector
	whole   [2]bool   // the sector has a whole header of the newest session
	top     uint32    // highest session of any whole header, for whatever slot
	at      uint8     // the sector that holds the newest entry
	turn    uint8     // the sector that takes the next entry
	step    uint8     // of an append
	found   bool      // load found a release in progress
}

// clear forgets all but the area; the zero Area has room for no journal.
func (j *journal) clear() {
	a := j.area
	*j = journal{}
	j.area = a
}

func (j *journal) on() bool { return !j.off && j.area.Size() != 0 }

func (j *journal) sector() uint32 { return j.area.EraseSize() }

// unit pads n to the chip's program unit.
func (j *journal) unit(n uint32) uint32 {
	return roundUp(n, j.area.ProgramSize())
}

// loadSector reads sector i (0, then 1) and takes it where it is newer; rel is
// set from the winning header. At most one sector is read.
//
//go:noinline
func (j *journal) loadSector(i uint8, slot boot.Slot, rel *release, buf []byte) error {
	le := binary.LittleEndian
	sector := j.sector()
	i &= 1
	next, whole := &j.next[i], &j.whole[i]
	base := uint32(i) * sector
	if i == 0 {
		j.found, j.session, j.top = false, 0, 0
	}
	*next, *whole = sector, false
	if err := j.area.ReadAt(buf[:headerBytes], base); err != nil {
		return err
	}
	h := buf[:headerBytes]
	crc := digest.CRC32(0, h[:60])
	if le.Uint32(h) != journalMagic || h[4] != journalFormat || le.Uint32(h[60:]) != crc {
		return nil
	}
	session := le.Uint32(h[8:])
	if session > j.top {
		j.top = session
	}
	if h[5] != byte(slot) || session < j.session {
		return nil // of another slot, or ours is newer
	}
	j.headCRC[i] = crc
	var best, got entry
	var point patchPoint
	any := false
	size := uint32(entryBytes)
	if patchesMade && h[6] == derivedMark {
		size = derivedEntry
	}
	e, unit := buf[headerBytes:headerBytes+size], j.unit(size)
	for at := j.unit(headerBytes); at+unit <= sector; at += unit {
		if err := j.area.ReadAt(e, base+at); err != nil {
			return err
		}
		if got.parse(e, crc) && (!any || got.newer(&best)) && (size == entryBytes || point.follows(e)) {
			best, any = got, true
		}
	}
	if !any {
		return nil // a header alone was cut before its first entry: it decides nothing
	}
	switch {
	case session > j.session || !j.found:
		j.whole[1-i] = false
		j.newest, j.at = best, i
	case best.newer(&j.newest):
		j.newest, j.at = best, i
	}
	*whole, j.found, j.session = true, true, session
	rel.fields(&state.Fields{P: h[12:], Read: true})
	rel.VersionLen = 0
	rel.known = true
	return nil
}

// fields of a header that name the release.
func (r *release) fields(f *state.Fields) {
	f.U32(&r.Size)
	f.U32(&r.chunk)
	f.U32(&r.Stamp)
	f.Bytes(r.Digest[:])
	f.U32(&r.Epoch)
}

func (e *entry) fields(f *state.Fields) {
	f.U32(&e.written)
	f.U32(&e.erased)
	f.U32(&e.crc)
}

// parse reads an entry, if it is a whole one.
func (e *entry) parse(p []byte, headCRC uint32) bool {
	e.fields(&state.Fields{P: p, Read: true})
	return binary.LittleEndian.Uint32(p[12:]) == digest.CRC32(headCRC, p[:12])
}

func (e *entry) newer(than *entry) bool {
	if e.written != than.written {
		return e.written > than.written
	}
	return e.erased > than.erased
}

// rewind starts a comparison of all retained entries with a walk over the slot.
func (j *journal) rewind() {
	for i := range j.next {
		j.next[i] = j.unit(headerBytes)
	}
}

// compare holds the running CRC of the slot's first pos bytes against every
// retained entry for pos. Entries in a sector rise, so each is read once a walk.
//
//go:noinline
func (j *journal) compare(pos, crc uint32, buf []byte) (seen, ok bool, err error) {
	ok = true
	var e entry
	unit, sector := j.unit(entryBytes), j.sector()
	for i := uint8(0); i < 2; i++ {
		if !j.whole[i] {
			continue
		}
		for j.next[i]+unit <= sector {
			if err := j.area.ReadAt(buf[:entryBytes], uint32(i)*sector+j.next[i]); err != nil {
				return false, false, err
			}
			whole := e.parse(buf, j.headCRC[i])
			if whole && e.written > pos {
				break
			}
			j.next[i] += unit
			if whole && e.written == pos {
				seen = true
				ok = ok && e.crc == crc
			}
		}
	}
	return seen, ok, nil
}

// begin makes the next append open a new session: whatever stands in the
// sectors is erased before it is written, the newest entry's sector last.
func (j *journal) begin() {
	j.top++
	j.session = j.top
	j.next[0], j.next[1] = j.sector(), j.sector()
	j.turn = 1 - j.at
	j.step = 0
}

// append does one flash operation towards a durable entry e; p is at work, or nil.
//
//go:noinline
func (j *journal) append(e *entry, slot boot.Slot, rel *release, p *Patches, buf []byte) (done bool, err error) {
	le := binary.LittleEndian
	turn := j.turn & 1
	next, crc, sector := &j.next[turn], &j.headCRC[turn], j.sector()
	base := uint32(turn) * sector
	n := j.unit(entryBytes)
	if p != nil {
		n = j.unit(derivedEntry)
	}
	if j.step == 0 && *next+n <= sector {
		j.step = 2
	}
	switch j.step {
	case 0:
		err = j.area.Erase(base, sector)
	case 1:
		n = j.unit(headerBytes)
		h := buf[:n]
		j.area.Blank(h)
		le.PutUint32(h, journalMagic)
		h[4], h[5], h[6], h[7] = journalFormat, byte(slot), 0, 0
		if p != nil {
			h[6] = derivedMark
		}
		le.PutUint32(h[8:], j.session)
		rel.fields(&state.Fields{P: h[12:]})
		*crc = digest.CRC32(0, h[:60])
		le.PutUint32(h[60:], *crc)
		err = j.area.Program(h, base)
		*next = n
	case 2:
		b := buf[:n]
		j.area.Blank(b)
		e.fields(&state.Fields{P: b})
		le.PutUint32(b[12:], digest.CRC32(*crc, b[:12]))
		if p != nil {
			p.point.put(b[entryBytes:], le.Uint32(b[12:]))
		}
		err = j.area.Program(b, base+*next)
	case 3:
		if *next == j.unit(headerBytes) { // the first entry: its header is new too
			if err = j.area.ReadAt(buf[:headerBytes], base); err != nil {
				break
			}
			if digest.CRC32(0, buf[:60]) != *crc {
				err = ErrJournal
				break
			}
		}
		if err = j.area.ReadAt(buf[:entryBytes], base+*next); err != nil {
			break
		}
		var got entry
		if !got.parse(buf, *crc) || got != *e {
			err = ErrJournal
			break
		}
		if p != nil && !p.noted(j, base+*next, buf) {
			err = ErrJournal
			break
		}
		*next += n
		j.newest = *e
		j.turn = 1 - turn
		j.step = 0
		return true, nil
	}
	if err != nil {
		j.step = 0
		*next = sector
		return false, err
	}
	j.step++
	return false, nil
}

// discard erases one sector a call; afterwards no release is in progress.
func (j *journal) discard() (done bool, err error) {
	if j.area.Size() == 0 {
		return false, flash.ErrRange
	}
	if err := j.area.Erase(uint32(j.step)*j.sector(), j.sector()); err != nil {
		return false, err
	}
	if j.step++; j.step < 2 {
		return false, nil
	}
	j.clear()
	return true, nil
}
