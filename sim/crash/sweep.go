// Package crash cuts a board's power at every flash operation of an update, in every
// way that the operation can be torn, lets it start again, and inspects everything
// that flash holds. The updater, the bootloader's decision and the chip's model are
// the real ones; server and clock are honest and of memory.
//
// What is promised and how a failure is read: docs/design/power-cuts.md.
package crash

import (
	"context"
	"fmt"
	"sync"

	"github.com/runnel-fota/runnel/sim/nor"
)

// Row is what a sweep or a torture found out about one scenario on one geometry, or
// about all together.
type Row struct {
	Scenario, Geometry string
	Ops                int // flash operations of the uncut run
	Runs, Cuts         int64
	Refetched          int64 // bytes, over all cuts
	RefetchedMax       int64 // bytes a cut
	Erases, MinErases  uint64
	// WearMax is how often a sector of each of Wears was erased for a cut at most.
	WearMax [len(Wears)]float64
	// Kinds counts failures by their kind. Failures keeps the first few.
	Kinds    [Stuck + 1]int64
	Failures []*Failure
}

// keepFailures of a row: the first ones say enough.
const keepFailures = 10

// Failed is how many runs failed.
func (r *Row) Failed() int64 { return r.Kinds[Bricked] + r.Kinds[WrongImage] + r.Kinds[Stuck] }

// RefetchedMean is how many bytes a cut costs.
func (r *Row) RefetchedMean() float64 { return ratio(float64(r.Refetched), float64(r.Cuts)) }

// ErasesRatio is how many sectors of slots were erased for each that had to be.
func (r *Row) ErasesRatio() float64 { return ratio(float64(r.Erases), float64(r.MinErases)) }

func ratio(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// Add adds another row's figures.
func (r *Row) Add(o *Row) {
	r.Runs, r.Cuts, r.Refetched = r.Runs+o.Runs, r.Cuts+o.Cuts, r.Refetched+o.Refetched
	r.RefetchedMax = max(r.RefetchedMax, o.RefetchedMax)
	r.Erases, r.MinErases = r.Erases+o.Erases, r.MinErases+o.MinErases
	for i := range r.Kinds {
		r.Kinds[i] += o.Kinds[i]
	}
	for i := range r.WearMax {
		r.WearMax[i] = max(r.WearMax[i], o.WearMax[i])
	}
	r.Failures = append(r.Failures, o.Failures[:min(len(o.Failures), max(0, keepFailures-len(r.Failures)))]...)
}

// take counts a run that came to its end, or to a failure. cuts are those of its cuts
// that no other run is counted with.
func (r *Row) take(w *world, cuts int) {
	n := int64(len(w.cuts))
	r.Runs++
	r.Cuts += int64(cuts)
	if w.failure != nil {
		r.Kinds[w.failure.Kind]++
		if len(r.Failures) < keepFailures {
			r.Failures = append(r.Failures, w.failure)
		}
		return
	}
	extra := w.extra()
	if n > 0 {
		r.Refetched += extra * int64(cuts) / n
		r.RefetchedMax = max(r.RefetchedMax, (extra+n-1)/n)
		for i, more := range w.wear() {
			r.WearMax[i] = max(r.WearMax[i], float64(more)/float64(n))
		}
	}
	r.Erases += w.erases()
	r.MinErases += w.set.Dry.MinErases
}

// Sweep cuts the power at every operation of the uncut run in every way, and so on
// during the recovery, depth cuts in all. It ends by itself: each level ends with the
// run that comes to its end.
func (set *Setup) Sweep(ctx context.Context, depth, workers int) Row {
	total := Row{Scenario: set.Scenario.Name, Geometry: set.Geometry.Name, Ops: set.Dry.Ops}
	jobs := make(chan *world, 4*workers)
	var wg sync.WaitGroup
	var mu sync.Mutex
	for range workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var row Row
			for w := range jobs {
				if ctx.Err() == nil {
					explore(ctx, w, depth-1, &row)
				}
			}
			mu.Lock()
			defer mu.Unlock()
			total.Add(&row)
		}()
	}
	root := set.root.clone(set.root.b.Chip.Clone())
	root.dry = true
	root.power(func(k int, op nor.Op) nor.Cut {
		root.children(k, op, func(w *world) { jobs <- w })
		return nor.Cut{}
	})
	close(jobs)
	wg.Wait()
	if root.failure != nil {
		total.Kinds[root.failure.Kind]++
		total.Failures = append(total.Failures, root.failure)
	}
	return total
}

// explore runs a world to its end; behind each of its operations another one begins,
// until there are depth more cuts.
func explore(ctx context.Context, w *world, depth int, row *Row) {
	w.power(func(k int, op nor.Op) nor.Cut {
		if depth > 0 && ctx.Err() == nil && w.failure == nil {
			w.children(k, op, func(c *world) { explore(ctx, c, depth-1, row) })
		}
		return nor.Cut{}
	})
	row.take(w, 1)
}

// children are all worlds that a cut at the operation to come can lead to.
func (w *world) children(k int, op nor.Op, see func(*world)) {
	for t, cut := range tears(op, w.set) {
		see(w.fork(k, t, cut))
	}
}

// shortWrite in bytes: one command of ESP-IDF's driver. Of what is shorter, every
// program unit is a place to stop at.
const shortWrite = 64

// tears are the ways in which power can fail at an operation, in an order that an ID
// relies on.
func tears(op nor.Op, set *Setup) []nor.Cut {
	cuts := []nor.Cut{{When: nor.CutBefore}, {When: nor.CutAfter}}
	inside := func(done uint32, clean bool) {
		cuts = append(cuts, nor.Cut{When: nor.CutInside, Done: done, Clean: clean})
	}
	if op.Kind == nor.Erase {
		inside(0, false)        // untouched to look at
		inside(op.Len/2, false) // some bits are erased
		inside(op.Len-1, false) // all look erased
		return cuts
	}
	unit := set.root.b.Chip.Geometry().ProgramSize
	if op.Len <= shortWrite {
		for done := uint32(0); done < op.Len; done += unit {
			inside(done, false)
			if done > 0 {
				inside(done, true)
			}
		}
	} else {
		for _, done := range []uint32{0, op.Len / 3, op.Len / 2, op.Len - unit} {
			inside(done, false)
		}
		inside(op.Len/2, true)
	}
	// A boot record's state is under no checksum, so that a disturbed one can't be told
	// from another: ESP-IDF's format, and why its sector is erased before each write.
	if r, _ := set.regionOf(op.Off, op.Len); r.name != "otadata" { // our own records are whole or none
		cuts = append(cuts, nor.Cut{When: nor.CutInside, Done: op.Len / 2, Disturb: true})
	}
	return cuts
}

// Replay runs what an ID names and tells each step to trace. It returns the failure
// that it ends in, or nil.
func Replay(id ID, trace func(format string, args ...any)) (*Failure, error) {
	s, g := FindScenario(id.Scenario), FindGeometry(id.Geometry)
	switch {
	case s == nil:
		return nil, fmt.Errorf("no scenario %q", id.Scenario)
	case g == nil:
		return nil, fmt.Errorf("no geometry %q", id.Geometry)
	case !Fits(s, g):
		return nil, fmt.Errorf("scenario %s is not played on geometry %s", s.Name, g.Name)
	}
	set, err := NewSetup(s, g, id.Seed)
	if err != nil {
		return nil, err
	}
	if id.Lie {
		return set.replayLie(id.Cuts[0], trace)
	}
	w, err := set.replay(id.Cuts, trace)
	if err != nil {
		return nil, fmt.Errorf("id %s: %w", id, err)
	}
	return w.failure, nil
}

// replay runs to the end behind all cuts.
func (set *Setup) replay(cuts []Cut, trace func(format string, args ...any)) (*world, error) {
	w := set.root.clone(set.root.b.Chip.Clone())
	w.dry = true
	for _, c := range cuts {
		w.trace = trace
		next := w.cutAt(c.Op, c.Tear)
		if next == nil {
			if w.failure != nil {
				return w, nil // it failed before this cut
			}
			return nil, fmt.Errorf("the run ended before operation %d", c.Op)
		}
		trace("%4d the power is cut, tear %d", c.Op, c.Tear)
		w = next
	}
	w.trace = trace
	w.power(nil)
	return w, nil
}
