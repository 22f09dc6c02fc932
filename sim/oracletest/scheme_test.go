package oracletest

import (
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
)

// watched is an otadata partition that shows every state that a power cut could
// leave of an operation: before it, behind it, and torn inside.
type watched struct {
	e   [2]esp32.Entry
	rng *rand.Rand
	see func(e [2]esp32.Entry)
}

var _ flash.Device = (*watched)(nil)

func (f *watched) Geometry() flash.Geometry {
	return flash.Geometry{Size: esp32.OTADataSize, EraseSize: esp32.SectorSize, ProgramSize: 4, ErasedByte: 0xFF, ErasedReadable: true}
}

func (f *watched) ReadAt(p []byte, off uint32) error {
	copy(p, f.e[off/esp32.SectorSize][:])
	return nil
}

func (f *watched) Sync() error { return nil }

// become shows the states between old and new: by words in ascending order, as a
// program is done, and by bits at random, as an erase may end.
func (f *watched) become(i int, now esp32.Entry) {
	was := f.e[i]
	torn := f.e
	for n := 0; n < esp32.EntrySize; n += 4 {
		torn[i] = now
		copy(torn[i][n:], was[n:])
		f.see(torn)
	}
	for range 2 {
		for k := range torn[i] {
			mask := byte(f.rng.Uint32())
			torn[i][k] = was[k]&mask | now[k]&^mask
		}
		f.see(torn)
	}
	f.e[i] = now
	f.see(f.e)
}

func (f *watched) Program(p []byte, off uint32) error {
	i := off / esp32.SectorSize
	if f.e[i] != esp32.BlankEntry() || len(p) != esp32.EntrySize {
		return flash.ErrNotBlank
	}
	f.become(int(i), esp32.Entry(p))
	return nil
}

func (f *watched) Erase(off, n uint32) error {
	if off%esp32.SectorSize != 0 || n != esp32.SectorSize {
		return flash.ErrAlign
	}
	f.become(int(off/esp32.SectorSize), esp32.BlankEntry())
	return nil
}

// starts is the records that a life begins with: those of a new board, and some
// that a board in the field may have.
func starts() [][2]esp32.Entry {
	var list [][2]esp32.Entry
	one := []esp32.Entry{esp32.BlankEntry()}
	for _, seq := range []uint32{0, 1, 2, 3, 0xFFFFFFFE} {
		for _, state := range []uint32{esp32.StateNew, esp32.StatePending, esp32.StateValid, esp32.StateInvalid, esp32.StateAborted, esp32.StateUndefined, 7} {
			one = append(one, esp32.NewEntry(seq, state))
		}
	}
	for _, e0 := range one {
		for _, e1 := range one {
			list = append(list, [2]esp32.Entry{e0, e1})
		}
	}
	return list
}

// TestSchemeStates runs the project's own writer of boot records, every goal for
// every slot from every start, and asks both of each state that it passes through,
// with cuts inside its operations.
func TestSchemeStates(t *testing.T) {
	b := Open(t)
	const seed = 20260913
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	type state struct {
		e       [2]esp32.Entry
		n       uint8
		factory bool
	}
	seen := map[state]bool{}
	goals, refused, differ := 0, 0, 0
	slots := []uint8{1, 2, 3}
	list := starts()
	if testing.Short() {
		slots = slots[1:2]
		few := list[:0]
		for i := 0; i < len(list); i += 5 { // shares no factor with the 36 records
			few = append(few, list[i])
		}
		list = few
	}
	for _, n := range slots {
		ask := func(e [2]esp32.Entry) {
			for _, factory := range []bool{false, true} {
				s := state{e, n, factory}
				if seen[s] || differ > 5 {
					continue
				}
				seen[s] = true
				if !agree(t, b, question{e, uint32(n), factory}) {
					differ++
				}
			}
		}
		for _, start := range list {
			// The slot that runs is the one that the bootloader starts, from records as
			// it leaves them.
			s := esp32.Select(start[0], start[1], uint32(n), false, true)
			running := boot.Factory
			if s.BootIndex >= 0 {
				running = boot.Slot(s.BootIndex)
			}
			for goal := boot.GoalProtect; goal <= boot.GoalRevert; goal++ {
				for slot := range boot.Slot(n) {
					f := &watched{e: s.After, rng: rng, see: ask}
					goals++
					if err := runGoal(t, f, running, n, goal, slot); err != nil {
						refused++
					}
				}
			}
		}
	}
	if goals == refused || len(seen) < 1000 {
		t.Errorf("%d states of %d goals, %d refused: hardly anything was asked", len(seen), goals, refused)
	}
	t.Logf("%d starts, %d goals (%d refused), %d distinct states asked", len(list), goals, refused, len(seen))
}

// runGoal takes a goal to its end, or to the error that refuses it.
func runGoal(t *testing.T, f *watched, running boot.Slot, n uint8, goal boot.Goal, slot boot.Slot) error {
	t.Helper()
	area, err := flash.NewArea(f, 0, esp32.OTADataSize)
	if err != nil {
		t.Fatal(err)
	}
	o, err := esp32.NewOTAData(area, running, n)
	if err == nil {
		err = o.Load()
	}
	if err != nil {
		t.Fatal(err)
	}
	for range 16 {
		done, err := o.Step(goal, slot)
		if done || err != nil {
			return err
		}
	}
	t.Fatalf("goal %d for slot %d has no end", goal, slot)
	return nil
}

// TestGarbage asks of records that no writer wrote: noise, and real records with
// some bits of noise, as torn writes and erased sectors of an encrypted chip read.
func TestGarbage(t *testing.T) {
	b := Open(t)
	const seed = 20260914
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	all := exhaustive()
	noise := func() esp32.Entry {
		e := all[rng.IntN(len(all))]
		switch rng.IntN(4) {
		case 0: // nothing but noise
			for i := range e {
				e[i] = byte(rng.Uint32())
			}
		case 1: // bits that an erase has set
			for i := range e {
				e[i] |= byte(rng.Uint32() & rng.Uint32())
			}
		case 2: // bits that a program has not cleared yet, from somewhere on
			for i := rng.IntN(esp32.EntrySize); i < esp32.EntrySize; i++ {
				e[i] = 0xFF
			}
		default: // any sequence with a right CRC, any state
			e = esp32.NewEntry(rng.Uint32(), rng.Uint32N(6))
			copy(e[4:24], "label of old ESP-IDF")
		}
		return e
	}
	cases := 40_000
	if testing.Short() {
		cases = 4_000
	}
	selected := 0
	for range cases {
		q := question{[2]esp32.Entry{noise(), noise()}, rng.Uint32N(17), rng.IntN(2) == 0}
		if !agree(t, b, q) {
			return
		}
		if esp32.Active(&q.e[0], &q.e[1]) >= 0 {
			selected++
		}
	}
	if selected == 0 || selected == cases {
		t.Errorf("%d of %d have a record in force", selected, cases)
	}
	t.Logf("%d cases, a record in force in %d", cases, selected)
}
