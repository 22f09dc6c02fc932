package crash

import (
	"bytes"
	"context"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"

	"github.com/runnel-fota/runnel/sim/nor"
)

func check(t *testing.T, r *Row) {
	t.Helper()
	t.Logf("%-28s %-15s %4d operations, %6d cuts, at most %5d bytes again, mean %5.0f, %.2f erases for one that had to be, for a cut at most %v in %v",
		r.Scenario, r.Geometry, r.Ops, r.Cuts, r.RefetchedMax, r.RefetchedMean(), r.ErasesRatio(), r.WearMax, Wears)
	if r.Cuts < int64(3*r.Ops) {
		t.Errorf("%s/%s: %d cuts at %d operations: not all was swept", r.Scenario, r.Geometry, r.Cuts, r.Ops)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
	if n := r.Failed(); n > int64(len(r.Failures)) {
		t.Errorf("%d failures in all", n)
	}
}

// TestSweep is depth 1: every scenario on a tiny chip, or on the long one, and the plain
// update and that by a patch on every chip. `make crash` has all of both, and depth 2.
func TestSweep(t *testing.T) {
	for _, s := range Scenarios() {
		for _, g := range Geometries() {
			plain := strings.HasSuffix(s.Name, "-update")
			whole := (g.Deep() || g.Name == longGeometry && (s.derived == nil || s.derived.kept <= goodScratch)) && (!g.own || s.native())
			switch {
			case !Fits(s, g), !whole && !plain, g.Name == "blocks-64k", testing.Short() && (!whole || !s.native()):
				continue
			}
			r := setup(t, s.Name, g.Name).Sweep(t.Context(), 1, runtime.GOMAXPROCS(0))
			check(t, &r)
		}
	}
}

// TestTwoCutsInSnapshots cuts at each operation on the scratch sectors in every way, and at
// each of the recovery; without RUNNEL_SWEEP=full at one in twenty of the first.
func TestTwoCutsInSnapshots(t *testing.T) {
	step := 20
	if os.Getenv("RUNNEL_SWEEP") == "full" {
		step = 1
	}
	set := setup(t, "native-kept-resume", deepLongGeometry)
	var firsts []*world
	n := 0
	root := set.root.clone(set.root.b.Chip.Clone())
	root.dry = true
	root.power(func(k int, op nor.Op) nor.Cut {
		if r, _ := set.regionOf(op.Off, op.Len); r.name == scratchName {
			root.children(k, op, func(w *world) {
				if n++; n%step == 0 {
					firsts = append(firsts, w)
				}
			})
		}
		return nor.Cut{}
	})
	rows := make([]Row, runtime.GOMAXPROCS(0))
	var wg sync.WaitGroup
	for i := range rows {
		wg.Go(func() {
			for at := i; at < len(firsts); at += len(rows) {
				explore(t.Context(), firsts[at], 1, &rows[i])
			}
		})
	}
	wg.Wait()
	all := Row{Scenario: set.Scenario.Name, Geometry: set.Geometry.Name, Ops: len(firsts)}
	for i := range rows {
		all.Add(&rows[i])
	}
	t.Logf("%d of %d first cuts", len(firsts), n)
	check(t, &all)
}

// Flash that lies ends a deployment with a reason, or costs nothing; what runs is
// left alone.
func TestLies(t *testing.T) {
	for _, s := range Scenarios() {
		for _, g := range []*Geometry{FindGeometry(DeepGeometry), FindGeometry(OwnGeometry), FindGeometry(deepLongGeometry)} {
			if !Fits(s, g) || !s.native() && (testing.Short() || g.own) {
				continue
			}
			l := setup(t, s.Name, g.Name).SweepLies(t.Context())
			t.Logf("%-28s %-10s %4d faults, %4d absorbed, %4d failed with a reason", s.Name, g.Name, l.Faults, l.Absorbed, l.Reasons)
			if l.Faults < int64(2*l.Ops) || l.Absorbed+l.Reasons+l.Failed() != l.Faults {
				t.Errorf("%s: %d faults at %d operations", s.Name, l.Faults, l.Ops)
			}
			for _, f := range l.Failures {
				t.Error(f)
			}
		}
	}
}

// TestTorture: a little of it.
func TestTorture(t *testing.T) {
	const seed = 1
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	runs := int64(1000)
	if testing.Short() {
		runs = 200
	}
	tt := Torture{Seed: seed, Workers: runtime.GOMAXPROCS(0), Depth: DefaultDepth, Progress: func(r Row) {
		if r.Runs >= runs {
			cancel()
		}
	}}
	r := tt.Run(ctx)
	t.Logf("seed %d: %d runs, %d cuts, at most %d bytes again, mean %.0f, %.2f erases for one that had to be",
		seed, r.Runs, r.Cuts, r.RefetchedMax, r.RefetchedMean(), r.ErasesRatio())
	if r.Runs < runs || r.Cuts < r.Runs {
		t.Errorf("%d runs, %d cuts", r.Runs, r.Cuts)
	}
	for _, f := range r.Failures {
		t.Error(f)
	}
}

// A replay is the run that the sweep did: the same flash, byte for byte.
func TestReplayIsTheSameRun(t *testing.T) {
	set := setup(t, "native-update", "tiny")
	n := 0
	root := set.root.clone(set.root.b.Chip.Clone())
	root.dry = true
	root.power(func(k int, op nor.Op) nor.Cut {
		if k%13 != 5 {
			return nor.Cut{}
		}
		root.children(k, op, func(w *world) {
			w.power(func(k int, op nor.Op) nor.Cut {
				if k == 7 {
					w.children(k, op, func(c *world) {
						c.power(nil)
						n++
						again, err := set.replay(c.cuts, func(string, ...any) {})
						if err != nil {
							t.Fatal(err)
						}
						if !bytes.Equal(again.b.Chip.Raw(), c.b.Chip.Raw()) || again.srv.Fetched != c.srv.Fetched || again.clock != c.clock {
							t.Errorf("%v: the replay is another run", c.cuts)
						}
					})
				}
				return nor.Cut{}
			})
		})
		return nor.Cut{}
	})
	if n < 50 {
		t.Errorf("only %d runs were replayed", n)
	}
}

func TestID(t *testing.T) {
	for _, text := range []string{"native-update/small/1", "v1-crash/tiny/7:k37t2,k5t0", "v1-crash/tiny/7:k37f1"} {
		id, err := ParseID(text)
		if err != nil || id.String() != text {
			t.Errorf("%q: %v, %q", text, err, id)
		}
	}
	for _, text := range []string{"", "a/b", "a/b/c", "a/b/1:", "a/b/1:k1", "a/b/1:t1k1", "a/b/1:k1t1,", "a/b/1:k-1t1", "a/b/1:k1f1,k2f1", "a/b/1:k99999999999t1"} {
		if id, err := ParseID(text); err == nil {
			t.Errorf("%q was taken: %+v", text, id)
		}
	}
	for _, text := range []string{"no/tiny/1", "v1-update/no/1", "native-update/no-state/1", "v1-update/tiny/1:k9999t0", "v1-update/tiny/1:k1f9", "v1-update/tiny/1:k9999f0"} {
		id, err := ParseID(text)
		if err == nil {
			_, err = Replay(id, func(string, ...any) {})
		}
		if err == nil {
			t.Errorf("%q was replayed", text)
		}
	}
}

// TestWear is what an update costs a chip of 4 MiB, without a cut: the figures of the
// README.
func TestWear(t *testing.T) {
	g := &Geometry{Name: "w25q32", Slots: [2]uint32{1920 << 10, 1920 << 10}, Image: 1_068_032, Chunk: 4096}
	for _, name := range []string{"native-update", "v1-update"} {
		set, err := NewSetup(FindScenario(name), g, 1)
		if err != nil {
			t.Fatal(err)
		}
		most := map[string]uint32{}
		for i, n := range set.Dry.wear {
			r, _ := set.regionOf(uint32(i)*4096, 4096)
			most[r.name] = max(most[r.name], n)
		}
		t.Logf("%s: %d operations, %d sectors erased of %d that had to be; erases of the most worn sector: slot %d, journal %d, state %d, otadata %d",
			name, set.Dry.Ops, set.Dry.Erases, set.Dry.MinErases, most["app1"], most["rnl_journal"], most["rnl_state"], most["otadata"])
		if set.Dry.Erases > set.Dry.MinErases*105/100 || most["app1"] != 1 || most["rnl_journal"] > 2 || most["rnl_state"] > 4 || most["otadata"] > 3 {
			t.Errorf("%s: wear %v, %d sectors erased", name, most, set.Dry.Erases)
		}
	}
}
