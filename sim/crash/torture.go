package crash

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"

	"github.com/runnel-fota/runnel/sim/nor"
)

// Torture cuts at random, for as long as it is let: scenarios, geometries, places,
// ways and how often, all from one seed. Run number i is the same whoever runs it.
type Torture struct {
	Seed    uint64
	Workers int
	Depth   int // cuts a run, at most
	// Scenarios and Geometries to choose from; nil: all.
	Scenarios  []*Scenario
	Geometries []*Geometry
	// Progress is called with the figures so far, by any goroutine, one at a time.
	Progress func(Row)
}

// DefaultDepth in cuts: a board that is unplugged again and again while it recovers.
const DefaultDepth = 6

// epoch is how many runs share a chip's random bits: a setup costs as much as a few.
const epoch = 4096

// pair is a scenario on a geometry.
type pair struct {
	s *Scenario
	g *Geometry
}

// pairs are all that fit.
func pairs(ss []*Scenario, gs []*Geometry) (all []pair) {
	for _, s := range ss {
		for _, g := range gs {
			if Fits(s, g) {
				all = append(all, pair{s, g})
			}
		}
	}
	return all
}

// Run tortures until the context ends. Nothing that fails ends it.
func (t *Torture) Run(ctx context.Context) Row {
	if t.Scenarios == nil {
		t.Scenarios = Scenarios()
	}
	if t.Geometries == nil {
		t.Geometries = Geometries()
	}
	all := pairs(t.Scenarios, t.Geometries)
	var next atomic.Uint64
	var mu sync.Mutex
	var total Row
	var wg sync.WaitGroup
	for range t.Workers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			m := mill{t: t, pairs: all, sets: map[pair]*Setup{}}
			for ctx.Err() == nil && len(all) > 0 {
				var row Row
				m.run(next.Add(1)-1, &row)
				mu.Lock()
				total.Add(&row)
				if t.Progress != nil {
					t.Progress(total)
				}
				mu.Unlock()
			}
		}()
	}
	wg.Wait()
	return total
}

// mill is one worker.
type mill struct {
	t     *Torture
	pairs []pair
	sets  map[pair]*Setup
	epoch uint64
}

// run does run number i.
func (m *mill) run(i uint64, row *Row) {
	rng := rand.New(rand.NewPCG(m.t.Seed, i))
	p := m.pairs[rng.IntN(len(m.pairs))]
	if e := i / epoch; e != m.epoch {
		m.epoch = e
		clear(m.sets)
	}
	set := m.sets[p]
	if set == nil {
		var err error
		seed := m.t.Seed + m.epoch
		if set, err = NewSetup(p.s, p.g, seed); err != nil {
			row.Runs++
			row.Kinds[Stuck]++
			row.Failures = append(row.Failures, &Failure{ID{p.s.Name, p.g.Name, seed, nil, false}.String(), Stuck, err.Error()})
			return
		}
		m.sets[p] = set
	}
	w := set.root.clone(set.root.b.Chip.Clone())
	w.dry = true
	for left := 1 + rng.IntN(max(1, m.t.Depth)); ; left-- {
		// Recoveries are shorter than the update, and what begins them matters more.
		at, tear := rng.IntN(set.Dry.Ops)/(1+rng.IntN(4)), rng.IntN(1<<16)
		if len(w.cuts) == 0 {
			at = rng.IntN(set.Dry.Ops)
		}
		if left == 0 {
			at = -1
		}
		c := w.cutAt(at, tear)
		if c == nil {
			break
		}
		w = c
	}
	row.take(w, len(w.cuts))
}

// cutAt runs a world up to operation at and returns the one behind a cut there; nil
// where it came to its end before.
func (w *world) cutAt(at, tear int) (next *world) {
	w.power(func(k int, op nor.Op) nor.Cut {
		if k != at || w.failure != nil {
			return nor.Cut{}
		}
		all := tears(op, w.set)
		n := tear % len(all)
		next = w.fork(k, n, all[n])
		return nor.Cut{When: nor.CutBefore} // this world ends here
	})
	return next
}
