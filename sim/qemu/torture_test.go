package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/sim/nor"
)

// RUNNEL_QEMU_CUTS is how many power cuts TestTorture makes, RUNNEL_QEMU_SEED the seed
// of the first run; a failure names its own.
func setting(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s=%q is not a number", name, text)
	}
	return n
}

// cutsInCI is how many cuts there are where nobody says.
const cutsInCI = 20

// Power cuts at flash operations of an update inside the emulated chip, the boot
// stage's included, and again while it recovers.
func TestTorture(t *testing.T) {
	want, seed := setting(t, "RUNNEL_QEMU_CUTS", cutsInCI), setting(t, "RUNNEL_QEMU_SEED", 1)
	cuts, runs, ops, again := 0, 0, 0, int64(0)
	for ; cuts < want; seed++ {
		o := newTrip(t, microbit(t, profiles[seed%len(profiles)].tag), uint64(seed), want-cuts)
		if err := o.run(); err != nil {
			t.Errorf("RUNNEL_QEMU_SEED=%d RUNNEL_QEMU_CUTS=1: %v\n%s%s", seed, err, o.trace, o.dump())
			if runs > 2 {
				break
			}
		}
		cuts, runs, ops, again = cuts+o.cuts, runs+1, ops+o.ops, max(again, o.again)
	}
	t.Logf("%d cuts in %d updates, at %d operations looked at; at most %d bytes fetched again for one", cuts, runs, ops, again)
}

// trip is one update through cuts.
type trip struct {
	*bench
	oracle
	rng   *rand.Rand
	limit int // of cuts
	trace string

	cuts  int
	again int64 // bytes fetched again for a cut, at most
}

func newTrip(t *testing.T, k *Kit, seed uint64, limit int) *trip {
	b := newBench(t, k)
	return &trip{bench: b, oracle: oracle{places: &MicrobitMap, holds: b.holds}, rng: rand.New(rand.NewPCG(seed, 0x7175)), limit: limit}
}

// startLimit bounds a start under the debugger, where the chip sleeps in real time.
const startLimit = 20 * time.Second

func (o *trip) run() error {
	two := o.release("2.0.0", 2, Healthy)
	o.Server.Offer = two
	done := func(*Lab) bool { return o.heard(two).Confirmed }
	whole := o.book.Releases[two+1].Served(true)
	ctx, cancel := context.WithTimeout(o.t.Context(), limit)
	defer cancel()
	row := min(cutsInRow, o.limit, 1+o.rng.IntN(cutsInRow))
	for o.cuts < row {
		if err := o.look(); err != nil {
			return err
		}
		c := Cut{Erase: o.rng.IntN(o.erasesLeft()), Op: o.rng.IntN(300), Tear: Tear(o.rng.IntN(int(tears))), Seed: o.rng.Uint64()}
		if o.rng.IntN(4) == 0 {
			c.Erase, c.Op = 0, o.rng.IntN(8) // the boot stage's own operations, where it has any
		}
		start, cancel := context.WithTimeout(ctx, startLimit)
		op, err := o.RunToCut(start, o.kit, c, o.operation, done)
		cancel()
		switch {
		case errors.Is(err, ErrCut):
			o.cuts++
			o.trace += fmt.Sprintf("cut %s, from erase %d operation %d: %s\n", c.Tear, c.Erase, c.Op, op)
		case errors.Is(err, ErrReset):
			o.trace += fmt.Sprintf("reset: %s\n", o.Chip.why())
		case errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
			o.trace += "nothing more to cut in this start\n"
		case err == nil:
			return nil // confirmed before the cut came
		default:
			return err
		}
	}
	if err := o.look(); err != nil {
		return err
	}
	starts := o.Starts
	if err := o.Run(ctx, func(l *Lab) bool { return done(l) || l.Starts > starts+startsToEnd }); err != nil {
		return err
	}
	if !o.heard(two).Confirmed {
		return fmt.Errorf("not confirmed after %d starts without a cut", startsToEnd)
	}
	if err := o.look(); err != nil {
		return err
	}
	o.again = (o.Server.Total() - whole) / int64(max(1, o.cuts))
	if most := int64(o.cuts) * (4096 + 1056 + 32); o.Server.Total()-whole > most {
		return fmt.Errorf("%d bytes were fetched again after %d cuts, %d are promised", o.Server.Total()-whole, o.cuts, most)
	}
	return o.settled(o.record())
}

// erasesLeft is about how many pages a start will erase: those of the image that are not
// written yet, and some of state, journal and records.
func (o *trip) erasesLeft() int {
	img, slot := o.images["2.0.0"][1], o.Chip.Flash[SlotAt[1]:]
	done := 0
	for done+PageSize <= len(img) && bytes.Equal(img[done:done+PageSize], slot[done:done+PageSize]) {
		done += PageSize
	}
	return (len(img)-done)/PageSize + 6
}

func (b *bench) holds(slot boot.Slot, version string) bool {
	img := b.images[version][slot]
	return bytes.Equal(b.Chip.Flash[SlotAt[slot]:][:len(img)], img)
}

// chip is what flash holds, as a chip that the device core can read.
func (o *trip) chip() *nor.Chip {
	c, err := nor.New(nor.Config{Size: Microbit.Flash.Size, EraseSize: PageSize, BlockEraseSize: nor.NoBlocks, ProgramSize: ProgramSize})
	if err == nil {
		err = c.Load(0, o.Chip.Flash)
	}
	if err != nil {
		o.t.Fatal(err)
	}
	return c
}

// look judges what flash holds between two starts.
func (o *trip) look() error {
	for _, keep := range [][2]uint32{{0, SlotAt[0]}, {FactoryAt, Microbit.Flash.Size}} {
		if !bytes.Equal(o.Chip.Flash[keep[0]:keep[1]], o.start[keep[0]:keep[1]]) {
			return fmt.Errorf("flash from 0x%x to 0x%x was changed", keep[0], keep[1])
		}
	}
	return o.oracle.look(o.chip())
}

// operation judges one that is about to happen.
func (o *trip) operation(op Op, stands uint32) error {
	if err := o.oracle.operation(op.Address, op); err != nil {
		return err
	}
	switch {
	case op.Erase && op.Address%PageSize != 0, !op.Erase && op.Address%ProgramSize != 0:
		return fmt.Errorf("unaligned: %s", op)
	case !op.Erase && stands != 0xFFFFFFFF:
		return fmt.Errorf("programmed twice without an erase: %s, where 0x%08x stands", op, stands)
	}
	return nil
}

// dump is what a failure shows.
func (r *rig) dump() (text string) {
	for _, e := range r.Events {
		text += fmt.Sprintf("event %d, reason %v, slot %d, %d bytes\n", e.Kind, e.Reason, e.Slot, e.Bytes)
	}
	return text + fmt.Sprintf("%d calls, %d polls, heard %+v\n", r.Line.Calls, r.Server.Polls, r.Server.Heard[:2])
}
