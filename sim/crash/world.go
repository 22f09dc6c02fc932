package crash

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// world is a board, its server and how far the story is: all that a power cut leaves.
// A copy with another chip is another world.
type world struct {
	set   *Setup
	b     *board.Board
	srv   labserver.Server
	clock board.VirtualClock
	base  int64 // bytes fetched before the turns began

	turns   []Turn
	turn    int
	began   bool // what the turn's operator does was done
	polled  int  // polls when the turn began
	waits   int  // of the board, since the last turn was over
	running boot.Slot
	seen    seen
	cuts    []Cut
	lie     *lie // flash lies, and nothing was cut
	dry     bool

	// Since the power came on:
	up       *device.Updater
	boots    int
	steps    int
	lasting  int // events that are kept
	events   [8]device.Event
	failed   device.Reason // the last reason of an EventFailed
	failure  *Failure
	cut      bool // the power went
	trace    func(format string, args ...any)
	starting bool // the bootloader works
	cancel   func()
}

// clone is the world with another chip.
func (w *world) clone(c *nor.Chip) *world {
	n := *w
	b := *w.b
	b.Chip = c
	n.b = &b
	n.cuts = slices.Clip(w.cuts)
	n.up, n.boots, n.steps, n.lasting, n.cut = nil, 0, 0, 0, false
	return &n
}

// fork is the world behind a cut at the operation that is about to happen.
func (w *world) fork(k, tear int, cut nor.Cut) *world {
	n := w.clone(w.b.Chip.Fork(cut))
	n.cuts = append(n.cuts, Cut{k, tear})
	n.failure = nil
	n.dry = false
	return n
}

// Bounds of a run: what takes longer is stuck.
const (
	maxSteps = 100_000 // of the updater, since the power came on
	maxBoots = 40      // since the power came on; a release that reaches nobody takes 17
	settle   = 6       // waits behind the last turn: time to do harm in
)

// pollMillis and trialMillis are those of the v1 board; the native one takes the
// server's word.
const (
	pollMillis  = 60_000
	trialMillis = labserver.TrialSeconds * 1000
)

// power lets the board run from a power-on until the last turn is over, or a cut. at
// is asked before each operation whether power fails at it; nil: never.
func (w *world) power(at func(k int, op nor.Op) nor.Cut) {
	k := 0
	w.starting = true
	w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
		w.look(op)
		var c nor.Cut
		if at != nil {
			c = at(k, op)
		}
		if w.trace != nil {
			w.trace("%4d %s", k, op)
		}
		k++
		return c
	})
	if d := w.set.Scenario.derived; d != nil && d.kept == wornScratch && w.lie == nil { // a lie is all that is wrong
		w.b.Chip.SetFail(w.set.wornOut)
	}
	app := board.App{
		Transport: w, Clock: w, ChunkSize: max(1024, w.set.Geometry.Chunk), PollMillis: pollMillis, TrialMillis: trialMillis,
		Identity: v1.Identity{ID: labserver.Device, Signed: true, Key: w.srv.Book.Key},
		Seed:     w.set.Seed + uint64(len(w.cuts))<<32,
		OnBoot:   w.booted, OnStart: w.started, OnEvent: w.event, Stop: w.stop, Change: w.set.change, ChangeScratch: w.set.forget,
	}
	if w.set.Scenario.native() {
		app.Native = &board.Native{Device: labserver.Device, Product: labserver.Product, Hardware: labserver.Hardware,
			Secret: w.srv.Book.Secret, Roots: w.srv.Book.Baked(), Raw: w.set.Geometry.own, Verifier: board.Ed25519{}}
		if w.set.Scenario.derived != nil {
			app.Native.Patches = board.PatchSmall
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	w.cancel = cancel
	err := w.b.Run(ctx, boot.ResetPowerOn, app)
	w.b.Chip.SetCut(nil)
	switch {
	case errors.Is(err, board.ErrPowerCut):
		w.cut = true
	case w.failure != nil:
	case errors.Is(err, board.ErrNoImage):
		w.fail(Bricked, "nothing starts any more")
	case err != nil && w.starting:
		w.fail(Bricked, "the bootloader ends: %v", err)
	case err != nil:
		w.fail(Stuck, "the board ends: %v", err)
	case w.turn == len(w.turns):
		w.finish()
	}
}

// Do is board.Transport: the answer takes five milliseconds and is what an honest
// server says.
func (w *world) Do(_ context.Context, r device.Request) (board.Answer, error) {
	w.clock.Now += 5
	a := w.srv.Do(r)
	if w.trace != nil {
		w.trace("     %s %s: %d", r.Method, r.Target, a.Head().Status)
	}
	return a, nil
}

// Millis, Unix and Wait are board.Clock.
func (w *world) Millis() uint64 { return w.clock.Millis() }
func (w *world) Unix() uint32   { return w.clock.Unix() }
func (w *world) Wait(ctx context.Context, ms uint64) error {
	if w.turn == len(w.turns) || w.lie != nil && w.lie.told {
		w.waits++
	}
	return w.clock.Wait(ctx, ms)
}

// booted: the bootloader has decided.
func (w *world) booted(why boot.ResetReason, bt board.Boot) {
	w.running = bt.Running
	if w.boots++; w.boots > maxBoots {
		w.fail(Stuck, "started %d times since the power came on", w.boots)
	}
	if w.trace != nil {
		w.trace("%s reset: %s", why, strings.Join(bt.Steps, "; "))
	}
	w.inspect()
}

func (w *world) started(u *device.Updater, _ board.Boot) { w.up, w.starting = u, false }

func (w *world) event(e device.Event) {
	w.events[w.lasting%len(w.events)] = e
	w.lasting++
	if e.Kind == device.EventFailed && (w.lie == nil || w.lie.told) {
		w.failed = e.Reason
	}
	if w.trace != nil {
		w.trace("     event %d, slot %d, %d bytes %s", e.Kind, e.Slot, e.Bytes, e.Reason)
	}
}

// stop moves the story on and says whether the run is over.
func (w *world) stop() bool {
	if w.steps++; w.steps > maxSteps && w.failure == nil {
		w.fail(Stuck, "no end after %d steps; it was %s", w.steps, w.up.Status().Phase)
	}
	if w.failure != nil {
		return true
	}
	// Nothing but the bootloader writes until the next updater starts.
	w.starting = w.up.Status().Phase == rebooting
	if w.lie != nil && (w.waits >= waitsAfterLie && w.failed != device.ReasonNone || w.waits >= mostWaits) {
		return true
	}
	for w.turn < len(w.turns) {
		t := &w.turns[w.turn]
		if !w.began {
			w.begin(t)
		}
		if w.gaveUp(t) {
			w.turn, w.waits = len(w.turns), 0
			break
		}
		if !w.over(t) {
			return false
		}
		if w.lie == nil {
			w.expect(t)
		}
		w.turn, w.began, w.waits = w.turn+1, false, 0
	}
	return w.waits >= settle
}

// rebooting is the updater's phase right before it wants a reset.
const rebooting = "rebooting"

// begin is what the operator does.
func (w *world) begin(t *Turn) {
	w.began, w.polled = true, w.srv.Polls
	if t.Offer != "" {
		w.srv.Offer, w.srv.Cancel = w.set.kit.index[t.Offer], 0
	}
	if t.Nothing {
		w.srv.Offer, w.srv.Cancel = -1, w.release(t.Of).Sequence
	}
	w.srv.Revert = t.Revert
	w.srv.List += t.Lists
	if w.trace != nil {
		w.trace("turn %d: %+v", w.turn+1, *t)
	}
}

func (w *world) release(name string) *labserver.Release {
	return w.srv.Book.Releases[w.set.kit.index[name]]
}

// over says whether a turn is, by what the server has seen.
func (w *world) over(t *Turn) bool {
	i := w.set.kit.index[t.Of]
	switch t.Until {
	case Confirmed:
		// A board without a state forgets with a reset that it had something to say.
		return w.srv.Heard[i].Confirmed || w.set.Geometry.noState && w.srv.Polls > w.polled+1 && w.settled(t.Runs)
	case Half:
		return w.srv.Fetched[i] >= w.release(t.Of).Served(w.set.Scenario.native())/2
	case Ended:
		return w.srv.Heard[i].Ended
	case Obeyed:
		return !w.srv.Revert
	case Polled:
		return w.srv.Polls >= w.polled+3
	}
	return true
}

// What an updater gives up after, until an operator thinks again: stagings that come to
// no verdict, and boots on trial where the bootloader has no rollback.
const (
	stagings   = 4
	trialBoots = 3
)

// gaveUp: so many cuts fell into trials that the story ends here, with the old image.
func (w *world) gaveUp(t *Turn) bool {
	h := &w.srv.Heard[w.set.kit.index[t.Of]]
	if t.Until != Confirmed || h.Confirmed || w.lie != nil {
		return false
	}
	return len(w.cuts) >= stagings && h.Said(device.ReasonGaveUp) ||
		w.b.NoRollback && len(w.cuts) >= trialBoots && h.Said(device.ReasonBootsSpent)
}

// last is what the updater said last, for a failure.
func (w *world) last() string {
	var b strings.Builder
	for i := max(0, w.lasting-len(w.events)); i < w.lasting; i++ {
		e := w.events[i%len(w.events)]
		fmt.Fprintf(&b, " %d@%d", e.Kind, e.Bytes)
		if e.Reason != 0 {
			fmt.Fprintf(&b, " (%s)", e.Reason)
		}
	}
	return b.String()
}
