package esp32

import (
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
)

// The states in which ESP-IDF's writer is not followed, a test each: what it does
// there, why that is wrong, and what is written instead. docs/format/otadata.md
// has the list.

func goalOf(t *testing.T, start [2]Entry, running boot.Slot, n uint8, goals ...boot.Goal) func(slot boot.Slot) [2]Entry {
	return func(slot boot.Slot) [2]Entry {
		t.Helper()
		f := &recordFlash{e: start}
		o := newScheme(t, f, running, n)
		for _, g := range goals {
			if err := runGoal(t, f, &o, g, slot, nil); err != nil {
				t.Fatal(err)
			}
		}
		return f.e
	}
}

// update is what a whole update writes before the reset.
func update(t *testing.T, start [2]Entry, running, slot boot.Slot, n uint8) [2]Entry {
	t.Helper()
	return goalOf(t, start, running, n, boot.GoalProtect, boot.GoalStage)(slot)
}

func wantStart(t *testing.T, what string, w world, e [2]Entry, want boot.Slot) [2]Entry {
	t.Helper()
	got, after := w.start(e)
	if got != want {
		t.Errorf("%s: %s starts %d, want %d", what, show(e), got, want)
	}
	return after
}

func wantRecords(t *testing.T, what string, got [2]Entry, e0, e1 Entry) {
	t.Helper()
	if got != [2]Entry{e0, e1} {
		t.Errorf("%s: %s, want %s", what, show(got), show([2]Entry{e0, e1}))
	}
}

// TestWorkedSequence is the life of two slots under ESP-IDF, both sides: Arduino's
// boot_app0, an update, its trial and confirmation, a second one that is reset
// unconfirmed, and a third.
func TestWorkedSequence(t *testing.T) {
	w := world{2, false, 3}
	u := func(seq uint32) Entry { return NewEntry(seq, StateUndefined) }
	e := [2]Entry{u(1), u(0)}
	wantStart(t, "boot_app0", w, e, 0)
	e = update(t, e, 0, 1, 2)
	wantRecords(t, "update to ota_1", e, u(1), NewEntry(2, StateNew))
	e = wantStart(t, "trial", w, e, 1)
	wantRecords(t, "trial", e, u(1), NewEntry(2, StatePending))
	e = goalOf(t, e, 1, 2, boot.GoalConfirm)(1)
	wantRecords(t, "confirmed", e, u(1), NewEntry(2, StateValid))
	e = update(t, e, 1, 0, 2)
	wantRecords(t, "update to ota_0", e, NewEntry(3, StateNew), NewEntry(2, StateValid))
	e = wantStart(t, "trial", w, e, 0)
	wantRecords(t, "trial", e, NewEntry(3, StatePending), NewEntry(2, StateValid))
	e = wantStart(t, "reset unconfirmed", w, e, 1)
	wantRecords(t, "aborted", e, NewEntry(3, StateAborted), NewEntry(2, StateValid))
	e = update(t, e, 1, 0, 2)
	wantRecords(t, "a new update to ota_0", e, NewEntry(3, StateNew), NewEntry(2, StateValid))
	// Both rejected and no factory: slot 0, and nothing is written.
	e = [2]Entry{NewEntry(3, StateAborted), NewEntry(2, StateInvalid)}
	if after := wantStart(t, "both rejected", w, e, 0); after != e {
		t.Errorf("both rejected: written %s", show(after))
	}
}

// ruuvi.gateway_esp #1280: the bootloader fell back from a broken slot whose record
// is still in force. ESP-IDF goes by the record in force and writes over the
// running slot's.
func TestStateAfterFallback(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), NewEntry(2, StateValid)}
	w := world{2, false, 1} // slot 1 is broken: slot 0 runs
	wantStart(t, "fallback", w, start, 0)

	d := idf{e: start, n: 2, running: 0, old: true}
	d.begin()
	d.setBoot(1)
	if SlotOf(d.e[0].Seq(), 2) != 1 || SlotOf(d.e[1].Seq(), 2) != 1 {
		t.Errorf("ESP-IDF before 6.0 leaves %s", show(d.e))
	}
	d = idf{e: start, n: 3, running: 0} // 6.0, another slot
	d.begin()
	d.setBoot(2)
	if SlotOf(d.e[0].Seq(), 3) == 0 || SlotOf(d.e[1].Seq(), 3) == 0 {
		t.Errorf("ESP-IDF 6.0 leaves %s", show(d.e))
	}
	e := update(t, start, 0, 1, 2)
	wantRecords(t, "ours", e, start[0], NewEntry(2, StateNew))
	e = wantStart(t, "staged", world{2, false, 3}, e, 1)
	wantStart(t, "reset on trial", world{2, false, 3}, e, 0)
}

// The same state: to confirm, ESP-IDF marks the record in force, which is the
// broken slot's.
func TestStateConfirmAfterFallback(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateUndefined), NewEntry(2, StatePending)}
	d := idf{e: start, n: 2, running: 0}
	if !d.markValid() || d.e[1].State() != StateValid {
		t.Errorf("ESP-IDF leaves %s", show(d.e))
	}
	f := &recordFlash{e: start}
	o := newScheme(t, f, 0, 2)
	if err := runGoal(t, f, &o, boot.GoalConfirm, 0, nil); !errors.Is(err, ErrNotActive) || f.e != start {
		t.Errorf("%v, %s", err, show(f.e))
	}
}

// The same without any other slot's record: factory runs, and the record in force
// is that of the slot to be erased. ESP-IDF leaves it selectable meanwhile, and
// would confirm it.
func TestStateFactoryRuns(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), BlankEntry()}
	w := world{2, true, 0}
	wantStart(t, "fallback to factory", w, start, boot.Factory)
	d := idf{e: start, n: 2, running: boot.Factory}
	d.begin()
	if !d.e[0].Valid() || !d.markValid() {
		t.Errorf("ESP-IDF leaves %s", show(d.e))
	}
	e := goalOf(t, start, boot.Factory, 2, boot.GoalProtect)(0)
	wantRecords(t, "protected", e, BlankEntry(), BlankEntry())
	e = update(t, start, boot.Factory, 0, 2)
	wantRecords(t, "staged", e, NewEntry(1, StateNew), BlankEntry())
	e = wantStart(t, "staged", world{2, true, 1}, e, 0)
	wantStart(t, "reset on trial", world{2, true, 1}, e, boot.Factory)
}

// Factory runs, and both records were rejected. ESP-IDF counts from 1 again, below
// a record with a right CRC; ours stay in order.
func TestStateFactoryRunsBothRejected(t *testing.T) {
	start := [2]Entry{NewEntry(3, StateAborted), NewEntry(4, StateAborted)}
	d := idf{e: start, n: 2, running: boot.Factory}
	d.begin()
	d.setBoot(0)
	if d.e[0] != NewEntry(1, StateNew) {
		t.Errorf("ESP-IDF leaves %s", show(d.e))
	}
	wantRecords(t, "ours", update(t, start, boot.Factory, 0, 2), NewEntry(5, StateNew), start[1])
}

// esp-idf #14808: two VALID records and an update that is cut. Before 5.5 the
// record of the erased slot stays selectable.
func TestStateTwoValidRecords(t *testing.T) {
	start := [2]Entry{NewEntry(3, StateValid), NewEntry(2, StateValid)}
	e := goalOf(t, start, 0, 2, boot.GoalProtect)(1)
	wantRecords(t, "protected", e, start[0], BlankEntry())
	d := idf{e: start, n: 2, running: 0} // 5.5
	d.begin()
	wantRecords(t, "ESP-IDF 5.5", d.e, e[0], e[1])
}

// Before 6.0 a slot whose record is in force gets a second record of the same
// sequence in the other sector. The tie goes to sector 0: no trial.
func TestStateSequenceTie(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), BlankEntry()}
	d := idf{e: start, n: 2, running: boot.Factory, old: true}
	d.setBoot(0)
	wantRecords(t, "ESP-IDF before 6.0", d.e, start[0], NewEntry(1, StateNew))
	if _, after := (world{2, true, 1}).start(d.e); after[0].State() != StateValid || after[1].State() != StateNew {
		t.Errorf("on trial after all: %s", show(after))
	}
	// A tie that is there already: the first one is the running slot's record.
	tie := [2]Entry{NewEntry(2, StateUndefined), NewEntry(2, StateValid)}
	wantRecords(t, "staged on a tie", update(t, tie, 1, 0, 2), tie[0], NewEntry(3, StateNew))
}

// Arduino's boot_app0.bin: the second record is sequence 0 before erased bytes,
// whose CRC is right. It names slot (0-1) mod n, where nothing was ever flashed.
func TestStateSequenceZero(t *testing.T) {
	zero := NewEntry(0, StateUndefined)
	if want := BlankEntry(); zero[28] != want[28] || !zero.Valid() {
		t.Fatalf("sequence 0: % X", zero)
	}
	app0 := [2]Entry{NewEntry(1, StateUndefined), zero}
	wantRecords(t, "protected", goalOf(t, app0, 0, 2, boot.GoalProtect)(1), app0[0], BlankEntry())
	// In force, of three slots: ESP-IDF looks for a sequence that is (k+1) mod n from
	// 0 on, and for slot 2 finds 0 again, which names slot 0.
	start := [2]Entry{zero, BlankEntry()}
	d := idf{e: start, n: 3, running: 0}
	d.begin()
	d.setBoot(2)
	wantStart(t, "ESP-IDF", world{3, false, 7}, d.e, 0)
	wantStart(t, "ours", world{3, false, 7}, update(t, start, 0, 2, 3), 2)
}

// At the end of the sequences ESP-IDF's sum arrives at the value of an erased
// record, or starts again at 0: the slot never starts. Ours refuses, and writes nothing.
func TestStateSequenceEnds(t *testing.T) {
	start := [2]Entry{NewEntry(0xFFFFFFFE, StateValid), BlankEntry()}
	d := idf{e: start, n: 2, running: 1}
	d.begin()
	d.setBoot(0)
	wantStart(t, "ESP-IDF", world{2, false, 3}, d.e, 1)
	f := &recordFlash{e: start}
	o := newScheme(t, f, 1, 2)
	if err := runGoal(t, f, &o, boot.GoalStage, 0, nil); !errors.Is(err, ErrSequence) || f.ops != 0 {
		t.Errorf("%v after %d operations", err, f.ops)
	}
	// One below there is a last one.
	start[0] = NewEntry(0xFFFFFFFD, StateValid)
	wantRecords(t, "the last one", update(t, start, 0, 1, 2), start[0], NewEntry(0xFFFFFFFE, StateNew))
	// A record that is overwritten does not count: the other slot's is at the end.
	start = [2]Entry{NewEntry(1, StateValid), NewEntry(0xFFFFFFFE, StateAborted)}
	wantRecords(t, "a rejected one at the end", update(t, start, 0, 1, 2), start[0], NewEntry(2, StateNew))
}

// A higher sequence with a wrong CRC is no record, for ESP-IDF and for us.
func TestStateHigherButBadCRC(t *testing.T) {
	bad := NewEntry(9, StateValid)
	bad[28] ^= 1
	start := [2]Entry{NewEntry(1, StateValid), bad}
	e := update(t, start, 0, 1, 2)
	wantRecords(t, "ours", e, start[0], NewEntry(2, StateNew))
	d := idf{e: start, n: 2, running: 0}
	d.begin()
	d.setBoot(1)
	wantRecords(t, "ESP-IDF", d.e, e[0], e[1])
}

// No record names the running slot: slot 0 is broken, both records are rejected,
// slot 1 runs. ESP-IDF stages slot 0; after a reset on trial nothing is selectable,
// and the new image starts for ever, by index 0.
func TestStateNoRecordNamesRunning(t *testing.T) {
	start := [2]Entry{NewEntry(3, StateAborted), NewEntry(2, StateAborted)}
	wantStart(t, "fallback", world{2, false, 2}, start, 1)
	both := world{2, false, 3}
	d := idf{e: start, n: 2, running: 1}
	d.begin()
	d.setBoot(0)
	after := wantStart(t, "ESP-IDF", both, d.e, 0)
	wantStart(t, "ESP-IDF, reset on trial", both, after, 0)

	after = wantStart(t, "ours", both, update(t, start, 1, 0, 2), 0)
	wantStart(t, "ours, reset on trial", both, after, 1)
}

// To go back: ESP-IDF can go back only to where the other record leads.
func TestStateNoRecordNamesTheWayBack(t *testing.T) {
	start := [2]Entry{NewEntry(2, StateValid), BlankEntry()}
	d := idf{e: start, n: 2, running: 1}
	if d.markInvalid(world{2, false, 3}) {
		t.Errorf("ESP-IDF goes back: %s", show(d.e))
	}
	e := goalOf(t, start, 1, 2, boot.GoalRevert)(0)
	wantRecords(t, "ours", e, NewEntry(2, StateInvalid), NewEntry(3, StateValid))
	wantStart(t, "ours", world{2, false, 3}, e, 0)
}

// The way back has a PENDING record, left by a boot that did not verify and was
// repaired since. ESP-IDF goes back to it, and the next boot aborts it.
func TestStateWayBackIsPending(t *testing.T) {
	start := [2]Entry{NewEntry(4, StateValid), NewEntry(3, StatePending)}
	w := world{2, true, 3}
	d := idf{e: start, n: 2, running: 1}
	if !d.markInvalid(w) {
		t.Error("ESP-IDF refuses")
	}
	wantStart(t, "ESP-IDF", w, d.e, boot.Factory)
	wantStart(t, "ours", w, goalOf(t, start, 1, 2, boot.GoalRevert)(0), 0)
}

// Back to factory while the other record is selectable: ESP-IDF would go to its slot.
func TestStateFactoryWanted(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), NewEntry(2, StateValid)}
	w := world{2, true, 3}
	d := idf{e: start, n: 2, running: 1}
	d.markInvalid(w)
	wantStart(t, "ESP-IDF", w, d.e, 0)
	e := goalOf(t, start, 1, 2, boot.GoalRevert)(boot.Factory)
	wantRecords(t, "ours", e, BlankEntry(), NewEntry(2, StateInvalid))
	wantStart(t, "ours", w, e, boot.Factory)
}

// Both records are the running slot's: to go back ESP-IDF makes the higher one
// INVALID, and the lower one starts the same slot again.
func TestStateBothAreRunnings(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), NewEntry(3, StateValid)}
	w := world{2, false, 3}
	d := idf{e: start, n: 2, running: 0}
	d.markInvalid(w)
	wantStart(t, "ESP-IDF", w, d.e, 0)
	wantStart(t, "ours", w, goalOf(t, start, 0, 2, boot.GoalRevert)(1), 1)
	wantRecords(t, "protected: nothing to wipe", goalOf(t, start, 0, 2, boot.GoalProtect)(1), start[0], start[1])
}

// A rejected record's state is under no checksum. An erase that is cut half-way can
// turn it into one that is selectable, while sequence and CRC still fit. So it is
// left alone as long as the rejected image stands in the slot: ESP-IDF erases the
// slot first, we write the record first, and only when the new image is whole.
func TestStateTornEraseOfARejectedRecord(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), NewEntry(2, StateAborted)}
	torn := start
	torn[1] = NewEntry(2, StateUndefined)
	wantStart(t, "torn", world{2, false, 3}, torn, 1)
	f := &recordFlash{e: start}
	o := newScheme(t, f, 0, 2)
	if err := runGoal(t, f, &o, boot.GoalProtect, 1, nil); err != nil || f.ops != 0 {
		t.Errorf("%v, %d operations", err, f.ops)
	}
}

// TestStateGapInTable: the bootloader counts entries, an application consecutive
// slots. Where the two differ every sequence names two slots: no update.
func TestStateGapInTable(t *testing.T) {
	table := func(subtypes ...uint8) (t Table) {
		for i, s := range subtypes {
			t.P[i] = Partition{Type: TypeApp, Subtype: s, Offset: uint32(i+1) << 20, Size: 1 << 20}
			t.N++
		}
		return t
	}
	for _, c := range []struct {
		name  string
		table Table
		apps  uint32
		slots uint8
	}{
		{"two", table(0x10, 0x11), 2, 2},
		{"with factory and test", table(0, 0x20, 0x10, 0x11), 2, 2},
		{"gap", table(0x10, 0x12), 2, 1},
		{"twice", table(0x10, 0x10), 2, 1},
		{"none", table(0), 0, 0},
	} {
		if c.table.AppCount() != c.apps || c.table.Slots() != c.slots {
			t.Errorf("%s: the bootloader counts %d, an application %d; want %d and %d", c.name, c.table.AppCount(), c.table.Slots(), c.apps, c.slots)
		}
	}
}
