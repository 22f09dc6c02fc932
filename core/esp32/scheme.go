package esp32

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
)

// Error is why a boot record can't be written.
type Error uint8

const (
	ErrOTAData   Error = iota + 1 // the partition is not two sectors, or its unit is too large
	ErrSlot                       // there is no such slot, or it is the running one
	ErrNotActive                  // the record in force is not the running slot's
	ErrSequence                   // no higher sequence is left
	ErrReadBack                   // the record reads back wrong
)

func (e Error) Error() string {
	switch e {
	case ErrOTAData:
		return "esp32: otadata partition is unusable"
	case ErrSlot:
		return "esp32: no such slot to change to"
	case ErrNotActive:
		return "esp32: the boot record in force is not the running slot's"
	case ErrSequence:
		return "esp32: no boot sequence left"
	case ErrReadBack:
		return "esp32: boot record reads back wrong"
	}
	return "esp32: unknown error"
}

// OTAData writes boot records as ESP-IDF's application does, by the rules of
// docs/format/otadata.md; it is a boot.Scheme. Where ESP-IDF's own writer is
// right, the bytes are the same.
type OTAData struct {
	area    flash.Area
	e       [2]Entry
	next    Entry // on its way into sector
	running boot.Slot
	slots   uint8
	sector  uint8
	step    uint8 // 0: plan, 1: program, 2: read back
	blank   bool  // next is an erased record: nothing to program
}

var _ boot.Scheme = (*OTAData)(nil)

// NewOTAData takes the otadata partition, the running slot as the port knows it,
// and the number of ota slots.
func NewOTAData(area flash.Area, running boot.Slot, slots uint8) (OTAData, error) {
	g := area.Geometry()
	if area.Size() != OTADataSize || g.EraseSize != SectorSize || g.ProgramSize > EntrySize {
		return OTAData{}, ErrOTAData
	}
	if running != boot.Factory && uint8(running) >= slots {
		return OTAData{}, ErrSlot
	}
	return OTAData{area: area, running: running, slots: slots, e: [2]Entry{BlankEntry(), BlankEntry()}}, nil
}

// Load reads both records.
func (o *OTAData) Load() error {
	o.step = 0
	for i := range o.e {
		if err := o.area.ReadAt(o.e[i][:], uint32(i)*SectorSize); err != nil {
			return err
		}
	}
	return nil
}

// Running is the slot that executes.
func (o *OTAData) Running() boot.Slot { return o.running }

// State is what the records say of a slot: of two that name it, the one that the
// bootloader would take.
func (o *OTAData) State(s boot.Slot) boot.RecordState {
	i := o.record(s, false)
	if i < 0 {
		return boot.RecordNone
	}
	switch o.e[i].State() {
	case StateNew:
		return boot.RecordNew
	case StatePending:
		return boot.RecordPending
	case StateValid:
		return boot.RecordValid
	case StateInvalid:
		return boot.RecordInvalid
	case StateAborted:
		return boot.RecordAborted
	}
	return boot.RecordUndefined
}

// record is the index of the record that names s, -1 for none. Among two, a valid
// one comes first, then the higher sequence.
func (o *OTAData) record(s boot.Slot, valid bool) int {
	best := -1
	for i := range o.e {
		e := &o.e[i]
		if e.Seq() == seqEmpty || !e.CRCOK() || SlotOf(e.Seq(), uint32(o.slots)) != uint32(s) || valid && !e.Valid() {
			continue
		}
		if best < 0 || e.Valid() && !o.e[best].Valid() ||
			e.Valid() == o.e[best].Valid() && e.Seq() > o.e[best].Seq() {
			best = i
		}
	}
	return best
}

// Step does one flash operation towards the goal.
func (o *OTAData) Step(goal boot.Goal, slot boot.Slot) (done bool, err error) {
	at := uint32(o.sector) * SectorSize
	switch o.step {
	case 0:
		done, err = o.plan(goal, slot)
		if done || err != nil {
			return done, err
		}
		at = uint32(o.sector) * SectorSize
		err = o.area.Erase(at, SectorSize)
	case 1:
		if !o.blank {
			err = o.area.Program(o.next[:], at)
		}
	case 2:
		want := o.next
		if err = o.area.ReadAt(o.next[:], at); err == nil && o.next != want && !o.blank {
			err = ErrReadBack
		}
		if err == nil {
			o.e[o.sector] = want
			o.step = 0
			return false, nil
		}
	}
	if err != nil {
		o.step = 0
		return false, err
	}
	o.step++
	return false, nil
}

// write plans a record into a sector. Label bytes stay as they are there, as in ESP-IDF.
func (o *OTAData) write(sector int, seq, state uint32) {
	o.sector, o.blank = uint8(sector), false
	o.next = o.e[sector]
	o.next.set(seq, state)
}

func (o *OTAData) wipe(sector int) {
	o.sector, o.blank, o.next = uint8(sector), true, BlankEntry()
}

// plan finds the next write for a goal, or that there is none.
func (o *OTAData) plan(goal boot.Goal, slot boot.Slot) (done bool, err error) {
	if goal != boot.GoalConfirm && (slot == o.running || slot != boot.Factory && uint8(slot) >= o.slots) {
		return false, ErrSlot
	}
	active := Active(&o.e[0], &o.e[1])
	run := -1
	if o.running != boot.Factory {
		run = o.record(o.running, true)
	}
	switch goal {
	case boot.GoalConfirm:
		if run < 0 || run != active {
			return false, ErrNotActive
		}
		if o.e[run].State() == StateValid {
			return true, nil
		}
		o.write(run, o.e[run].Seq(), StateValid)
		return false, nil
	case boot.GoalProtect:
		if o.running != boot.Factory && run < 0 {
			return false, o.nameRunning(active)
		}
		for i := range o.e {
			e := &o.e[i]
			if i != run && e.Valid() && SlotOf(e.Seq(), uint32(o.slots)) == uint32(slot) {
				o.wipe(i)
				return false, nil
			}
		}
		return true, nil
	case boot.GoalStage:
		if slot == boot.Factory {
			return false, ErrSlot
		}
		if o.running != boot.Factory && run < 0 {
			return false, o.nameRunning(active)
		}
		if t := o.record(slot, true); t >= 0 && t == active && o.e[t].State() == StateNew {
			return true, nil
		}
		seq, err := o.above(slot)
		if err != nil {
			return false, err
		}
		// Into the sector that does not hold the running slot's record; with the
		// factory image running, the one that is not in force.
		sector := 1 - run
		if run < 0 {
			sector = 0
			if active == 0 {
				sector = 1
			}
		}
		o.write(sector, seq, StateNew)
		return false, nil
	case boot.GoalRevert:
		return o.planRevert(slot, run, active)
	}
	return false, ErrSlot
}

func (o *OTAData) planRevert(slot boot.Slot, run, active int) (bool, error) {
	if slot != boot.Factory && o.record(slot, true) < 0 {
		seq, err := o.above(slot)
		if err != nil {
			return false, err
		}
		sector := 0
		if run == 0 || run < 0 && active == 0 {
			sector = 1
		}
		o.write(sector, seq, StateValid)
		return false, nil
	}
	if run >= 0 {
		o.write(run, o.e[run].Seq(), StateInvalid)
		return false, nil
	}
	// Records of third slots, valid and higher than the goal's, must not win.
	for i := range o.e {
		e := &o.e[i]
		if e.Valid() && (slot == boot.Factory || SlotOf(e.Seq(), uint32(o.slots)) != uint32(slot)) && (slot == boot.Factory || i == active) {
			o.wipe(i)
			return false, nil
		}
	}
	return true, nil
}

// nameRunning writes a VALID record for the running slot, which has none: after a
// fallback by the bootloader both records may name other slots. The record in
// force is left alone meanwhile.
func (o *OTAData) nameRunning(active int) error {
	seq, err := o.above(o.running)
	if err != nil {
		return err
	}
	sector := 0
	if active == 0 {
		sector = 1
	}
	o.write(sector, seq, StateValid)
	return nil
}

// above is the smallest sequence that names slot and is higher than that of every
// record with a right CRC.
func (o *OTAData) above(slot boot.Slot) (uint32, error) {
	n := uint32(o.slots)
	floor := uint32(0)
	for i := range o.e {
		e := &o.e[i]
		if e.Seq() != seqEmpty && e.CRCOK() && e.Seq() > floor {
			floor = e.Seq()
		}
	}
	if floor > 0xFFFFFFFF-2*n-1 {
		return 0, ErrSequence
	}
	seq := floor + 1
	for SlotOf(seq, n) != uint32(slot) {
		seq++
	}
	return seq, nil
}
