package boot

import (
	"bytes"
	"fmt"
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// pair is a chip of the records' two sectors. It refuses a unit that is programmed
// twice, and a sector whose erase was cut reads wrong every fourth time until it is
// erased, as in sim/nor.
type pair struct {
	sector, unit uint32
	cells        []byte
	used         []bool // by unit
	shaky        [2]bool
	reads        int
	ops          int                        // erases and programs
	before       func(p []byte, off uint32) // an operation is about to happen; p nil: an erase
	fail         func(op int) failure       // nil: none
	misuse       bool
}

// failure of an operation, or of what it leaves.
type failure uint8

const (
	works failure = iota
	refused
	torn  // and the call fails
	liesd // nothing happens, and it says that it did
)

func newPair(unit uint32) *pair {
	f := &pair{sector: max(32, unit), unit: unit}
	f.cells = bytes.Repeat([]byte{0xFF}, int(2*f.sector))
	f.used = make([]bool, 2*f.sector/unit)
	return f
}

func (f *pair) clone() *pair {
	n := *f
	n.cells, n.used = slices.Clone(f.cells), slices.Clone(f.used)
	n.before, n.fail = nil, nil
	return &n
}

func (f *pair) Geometry() flash.Geometry {
	return flash.Geometry{Size: 2 * f.sector, EraseSize: f.sector, ProgramSize: f.unit, ErasedByte: 0xFF, ErasedReadable: true}
}

func (f *pair) ReadAt(p []byte, off uint32) error {
	copy(p, f.cells[off:])
	if f.shaky[off/f.sector] {
		if f.reads++; f.reads%4 == 0 {
			p[f.reads/4%len(p)] ^= 1 << (f.reads % 7)
		}
	}
	return nil
}

func (f *pair) Program(p []byte, off uint32) error {
	if f.before != nil {
		f.before(p, off)
	}
	how := works
	if f.fail != nil {
		how = f.fail(f.ops)
	}
	f.ops++
	switch how {
	case works:
		f.program(p, off)
	case torn:
		f.program(p[:f.unit], off)
		return flash.ErrProgram
	case refused:
		return flash.ErrProgram
	}
	return nil
}

func (f *pair) program(p []byte, off uint32) {
	for i, b := range p {
		at := off + uint32(i)
		if f.used[at/f.unit] {
			f.misuse = true
		}
		f.cells[at] &= b
	}
	for at := off; at < off+uint32(len(p)); at += f.unit {
		f.used[at/f.unit] = true
	}
}

func (f *pair) Erase(off, n uint32) error {
	if f.before != nil {
		f.before(nil, off)
	}
	how := works
	if f.fail != nil {
		how = f.fail(f.ops)
	}
	f.ops++
	switch how {
	case works:
		f.erase(off, 0xFF)
		f.shaky[off/f.sector] = false
	case torn:
		f.erase(off, 0x5A)
		f.shaky[off/f.sector] = true
		return flash.ErrErase
	case refused:
		return flash.ErrErase
	}
	return nil
}

// erase sets bits of a sector; all of them: it is erased.
func (f *pair) erase(off uint32, set byte) {
	for i := off; i < off+f.sector; i++ {
		f.cells[i] |= set
	}
	for u := off / f.unit; u < (off+f.sector)/f.unit; u++ {
		f.used[u] = set != 0xFF
	}
}

func (f *pair) Sync() error { return nil }

// tears are the chip behind a cut in the operation that is about to happen: before
// it, after it, in every unit of a program, and in an erase that left nothing, some
// or all to be seen.
func (f *pair) tears(p []byte, off uint32) (all []*pair) {
	fork := func(change func(*pair)) {
		n := f.clone()
		change(n)
		all = append(all, n)
	}
	fork(func(*pair) {})
	if p == nil {
		for _, set := range []byte{0, 0x5A, 0xA5, 0xFF} {
			fork(func(n *pair) {
				n.erase(off, set)
				n.shaky[off/n.sector] = true
				for u := off / n.unit; u < (off+n.sector)/n.unit; u++ {
					n.used[u] = true
				}
			})
		}
		fork(func(n *pair) { n.erase(off, 0xFF); n.shaky[off/n.sector] = false })
		return all
	}
	for done := uint32(0); done < uint32(len(p)); done += f.unit {
		fork(func(n *pair) { n.program(p[:done], off) })
		for _, keep := range []byte{0x55, 0xAA} { // bits of the next unit that stay as they are
			fork(func(n *pair) {
				half := slices.Clone(p[:done+f.unit])
				for i := done; i < done+f.unit; i++ {
					half[i] |= keep
				}
				n.program(half, off)
			})
		}
	}
	fork(func(n *pair) { n.program(p, off) })
	return all
}

// put is a flasher: a record into a sector.
func (f *pair) put(sector uint32, r *Record) {
	var b [RecordSize]byte
	r.Encode(&b)
	f.erase(sector*f.sector, 0xFF)
	f.program(append(b[:], bytes.Repeat([]byte{0xFF}, int(f.sector)-RecordSize)...)[:f.sector], sector*f.sector)
}

func (f *pair) area(t testing.TB) flash.Area {
	t.Helper()
	a, err := flash.NewArea(f, 0, 2*f.sector)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// inForce reads the record in force.
func (f *pair) inForce(t testing.TB) (Record, bool) {
	t.Helper()
	a := f.area(t)
	var r Record
	_, ok, err := ReadRecord(&a, &r, make([]byte, RecordBuffer))
	if err != nil {
		t.Fatal(err)
	}
	return r, ok
}

// world is which slots hold an image that verifies: bit i is slot i's.
type world uint8

func (w world) bootable(s Slot) bool { return s < MaxSlots && w>>s&1 == 1 }

// start is a power-on: the boot stage on the chip as it is.
func (f *pair) start(t testing.TB, w world) Slot {
	t.Helper()
	a := f.area(t)
	return Start(&a, w.bootable, make([]byte, max(RecordBuffer, f.unit)))
}

func (r Record) text() string {
	return fmt.Sprintf("{%d: slot %d, else %d, %v}", r.Sequence, r.Active, r.Fallback, r.States)
}

func (f *pair) text(t testing.TB) string {
	r, ok := f.inForce(t)
	if !ok {
		return "{no record}"
	}
	return r.text()
}

// sound are all records of n slots that R2 lets be, of sequence 7; the last one is
// blank: none.
func sound(n Slot) (list []Record) {
	states := []RecordState{RecordNone, RecordNew, RecordPending, RecordValid, RecordInvalid, RecordAborted}
	var r Record
	var fill func(s Slot)
	fill = func(s Slot) {
		if s < n {
			for _, st := range states {
				r.States[s] = st
				fill(s + 1)
			}
			return
		}
		var b [RecordSize]byte
		var read Record
		r.Encode(&b)
		if read.Decode(&b) {
			list = append(list, read)
		}
	}
	r.Sequence = 7
	for r.Active = range n {
		for r.Fallback = range n + 1 {
			if r.Fallback == n {
				r.Fallback = NoSlot
			}
			fill(0)
			if r.Fallback == NoSlot {
				break
			}
		}
	}
	r.blank()
	return append(list, r)
}

// stale is a whole record, older than r, that starts as many other slots as it can.
func stale(r *Record, n Slot) Record {
	old := Record{Sequence: r.Sequence - 1, Active: (r.Active + 1) % n, Fallback: NoSlot}
	old.States[old.Active] = RecordValid
	return old
}

// chips are the ways in which a record can be in force: in either sector, beside a
// blank one, an older one, and a torn newer one.
func chips(r *Record, n Slot, unit uint32) (list []*pair) {
	if r.Active == NoSlot {
		return []*pair{newPair(unit)}
	}
	for at := uint32(0); at < 2; at++ {
		for kind := range 3 {
			f := newPair(unit)
			f.put(at, r)
			old := stale(r, n)
			switch kind {
			case 1:
				f.put(1-at, &old)
			case 2:
				old.Sequence = r.Sequence + 1
				f.put(1-at, &old)
				f.cells[(1-at)*f.sector+RecordSize-1] ^= 0x80
			}
			list = append(list, f)
		}
	}
	return list
}

// TestRecordsSweep starts every sound record in every world, runs each goal in the slot
// that started, and cuts it at each operation in every tear; and what goes on behind
// the cut, again. Behind each cut the record is the one before or the one after, and a
// start leads where the one or the other leads.
func TestRecordsSweep(t *testing.T) {
	s := sweep{t: t, goals: make([]int, GoalRevert+1)}
	for _, c := range []struct {
		n      Slot
		unit   uint32
		stride int // of the records, where all would take long
		depth  int
	}{{1, 4, 1, 2}, {2, 4, 1, 2}, {2, 1, 1, 1}, {2, 16, 1, 2}, {2, 64, 1, 2}, {2, 256, 1, 2}, {3, 4, 1, 1}, {3, 8, 7, 2}, {4, 4, 37, 1}} {
		if testing.Short() && c.n > 2 {
			c.stride *= 11
		}
		list := sound(c.n)
		s.n, s.depth = c.n, c.depth
		for i := 0; i < len(list); i += c.stride {
			for _, f := range chips(&list[len(list)-1-i], c.n, c.unit) { // the blank one first
				for w := world(1); w < 1<<c.n; w++ {
					s.state(f, w)
				}
			}
			if t.Failed() {
				return
			}
		}
	}
	t.Logf("%d states; runs of each goal %v; %d cuts, of those %d behind another; %d starts", s.states, s.goals[1:], s.cuts, s.deep, s.starts)
	for g := GoalProtect; g <= GoalRevert; g++ {
		if s.goals[g] < 100 {
			t.Errorf("goal %d was tried %d times", g, s.goals[g])
		}
	}
	if s.states < 1000 || s.deep < 1000 || s.starts < s.cuts {
		t.Error("the sweep has no cases")
	}
}

type sweep struct {
	t     *testing.T
	n     Slot
	depth int

	goals                      []int
	states, cuts, deep, starts int
}

// state boots a chip, and runs the goals in the slot that starts.
func (s *sweep) state(f *pair, w world) {
	f = f.clone()
	running := f.start(s.t, w)
	if !w.bootable(running) {
		s.t.Fatalf("%s: slot %d starts in world %b", f.text(s.t), running, w)
	}
	s.states++
	for slot := range s.n {
		if slot == running {
			s.goal(f, w, running, GoalConfirm, slot, s.depth)
			continue
		}
		for _, g := range []Goal{GoalProtect, GoalStage, GoalRevert} {
			if g != GoalProtect && !w.bootable(slot) {
				continue // it was just proven
			}
			s.goal(f, w, running, g, slot, s.depth)
		}
	}
}

func (s *sweep) goal(from *pair, w world, running Slot, goal Goal, slot Slot, depth int) {
	t := s.t
	was, had := from.inForce(t)
	s.goals[goal]++
	fail := func(format string, args ...any) {
		t.Helper()
		t.Errorf("goal %d slot %d, running %d of %d, world %b, from %s: %s", goal, slot, running, s.n, w, from.text(t), fmt.Sprintf(format, args...))
	}
	trial := had && was.Active == running && onTrial(was.States[running])
	f := from.clone()
	want, err := s.run(f, running, goal, slot, nil)
	switch {
	case err == nil:
	case err == ErrOnTrial && trial && (goal == GoalProtect || goal == GoalStage) && f.ops == from.ops,
		err == ErrNotActive && goal == GoalConfirm && was.Active != running && was.States[running] == RecordValid && f.ops == from.ops:
		return
	default:
		fail("%v after %d operations", err, f.ops-from.ops)
		return
	}
	if f.ops > from.ops+2 || f.misuse {
		fail("%d flash operations, a unit programmed twice: %v", f.ops-from.ops, f.misuse) // I3
	}
	s.reached(f, w, running, goal, slot, fail)
	if depth == 0 || t.Failed() {
		return
	}
	// What starts before it and what does after it.
	before, after := from.clone().start(t, w), f.clone().start(t, w)
	s.starts += 2
	cut := from.clone()
	if _, err := s.run(cut, running, goal, slot, func(n *pair) {
		s.cuts++
		if depth < s.depth {
			s.deep++
		}
		now, ok := n.inForce(t)
		switch {
		case ok == had && now == was:
		case ok && now == want:
		default:
			fail("a cut leaves %s", n.text(t)) // I2
			return
		}
		booted := n.clone()
		s.starts++
		got := booted.start(t, w)
		if booted.misuse || got != before && got != after {
			fail("a cut leaves %s, and %d starts; %d before and %d after it", n.text(t), got, before, after) // I1
			return
		}
		if depth > 1 && got == running {
			s.goal(booted, w, running, goal, slot, depth-1)
		}
	}); err != nil {
		fail("run again: %v", err)
	}
}

// run takes a goal to its end; see is shown the chip as cuts inside each operation
// leave it.
func (s *sweep) run(f *pair, running Slot, goal Goal, slot Slot, see func(*pair)) (want Record, err error) {
	t := s.t
	t.Helper()
	if see != nil {
		f.before = func(p []byte, off uint32) {
			for _, n := range f.tears(p, off) {
				see(n)
			}
		}
		defer func() { f.before = nil }()
	}
	o := newRecords(t, f, running, uint8(s.n))
	for range 5 { // a record, its read back, and the plan that finds nothing
		ops := f.ops
		done, err := o.Step(goal, slot)
		if f.ops > ops+1 {
			t.Fatalf("%d flash operations in one step", f.ops-ops)
		}
		if done || err != nil {
			return o.cur, err
		}
	}
	t.Fatalf("goal %d for slot %d is not reached", goal, slot)
	return want, nil
}

func newRecords(t testing.TB, f *pair, running Slot, slots uint8) *Records {
	t.Helper()
	a := f.area(t)
	var o Records
	if err := NewRecords(&o, &a, running, slots); err != nil {
		t.Fatal(err)
	}
	if f.unit > RecordBuffer {
		o.SetRoom(make([]byte, f.unit))
	}
	if err := o.Load(); err != nil {
		t.Fatal(err)
	}
	return &o
}

// reached: the goal is, a second run of it does nothing, and a start leads where it
// should.
func (s *sweep) reached(f *pair, w world, running Slot, goal Goal, slot Slot, fail func(string, ...any)) {
	t := s.t
	r, ok := f.inForce(t)
	if !ok {
		fail("no record in the end")
		return
	}
	again := f.clone()
	if _, err := s.run(again, running, goal, slot, nil); err != nil || again.ops != f.ops {
		fail("done again: %v, %d operations more", err, again.ops-f.ops)
	}
	booted := f.clone()
	got := booted.start(t, w)
	s.starts++
	want, st := running, RecordValid
	switch goal {
	case GoalStage:
		want, st = slot, RecordNew
	case GoalRevert:
		want = slot
		if r.States[running] != RecordInvalid {
			fail("in the end the slot that was left is %s", r.States[running])
		}
	case GoalProtect:
		if starts(r.States[slot]) || r.Fallback == slot {
			fail("the end is %s: the slot could be selected", r.text())
		}
	}
	if got != want || r.Active != want || r.States[want] != st {
		fail("the end is %s, and %d starts", r.text(), got)
		return
	}
	if goal != GoalStage {
		return
	}
	// On trial: a reset without a confirm leads back, and its record says what happened.
	now, _ := booted.inForce(t)
	if now.Active != slot || now.States[slot] != RecordPending || now.Fallback != running {
		fail("started it is %s: no trial", now.text())
	}
	if back := booted.start(t, w); back != running {
		fail("a reset on trial leads to %d", back)
	}
	if now, _ = booted.inForce(t); now.Active != running || now.States[slot] != RecordAborted || now.States[running] != RecordValid {
		fail("behind a reset on trial it is %s", now.text())
	}
	s.starts++
}
