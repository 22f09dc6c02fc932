package boot

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// Record is one statement about all slots of a board whose boot stage is ours.
// docs/format/boot-record.md has its bytes. Two sectors hold one each; the newest
// whole one is in force.
//
// R1: a record is written into the sector that does not hold the one in force, which
// is erased before, always: a cut leaves that one in force.
// R2: in a record the active slot is NEW, PENDING or VALID, no other slot is NEW or
// PENDING, and the fallback, if any, is another one that is VALID.
type Record struct {
	Sequence uint32
	Active   Slot // starts
	Fallback Slot // starts where Active does not verify or does not confirm; NoSlot: none
	States   [MaxSlots]RecordState
}

const (
	// RecordSize in bytes, without the padding to the program unit.
	RecordSize = 20
	// MaxSlots that a record tells of.
	MaxSlots = 4
	// RecordBuffer is how many bytes reading and writing pass through; where the
	// program unit is longer, that.
	RecordBuffer = 2 * RecordSize

	// NoSlot: there is none.
	NoSlot Slot = 0xFE

	recordMagic  = 0x424C4E52 // "RNLB", little-endian
	recordFormat = 1

	maxUnit     = 256 // the longest program unit in bytes: core/flash's
	recordTries = 8   // reads of a sector that reads differently each time
)

// blank is what there is without a record.
func (r *Record) blank() {
	r.Sequence, r.Active, r.Fallback = 0, NoSlot, NoSlot
	for i := range r.States {
		r.States[i] = RecordNone
	}
}

// Encode writes the record's bytes.
func (r *Record) Encode(b *[RecordSize]byte) {
	le := binary.LittleEndian
	le.PutUint32(b[0:], recordMagic)
	b[4], b[5], b[6], b[7] = recordFormat, byte(r.Active), byte(r.Fallback), 0
	le.PutUint32(b[8:], r.Sequence)
	for i, s := range r.States {
		b[12+i] = byte(s)
	}
	le.PutUint32(b[16:], digest.CRC32(0, b[:16]))
}

// Decode reads a record; false: there is none, or it is no sound one (R2).
func (r *Record) Decode(b *[RecordSize]byte) bool {
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != recordMagic || b[4] != recordFormat || b[7] != 0 || le.Uint32(b[16:]) != digest.CRC32(0, b[:16]) {
		return false
	}
	r.Active, r.Fallback = Slot(b[5]), Slot(b[6])
	r.Sequence = le.Uint32(b[8:])
	if r.Active >= MaxSlots || r.Fallback == r.Active || r.Fallback >= MaxSlots && r.Fallback != NoSlot {
		return false
	}
	for i := range r.States {
		s := RecordState(b[12+i])
		if s > RecordAborted || Slot(i) == r.Active && !starts(s) || Slot(i) != r.Active && onTrial(s) {
			return false
		}
		r.States[i] = s
	}
	return r.Fallback == NoSlot || r.States[r.Fallback] == RecordValid
}

func onTrial(s RecordState) bool  { return s == RecordNew || s == RecordPending }
func starts(s RecordState) bool   { return s == RecordValid || onTrial(s) }
func rejected(s RecordState) bool { return s == RecordInvalid || s == RecordAborted }

// newer compares as numbers that begin again behind the last: two records of a board
// are one write apart.
func newer(a, b uint32) bool { return a-b-1 < 1<<31-1 }

// ReadRecord reads the record in force and says which sector holds it; not ok: there is
// none, and r is blank. buf is at least RecordBuffer bytes. A sector that can't be read
// holds none; err then says so, beside what the other one holds.
func ReadRecord(area *flash.Area, r *Record, buf []byte) (sector uint8, ok bool, err error) {
	r.blank()
	sector = 1
	if len(buf) < RecordBuffer {
		return sector, false, ErrBuffer
	}
	var other Record
	for i := uint8(0); i < 2; i++ {
		whole, e := readSector(area, i, &other, buf)
		if e != nil {
			err = e
		}
		if whole && (!ok || newer(other.Sequence, r.Sequence)) {
			assign(r, &other)
			sector, ok = i, true
		}
	}
	return sector, ok, err
}

// readSector reads until two reads in a row agree: what a cut left of an erase reads
// one way or the other.
func readSector(area *flash.Area, sector uint8, r *Record, buf []byte) (ok bool, err error) {
	at := uint32(sector) * area.EraseSize()
	a, b := buf[:RecordSize], buf[RecordSize:RecordBuffer]
	if err := area.ReadAt(a, at); err != nil {
		return false, err
	}
	for n := 1; n < recordTries; n++ {
		if err := area.ReadAt(b, at); err != nil {
			return false, err
		}
		if digest.Equal(a, b) {
			return r.Decode((*[RecordSize]byte)(a)), nil
		}
		copy(a, b)
	}
	return false, nil // it never agrees with itself: nothing to build on
}

// assign copies field by field: arrays by value are many loads and stores under TinyGo.
//
//go:noinline
func assign(to, from *Record) {
	to.Sequence, to.Active, to.Fallback = from.Sequence, from.Active, from.Fallback
	copy(to.States[:], from.States[:])
}

// fits checks an area and a buffer before anything is erased.
func fits(area *flash.Area, buf []byte) Error {
	if area.Size() == 0 {
		return ErrArea
	}
	unit, sector := area.ProgramSize(), area.EraseSize()
	if unit == 0 || unit > maxUnit || area.Size() != 2*sector || padded(area) > sector {
		return ErrArea
	}
	if uint32(len(buf)) < padded(area) || len(buf) < RecordBuffer {
		return ErrBuffer
	}
	return 0
}

// padded is a record's length in whole program units, bytes.
func padded(area *flash.Area) uint32 {
	u := area.ProgramSize()
	return (RecordSize + u - 1) / u * u
}

func eraseSector(area *flash.Area, sector uint8) error {
	size := area.EraseSize()
	// Always, and never by a look: what a cut left there may read blank and not be.
	return area.Erase(uint32(sector)*size, size)
}

func programRecord(area *flash.Area, sector uint8, r *Record, buf []byte) error {
	p := buf[:padded(area)]
	r.Encode((*[RecordSize]byte)(p))
	area.Blank(p[RecordSize:])
	return area.Program(p, uint32(sector)*area.EraseSize())
}

// checkRecord reads a record back.
func checkRecord(area *flash.Area, sector uint8, r *Record, buf []byte) error {
	want, got := buf[:RecordSize], buf[RecordSize:RecordBuffer]
	r.Encode((*[RecordSize]byte)(want))
	if err := area.ReadAt(got, uint32(sector)*area.EraseSize()); err != nil {
		return err
	}
	if !digest.Equal(want, got) {
		return ErrReadBack
	}
	return nil
}
