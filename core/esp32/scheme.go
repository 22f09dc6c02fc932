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
	ErrOnTrial                    // the running slot's record is PENDING: the other one is the way back
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
	case ErrOnTrial:
		return "esp32: the running image is on trial; confirm it first"
	}
	return "esp32: unknown error"
}

// OTAData writes boot records as ESP-IDF's application does, by the rules of
// docs/format/otadata.md; it is a boot.Scheme. Where ESP-IDF's own writer is
// right, the bytes are the same; that page lists where it is not.
//
// I1: after each flash operation of Protect, Stage and Revert the running slot or
// the goal's slot starts, never a third one.
// I2: Protect and Stage never write the sector of the running slot's record.
// I3: each goal ends after at most two records written and one wiped.
type OTAData struct {
	area    flash.Area
	room    []byte // a program unit, where that is longer than a record
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
	if area.Size() != OTADataSize {
		return OTAData{}, ErrOTAData
	}
	g := area.Geometry()
	if g.EraseSize != SectorSize || g.ProgramSize == 0 || g.ProgramSize > maxUnit ||
		EntrySize%g.ProgramSize != 0 && g.ProgramSize%EntrySize != 0 {
		return OTAData{}, ErrOTAData
	}
	if running != boot.Factory && uint8(running) >= slots {
		return OTAData{}, ErrSlot
	}
	return OTAData{area: area, running: running, slots: slots, e: [2]Entry{BlankEntry(), BlankEntry()}}, nil
}

// maxUnit is the longest program unit in bytes: core/flash's.
const maxUnit = 256

// SetRoom lends a program unit of bytes to a chip whose unit is longer than a
// record: what is left of it is programmed as erased. p holds nothing of worth
// between two Steps, so that it may be the updater's own buffer.
func (o *OTAData) SetRoom(p []byte) { o.room = p }

func (o *OTAData) fits() bool {
	unit := int(o.area.Geometry().ProgramSize)
	return unit <= EntrySize || len(o.room) >= unit
}

// program writes next, padded to the unit.
func (o *OTAData) program(at uint32) error {
	unit := int(o.area.Geometry().ProgramSize)
	if unit <= EntrySize {
		return o.area.Program(o.next[:], at)
	}
	p := o.room[:unit]
	for i := copy(p, o.next[:]); i < unit; i++ {
		p[i] = o.area.Geometry().ErasedByte
	}
	return o.area.Program(p, at)
}

// Load reads both records.
func (o *OTAData) Load() error {
	o.step = 0
	if !o.fits() {
		return ErrOTAData
	}
	for i := range o.e {
		if err := o.read(uint8(i)); err != nil {
			return err
		}
	}
	return nil
}

// loadTries bounds how often a record is read that reads differently each time.
const loadTries = 8

// read reads a record until two reads in a row agree: an erase that was cut leaves
// bits that read one way or the other, and a state is under no checksum.
func (o *OTAData) read(i uint8) error {
	e, at := &o.e[i], uint32(i)*SectorSize
	if err := o.area.ReadAt(e[:], at); err != nil {
		return err
	}
	for n := 1; n < loadTries; n++ {
		o.next = *e
		if err := o.area.ReadAt(e[:], at); err != nil {
			return err
		}
		if *e == o.next {
			break
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
		if !o.names(i, s) || valid && !e.Valid() {
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
		if !o.fits() {
			return false, ErrOTAData // before anything is erased
		}
		done, err = o.plan(goal, slot)
		if done || err != nil {
			return done, err
		}
		at = uint32(o.sector) * SectorSize
		err = o.area.Erase(at, SectorSize)
	case 1:
		if !o.blank {
			err = o.program(at)
		}
	case 2:
		want := o.next
		if err = o.area.ReadAt(o.next[:], at); err == nil && !o.landed(&want) {
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

// landed says whether what was read back into next is what was meant. A wiped
// record need not read as erased (an encrypted chip returns noise), but it must
// not be one any more.
func (o *OTAData) landed(want *Entry) bool {
	if o.blank {
		return !o.next.named()
	}
	return o.next == *want
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

// names says whether a record, selectable or not, names slot.
func (o *OTAData) names(sector int, slot boot.Slot) bool {
	e := &o.e[sector]
	return e.named() && SlotOf(e.Seq(), uint32(o.slots)) == uint32(slot)
}

// plan finds the next write for a goal, or that there is none.
func (o *OTAData) plan(goal boot.Goal, slot boot.Slot) (done bool, err error) {
	if goal != boot.GoalConfirm && (slot == o.running || slot != boot.Factory && uint8(slot) >= o.slots) {
		return false, ErrSlot
	}
	run := -1
	if o.running != boot.Factory {
		run = o.record(o.running, true)
	}
	active := o.lasting()
	switch goal {
	case boot.GoalConfirm:
		if run < 0 && o.running != boot.Factory {
			// It was started by a record that a cut left marginal, or as the only image
			// that verifies. Without one it would run unconfirmed until it is reset.
			return false, o.nameRunning(active)
		}
		if run < 0 || run != Active(&o.e[0], &o.e[1]) {
			return false, ErrNotActive
		}
		if o.e[run].State() == StateValid {
			return true, nil
		}
		o.write(run, o.e[run].Seq(), StateValid)
		return false, nil
	case boot.GoalProtect, boot.GoalStage:
		if slot == boot.Factory {
			return false, ErrSlot
		}
		if run >= 0 && o.e[run].State() == StatePending {
			// A bootloader with rollback ends this slot at the next reset: the other
			// record is then all there is.
			return false, ErrOnTrial
		}
		if o.running != boot.Factory && run < 0 {
			return false, o.nameRunning(active)
		}
		if goal == boot.GoalProtect {
			return o.planProtect(slot, run, active), nil
		}
		return o.planStage(slot, run, active)
	case boot.GoalRevert:
		return o.planRevert(slot, run, active)
	}
	return false, ErrSlot
}

// lasting is the record that will be in force after the next reset: a PENDING one,
// whose slot does not run, is aborted then.
func (o *OTAData) lasting() int {
	e := o.e
	for i := range e {
		if e[i].State() == StatePending {
			e[i] = BlankEntry()
		}
	}
	return Active(&e[0], &e[1])
}

// planProtect wipes what could start the slot that is about to be erased: the
// record that is not the running slot's, whatever other slot it names (ESP-IDF
// 5.5 wipes the inactive one), and with the factory image running also the one in
// force where it names the slot. A rejected record stays until planStage: the state
// is under no checksum, and an erase of it that is cut half-way could make it
// selectable while the rejected image is still whole.
func (o *OTAData) planProtect(slot boot.Slot, run, active int) (done bool) {
	for k := range o.e {
		i := k
		if active >= 0 {
			i = (active + 1 + k) % 2 // the one in force last: it hides the other
		}
		if i == run || !o.e[i].Valid() || o.names(i, o.running) {
			continue
		}
		if run < 0 && i == active && !o.names(i, slot) {
			continue
		}
		o.wipe(i)
		return false
	}
	return true
}

func (o *OTAData) planStage(slot boot.Slot, run, active int) (done bool, err error) {
	if active >= 0 && o.names(active, slot) && o.e[active].State() == StateNew {
		return true, nil
	}
	// Into the sector that does not hold the running slot's record; with the
	// factory image running, the one that is not in force.
	sector := 1 - run
	if run < 0 {
		sector = notInForce(active)
	}
	seq, err := o.above(slot, -1)
	without, err2 := o.above(slot, sector)
	if err2 != nil {
		return false, err2
	}
	if err != nil || seq != without {
		// A record that is about to be overwritten must not push the sequence up:
		// after an aborted update ESP-IDF takes the same sequence again.
		o.wipe(sector)
		return false, nil
	}
	o.write(sector, seq, StateNew)
	return false, nil
}

func (o *OTAData) planRevert(slot boot.Slot, run, active int) (done bool, err error) {
	if slot != boot.Factory {
		// A PENDING record does not survive a bootloader with rollback.
		if t := o.record(slot, true); t < 0 || o.e[t].State() == StatePending {
			sector := 1 - run
			switch {
			case run >= 0 && o.e[run].State() == StatePending && active == 1-run:
				sector = run // both records are the running slot's, and this one ends anyway
			case run >= 0:
			case t >= 0:
				sector = t
			default:
				sector = notInForce(active)
			}
			seq, err := o.above(slot, -1)
			if err != nil {
				return false, err
			}
			o.write(sector, seq, StateValid)
			return false, nil
		}
	}
	// The records of other slots go before the running slot's, and the one in
	// force last: a cut between the two must not start a third slot.
	last := run
	if run < 0 {
		last = active
	}
	for k := range o.e {
		i := k
		if last >= 0 {
			i = (last + 1 + k) % 2
		}
		if i != run && o.e[i].Valid() && !o.names(i, slot) && (slot == boot.Factory || i == active) {
			o.wipe(i)
			return false, nil
		}
	}
	if run >= 0 {
		o.write(run, o.e[run].Seq(), StateInvalid)
		return false, nil
	}
	return true, nil
}

// nameRunning writes a VALID record for the running slot, which has none: after a
// fallback by the bootloader both records may name other slots. The record in
// force is left alone meanwhile.
func (o *OTAData) nameRunning(active int) error {
	seq, err := o.above(o.running, -1)
	if err != nil {
		return err
	}
	o.write(notInForce(active), seq, StateValid)
	return nil
}

// notInForce is the sector to write where the running slot has no record: not the
// active one, and the first if there is none.
func notInForce(active int) int {
	if active == 0 {
		return 1
	}
	return 0
}

// above is the smallest sequence that names slot and is higher than that of every
// record with a right CRC, but for the record in sector skip.
func (o *OTAData) above(slot boot.Slot, skip int) (uint32, error) {
	n := uint32(o.slots)
	seq := uint32(0)
	for i := range o.e {
		if e := &o.e[i]; i != skip && e.named() && e.Seq() > seq {
			seq = e.Seq()
		}
	}
	for range n {
		// 0xFFFFFFFF is an erased sequence; behind it the order starts again.
		if seq++; seq >= seqEmpty {
			return 0, ErrSequence
		}
		if SlotOf(seq, n) == uint32(slot) {
			return seq, nil
		}
	}
	return 0, ErrSlot
}
