// Package esp32 holds ESP-IDF's formats in flash, byte-exact, and what its
// bootloader does with them, as pure functions over bytes: boot records
// (otadata), slot selection and load order, app images, partition tables.
// docs/format has a page for each.
package esp32

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// EntrySize is the length of a boot record in bytes. The otadata partition holds
// two, each at the start of a sector of SectorSize.
const (
	EntrySize   = 32
	SectorSize  = 4096
	OTADataSize = 2 * SectorSize
)

// Entry is a boot record: sequence u32, label 20 bytes, state u32, CRC u32.
type Entry [EntrySize]byte

// States of a record, as stored.
const (
	StateNew       uint32 = 0
	StatePending   uint32 = 1
	StateValid     uint32 = 2
	StateInvalid   uint32 = 3
	StateAborted   uint32 = 4
	StateUndefined uint32 = 0xFFFFFFFF
)

const seqEmpty uint32 = 0xFFFFFFFF

// BlankEntry is an erased record.
func BlankEntry() (e Entry) {
	for i := range e {
		e[i] = 0xFF
	}
	return e
}

// NewEntry is a record with a right CRC and an erased label.
func NewEntry(seq, state uint32) Entry {
	e := BlankEntry()
	e.set(seq, state)
	return e
}

// set changes sequence and state and leaves the label, as ESP-IDF does.
func (e *Entry) set(seq, state uint32) {
	binary.LittleEndian.PutUint32(e[0:], seq)
	binary.LittleEndian.PutUint32(e[24:], state)
	binary.LittleEndian.PutUint32(e[28:], SeqCRC(seq))
}

// Seq is the record's sequence, 0xFFFFFFFF in an erased one.
func (e *Entry) Seq() uint32 { return binary.LittleEndian.Uint32(e[0:]) }

// State is the record's state; no checksum covers it.
func (e *Entry) State() uint32 { return binary.LittleEndian.Uint32(e[24:]) }

// CRC is the stored CRC.
func (e *Entry) CRC() uint32 { return binary.LittleEndian.Uint32(e[28:]) }

// SeqCRC is the CRC that ESP-IDF stores: over the four bytes of the sequence
// alone, begun with 0xFFFFFFFF, which is not the usual CRC-32.
func SeqCRC(seq uint32) uint32 {
	var b [4]byte
	binary.LittleEndian.PutUint32(b[:], seq)
	return digest.CRC32(0xFFFFFFFF, b[:])
}

// CRCOK says whether the CRC fits the sequence. It does for a record of sequence
// 0 followed by erased bytes, such as Arduino's boot_app0.bin has.
func (e *Entry) CRCOK() bool { return e.CRC() == SeqCRC(e.Seq()) }

// invalid and valid are the bootloader's predicates, in its words.
func (e *Entry) invalid() bool {
	return e.Seq() == seqEmpty || e.State() == StateInvalid || e.State() == StateAborted
}

// Valid says whether the bootloader could select the record.
func (e *Entry) Valid() bool { return !e.invalid() && e.CRCOK() }

// Active is the record in force: the valid one with the higher sequence, the
// first on a tie; -1 if neither is valid.
func Active(e0, e1 *Entry) int {
	switch {
	case e0.Valid() && e1.Valid():
		if e1.Seq() > e0.Seq() {
			return 1
		}
		return 0
	case e0.Valid():
		return 0
	case e1.Valid():
		return 1
	}
	return -1
}

// SlotOf is the slot that a sequence names among n, in the bootloader's uint32
// arithmetic.
func SlotOf(seq, n uint32) uint32 {
	if n == 0 {
		return 0
	}
	return (seq - 1) % n
}

// FactoryIndex is the bootloader's index of the factory image.
const FactoryIndex int32 = -1

// Selection is what the bootloader decides from the records, and writes first.
type Selection struct {
	BootIndex int32
	After     [2]Entry
	// Written lists the sectors that are erased and written, in order; a sector
	// may come twice. Writes is how many there are.
	Written [3]uint8
	Writes  uint8
	// InitialContents: the records say nothing at all; once an image is loaded,
	// its record is written into sector 0.
	InitialContents bool
}

func (s *Selection) write(i uint8) {
	s.Written[s.Writes] = i
	s.Writes++
}

// Select is bootloader_utility_get_selected_boot_partition of ESP-IDF (without
// anti-rollback): which slot among appCount starts. rollback is whether the
// bootloader was built with it.
func Select(e0, e1 Entry, appCount uint32, factory, rollback bool) Selection {
	s := Selection{After: [2]Entry{e0, e1}}
	a := &s.After
	if rollback {
		// Whatever was on trial and was reset is aborted. No CRC is looked at, and
		// the CRC, being over the sequence alone, stays as it is.
		for i := range a {
			if a[i].State() == StatePending {
				binary.LittleEndian.PutUint32(a[i][24:], StateAborted)
				s.write(uint8(i))
			}
		}
	}
	if a[0].invalid() && a[1].invalid() || appCount == 0 {
		if factory {
			s.BootIndex = FactoryIndex
			return s
		}
		s.InitialContents = a[0].saysNothing() && a[1].saysNothing()
		return s
	}
	active := Active(&a[0], &a[1])
	if active < 0 {
		s.BootIndex = FactoryIndex
		return s
	}
	s.BootIndex = int32(SlotOf(a[active].Seq(), appCount))
	if rollback && a[active].State() == StateNew {
		binary.LittleEndian.PutUint32(a[active][24:], StatePending)
		s.write(uint8(active))
	}
	return s
}

// named: the record names a slot, selectable or not.
func (e *Entry) named() bool { return e.Seq() != seqEmpty && e.CRCOK() }

func (e *Entry) saysNothing() bool { return !e.named() }

// TestIndex is LoadOrder's index of the test partition.
const TestIndex int32 = -2

// LoadOrder is the order in which the bootloader tries images from start on:
// downwards to 0, factory, upwards from start, test. It returns the index of the
// i-th try, and false behind the last. Absent partitions are among them: the
// bootloader skips those of size 0.
func LoadOrder(start int32, appCount uint32, i int) (int32, bool) {
	n := int32(appCount)
	down := start + 1 // start .. 0
	if start < 0 {
		down = 0
	}
	k := int32(i)
	switch {
	case k < down:
		return start - k, true
	case k == down:
		return FactoryIndex, true
	}
	k -= down + 1
	first := start + 1
	if start < 0 {
		first = 0
	}
	if up := n - first; k < up {
		return first + k, true
	} else if k == max(up, 0) {
		return TestIndex, true
	}
	return 0, false
}

// InitialEntry is what the bootloader writes into sector 0 after it loaded index
// while the records said nothing.
func InitialEntry(index int32) Entry { return NewEntry(uint32(index)+1, StateValid) }
