package boot

import "github.com/runnel-fota/runnel/core/flash"

// The boot stage's side. It links nothing but core/flash and core/digest, and is made
// for a boot stage of a few KiB.

// Start is the boot stage's decision, and what it writes: it reads the records in area,
// notes what the start means for a trial, and returns the slot to start, or NoSlot
// where nothing verifies. bootable says whether a slot is there and its image verifies;
// it is asked for as few slots as can be. buf is as for WriteRecord.
//
// A record that can't be read or written keeps nothing from starting: of what can be
// known then, the best starts.
func Start(area *flash.Area, bootable func(Slot) bool, buf []byte) Slot {
	var r Record
	sector, ok, _ := ReadRecord(area, &r, buf) // a sector that can't be read holds no record
	slot, write := Decide(&r, ok, bootable)
	if write && WriteRecord(area, 1-sector, &r, buf) != nil {
		return Instead(&r, slot, bootable)
	}
	return slot
}

// Decide says which slot starts under the record in force (ok: there is one), and
// whether r, which it changes then, is to be written first. It is the table of
// docs/format/boot-record.md, row by row.
func Decide(r *Record, ok bool, bootable func(Slot) bool) (slot Slot, write bool) {
	if !ok {
		r.blank()
		return other(r, bootable), false
	}
	a := r.Active
	if r.States[a] == RecordPending {
		// It was started and did not confirm.
		slot = other(r, bootable)
		if slot == a || slot == NoSlot || rejected(r.States[slot]) {
			return slot, false // no way back, and nothing to be noted for one
		}
		r.Sequence++
		r.States[a], r.States[slot] = RecordAborted, RecordValid
		r.Active, r.Fallback = slot, NoSlot
		return slot, true
	}
	if !bootable(a) {
		return other(r, bootable), false // what the record says is what the updater judges by
	}
	if r.States[a] == RecordNew {
		r.Sequence++
		r.States[a] = RecordPending
		return a, true
	}
	return a, false
}

// Instead is what starts where the record that Decide wanted could not be written: a
// trial that is not noted would have no way back, so that the fallback starts.
func Instead(r *Record, slot Slot, bootable func(Slot) bool) Slot {
	if r.States[slot] != RecordPending {
		return slot
	}
	return other(r, bootable)
}

// other is what starts where the active slot is not to: the fallback; then the lowest
// that was not rejected; then the active one after all; then the lowest.
func other(r *Record, bootable func(Slot) bool) Slot {
	if r.Fallback != NoSlot && bootable(r.Fallback) {
		return r.Fallback
	}
	for s := Slot(0); s < MaxSlots; s++ {
		if s != r.Active && s != r.Fallback && !rejected(r.States[s]) && bootable(s) {
			return s
		}
	}
	if r.Active != NoSlot && bootable(r.Active) {
		return r.Active
	}
	for s := Slot(0); s < MaxSlots; s++ {
		if rejected(r.States[s]) && bootable(s) {
			return s
		}
	}
	return NoSlot
}

// WriteRecord writes r into a sector, the one that does not hold the record in force,
// and reads it back. buf is RecordBuffer bytes or a program unit, what is more, and
// holds nothing of worth afterwards. After an error or a cut the record in force is
// still so, or r is.
func WriteRecord(area *flash.Area, sector uint8, r *Record, buf []byte) error {
	if e := fits(area, buf); e != 0 {
		return e
	}
	if err := eraseSector(area, sector); err != nil {
		return err
	}
	if err := programRecord(area, sector, r, buf); err != nil {
		return err
	}
	return checkRecord(area, sector, r, buf)
}
