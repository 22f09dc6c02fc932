package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/sim/nor"
)

// netduinoCuts is how many cuts there are where nobody says.
const netduinoCuts = 10

// Power cuts at flash operations of an update with signatures, the boot stage's included,
// and again while it recovers: the host's NOR dies in the middle of one, and the board
// with it.
func TestNetduinoTorture(t *testing.T) {
	want, seed := setting(t, "RUNNEL_QEMU_CUTS", netduinoCuts), setting(t, "RUNNEL_QEMU_SEED", 1)
	cuts, runs, ops, failed, again := 0, 0, 0, 0, int64(0)
	for ; cuts < want && failed < 3; seed++ {
		o := newHostTrip(t, uint64(seed), want-cuts)
		if err := o.run(); err != nil {
			failed++
			t.Errorf("RUNNEL_QEMU_SEED=%d RUNNEL_QEMU_CUTS=%d: %v\n%s%s", seed, want-cuts, err, o.trace, o.dump())
		}
		cuts, runs, ops, again = cuts+o.cuts, runs+1, ops+o.ops, max(again, o.again)
	}
	t.Logf("%d cuts in %d updates, at %d operations looked at; at most %d bytes fetched again for one", cuts, runs, ops, again)
}

// hostTrip is one update through cuts.
type hostTrip struct {
	*hostBench
	oracle
	rng   *rand.Rand
	chunk int
	limit int // of cuts
	trace string

	cuts  int
	again int64 // bytes fetched again for a cut, at most
	wrong error // what the operations showed
}

func newHostTrip(t *testing.T, seed uint64, limit int) *hostTrip {
	b := newHostBench(t, seed, short)
	o := &hostTrip{hostBench: b, oracle: oracle{places: &NetduinoMap, holds: b.holds}, limit: limit,
		rng: rand.New(rand.NewPCG(seed, 0x6e6574))}
	o.chunk = []int{1024, 4096}[o.rng.IntN(2)]
	return o
}

// opsToCut is about how many operations an update has.
const opsToCut = 150

func (o *hostTrip) run() error {
	two := o.release("2.0.0", 2, o.chunk, Healthy)
	o.Server.Offer = two
	whole := o.book.Releases[two].Served(true)
	ctx, cancel := context.WithTimeout(o.t.Context(), limit)
	defer cancel()
	o.trace = fmt.Sprintf("chunks of %d\n", o.chunk)
	chip := o.Flash.NOR
	row := min(cutsInRow, o.limit, 1+o.rng.IntN(cutsInRow))
	for o.cuts < row {
		if err := o.look(); err != nil {
			return err
		}
		at := o.rng.IntN(opsToCut)
		if o.rng.IntN(4) == 0 {
			at = o.rng.IntN(4) // the boot stage's own operations, where it has any
		}
		chip.SetCut(o.cutAt(at))
		if err := o.Run(ctx, o.done); err != nil {
			return err
		}
		chip.SetCut(nil)
		if o.wrong != nil {
			return o.wrong
		}
		if !chip.Dead() {
			break // confirmed before the cut came
		}
		o.cuts++
		chip.PowerOn()
	}
	if err := o.look(); err != nil {
		return err
	}
	starts := o.Starts
	if err := o.Run(ctx, func(l *Lab) bool { return o.done(l) || l.Starts > starts+startsToEnd }); err != nil {
		return err
	}
	if !o.Server.Heard[two].Confirmed {
		return fmt.Errorf("not confirmed after %d starts without a cut", startsToEnd)
	}
	if err := o.look(); err != nil {
		return err
	}
	more := o.Server.Total() - whole
	o.again = more / int64(max(1, o.cuts))
	if most := int64(o.cuts * (4096 + o.chunk + 64)); more > most {
		return fmt.Errorf("%d bytes were fetched again after %d cuts, %d are promised", more, o.cuts, most)
	}
	return o.settled(o.record())
}

func (o *hostTrip) done(l *Lab) bool {
	return l.Server.Heard[l.Server.Offer].Confirmed || o.wrong != nil
}

// cutAt judges operations, and cuts the power in the one with that number, from 0. It is
// called by the line's goroutine.
func (o *hostTrip) cutAt(at int) func(nor.Op) nor.Cut {
	starts := o.Starts + 1
	return func(op nor.Op) nor.Cut {
		// Behind a reset another slot may run, under other rules: the oracle looks again.
		if o.Starts != starts {
			starts = o.Starts
			if err := o.look(); err != nil && o.wrong == nil {
				o.wrong = err
			}
		}
		if err := o.oracle.operation(op.Off, op); err != nil && o.wrong == nil {
			o.wrong = err
		}
		if at--; at >= 0 {
			return nor.Cut{}
		}
		cut := nor.Cut{When: []nor.CutWhen{nor.CutBefore, nor.CutInside, nor.CutInside, nor.CutAfter}[o.rng.IntN(4)],
			Done: o.rng.Uint32N(op.Len), Clean: o.rng.IntN(4) == 0, Disturb: op.Kind == nor.Program && o.rng.IntN(8) == 0}
		o.trace += fmt.Sprintf("cut in start %d at %s: %+v\n", o.Starts, op, cut)
		return cut
	}
}

// look judges what flash holds between two starts.
func (o *hostTrip) look() error {
	m, chip := o.places, o.Flash.NOR
	switch {
	case chip.Misuses() != 0:
		return errors.New("flash was misused: programmed twice without an erase, unaligned or out of range")
	case !bytes.Equal(chip.Raw()[m.Factory:][:m.Sector], o.page):
		return errors.New("the factory page was changed")
	}
	return o.oracle.look(chip)
}
