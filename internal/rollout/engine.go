package rollout

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// Interval between steps: as long as a person who watches waits for what happened.
	Interval = time.Second
	// clockEvery is how often the fleet's clock is written, and so how finely devices are stamped
	// with it: what is measured by it takes minutes at least.
	clockEvery = 5 * time.Second
	// maxGap between two readings of the wall's clock. Where there is more between them the server
	// was down or slept, or its clock was set: nobody watched, and no time has passed.
	maxGap = time.Minute
	// censusEvery is how often all devices of a product are looked at, beside at the begin of a
	// phase: who joins or leaves the fleet meanwhile is seen then. A look takes share of the
	// time between two at most.
	censusEvery = 5 * time.Minute
	// share of the time that looks at a large fleet take at most; slowStep is from where on a step
	// is one.
	share    = 0.05
	slowStep = 250 * time.Millisecond
	maxAsks  = 4096 // that a census keeps: devices of one kind ask the same
	// tries of a command whose rollout moved under it.
	tries = 8
)

// Advance is the fleet's clock one reading later.
func Advance(c fleet.Clock, was, now time.Time) fleet.Clock {
	gap := now.Sub(was)
	if gap <= 0 || gap > maxGap {
		return c
	}
	return c.After(gap)
}

// Engine moves all rollouts. One goroutine runs it; of several engines on one store
// one steps at a time. Commands may be called concurrently with it.
type Engine struct {
	Store fleet.StepStore
	Log   *slog.Logger
	Now   func() time.Time
	// Machine is the machine's own clock, by which steps of large fleets are seen to be slow and made
	// less often; nil: no step is.
	Machine func() time.Time
	// Notify, if not nil, is told of each rollout that stopped by itself, once it is written down. It
	// must not block.
	Notify func(fleet.Notice)

	offers *fleet.NativeOffers // of the generation that the census is taken by
	took   map[int64]census    // by rollout, as the next
	last   map[int64]stepped
}

func (e *Engine) machine() time.Time {
	if e.Machine == nil {
		return time.Time{}
	}
	return e.Machine()
}

// stepped is when a rollout was stepped last, and what that cost.
type stepped struct {
	at   time.Time
	cost time.Duration
}

// census is when a rollout's devices were looked at last, and for what.
type census struct {
	at    fleet.Clock
	phase int
	cost  time.Duration
}

// Run steps until ctx ends. What fails is logged and tried again.
func (e *Engine) Run(ctx context.Context) error {
	var t trouble
	tick := time.NewTicker(Interval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			if err := e.Tick(ctx); ctx.Err() == nil {
				t.ended(ctx, e.Log, e.Now(), err)
			}
		case <-ctx.Done():
			return nil
		}
	}
}

// Tick reads the clock and steps each rollout in force once.
func (e *Engine) Tick(ctx context.Context) error {
	list, err := e.Store.ActiveRollouts(ctx)
	if err != nil || len(list) == 0 {
		return err
	}
	now := e.Now()
	clock, err := e.clock(ctx, now)
	if err != nil {
		return err
	}
	var errs []error
	for _, r := range list {
		if err := e.step(ctx, r, clock, now); err != nil {
			errs = append(errs, fmt.Errorf("rollout %d: %w", r.ID, err)) // the others go on
		}
	}
	return errors.Join(errs...)
}

// clock moves the fleet's clock on. Of two engines one does: the other's from is old.
func (e *Engine) clock(ctx context.Context, now time.Time) (fleet.Clock, error) {
	c, was, err := e.Store.ReadClock(ctx)
	if err != nil {
		return 0, err
	}
	if gap := now.Sub(was); gap >= 0 && gap < clockEvery {
		return c, nil
	}
	next := Advance(c, was, now)
	saved, err := e.Store.SaveClock(ctx, c, next, now)
	if err != nil || !saved {
		return c, err
	}
	return next, nil
}

func (e *Engine) step(ctx context.Context, r fleet.Rollout, clock fleet.Clock, now time.Time) error {
	began := e.machine()
	if l, ok := e.last[r.ID]; ok && l.cost > slowStep && began.Sub(l.at) < time.Duration(float64(l.cost)/share) {
		return nil
	}
	defer func() {
		if e.last == nil {
			e.last = map[int64]stepped{}
		}
		e.last[r.ID] = stepped{began, e.machine().Sub(began)}
	}()
	var next fleet.Rollout
	var effects []fleet.Effect
	var done bool
	var in Input
	_, err := e.Store.Alone(ctx, func(store fleet.StepStore) error {
		done = false
		var err error
		if in, err = e.input(ctx, store, &r, clock, now); err != nil {
			return err
		}
		var changed bool
		if next, effects, changed, err = Step(r, in); err != nil || !changed {
			return err
		}
		done, err = store.StepRollout(ctx, next, effects, now)
		return err
	})
	if err == nil && done {
		e.tell(ctx, next, effects, in)
	}
	return err
}

// tell logs what a person should see, and has it notified.
func (e *Engine) tell(ctx context.Context, r fleet.Rollout, effects []fleet.Effect, in Input) {
	for _, f := range effects {
		if f.Event == fleet.EventRolloutNo {
			e.Log.WarnContext(ctx, "a rollout stopped", "rollout", r.ID, "product", r.Product, "release", r.ReleaseVersion, "state", r.State, "reason", r.Reason)
			if e.Notify != nil {
				var all fleet.Counts
				for _, c := range in.Counts {
					all = all.Plus(c)
				}
				e.Notify(fleet.NoticeOf(r, all, in.Now))
			}
		}
	}
}

// input reads what a step sees.
func (e *Engine) input(ctx context.Context, store fleet.StepStore, r *fleet.Rollout, clock fleet.Clock, now time.Time) (Input, error) {
	in := Input{Now: now, Clock: clock, Census: -1}
	tallies, err := store.CountRollout(ctx, *r, clock)
	if err != nil {
		return in, err
	}
	in.Counts = Fold(r, tallies)
	if r.State != fleet.RolloutRunning {
		return in, nil
	}
	last, ok := e.took[r.ID]
	rest := max(censusEvery, time.Duration(float64(last.cost)/share))
	if ok && last.phase == r.Phase && r.Expected >= 0 && clock.Since(last.at) < rest {
		return in, nil
	}
	began := e.machine()
	if in.Census, in.Nearest, err = e.census(ctx, store, r, clock); err != nil {
		return in, err
	}
	if e.took == nil {
		e.took = map[int64]census{}
	}
	e.took[r.ID] = census{clock, r.Phase, e.machine().Sub(began)}
	return in, nil
}

// Fold puts a rollout's tallies into its phases.
func Fold(r *fleet.Rollout, tallies []fleet.Tally) []fleet.Counts {
	counts := make([]fleet.Counts, len(r.Course.Phases))
	for _, t := range tallies {
		counts[min(max(t.Phase, 0), len(counts)-1)].Count(t, r.Course.Assurance)
	}
	return counts
}

// census counts the devices that the current phase waits for: those that came in by
// it, and those that may. Of a phase by place or group the latter are live: who was
// not heard of for the rollout's silence is not waited for, and gets the release when it
// comes. A phase by number waits for its number, or for all where there are fewer.
func (e *Engine) census(ctx context.Context, store fleet.StepStore, r *fleet.Rollout, clock fleet.Clock) (waits int, nearest float64, err error) {
	generation, err := store.Generation(ctx)
	if err != nil {
		return 0, 0, err
	}
	if e.offers == nil || e.offers.Generation < generation {
		s, err := store.NativeSnapshot(ctx)
		if err != nil {
			return 0, 0, err
		}
		e.offers = fleet.NewNativeOffers(s)
	}
	var before, here, members, others int
	asks := map[string]*fleet.NativeAsk{}
	err = store.Census(ctx, *r, func(d *fleet.Device, phase int) {
		switch {
		case phase == r.Phase:
			here++
		case phase >= 0:
			before++
		default:
			a, known := asks[d.Ask]
			if !known {
				a = fleet.ParseAsk(d.Ask)
				if len(asks) < maxAsks {
					asks[d.Ask] = a
				}
			}
			at, waits := e.offers.Awaits(r, d, a)
			live := d.Heard > 0 && clock.Since(d.Heard) < r.Course.Silence
			switch {
			case !waits:
			case at == r.Phase && live:
				members++
			case at < 0:
				others++
				if p := fleet.Place(r.ID, d.ID); live && (nearest == 0 || p < nearest) {
					nearest = p
				}
			}
		}
	})
	if err != nil {
		return 0, 0, err
	}
	if p := r.Course.Phases[r.Phase]; p.Kind == fleet.PhaseCount {
		return min(max(p.Count-before, here), here+others), 0, nil
	}
	return here + members, nearest, nil
}

// Say has a person's word done. It is tried again where the rollout moved meanwhile.
func (e *Engine) Say(ctx context.Context, id int64, say fleet.Command, why string) (fleet.Rollout, error) {
	for range tries {
		r, err := e.Store.Rollout(ctx, id)
		if err != nil {
			return r, err
		}
		now := e.Now()
		clock, err := e.clock(ctx, now)
		if err != nil {
			return r, err
		}
		tallies, err := e.Store.CountRollout(ctx, r, clock)
		if err != nil {
			return r, err
		}
		next, effects, changed, err := Step(r, Input{Now: now, Clock: clock, Counts: Fold(&r, tallies), Census: -1, Say: say, Why: why})
		if err != nil || !changed {
			return r, err
		}
		done, err := e.Store.StepRollout(ctx, next, effects, now)
		if err != nil || done {
			return next, err
		}
	}
	return fleet.Rollout{}, fleet.Errorf(fleet.CodeBusy, "the rollout moves too fast")
}

// Counts are a rollout's, by phase, and the fleet's clock by which it is now.
func (e *Engine) Counts(ctx context.Context, r fleet.Rollout) ([]fleet.Counts, fleet.Clock, error) {
	clock, was, err := e.Store.ReadClock(ctx)
	if err != nil {
		return nil, 0, err
	}
	tallies, err := e.Store.CountRollout(ctx, r, clock)
	if err != nil {
		return nil, 0, err
	}
	return Fold(&r, tallies), Advance(clock, was, e.Now()), nil
}
