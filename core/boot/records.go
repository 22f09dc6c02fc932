package boot

import "github.com/runnel-fota/runnel/core/flash"

// Records is the Scheme of a board whose boot stage is ours (Start). Each goal is one
// record: an erase, a program and a read back, one a Step.
//
// I1: after each flash operation the running slot or the goal's slot starts, never a
// third one.
// I2: no operation touches the record in force (R1).
// I3: each goal ends after at most one record.
type Records struct {
	area      flash.Area
	room      []byte // a program unit, where that is longer than buf
	buf       [RecordBuffer]byte
	cur, next Record // in force; on its way into the other sector
	running   Slot
	slots     uint8
	sector    uint8 // that holds cur
	step      uint8 // 0: plan and erase, 1: program, 2: read back
	known     bool  // there is a record in force
	torn      bool  // a write that has not ended left anything in the other sector
	goal      Goal  // of the write in progress
	slot      Slot
}

var _ Scheme = (*Records)(nil)

// NewRecords makes r the scheme in an area of two sectors. running is the slot that
// executes, as the port knows it; slots is how many there are, MaxSlots at most.
func NewRecords(r *Records, area *flash.Area, running Slot, slots uint8) error {
	*r = Records{area: *area, running: running, slots: slots, sector: 1}
	r.cur.blank()
	if slots > MaxSlots || uint8(running) >= slots {
		return ErrSlot
	}
	if fits(area, r.buf[:]) == ErrArea {
		return ErrArea
	}
	return nil
}

// SetRoom lends a program unit of bytes to a chip whose unit is longer than
// RecordBuffer. p holds nothing of worth between two Steps, so that it may be the
// updater's own buffer.
func (r *Records) SetRoom(p []byte) {
	makesRoom()
	r.room = p
}

func (r *Records) buffer() []byte {
	if roomMade && r.room != nil {
		return r.room
	}
	return r.buf[:]
}

// Load reads the record in force.
func (r *Records) Load() error {
	r.step, r.torn = 0, false
	if e := fits(&r.area, r.buffer()); e != 0 {
		return e
	}
	var err error
	r.sector, r.known, err = ReadRecord(&r.area, &r.cur, r.buffer())
	return err
}

// Running is the slot that executes.
func (r *Records) Running() Slot { return r.running }

// State is what the record in force says of a slot.
func (r *Records) State(s Slot) RecordState {
	if s >= MaxSlots {
		return RecordNone
	}
	return r.cur.States[s]
}

// Step does one flash operation towards the goal.
func (r *Records) Step(goal Goal, slot Slot) (done bool, err error) {
	if goal != r.goal || slot != r.slot {
		r.goal, r.slot, r.step = goal, slot, 0 // a record of another goal is not brought to its end
	}
	to := 1 - r.sector
	switch r.step {
	case 0:
		if e := fits(&r.area, r.buffer()); e != 0 {
			return false, e // before anything is erased
		}
		if e := r.plan(goal, slot); e != 0 {
			return false, e
		}
		if r.known && !r.torn && same(&r.cur, &r.next) {
			return true, nil
		}
		r.torn = true
		r.next.Sequence = r.cur.Sequence + 1
		err = eraseSector(&r.area, to)
	case 1:
		err = programRecord(&r.area, to, &r.next, r.buffer())
	case 2:
		if err = checkRecord(&r.area, to, &r.next, r.buffer()); err == nil {
			assign(&r.cur, &r.next)
			r.sector, r.known, r.torn, r.step = to, true, false, 0
			return false, nil
		}
	}
	if err != nil {
		r.step = 0
		return false, err
	}
	r.step++
	return false, nil
}

// same: two records say the same.
func same(a, b *Record) bool {
	if a.Active != b.Active || a.Fallback != b.Fallback {
		return false
	}
	for i := range a.States {
		if a.States[i] != b.States[i] {
			return false
		}
	}
	return true
}

// plan makes next the record that a goal ends with.
func (r *Records) plan(goal Goal, slot Slot) Error {
	if goal != GoalConfirm && (slot == r.running || uint8(slot) >= r.slots) {
		return ErrSlot
	}
	n, run, active := &r.next, r.running, r.cur.Active
	assign(n, &r.cur)
	switch goal {
	case GoalConfirm:
		if active != run && n.States[run] == RecordValid {
			return ErrNotActive
		}
		n.Active = run
		n.States[run] = RecordValid
	case GoalProtect, GoalStage:
		if active == run && onTrial(n.States[run]) {
			// The boot stage ends this trial at the next reset: the fallback is all there is.
			return ErrOnTrial
		}
		n.States[run] = RecordValid
		if goal == GoalStage {
			n.Active, n.Fallback = slot, run
			n.States[slot] = RecordNew
			break
		}
		n.Active = run
		if !rejected(n.States[slot]) {
			n.States[slot] = RecordNone
		}
	case GoalRevert:
		n.Active = slot
		n.States[slot], n.States[run] = RecordValid, RecordInvalid
	default:
		return ErrSlot
	}
	r.settle(active)
	return 0
}

// settle makes next a sound record (R2). A slot that was active and is so no more
// ends its trial, and is the way back if there is no better one.
func (r *Records) settle(active Slot) {
	n := &r.next
	if active != NoSlot && active != n.Active && onTrial(n.States[active]) {
		n.States[active] = RecordNone
	}
	if !n.back(n.Fallback) {
		n.Fallback = NoSlot
		if n.back(active) {
			n.Fallback = active
		}
	}
}

// back: the slot may be the record's way back.
func (r *Record) back(s Slot) bool {
	return s < MaxSlots && s != r.Active && r.States[s] == RecordValid
}
