package native

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/rollout"
)

// engine is one over the rig's store and clock.
func (w *rig) engine() *rollout.Engine {
	return &rollout.Engine{Store: w.store, Log: slog.New(slog.DiscardHandler), Now: w.now}
}

// roll makes a rollout of r and has it begin.
func (w *rig) roll(r fleet.Release, phases string, change func(*fleet.Course)) fleet.Rollout {
	w.t.Helper()
	list, err := fleet.ParsePhases(phases, fleet.Phase{Success: 0.8, Fail: 0.2})
	if err != nil {
		w.t.Fatal(err)
	}
	c := fleet.Course{Phases: list}
	c.Fill()
	if change != nil {
		change(&c)
	}
	o, err := w.store.CreateRollout(context.Background(), fleet.Rollout{Product: product, ReleaseID: r.ID, Course: c}, w.now())
	if err != nil {
		w.t.Fatal(err)
	}
	w.tick()
	return w.rollout(o.ID)
}

func (w *rig) tick() {
	w.t.Helper()
	w.ok(nil, w.engine().Tick(context.Background()))
}

func (w *rig) rollout(id int64) fleet.Rollout {
	w.t.Helper()
	o, err := w.store.Rollout(context.Background(), id)
	if err != nil {
		w.t.Fatal(err)
	}
	return o
}

func (w *rig) say(id int64, say fleet.Command) {
	w.t.Helper()
	_, err := w.engine().Say(context.Background(), id, say, "")
	w.ok(nil, err)
}

// An idle poll of a product with rollouts is one statement too: waiting, in, and done,
// with all that has to be counted for it.
func TestIdlePollOfRollouts(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r1, r2 := w.publish("1.0", 7, nil), w.publish("2.0", 8, nil)
	a, b := w.board("pump-1"), w.board("pump-2")
	w.roll(r1, "100%", func(c *fleet.Course) { c.Concurrency, c.BytesPerSec = 5, 1<<20 })
	w.roll(r2, "1,100%", func(c *fleet.Course) { c.Concurrency, c.Window, c.To = 1, "00:00-23:59", `hardware == "r2"` })
	a.offered(r2)
	b.offered(r1)
	w.flush()
	before := w.store.Statements()
	for i := range 5 {
		a.offered(r2)
		b.offered(r1)
		if n := w.store.Statements() - before; n != int64(2*(i+1)) {
			t.Fatalf("%d statements for %d polls", n, 2*(i+1))
		}
	}
	a.report(r2, core.StateConfirmed, 0)
	a.poll.Epoch, a.poll.Sequence = 1, 8
	a.nothing()
	w.flush()
	before = w.store.Statements()
	a.nothing()
	if n := w.store.Statements() - before; n != 1 {
		t.Errorf("%d statements", n)
	}
}

// A pause holds for every poll that starts after its commit, on every replica.
func TestPauseHolds(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	boards := make([]*board, 8)
	for i := range boards {
		boards[i] = w.board(fmt.Sprint("pump-", i))
		if i%2 == 1 {
			_, boards[i].mux = w.replica()
		}
	}
	o := w.roll(r, "100%", nil)
	for _, b := range boards[:4] {
		b.offered(r)
	}
	w.say(o.ID, fleet.CommandPause)
	for _, b := range boards {
		b.nothing()
	}
	w.say(o.ID, fleet.CommandResume)
	for _, b := range boards {
		b.offered(r)
	}
	// Polls race with pauses: none that began after one is offered anything.
	var paused sync.RWMutex
	is := false
	var wg sync.WaitGroup
	for _, b := range boards {
		wg.Go(func() {
			for range 30 {
				paused.RLock()
				before := is
				body := b.body()
				rec := w.post(b.mux, PathPoll, body)
				paused.RUnlock()
				if a := b.answer(rec); before && a.HasOffer {
					t.Errorf("%s was offered it during a pause", b.id)
				}
			}
		})
	}
	for i := range 20 {
		paused.Lock()
		is = i%2 == 0
		if is {
			w.say(o.ID, fleet.CommandPause)
		} else {
			w.say(o.ID, fleet.CommandResume)
		}
		paused.Unlock()
	}
	wg.Wait()
}

// Of many that ask at once for the places of a phase, as many get one.
func TestPlacesAreCounted(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	var boards []*board
	for i := range 24 {
		b := w.board(fmt.Sprint("pump-", i))
		if i%3 == 1 {
			_, b.mux = w.replica()
		}
		boards = append(boards, b)
	}
	w.roll(r, "5,100%", nil)
	got := make([]bool, len(boards))
	bodies := make([][]byte, len(boards))
	for i, b := range boards {
		bodies[i] = b.body()
	}
	var wg sync.WaitGroup
	for i, b := range boards {
		wg.Go(func() {
			rec := w.post(b.mux, PathPoll, bodies[i])
			if rec.Code != http.StatusOK {
				t.Errorf("status %d", rec.Code)
				return
			}
			got[i] = b.answer(rec).HasOffer
		})
	}
	wg.Wait()
	n := 0
	for i, b := range boards {
		if got[i] {
			n++
			b.offered(r)
		} else {
			b.nothing()
		}
	}
	if n != 5 {
		t.Errorf("%d of 5 places were given", n)
	}
}

// A phase passes, the next meets a release that crashes, the rollout stops by itself,
// takes it back, and why tells the rest.
func TestRolloutStory(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	var boards []*board
	for i := range 10 {
		boards = append(boards, w.board(fmt.Sprint("pump-", i)))
		boards[i].nothing()
	}
	w.flush()
	r := w.publish("1.0", 7, nil)
	o := w.roll(r, "2,100%", func(c *fleet.Course) { c.OnFailure, c.Phases[0].Success = fleet.OnFailureRevert, 1 })
	confirm := func(b *board) {
		b.offered(r)
		b.report(r, core.StateConfirmed, 0)
		b.poll.Epoch, b.poll.Sequence = 1, 7
	}
	confirm(boards[0])
	w.tick()
	if o = w.rollout(o.ID); o.Phase != 0 || o.Expected != 2 {
		t.Errorf("%+v", o)
	}
	boards[1].offered(r)
	boards[2].nothing()
	boards[1].report(r, core.StateConfirmed, 0)
	boards[1].poll.Epoch, boards[1].poll.Sequence = 1, 7
	w.tick()
	if o = w.rollout(o.ID); o.Phase != 1 || o.State != fleet.RolloutRunning {
		t.Fatalf("%+v", o)
	}
	for _, b := range boards[2:6] {
		b.offered(r)
		b.report(r, core.StateReverted, 19)
	}
	w.tick()
	if o = w.rollout(o.ID); o.State != fleet.RolloutReverting {
		t.Fatalf("%s: %s", o.State, o.Reason)
	}
	boards[7].nothing()
	for _, b := range boards[:2] {
		if a := b.ask(); a.Revert != 1 {
			t.Errorf("%+v", a)
		}
		b.report(r, core.StateReverted, 24)
	}
	w.tick()
	if o = w.rollout(o.ID); o.State != fleet.RolloutReverted || !strings.Contains(o.Reason, "4 of 4 failed") && !strings.Contains(o.Reason, "4 of 6 failed") {
		t.Errorf("%s: %s", o.State, o.Reason)
	}
	counts, _, err := w.engine().Counts(t.Context(), o)
	if err != nil || counts[0].Aside != 2 || counts[1].Failed != 4 || counts[1].OwnBad != 4 {
		t.Errorf("%+v %v", counts, err)
	}
	asker := &rollout.Asker{Store: w.store, V1: w.store, Now: w.now}
	why, err := asker.Why(t.Context(), "pump-7")
	if err != nil || why.Verdict != fleet.VerdictNotTargeted || why.Release != nil || len(why.Rules) == 0 || len(why.Last) != 2 {
		t.Errorf("%+v %v", why, err)
	}
	if d := w.fleetDevice("pump-3"); d.Failures != 1 || d.Ask == "" {
		t.Errorf("%+v", d)
	}
	if d := w.fleetDevice("pump-0"); d.Failures != 0 || d.RollbackWanted {
		t.Errorf("%+v", d)
	}
}

// What why says for a device is what its next poll is told, in every state of a rollout.
func TestWhyIsWhatAPollIsTold(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	asker := &rollout.Asker{Store: w.store, V1: w.store, Now: w.now}
	check := func(what string) {
		t.Helper()
		w.flush()
		b.ask() // what the device is, is known from its polls
		why, err := asker.Why(t.Context(), "pump-1")
		if err != nil {
			t.Fatal(err)
		}
		a := b.ask()
		if a.HasOffer != (why.Release != nil) || a.HasOffer && a.Offer.Sequence != why.Release.Sequence {
			t.Errorf("%s: why says %s, the poll %+v", what, why.Why, a)
		}
		d, err := w.store.NativePoll(t.Context(), "pump-1", fleet.Wanted{})
		if err != nil || !strings.HasPrefix(d.Verdict, string(why.Verdict)+"/") || len(why.Last) == 0 || why.Last[0].Verdict != why.Verdict || why.Last[0].Why != why.Why {
			t.Errorf("%s: why says %s (%s), the timeline %s, %+v", what, why.Verdict, why.Why, d.Verdict, why.Last)
		}
	}
	check("no rollout")
	o := w.roll(r, "100%", func(c *fleet.Course) { c.To = `"beta" in tags` })
	check("not targeted")
	w.ok(nil, w.store.SetLabels(t.Context(), "pump-1", []string{"beta"}, nil, w.now()))
	check("offered")
	w.say(o.ID, fleet.CommandPause)
	check("paused")
	w.say(o.ID, fleet.CommandResume)
	b.report(r, core.StateFailed, 12)
	check("failed")
	w.advance(time.Minute)
	w.say(o.ID, fleet.CommandCancel)
	check("cancelled")
}
