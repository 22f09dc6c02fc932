package esp32

import (
	"errors"
	"fmt"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
)

// recordFlash is an otadata partition that keeps only the two records. It counts
// operations and, when cut is set, ends at that one, leaving a prefix of a program.
type recordFlash struct {
	e       [2]Entry
	ops     int  // erases and programs
	lie     bool // erases do nothing and say that they did
	spoil   bool // programs clear one bit too many
	program uint32
}

func (f *recordFlash) Geometry() flash.Geometry {
	return flash.Geometry{Size: OTADataSize, EraseSize: SectorSize, ProgramSize: max(f.program, 1), ErasedByte: 0xFF, ErasedReadable: true}
}

func (f *recordFlash) ReadAt(p []byte, off uint32) error {
	copy(p, f.e[off/SectorSize][:])
	return nil
}

func (f *recordFlash) Program(p []byte, off uint32) error {
	f.ops++
	e := &f.e[off/SectorSize]
	if *e != BlankEntry() {
		return flash.ErrNotBlank
	}
	copy(e[:], p)
	if f.spoil {
		e[20] = 0
	}
	return nil
}

func (f *recordFlash) Erase(off, length uint32) error {
	if length != SectorSize {
		return flash.ErrAlign
	}
	f.ops++
	if !f.lie {
		f.e[off/SectorSize] = BlankEntry()
	}
	return nil
}

func (f *recordFlash) Sync() error { return nil }

func newScheme(t testing.TB, f *recordFlash, running boot.Slot, slots uint8) OTAData {
	t.Helper()
	area, err := flash.NewArea(f, 0, OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOTAData(area, running, slots)
	if err == nil {
		err = o.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	return o
}

// runGoal takes a goal to its end. After each flash operation, each tells see the
// records as a cut right behind it, and inside it, would leave them.
func runGoal(t testing.TB, f *recordFlash, o *OTAData, goal boot.Goal, slot boot.Slot, see func(e [2]Entry)) (err error) {
	t.Helper()
	const maxSteps = 16 // three records and their read-backs, and the plan that finds nothing
	for range maxSteps {
		before, ops := f.e, f.ops
		done, err := o.Step(goal, slot)
		if f.ops > ops+1 {
			t.Fatalf("%d flash operations in one step", f.ops-ops)
		}
		if see != nil && f.ops > ops {
			for i := range f.e {
				if before[i] == BlankEntry() && f.e[i] != before[i] {
					// A program that is cut leaves the first words.
					for n := 4; n < EntrySize; n += 4 {
						torn := f.e
						copy(torn[i][n:], before[i][n:])
						see(torn)
					}
				}
			}
			see(f.e)
		}
		if done || err != nil {
			return err
		}
	}
	t.Fatalf("goal %d for slot %d is not reached after %d steps", goal, slot, maxSteps)
	return nil
}

// world is what a boot depends on beside the records.
type world struct {
	n       uint32
	factory bool
	good    uint32 // bit i: slot i holds an image that verifies
}

const nothing = boot.Slot(0xFE) // no image starts

// start boots: the slot whose image starts, and the records afterwards.
func (w world) start(e [2]Entry) (boot.Slot, [2]Entry) {
	s := Select(e[0], e[1], w.n, w.factory, true)
	for i := 0; ; i++ {
		k, ok := LoadOrder(s.BootIndex, w.n, i)
		switch {
		case !ok:
			return nothing, s.After
		case k == FactoryIndex && w.factory:
			return boot.Factory, s.After
		case k >= 0 && w.good>>uint(k)&1 == 1:
			if s.InitialContents {
				s.After[0] = InitialEntry(k)
			}
			return boot.Slot(k), s.After
		}
	}
}

// records is every record that the sweeps try: sequences at both ends of the
// order, all states and one that ESP-IDF does not know, right and wrong CRCs.
func records() []Entry {
	list := []Entry{BlankEntry()}
	for _, seq := range []uint32{0, 1, 2, 3, 4, 9, 0xFFFFFFFC, 0xFFFFFFFE} {
		for _, state := range []uint32{StateNew, StatePending, StateValid, StateInvalid, StateAborted, StateUndefined, 7} {
			e := NewEntry(seq, state)
			list = append(list, e)
			if state == StateValid || state == StatePending || state == StateAborted {
				e[28] ^= 1
				list = append(list, e)
			}
		}
	}
	return list
}

func show(e [2]Entry) string {
	one := func(e Entry) string {
		if e == BlankEntry() {
			return "blank"
		}
		return fmt.Sprintf("seq %d state %d crc %v", e.Seq(), int32(e.State()), e.CRCOK())
	}
	return "{" + one(e[0]) + " | " + one(e[1]) + "}"
}

// TestSchemeSweep boots every pair of records, runs each goal in the slot that
// started, and boots again behind each operation and inside each program.
//
// A state counts for a world (slots, factory, which images verify) in which the
// next reset starts the same slot again. Where it does not, the running slot is not
// what a reset leads to even before the first write. Two kinds of states fall out:
// trials, whose way back is the other slot (Protect and Stage refuse them), and
// fallbacks from a trial's image that does not verify to a slot that no record
// names, while a third record is selectable.
func TestSchemeSweep(t *testing.T) {
	all := records()
	if testing.Short() {
		var few []Entry
		for i := 0; i < len(all); i += 3 {
			few = append(few, all[i])
		}
		all = few
	}
	s := sweep{t: t, goals: map[boot.Goal]int{}}
	for n := uint8(1); n <= 4; n++ {
		for _, e0 := range all {
			for _, e1 := range all {
				s.boot(n, [2]Entry{e0, e1})
			}
		}
		if t.Failed() {
			return
		}
	}
	t.Logf("%d pairs of records; %d states that start what runs, %d that do not; runs of each goal %v; %d cuts, %d boots",
		len(all)*len(all), s.states, s.excluded, s.goals, s.cuts, s.boots)
	for g := boot.GoalProtect; g <= boot.GoalRevert; g++ {
		if s.goals[g] == 0 {
			t.Errorf("goal %d was never tried", g)
		}
	}
}

type sweep struct {
	t       *testing.T
	start   [2]Entry
	running boot.Slot
	n       uint8

	goals                         map[boot.Goal]int
	states, excluded, cuts, boots int
}

// boot starts from a pair of records in every world, and runs the goals in each
// state that comes of it.
func (s *sweep) boot(n uint8, e [2]Entry) {
	type state struct {
		running boot.Slot
		e       [2]Entry
	}
	worlds := map[state][]world{}
	var order []state
	for good := range uint32(1) << n {
		for _, factory := range []bool{false, true} {
			w := world{uint32(n), factory, good}
			running, after := w.start(e)
			if running == nothing {
				continue
			}
			k := state{running, after}
			if again, _ := w.start(after); again != running {
				s.excluded++
				continue
			}
			if worlds[k] == nil {
				order = append(order, k)
			}
			worlds[k] = append(worlds[k], w)
		}
	}
	for _, k := range order {
		s.states++
		s.n, s.running, s.start = n, k.running, k.e
		for slot := range boot.Slot(n) {
			if slot != k.running {
				s.goal(boot.GoalProtect, slot, worlds[k])
				s.goal(boot.GoalStage, slot, worlds[k])
				s.goal(boot.GoalRevert, slot, worlds[k])
			}
		}
		if k.running != boot.Factory {
			s.goal(boot.GoalRevert, boot.Factory, worlds[k])
			s.goal(boot.GoalConfirm, k.running, worlds[k])
		}
	}
}

// fit leaves the worlds that belong to a goal. While a slot is protected its image
// is about to be erased: it does not verify. When it is staged or reverted to it
// was just proven: it does.
func fit(goal boot.Goal, slot boot.Slot, worlds []world) []world {
	var list []world
	for _, w := range worlds {
		has := slot == boot.Factory && w.factory || slot != boot.Factory && w.good>>slot&1 == 1
		if has != (goal == boot.GoalProtect) {
			list = append(list, w)
		}
	}
	return list
}

func (s *sweep) goal(goal boot.Goal, slot boot.Slot, worlds []world) {
	t := s.t
	worlds = fit(goal, slot, worlds)
	if len(worlds) == 0 {
		return
	}
	f := &recordFlash{e: s.start}
	o := newScheme(t, f, s.running, s.n)
	fail := func(format string, args ...any) {
		t.Errorf("goal %d slot %d, running %d of %d, from %s: %s", goal, slot, s.running, s.n, show(s.start), fmt.Sprintf(format, args...))
	}
	protects := goal == boot.GoalProtect || goal == boot.GoalStage
	run := -1
	if s.running != boot.Factory {
		run = o.record(s.running, true)
	}
	s.goals[goal]++
	if run >= 0 && protects && s.start[run].State() == StatePending {
		if err := runGoal(t, f, &o, goal, slot, nil); !errors.Is(err, ErrOnTrial) || f.ops != 0 {
			fail("%v on trial after %d operations", err, f.ops)
		}
		return
	}
	err := runGoal(t, f, &o, goal, slot, func(e [2]Entry) {
		s.cuts++
		if run >= 0 && protects && e[run] != s.start[run] {
			fail("the running slot's record is touched: %s", show(e)) // I2
		}
		for _, w := range worlds {
			s.boots++
			got, after := w.start(e)
			if got == s.running || got == slot {
				continue
			}
			if goal == boot.GoalConfirm {
				// The only record that says so is being rewritten: see confirmCut.
				continue
			}
			fail("in %+v a cut leaves %s, and %d starts; then %s", w, show(e), got, show(after)) // I1
			return
		}
	})
	if f.ops > 3*2 {
		fail("%d flash operations", f.ops) // I3
	}
	if err != nil {
		s.refused(goal, err, f, fail)
		return
	}
	s.reached(goal, slot, f.e, worlds, fail)
	// Again, after a reset: it is reached already.
	ops := f.ops
	o = newScheme(t, f, s.running, s.n)
	if err := runGoal(t, f, &o, goal, slot, nil); err != nil || f.ops != ops {
		fail("done again: %v, %d operations more", err, f.ops-ops)
	}
}

// refused: nothing may have been written for a goal that ends in an error, but a
// record for the running slot.
func (s *sweep) refused(goal boot.Goal, err error, f *recordFlash, fail func(string, ...any)) {
	active := Active(&s.start[0], &s.start[1])
	switch {
	case errors.Is(err, ErrSequence) && (s.start[0].Seq() >= 0xFFFFFFF8 || s.start[1].Seq() >= 0xFFFFFFF8):
	case errors.Is(err, ErrNotActive) && goal == boot.GoalConfirm && f.ops == 0 &&
		active >= 0 && SlotOf(s.start[active].Seq(), uint32(s.n)) != uint32(s.running):
	default:
		fail("%v after %d operations", err, f.ops)
	}
}

func (s *sweep) reached(goal boot.Goal, slot boot.Slot, e [2]Entry, worlds []world, fail func(string, ...any)) {
	want := s.running
	if goal == boot.GoalStage || goal == boot.GoalRevert {
		want = slot
	}
	for _, w := range worlds {
		got, after := w.start(e)
		if got != want {
			fail("in %+v the end is %s, and %d starts", w, show(e), got)
			return
		}
		if goal != boot.GoalStage {
			continue
		}
		// On trial: a reset without a confirm leads back.
		if a := Active(&after[0], &after[1]); after[a].State() != StatePending {
			fail("the end is %s: no trial", show(e))
			return
		}
		if back, _ := w.start(after); back != s.running {
			fail("in %+v the end is %s, a reset on trial leads to %d", w, show(e), back)
			return
		}
	}
	for i := range e {
		if goal == boot.GoalProtect && e[i].Valid() && SlotOf(e[i].Seq(), uint32(s.n)) == uint32(slot) {
			fail("the end is %s: the slot could be selected", show(e))
		}
	}
}

// TestConfirmCut: confirming rewrites the one record that says that the image on
// trial runs. A cut between its erase and its program leaves the other record, and
// the old image starts; it finds no record of the trial's slot and stages again.
func TestConfirmCut(t *testing.T) {
	f := &recordFlash{e: [2]Entry{NewEntry(1, StateValid), NewEntry(2, StatePending)}}
	o := newScheme(t, f, 1, 2)
	w := world{2, false, 3}
	var seen []boot.Slot
	if err := runGoal(t, f, &o, boot.GoalConfirm, 1, func(e [2]Entry) {
		k, _ := w.start(e)
		if k == 0 && e[1].Valid() {
			t.Errorf("the old slot starts though %s", show(e))
		}
		seen = append(seen, k)
	}); err != nil {
		t.Fatal(err)
	}
	if len(seen) == 0 || seen[0] != 0 || seen[len(seen)-1] != 1 || f.e[1] != NewEntry(2, StateValid) {
		t.Errorf("starts %d; ends in %s", seen, show(f.e))
	}
}

// A slot that runs on trial without a record gets one: the bootloader may have read
// a marginal one that nobody reads again. The other slot's is left as it is.
func TestConfirmWithoutARecord(t *testing.T) {
	old := NewEntry(1, StateValid)
	for _, c := range []struct{ start, want [2]Entry }{
		{[2]Entry{old, BlankEntry()}, [2]Entry{old, NewEntry(2, StateValid)}},
		{[2]Entry{old, NewEntry(2, StateAborted)}, [2]Entry{old, NewEntry(4, StateValid)}},
		{[2]Entry{BlankEntry(), BlankEntry()}, [2]Entry{NewEntry(2, StateValid), BlankEntry()}},
	} {
		f := &recordFlash{e: c.start}
		o := newScheme(t, f, 1, 2)
		err := runGoal(t, f, &o, boot.GoalConfirm, 1, func(e [2]Entry) {
			if e[0] != c.start[0] && c.start[0].Valid() {
				t.Errorf("from %s: the way back is touched: %s", show(c.start), show(e))
			}
		})
		if err != nil || f.e != c.want {
			t.Errorf("from %s: %v, %s, want %s", show(c.start), err, show(f.e), show(c.want))
		}
	}
}

func TestSchemeRefuses(t *testing.T) {
	f := &recordFlash{e: [2]Entry{NewEntry(1, StateValid), NewEntry(2, StatePending)}}
	good, err := flash.NewArea(f, 0, OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	one, err := flash.NewArea(f, 0, SectorSize)
	if err != nil {
		t.Fatal(err)
	}
	odd, err := flash.NewArea(&recordFlash{program: 24}, 0, OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		area    flash.Area
		running boot.Slot
		want    error
	}{
		{"one sector", one, 0, ErrOTAData},
		{"no partition", flash.Area{}, 0, ErrOTAData},
		{"program unit that does not divide a record", odd, 0, ErrOTAData},
		{"no such slot", good, 2, ErrSlot},
		{"factory", good, boot.Factory, nil},
	} {
		if _, err := NewOTAData(c.area, c.running, 2); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	for _, c := range []struct {
		name    string
		running boot.Slot
		goal    boot.Goal
		slot    boot.Slot
		want    error
	}{
		{"stage the running slot", 0, boot.GoalStage, 0, ErrSlot},
		{"protect the running slot", 0, boot.GoalProtect, 0, ErrSlot},
		{"stage factory", 0, boot.GoalStage, boot.Factory, ErrSlot},
		{"protect factory", 0, boot.GoalProtect, boot.Factory, ErrSlot},
		{"a slot that is not there", 0, boot.GoalStage, 2, ErrSlot},
		{"revert to the running slot", 0, boot.GoalRevert, 0, ErrSlot},
		{"no such goal", 0, 0, 1, ErrSlot},
		{"confirm what is not in force", 0, boot.GoalConfirm, 0, ErrNotActive},
		{"confirm factory", boot.Factory, boot.GoalConfirm, boot.Factory, ErrNotActive},
		{"protect on trial", 1, boot.GoalProtect, 0, ErrOnTrial},
		{"stage on trial", 1, boot.GoalStage, 0, ErrOnTrial},
	} {
		o := newScheme(t, f, c.running, 2)
		if err := runGoal(t, f, &o, c.goal, c.slot, nil); !errors.Is(err, c.want) || f.ops != 0 {
			t.Errorf("%s: %v after %d operations, want %v", c.name, err, f.ops, c.want)
		}
	}
}

// TestSchemeOnLongUnits: a chip whose program unit is longer than a record gets the
// same records, padded; without room for a unit nothing is erased.
func TestSchemeOnLongUnits(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), BlankEntry()}
	for _, unit := range []uint32{64, 128, 256} {
		f := &recordFlash{e: start, program: unit}
		area, err := flash.NewArea(f, 0, OTADataSize)
		if err != nil {
			t.Fatal(err)
		}
		o, err := NewOTAData(area, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		for _, room := range [][]byte{nil, make([]byte, unit-1)} {
			o.SetRoom(room)
			if err := o.Load(); !errors.Is(err, ErrOTAData) {
				t.Errorf("unit %d, room %d: load: %v", unit, len(room), err)
			}
			if _, err := o.Step(boot.GoalStage, 1); !errors.Is(err, ErrOTAData) || f.ops != 0 {
				t.Errorf("unit %d, room %d: %v after %d operations", unit, len(room), err, f.ops)
			}
		}
		o.SetRoom(make([]byte, unit))
		if err := o.Load(); err != nil {
			t.Fatal(err)
		}
		if err := runGoal(t, f, &o, boot.GoalStage, 1, nil); err != nil || f.e != [2]Entry{start[0], NewEntry(2, StateNew)} {
			t.Errorf("unit %d: %v, records %v", unit, err, f.e)
		}
		for i, b := range o.room[EntrySize:] {
			if b != 0xFF {
				t.Fatalf("unit %d: byte %d behind the record is %#x", unit, i, b)
			}
		}
	}
	area, err := flash.NewArea(&recordFlash{program: 512}, 0, OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := NewOTAData(area, 0, 2); !errors.Is(err, ErrOTAData) {
		t.Errorf("unit 512: %v", err)
	}
}

// shaky is a record whose erase was cut: some reads have a wrong bit.
type shaky struct {
	*recordFlash
	wrong []bool // of the reads to come
	reads int
}

func (f *shaky) ReadAt(p []byte, off uint32) error {
	err := f.recordFlash.ReadAt(p, off)
	if f.reads < len(f.wrong) && f.wrong[f.reads] {
		p[24+f.reads%8] ^= 2
	}
	f.reads++
	return err
}

// TestSchemeReadsTwice: a marginal record counts as two reads in a row have it, and
// reading it ends.
func TestSchemeReadsTwice(t *testing.T) {
	for _, wrong := range [][]bool{nil, {true}, {false, true}, {true, true, true}, {false, true, false, true}} {
		f := &shaky{recordFlash: &recordFlash{e: [2]Entry{NewEntry(1, StateNew), BlankEntry()}}, wrong: wrong}
		area, err := flash.NewArea(f, 0, OTADataSize)
		if err != nil {
			t.Fatal(err)
		}
		o, err := NewOTAData(area, 0, 2)
		if err == nil {
			err = o.Load()
		}
		if err != nil || o.State(0) != boot.RecordNew {
			t.Errorf("%v: %v, %s", wrong, err, o.State(0))
		}
	}
	f := &shaky{recordFlash: &recordFlash{e: [2]Entry{NewEntry(1, StateNew), BlankEntry()}}}
	for i := range 100 {
		f.wrong = append(f.wrong, i%2 == 0)
	}
	area, err := flash.NewArea(f, 0, OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	o, err := NewOTAData(area, 0, 2)
	if err == nil {
		err = o.Load()
	}
	if err != nil || f.reads != 2*loadTries {
		t.Errorf("%v after %d reads", err, f.reads)
	}
}

// TestSchemeReadsBack: a chip that does not do what it says is noticed.
func TestSchemeReadsBack(t *testing.T) {
	start := [2]Entry{NewEntry(1, StateValid), NewEntry(2, StateValid)}
	f := &recordFlash{e: start, lie: true}
	o := newScheme(t, f, 0, 2)
	if err := runGoal(t, f, &o, boot.GoalProtect, 1, nil); !errors.Is(err, ErrReadBack) {
		t.Errorf("an erase that does nothing: %v", err)
	}
	f = &recordFlash{e: start, spoil: true}
	o = newScheme(t, f, 0, 2)
	if err := runGoal(t, f, &o, boot.GoalStage, 1, nil); !errors.Is(err, ErrReadBack) {
		t.Errorf("a program that clears too much: %v", err)
	}
	f.spoil = false // the same scheme goes on, with what it knows
	if err := runGoal(t, f, &o, boot.GoalStage, 1, nil); err != nil || f.e[1] != NewEntry(2, StateNew) {
		t.Errorf("tried again: %v, %s", err, show(f.e))
	}
}

func TestSchemeState(t *testing.T) {
	for state, want := range map[uint32]boot.RecordState{StateNew: boot.RecordNew, StatePending: boot.RecordPending, StateValid: boot.RecordValid,
		StateInvalid: boot.RecordInvalid, StateAborted: boot.RecordAborted, StateUndefined: boot.RecordUndefined, 7: boot.RecordUndefined} {
		f := &recordFlash{e: [2]Entry{NewEntry(1, StateValid), NewEntry(2, state)}}
		o := newScheme(t, f, 0, 2)
		if got := o.State(1); got != want {
			t.Errorf("state %d: %v, want %v", state, got, want)
		}
		if o.State(0) != boot.RecordValid || o.State(boot.Factory) != boot.RecordNone || o.Running() != 0 {
			t.Errorf("state %d: slot 0 %v, factory %v", state, o.State(0), o.State(boot.Factory))
		}
	}
	// Of two that name a slot: the selectable one, then the higher.
	f := &recordFlash{e: [2]Entry{NewEntry(3, StateAborted), NewEntry(1, StateValid)}}
	if o := newScheme(t, f, 1, 2); o.State(0) != boot.RecordValid {
		t.Errorf("of a rejected and a valid one: %v", o.State(0))
	}
	f = &recordFlash{e: [2]Entry{NewEntry(1, StateUndefined), NewEntry(3, StateValid)}}
	if o := newScheme(t, f, 1, 2); o.State(0) != boot.RecordValid {
		t.Errorf("of two valid ones: %v", o.State(0))
	}
}
