package boot

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// record builds one of sequence 7 from its states in a word each: N new, P pending, V
// valid, I invalid, A aborted, - none.
func record(active, fallback Slot, states string) Record {
	r := Record{Sequence: 7, Active: active, Fallback: fallback}
	for i, c := range states {
		r.States[i] = RecordState(strings.IndexRune("-NPVIA", c))
	}
	return r
}

// A test a row of the table in docs/format/boot-record.md.
func TestDecide(t *testing.T) {
	none := Record{Active: NoSlot, Fallback: NoSlot}
	for _, c := range []struct {
		name  string
		r     Record
		good  world
		want  Slot
		after string // states; "": nothing is written
		else_ Slot   // what starts where that can't be written
	}{
		{"no record", none, 0b1100, 2, "", 2},
		{"no record, nothing verifies", none, 0, NoSlot, "", NoSlot},
		{"VALID", record(1, 0, "VV"), 0b11, 1, "", 1},
		{"VALID, no way back", record(0, NoSlot, "V-"), 0b11, 0, "", 0},
		{"VALID, does not verify", record(1, 0, "VV"), 0b01, 0, "", 0},
		{"VALID, does not verify, no fallback", record(1, NoSlot, "-V--"), 0b1100, 2, "", 2},
		{"NEW", record(1, 0, "VN"), 0b11, 1, "VP", 0},
		{"NEW, does not verify", record(1, 0, "VN"), 0b01, 0, "", 0},
		{"NEW, alone", record(1, 0, "VN"), 0b10, 1, "VP", 1},
		{"NEW, of neither", record(1, 0, "VN"), 0, NoSlot, "", NoSlot},
		{"PENDING", record(1, 0, "VP"), 0b11, 0, "VA", 0},
		{"PENDING, does not verify", record(1, 0, "VP"), 0b01, 0, "VA", 0},
		{"PENDING, alone", record(1, 0, "VP"), 0b10, 1, "", 1},
		{"PENDING, no fallback", record(1, NoSlot, "-P"), 0b11, 0, "VA", 0},
		{"PENDING, the other was rejected", record(1, NoSlot, "IP"), 0b11, 1, "", 1},
		{"PENDING, does not verify, the other was rejected", record(1, NoSlot, "AP"), 0b01, 0, "", 0},
		{"PENDING, the fallback is damaged", record(1, 0, "VPI-"), 0b1110, 3, "VAIV", 3},
		{"only what was rejected verifies", record(1, NoSlot, "IV-A"), 0b1001, 0, "", 0},
	} {
		r := c.r
		asked := world(0)
		twice := 0
		good := func(s Slot) bool {
			if asked>>s&1 == 1 {
				twice++
			}
			asked |= 1 << s
			return c.good.bootable(s)
		}
		got, write := Decide(&r, c.r.Active != NoSlot, good)
		if got != c.want || write != (c.after != "") || twice > 1 {
			t.Errorf("%s: slot %d starts, written %v; %d slots asked for twice", c.name, got, write, twice)
		}
		want := c.r
		if write {
			fallback := c.r.Fallback
			if got != c.r.Active {
				fallback = NoSlot
			}
			want = record(got, fallback, c.after)
			want.Sequence = 8
		}
		if r != want {
			t.Errorf("%s: the record is %s, want %s", c.name, r.text(), want.text())
		}
		if write {
			if got := Instead(&r, got, c.good.bootable); got != c.else_ {
				t.Errorf("%s: not written, slot %d starts, want %d", c.name, got, c.else_)
			}
		}
		if c.want != NoSlot && c.want == c.r.Active && asked&^(1<<c.want) != 0 && c.r.States[c.want] != RecordPending && c.want == c.else_ && c.name != "NEW, alone" {
			t.Errorf("%s: slots %b were verified", c.name, asked) // the boot would take as long again
		}
	}
}

// TestStartSweep cuts the boot stage's own writes at each operation in every tear, from
// every sound record in every world. What starts then is what starts without a cut, or,
// where the trial is noted and its start was lost, the way back; and whatever starts
// on trial has a record that says so.
func TestStartSweep(t *testing.T) {
	states, writes, cuts, back := 0, 0, 0, 0
	for _, c := range []struct {
		n      Slot
		unit   uint32
		stride int
	}{{1, 4, 1}, {2, 1, 1}, {2, 4, 1}, {2, 256, 1}, {3, 4, 3}, {4, 8, 37}} {
		list := sound(c.n)
		for i := 0; i < len(list); i += c.stride {
			for _, f := range chips(&list[i], c.n, c.unit) {
				for w := world(0); w < 1<<c.n; w++ {
					states++
					was, _ := f.inForce(t)
					uncut := f.clone()
					want := uncut.start(t, w)
					after, had := uncut.inForce(t)
					switch {
					case w == 0 && want != NoSlot, w != 0 && !w.bootable(want), uncut.misuse:
						t.Fatalf("%s in world %b: slot %d starts, misused %v", was.text(), w, want, uncut.misuse)
					case uncut.ops > f.ops+2:
						t.Fatalf("%s in world %b: %d operations", was.text(), w, uncut.ops-f.ops)
					}
					if uncut.ops > f.ops {
						writes++
					}
					cut := f.clone()
					cut.before = func(p []byte, off uint32) {
						for _, n := range cut.tears(p, off) {
							cuts++
							now, ok := n.inForce(t)
							if now != was && (!ok || now != after) {
								t.Fatalf("from %s a cut leaves %s", was.text(), now.text())
							}
							got := n.start(t, w)
							noted, _ := n.inForce(t)
							switch {
							case got == want:
							case now == after && onTrial(after.States[want]) && was.States[want] == RecordNew && got == other(&was, w.bootable):
								back++ // it counts as started
								if noted.States[want] != RecordAborted {
									t.Errorf("from %s in world %b: the way back starts under %s", was.text(), w, noted.text())
								}
							default:
								t.Errorf("from %s in world %b a cut leaves %s: slot %d starts, not %d", was.text(), w, now.text(), got, want)
							}
							if n.misuse || had && got == noted.Active && noted.States[got] == RecordNew {
								t.Errorf("from %s in world %b: %d starts and no trial is noted: %s", was.text(), w, got, noted.text())
							}
						}
					}
					cut.start(t, w)
					if t.Failed() {
						return
					}
				}
			}
		}
	}
	t.Logf("%d starts, %d of them write, %d cuts, %d of them end a trial that had not begun", states, writes, cuts, back)
	if writes < 100 || cuts < 10*writes || back == 0 {
		t.Error("the sweep has no cases")
	}
}

// A chip that does not write the boot stage's record keeps nothing from starting, and
// no image starts on a trial that is not noted while another one verifies.
func TestStartOnDyingFlash(t *testing.T) {
	cases, kept := 0, 0
	list := sound(2)
	for i := range list {
		for _, f := range chips(&list[i], 2, 4) {
			for w := world(1); w < 4; w++ {
				uncut := f.clone()
				want := uncut.start(t, w)
				for op := range uncut.ops - f.ops {
					for _, how := range []failure{refused, torn, liesd} {
						cases++
						was, _ := f.inForce(t)
						n := f.clone()
						n.fail = func(k int) failure {
							if k == f.ops+op {
								return how
							}
							return works
						}
						got := n.start(t, w)
						now, _ := n.inForce(t)
						if !w.bootable(got) {
							t.Fatalf("from %s in world %b, operation %d: slot %d starts", was.text(), w, op, got)
						}
						if now.Active == got && now.States[got] == RecordNew && got != other(&was, w.bootable) {
							t.Errorf("from %s: operation %d is %d, and %d starts without a trial", was.text(), op, how, got)
						}
						if now == was && got == want && !onTrial(was.States[got]) {
							kept++
						}
						// The flash mends: as if nothing had been.
						n.fail = nil
						if got := n.start(t, w); now == was && got != want {
							t.Errorf("from %s in world %b, operation %d: later slot %d starts, not %d", was.text(), w, op, got, want)
						}
					}
				}
			}
		}
	}
	t.Logf("%d failures; %d left everything as it was", cases, kept)
	if cases < 100 || kept == 0 {
		t.Error("no cases")
	}
}

// A sector that can't be read holds no record, and the other one counts.
func TestStartReadsWhatItCan(t *testing.T) {
	for bad := uint32(0); bad < 2; bad++ {
		f := newPair(4)
		valid := record(1, 0, "VV")
		f.put(1-bad, &valid)
		a, err := flash.NewArea(&deaf{f, bad}, 0, 2*f.sector)
		if err != nil {
			t.Fatal(err)
		}
		if got := Start(&a, world(3).bootable, make([]byte, RecordBuffer)); got != 1 {
			t.Errorf("sector %d can't be read: slot %d starts", bad, got)
		}
		var o Records
		if err := NewRecords(&o, &a, 1, 2); err != nil {
			t.Fatal(err)
		}
		if err := o.Load(); err != flash.ErrRead {
			t.Errorf("sector %d can't be read: %v", bad, err)
		}
	}
	f := newPair(4)
	a := f.area(t)
	if got := Start(&a, world(2).bootable, nil); got != 1 {
		t.Errorf("without a buffer slot %d starts", got)
	}
}

// deaf can't read one sector.
type deaf struct {
	*pair
	bad uint32
}

func (d *deaf) ReadAt(p []byte, off uint32) error {
	if off/d.sector == d.bad {
		return flash.ErrRead
	}
	return d.pair.ReadAt(p, off)
}

// The life of two slots, both sides, as in docs/format/boot-record.md.
func TestRecordGolden(t *testing.T) {
	f := newPair(4)
	steps := []struct {
		name string
		do   func()
		want string
	}{
		{"a board as it left the factory", func() {}, ""},
		{"protect slot 1", func() { f.goals(t, 0, 1, GoalProtect) }, "524e4c42" + "0100fe00" + "01000000" + "03000000" + "53d86879"},
		{"stage slot 1", func() { f.goals(t, 0, 1, GoalStage) }, "524e4c42" + "01010000" + "02000000" + "03010000" + "6dd62e39"},
		{"it starts", func() { f.starts(t, 3, 1) }, "524e4c42" + "01010000" + "03000000" + "03020000" + "aa68c2f7"},
		{"confirmed", func() { f.goals(t, 1, 1, GoalConfirm) }, "524e4c42" + "01010000" + "04000000" + "03030000" + "840bc5fc"},
		{"protect slot 0", func() { f.goals(t, 1, 0, GoalProtect) }, "524e4c42" + "0101fe00" + "05000000" + "00030000" + "de185f2c"},
		{"stage slot 0", func() { f.goals(t, 1, 0, GoalStage) }, "524e4c42" + "01000100" + "06000000" + "01030000" + "8c70a53a"},
		{"it starts", func() { f.starts(t, 3, 0) }, "524e4c42" + "01000100" + "07000000" + "02030000" + "fcdfbae4"},
		{"reset unconfirmed", func() { f.starts(t, 3, 1) }, "524e4c42" + "0101fe00" + "08000000" + "05030000" + "3dfd8480"},
		{"reverted all the same", func() { f.goals(t, 1, 0, GoalRevert) }, "524e4c42" + "0100fe00" + "09000000" + "03040000" + "3a6b84ad"},
	}
	for i, s := range steps {
		s.do()
		if s.want == "" {
			continue
		}
		at := uint32(i-1) % 2 * f.sector
		if got := hex.EncodeToString(f.cells[at : at+RecordSize]); got != s.want {
			t.Errorf("%s:\n%s, want\n%s", s.name, got, s.want)
		}
		for _, b := range f.cells[at+RecordSize : at+f.sector] {
			if b != 0xFF {
				t.Fatalf("%s: something is written behind the record", s.name)
			}
		}
	}
}

func (f *pair) goals(t *testing.T, running, slot Slot, goal Goal) {
	t.Helper()
	s := sweep{t: t, n: 2}
	if _, err := s.run(f, running, goal, slot, nil); err != nil {
		t.Error(err)
	}
}

func (f *pair) starts(t *testing.T, w world, want Slot) {
	t.Helper()
	if got := f.start(t, w); got != want {
		t.Errorf("slot %d starts, want %d", got, want)
	}
}

// malformedRecords is a shelf: each has one defect, and a right CRC but for those
// whose defect it is.
var malformedRecords = []struct {
	name string
	spot func(b []byte)
	crc  bool
}{
	{"erased", func(b []byte) { copy(b, bytes.Repeat([]byte{0xFF}, RecordSize)) }, false},
	{"all zero", func(b []byte) { copy(b, make([]byte, RecordSize)) }, false},
	{"another magic", func(b []byte) { b[3] = 'S' }, true},
	{"a newer format", func(b []byte) { b[4] = 2 }, true},
	{"no such slot", func(b []byte) { b[5] = 4 }, true},
	{"active none", func(b []byte) { b[5] = 0xFE }, true},
	{"no such fallback", func(b []byte) { b[6] = 4 }, true},
	{"fallback FF", func(b []byte) { b[6] = 0xFF }, true},
	{"the active slot as its own fallback", func(b []byte) { b[6] = 1 }, true},
	{"a fallback that is not VALID", func(b []byte) { b[6] = 2 }, true},
	{"the zero byte", func(b []byte) { b[7] = 1 }, true},
	{"the active slot without a state", func(b []byte) { b[13] = 0 }, true},
	{"the active slot rejected", func(b []byte) { b[13] = 5 }, true},
	{"another slot on trial", func(b []byte) { b[14] = 2 }, true},
	{"state 6", func(b []byte) { b[15] = 6 }, true},
	{"a bit of the sequence", func(b []byte) { b[8] ^= 1 }, false},
	{"a bit of a state", func(b []byte) { b[12] ^= 1 }, false},
	{"a bit of the CRC", func(b []byte) { b[19] ^= 0x80 }, false},
	{"its last unit not written", func(b []byte) { copy(b[16:], "\xFF\xFF\xFF\xFF") }, false},
}

func TestRecordMalformed(t *testing.T) {
	good := record(1, 0, "VNI")
	var b [RecordSize]byte
	good.Encode(&b)
	var r Record
	if !r.Decode(&b) || r != good {
		t.Fatalf("a good one: %s", r.text())
	}
	for _, c := range malformedRecords {
		good.Encode(&b)
		c.spot(b[:])
		if c.crc {
			binary.LittleEndian.PutUint32(b[16:], crc32.ChecksumIEEE(b[:16]))
		}
		if r.Decode(&b) {
			t.Errorf("%s: taken as %s", c.name, r.text())
		}
	}
}

// Sequences begin again behind the last one: a board can't run out of them.
func TestSequenceWraps(t *testing.T) {
	for _, seq := range []uint32{0, 1, 1<<31 - 1, 1 << 31, 0xFFFFFFFE, 0xFFFFFFFF} {
		for at := uint32(0); at < 2; at++ {
			f := newPair(4)
			old, now := record(0, NoSlot, "V"), record(1, 0, "VV")
			old.Sequence, now.Sequence = seq, seq+1
			f.put(at, &old)
			f.put(1-at, &now)
			if r, _ := f.inForce(t); r != now {
				t.Errorf("of %d and %d: %s", seq, seq+1, r.text())
			}
			f.goals(t, 1, 0, GoalProtect)
			if r, _ := f.inForce(t); r.Sequence != seq+2 {
				t.Errorf("behind %d: %s", seq+1, r.text())
			}
		}
	}
}

// A sector that never reads twice the same holds no record, and reading it ends.
func TestReadRecordGivesUp(t *testing.T) {
	f := newPair(4)
	r := record(1, 0, "VV")
	f.put(0, &r)
	n := &noisy{pair: f}
	a, err := flash.NewArea(n, 0, 2*f.sector)
	if err != nil {
		t.Fatal(err)
	}
	if _, ok, err := ReadRecord(&a, &r, make([]byte, RecordBuffer)); ok || err != nil || n.n != 2*recordTries {
		t.Errorf("taken %v, %v after %d reads", ok, err, n.n)
	}
}

type noisy struct {
	*pair
	n int
}

func (f *noisy) ReadAt(p []byte, off uint32) error {
	err := f.pair.ReadAt(p, off)
	f.n++
	p[f.n%2] ^= 1
	return err
}

func TestRecordsRefuse(t *testing.T) {
	f := newPair(4)
	area := f.area(t)
	one, err := flash.NewArea(f, 0, f.sector)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		area    flash.Area
		running Slot
		slots   uint8
		want    error
	}{
		{"one sector", one, 0, 2, ErrArea},
		{"no partition", flash.Area{}, 0, 2, ErrArea},
		{"no such slot", area, 2, 2, ErrSlot},
		{"factory", area, Factory, 2, ErrSlot},
		{"five slots", area, 0, 5, ErrSlot},
		{"good", area, 1, 2, nil},
	} {
		var o Records
		if err := NewRecords(&o, &c.area, c.running, c.slots); err != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
	r := record(1, 0, "VP")
	f.put(0, &r)
	for _, c := range []struct {
		name    string
		running Slot
		goal    Goal
		slot    Slot
		want    error
	}{
		{"stage the running slot", 0, GoalStage, 0, ErrSlot},
		{"protect the running slot", 0, GoalProtect, 0, ErrSlot},
		{"revert to the running slot", 0, GoalRevert, 0, ErrSlot},
		{"a slot that is not there", 0, GoalStage, 2, ErrSlot},
		{"revert to factory", 1, GoalRevert, Factory, ErrSlot},
		{"no such goal", 0, 0, 1, ErrSlot},
		{"confirm what is not in force", 0, GoalConfirm, 0, ErrNotActive},
		{"protect on trial", 1, GoalProtect, 0, ErrOnTrial},
		{"stage on trial", 1, GoalStage, 0, ErrOnTrial},
	} {
		o := newRecords(t, f, c.running, 2)
		if done, err := o.Step(c.goal, c.slot); done || err != c.want || f.ops != 0 {
			t.Errorf("%s: %v after %d operations, want %v", c.name, err, f.ops, c.want)
		}
	}
	// A unit longer than the records' own buffer needs room, before anything is erased.
	long := newPair(64)
	a := long.area(t)
	var o Records
	if err := NewRecords(&o, &a, 0, 2); err != nil {
		t.Fatal(err)
	}
	for _, room := range [][]byte{nil, make([]byte, 63)} {
		o.SetRoom(room)
		if err := o.Load(); err != ErrBuffer {
			t.Errorf("room of %d: load %v", len(room), err)
		}
		if _, err := o.Step(GoalStage, 1); err != ErrBuffer || long.ops != 0 {
			t.Errorf("room of %d: %v after %d operations", len(room), err, long.ops)
		}
	}
}

// A chip that does not do what it says is noticed, and the record in force is the one
// before; then it goes on.
func TestRecordsReadBack(t *testing.T) {
	for op, how := range []failure{liesd, liesd} {
		f := newPair(4)
		was := record(0, NoSlot, "V-")
		f.put(0, &was)
		old := record(1, NoSlot, "-V")
		old.Sequence = 6
		f.put(1, &old)
		f.fail = func(k int) failure {
			if k == op {
				return how
			}
			return works
		}
		o := newRecords(t, f, 0, 2)
		var err error
		for range 4 {
			if _, err = o.Step(GoalStage, 1); err != nil {
				break
			}
		}
		if now, _ := f.inForce(t); err != ErrReadBack || now != was || o.State(1) != RecordNone {
			t.Errorf("operation %d lies: %v, %s", op, err, now.text())
		}
		f.fail, f.misuse = nil, false
		done := false
		for range 4 {
			if done, err = o.Step(GoalStage, 1); err != nil || done {
				break
			}
		}
		if now, _ := f.inForce(t); err != nil || !done || now.Active != 1 || f.misuse || o.State(1) != RecordNew || o.Running() != 0 {
			t.Errorf("tried again: %v, %s", err, now.text())
		}
	}
}

// A goal that another one takes over from is not brought to its end.
func TestRecordsChangeOfGoal(t *testing.T) {
	for steps := range 3 {
		f := newPair(4)
		was := record(0, NoSlot, "V-")
		f.put(0, &was)
		o := newRecords(t, f, 0, 2)
		for range steps {
			if _, err := o.Step(GoalStage, 1); err != nil {
				t.Fatal(err)
			}
		}
		done, err := false, error(nil)
		for range 4 {
			if done, err = o.Step(GoalProtect, 1); err != nil || done {
				break
			}
		}
		if now, _ := f.inForce(t); !done || err != nil || now.Active != 0 || f.misuse {
			t.Errorf("behind %d steps: %v, %s", steps, err, now.text())
		}
	}
}

// FuzzRecords: whatever two sectors hold, a start ends with a slot that verifies, if
// one does, and every goal with a sound record, or a refusal.
func FuzzRecords(f *testing.F) {
	p := newPair(4)
	for _, r := range []Record{record(1, 0, "VN"), record(1, 0, "VP"), record(0, NoSlot, "V"), record(2, 3, "IAVV")} {
		p.put(0, &r)
		f.Add(bytes.Clone(p.cells), uint8(3), uint64(1))
		for _, c := range malformedRecords {
			bad := bytes.Clone(p.cells)
			c.spot(bad[:RecordSize])
			f.Add(bad, uint8(5), uint64(2))
		}
	}
	f.Fuzz(func(t *testing.T, cells []byte, good uint8, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		p := newPair(4)
		copy(p.cells, cells)
		for i := range p.used {
			p.used[i] = true
		}
		if seed%2 == 0 { // fuzzing finds no CRC
			for at := uint32(0); at < 2*p.sector; at += p.sector {
				binary.LittleEndian.PutUint32(p.cells[at+16:], crc32.ChecksumIEEE(p.cells[at:at+16]))
			}
		}
		var b [RecordSize]byte
		if r, ok := p.inForce(t); ok {
			if r.Encode(&b); !bytes.Equal(b[:], p.cells[:RecordSize]) && !bytes.Equal(b[:], p.cells[p.sector:p.sector+RecordSize]) {
				t.Fatalf("%s is not what flash holds", r.text())
			}
		}
		w := world(good % 16)
		for range 8 {
			running := p.start(t, w)
			if w == 0 {
				if running != NoSlot {
					t.Fatalf("slot %d starts", running)
				}
				return
			}
			if !w.bootable(running) {
				t.Fatalf("slot %d starts in world %b", running, w)
			}
			o := newRecords(t, p, running, MaxSlots)
			goal, slot := Goal(rng.UintN(6)), Slot(rng.UintN(6))
			ops := p.ops
			done, err := false, error(nil)
			for i := 0; err == nil && !done; i++ {
				if done, err = o.Step(goal, slot); i > 4 {
					t.Fatalf("goal %d has no end", goal)
				}
			}
			r, ok := p.inForce(t)
			if p.misuse || err == nil && (!ok || r != o.cur) || err != nil && p.ops != ops {
				t.Fatalf("goal %d slot %d in %d: %v, %d operations, %s", goal, slot, running, err, p.ops-ops, r.text())
			}
		}
	})
}

// A record that landed and could not be read back is in force for the boot stage. The
// scheme does not take a goal for reached that it would undo: it writes again.
func TestRecordsBehindAFailedReadBack(t *testing.T) {
	f := newPair(4)
	was := record(0, NoSlot, "V-")
	f.put(0, &was)
	d := &deaf{pair: f, bad: 2}
	a, err := flash.NewArea(d, 0, 2*f.sector)
	if err != nil {
		t.Fatal(err)
	}
	var o Records
	if err = NewRecords(&o, &a, 0, 2); err == nil {
		err = o.Load()
	}
	for range 2 { // erase, program
		if err == nil {
			_, err = o.Step(GoalStage, 1)
		}
	}
	if err != nil {
		t.Fatal(err)
	}
	d.bad = 1
	if _, err = o.Step(GoalStage, 1); err != flash.ErrRead {
		t.Fatalf("read back: %v", err)
	}
	d.bad = 2
	if now, _ := f.inForce(t); now.Active != 1 {
		t.Fatalf("it did not land: %s", now.text())
	}
	done, err := false, error(nil)
	for i := 0; i < 4 && !done && err == nil; i++ {
		done, err = o.Step(GoalProtect, 1)
	}
	if now, _ := f.inForce(t); err != nil || !done || now.Active != 0 || f.misuse {
		t.Errorf("protected: %v, %s", err, now.text())
	}
}
