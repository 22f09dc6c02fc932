package esp32

import (
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
)

// idf is what an application built on ESP-IDF writes, rollback on: esp_ota_begin
// (5.5), esp_ota_set_boot_partition (6.0), esp_ota_mark_app_valid_cancel_rollback
// and esp_ota_mark_app_invalid_rollback, for n consecutive slots. It is written
// from the description of what they do, with their mistakes, to compare with.
type idf struct {
	e       [2]Entry
	n       uint32
	running boot.Slot
	old     bool // before 6.0: a slot that is in force already goes into the other sector
}

func (d *idf) rewrite(sector int, seq, state uint32) { d.e[sector].set(seq, state) }

// begin wipes the record that is not in force, unless it names the running slot.
// Refuses on trial.
func (d *idf) begin() bool {
	for i := range d.e {
		if SlotOf(d.e[i].Seq(), d.n) == uint32(d.running) && d.e[i].CRCOK() {
			if d.e[i].State() == StatePending {
				return false
			}
			break
		}
	}
	if a := Active(&d.e[0], &d.e[1]); a >= 0 {
		if o := &d.e[1-a]; o.Seq() != seqEmpty && o.CRCOK() && SlotOf(o.Seq(), d.n) != uint32(d.running) {
			*o = BlankEntry()
		}
	}
	return true
}

func (d *idf) setBoot(slot boot.Slot) {
	k := uint32(slot)
	a := Active(&d.e[0], &d.e[1])
	if a < 0 {
		d.rewrite(0, k+1, StateNew)
		return
	}
	cur := d.e[a].Seq()
	// The loop of ESP-IDF counts up from zero in 32 bits; near their end it would
	// never end, or arrive at the empty sequence. Its first value is computed here.
	seq := (k + 1) % d.n
	if cur > seq {
		seq += (cur - seq + d.n - 1) / d.n * d.n
	}
	if !d.old && SlotOf(cur, d.n) == k {
		d.rewrite(a, cur, StateNew)
		return
	}
	d.rewrite(1-a, seq, StateNew)
}

func (d *idf) markValid() bool {
	a := Active(&d.e[0], &d.e[1])
	if a < 0 {
		return false
	}
	if d.e[a].State() != StateValid {
		d.rewrite(a, d.e[a].Seq(), StateValid)
	}
	return true
}

// markInvalid goes back; whole says which slots hold an image that verifies.
func (d *idf) markInvalid(w world) bool {
	a := Active(&d.e[0], &d.e[1])
	if a < 0 {
		return false
	}
	back := w.factory
	if o := &d.e[1-a]; o.Valid() {
		back = w.good>>SlotOf(o.Seq(), d.n)&1 == 1
	}
	if back {
		d.rewrite(a, d.e[a].Seq(), StateInvalid)
	}
	return back
}

// wrong names the reason for which ESP-IDF's writer is not to be followed in a
// state, "" where it is right and the bytes must be the same. A test below pins
// each reason; docs/format/otadata.md lists them.
func wrong(e [2]Entry, running boot.Slot, n uint32, goal boot.Goal, slot boot.Slot) string {
	active := Active(&e[0], &e[1])
	named := func(i int, s boot.Slot) bool { return e[i].named() && SlotOf(e[i].Seq(), n) == uint32(s) }
	for i := range e {
		if e[i].CRCOK() && e[i].Seq() >= seqEmpty-n && e[i].Seq() != seqEmpty {
			return "sequence near its end"
		}
	}
	if active >= 0 && e[active].Seq() == 0 && goal == boot.GoalStage {
		return "sequence 0 is in force"
	}
	switch {
	case running == boot.Factory && active >= 0:
		return "factory runs and a record is in force"
	case running == boot.Factory:
		if goal == boot.GoalStage && (e[0].named() && e[0].Seq() > 0 || e[1].named() && e[1].Seq() > 0) {
			return "factory runs and only rejected records are left"
		}
	case active < 0 || !named(active, running):
		return "the record in force is not the running slot's"
	case named(1-active, running):
		return "both records are the running slot's"
	}
	if other := 1 - active; goal == boot.GoalRevert && active >= 0 {
		switch {
		case slot == boot.Factory && e[other].Valid():
			return "factory is wanted and a slot is selectable"
		case slot != boot.Factory && (!e[other].Valid() || !named(other, slot)):
			return "the slot that is wanted has no record"
		case slot != boot.Factory && e[other].State() == StatePending:
			return "the slot that is wanted is to be aborted"
		}
	}
	return ""
}

// reasons is how many wrong knows.
const reasons = 9

// TestSchemeIsESPIDFs: the same bytes as ESP-IDF's writer in each state in which
// it is right, and in each state in which it is not, named, at least once
// different ones.
func TestSchemeIsESPIDFs(t *testing.T) {
	all := records()
	same, differ := 0, map[string]int{}
	for n := uint8(1); n <= 4; n++ {
		for r := range boot.Slot(n) + 1 {
			running := r
			if r == boot.Slot(n) {
				running = boot.Factory
			}
			for _, e0 := range all {
				for _, e1 := range all {
					start := [2]Entry{e0, e1}
					for s := range boot.Slot(n) + 1 {
						slot := s
						if s == boot.Slot(n) {
							slot = boot.Factory
						}
						for _, goal := range []boot.Goal{boot.GoalStage, boot.GoalConfirm, boot.GoalRevert} {
							if (goal == boot.GoalConfirm) != (slot == running) || running == boot.Factory && goal == boot.GoalRevert ||
								slot == boot.Factory && goal != boot.GoalRevert {
								continue
							}
							d := idf{e: start, n: uint32(n), running: running}
							f := &recordFlash{e: start}
							o := newScheme(t, f, running, n)
							theirs, ours := true, true
							switch goal {
							case boot.GoalStage: // as an update does it: begin, set boot
								if theirs = d.begin(); theirs {
									d.setBoot(slot)
								}
								ours = runGoal(t, f, &o, boot.GoalProtect, slot, nil) == nil && runGoal(t, f, &o, goal, slot, nil) == nil
							case boot.GoalConfirm:
								theirs = d.markValid()
								ours = runGoal(t, f, &o, goal, slot, nil) == nil
							case boot.GoalRevert:
								theirs = d.markInvalid(world{uint32(n), true, 1<<n - 1})
								ours = runGoal(t, f, &o, goal, slot, nil) == nil
							}
							why := wrong(start, running, uint32(n), goal, slot)
							equal := theirs == ours && (d.e == f.e || !theirs)
							switch {
							case equal:
								same++
							case why == "":
								t.Fatalf("goal %d slot %d, running %d of %d, from %s: ours %v %s, ESP-IDF's %v %s",
									goal, slot, running, n, show(start), ours, show(f.e), theirs, show(d.e))
							default:
								differ[why]++
							}
						}
					}
				}
			}
		}
	}
	t.Logf("%d the same, others: %v", same, differ)
	if same == 0 || len(differ) != reasons {
		t.Errorf("%d the same, %d reasons to differ, want %d", same, len(differ), reasons)
	}
}
