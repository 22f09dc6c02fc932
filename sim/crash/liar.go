package crash

import (
	"context"
	"fmt"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Fault is how flash lies at an operation, which keeps its power.
type Fault uint8

const (
	FailsOnce Fault = iota // the operation fails, and leaves its range torn
	WornOut                // from then on everything fails in that sector
	BitFlips               // one bit of what was programmed flips until it is erased
	BitStuck               // one bit of that sector reads wrong for good
	faults
)

func (f Fault) String() string {
	return [...]string{"fails once", "worn out", "bit flips", "bit stuck"}[f]
}

// lie is a fault and what became of it.
type lie struct {
	at     int // operation, since the power came on
	fault  Fault
	n      int    // operations so far
	told   bool   // it was reached
	sector uint32 // where
	bit    uint32 // offset of the byte that reads wrong
	live   bool   // the bit reads wrong now
}

// Waits that a board gets to end a deployment that failed, and to end one at all: it
// polls and backs off that often.
const (
	waitsAfterLie = 60
	mostWaits     = 1000
)

// tell has the chip lie. Of an ESP32's bootloader the own writes are left alone: what
// ESP-IDF's does about a failed one is not modelled. Our boot stage is not spared.
func (w *world) tell(l *lie) {
	c := w.b.Chip
	spared := func() bool { return w.starting && !w.set.Geometry.own }
	c.SetFail(func(op nor.Op) error {
		here := l.n == l.at && !spared()
		l.n++
		if op.Kind == nor.Erase && l.bit >= op.Off && l.bit < op.Off+op.Len && l.fault == BitFlips {
			l.live = false
		}
		switch {
		case here:
			l.told, l.sector = true, op.Off/w.set.Geometry.sector()
			l.bit, l.live = op.Off+op.Len/2, l.fault >= BitFlips
		case !l.told || l.fault != WornOut || spared() || l.sector < op.Off/w.set.Geometry.sector() || l.sector*w.set.Geometry.sector() >= op.Off+op.Len:
			return nil
		}
		if l.fault >= BitFlips {
			return nil
		}
		if op.Kind == nor.Erase {
			return flash.ErrErase
		}
		return flash.ErrProgram
	})
	c.SetReadFlip(func(off uint32, p []byte) {
		if l.live && l.bit >= off && l.bit < off+uint32(len(p)) {
			p[l.bit-off] ^= 1 << (l.bit % 8)
		}
	})
}

// Lies is what a sweep of faults found out.
type Lies struct {
	Row
	Faults   int64 // that were reached
	Absorbed int64 // and the story came to its end all the same
	Reasons  int64 // and the deployment failed with a reason
}

// SweepLies has flash lie at each operation of the uncut run, in every way.
func (set *Setup) SweepLies(ctx context.Context) Lies {
	out := Lies{Row: Row{Scenario: set.Scenario.Name, Geometry: set.Geometry.Name, Ops: set.Dry.Ops}}
	for at := 0; ctx.Err() == nil; at++ {
		told := false
		for f := range faults {
			w, l := set.lieAt(at, f, nil)
			if !l.told {
				continue
			}
			told = true
			out.Faults++
			out.Runs++
			switch {
			case w.failure != nil:
				out.Kinds[w.failure.Kind]++
				if len(out.Failures) < keepFailures {
					out.Failures = append(out.Failures, w.failure)
				}
			case w.turn == len(w.turns):
				out.Absorbed++
			default:
				out.Reasons++
			}
		}
		if !told && at > set.Dry.Ops {
			break
		}
	}
	return out
}

// lieAt runs the turns with one fault, and looks at what is left.
func (set *Setup) lieAt(at int, f Fault, trace func(string, ...any)) (*world, *lie) {
	l := &lie{at: at, fault: f}
	w := set.root.clone(set.root.b.Chip.Clone())
	w.cuts, w.lie, w.trace, w.dry = []Cut{{at, int(f)}}, l, trace, true
	w.tell(l)
	w.power(nil)
	if w.failure != nil || !l.told {
		return w, l
	}
	if w.turn < len(w.turns) && w.failed == device.ReasonNone {
		w.fail(Stuck, "flash lied (%s) at operation %d, and the deployment neither ended nor failed with a reason", f, at)
	}
	// What runs is whole, and so it is after the next power-on.
	after := w.clone(w.b.Chip.Clone())
	bt, err := after.b.Boot()
	if err != nil {
		w.fail(Bricked, "after a lie (%s) at operation %d nothing starts: %v", f, at, err)
		return w, l
	}
	for _, s := range []boot.Slot{w.running, bt.Running} {
		if after.image(s) == "" {
			w.fail(WrongImage, "after a lie (%s) at operation %d slot %d holds no known image", f, at, s)
		}
	}
	return w, l
}

// replayLie is Replay for an ID with a fault.
func (set *Setup) replayLie(c Cut, trace func(string, ...any)) (*Failure, error) {
	if c.Tear < 0 || c.Tear >= int(faults) {
		return nil, fmt.Errorf("no fault %d: there are 0 to %d", c.Tear, faults-1)
	}
	trace("flash lies at operation %d: %s", c.Op, Fault(c.Tear))
	w, l := set.lieAt(c.Op, Fault(c.Tear), trace)
	if !l.told {
		return nil, fmt.Errorf("the run ended before operation %d", c.Op)
	}
	return w.failure, nil
}
