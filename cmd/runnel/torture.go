package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/crash"
)

// tortureFlags is what `runnel torture` was called with.
type tortureFlags struct {
	seconds, depth, workers int
	seed                    uint64
	scenario, geometry      string
	replay                  string
	sweep, list, json       bool
}

func newTortureCmd() *cobra.Command {
	var f tortureFlags
	cmd := &cobra.Command{
		Use:   "torture",
		Short: "Cut the power of virtual boards again and again, and inspect what is left",
		Long: `Runs updates on virtual boards, cuts the power at random, in the middle of flash
operations and again while they recover, and inspects everything that flash holds.
Nothing is written to disk, and nothing is sent anywhere. It stops by itself.

A failure prints an id; --replay with that id runs it again and tells every step.
--sweep leaves nothing to chance: one cut at every flash operation in every way, on all
scenarios and geometries, two in a row on the tiny one, and flash that lies. With
--geometry boot-stage it is two in a row on the tiny board whose boot stage is ours.

--json prints one object an event: "failure" (id, kind, reason), with --sweep "row" for
each scenario and geometry, and "summary" as the last.`,
		Example: `  runnel torture                             ten seconds on all cores
  runnel torture --seconds 3600 --depth 12
  runnel torture --scenario native-revert --seed 7 --json
  runnel torture --replay native-update/small/1:k37t2,k5t0
  runnel torture --sweep                     what 'make crash' runs; half an hour on two cores
  runnel torture --list                      scenarios and geometries`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := f.check(cmd); err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			switch {
			case f.list:
				return tortureList(out, f.json)
			case f.replay != "":
				return tortureReplay(out, f.replay)
			case f.sweep:
				return f.sweepAll(cmd.Context(), out)
			}
			return f.run(cmd.Context(), out, cmd.ErrOrStderr())
		},
	}
	cmd.Flags().IntVar(&f.seconds, "seconds", 10, "how long")
	cmd.Flags().Uint64Var(&f.seed, "seed", 0, "of all that is random; 0: another one each time")
	cmd.Flags().IntVar(&f.depth, "depth", crash.DefaultDepth, "cuts a run, at most")
	cmd.Flags().IntVar(&f.workers, "workers", runtime.GOMAXPROCS(0), "runs at once")
	cmd.Flags().StringVar(&f.scenario, "scenario", "", "only those whose name begins so")
	cmd.Flags().StringVar(&f.geometry, "geometry", "", "only those whose name begins so")
	cmd.Flags().StringVar(&f.replay, "replay", "", "the `ID` of a failure, to run again with a trace")
	cmd.Flags().BoolVar(&f.sweep, "sweep", false, "every operation in every way, instead of random ones")
	cmd.Flags().BoolVar(&f.list, "list", false, "list scenarios and geometries")
	cmd.Flags().BoolVar(&f.json, "json", false, "one JSON object an event")
	return cmd
}

func (f *tortureFlags) check(cmd *cobra.Command) error {
	const most = 1 << 20 // s, and cuts: a number that is meant, not a slip
	switch {
	case f.seconds < 1 || f.seconds > most:
		return usagef("--seconds %d is not between 1 and %d", f.seconds, most)
	case f.depth < 1 || f.depth > 1000:
		return usagef("--depth %d is not between 1 and 1000", f.depth)
	case f.workers < 1 || f.workers > 1024:
		return usagef("--workers %d is not between 1 and 1024", f.workers)
	case f.sweep && cmd.Flags().Changed("seconds"):
		return usagef("--sweep ends by itself: --seconds says nothing")
	case f.replay != "" && (f.sweep || f.list):
		return usagef("--replay goes alone")
	case len(f.pick()) == 0:
		return usagef("no scenario whose name begins with %q goes on a geometry whose name begins with %q", f.scenario, f.geometry).withHint("'runnel torture --list' has them")
	}
	return nil
}

type torturePair struct {
	s *crash.Scenario
	g *crash.Geometry
}

// pick are the pairs that were asked for.
func (f *tortureFlags) pick() (all []torturePair) {
	ss, gs := f.chosen()
	for _, s := range ss {
		for _, g := range gs {
			if crash.Fits(s, g) {
				all = append(all, torturePair{s, g})
			}
		}
	}
	return all
}

func (f *tortureFlags) chosen() (ss []*crash.Scenario, gs []*crash.Geometry) {
	for _, s := range crash.Scenarios() {
		if strings.HasPrefix(s.Name, f.scenario) {
			ss = append(ss, s)
		}
	}
	for _, g := range crash.Geometries() {
		if strings.HasPrefix(g.Name, f.geometry) {
			gs = append(gs, g)
		}
	}
	return ss, gs
}

// errTortured: the failures were printed already.
var errTortured = errors.New("the updater broke a promise")

func (f *tortureFlags) run(ctx context.Context, out, errOut io.Writer) error {
	if f.seed == 0 {
		f.seed = rand.Uint64N(1<<32) + 1
	}
	t := crash.Torture{Seed: f.seed, Workers: f.workers, Depth: f.depth}
	t.Scenarios, t.Geometries = f.chosen()
	start := time.Now()
	total := time.Duration(f.seconds) * time.Second
	ctx, cancel := context.WithTimeout(ctx, total)
	defer cancel()
	var bar *term.Progress
	if !f.json {
		fmt.Fprintf(out, "seed %d, up to %d cuts a run, %d at once, %d s\n", f.seed, f.depth, f.workers, f.seconds)
		bar = newProgress(errOut, "torture")
	}
	told := 0
	t.Progress = func(r crash.Row) {
		for ; told < len(r.Failures); told++ {
			bar.Clear()
			f.tell(out, r.Failures[told])
		}
		bar.Say(float64(time.Since(start))/float64(total), fmt.Sprintf("%s runs  %s cuts  %s failures",
			term.Number(r.Runs), term.Number(r.Cuts), term.Number(r.Failed())))
	}
	r := t.Run(ctx)
	bar.End()
	return f.summary(out, &r, time.Since(start))
}

func (f *tortureFlags) tell(out io.Writer, x *crash.Failure) {
	if f.json {
		tortureLine(out, map[string]any{"event": "failure", "id": x.ID, "kind": x.Kind.String(), "reason": x.Text})
		return
	}
	fmt.Fprintf(out, "FAILED %s: %s: %s\n  runnel torture --replay %s\n", x.ID, x.Kind, x.Text, x.ID)
}

// tortureLine prints an event. What can't be written to ends with the process.
func tortureLine(out io.Writer, v any) {
	b, err := json.Marshal(v)
	if err == nil {
		fmt.Fprintf(out, "%s\n", b)
	}
}

// tortureSummary is the last event.
type tortureSummary struct {
	Event      string  `json:"event"`
	Runs       int64   `json:"runs"`
	Cuts       int64   `json:"cuts"`
	Bricked    int64   `json:"bricked"`
	WrongImage int64   `json:"wrong_image"`
	Stuck      int64   `json:"stuck"`
	Max        int64   `json:"refetched_max_bytes"`
	Mean       float64 `json:"refetched_mean_bytes"`
	Erases     float64 `json:"erases_ratio"`
	Seed       uint64  `json:"seed,omitempty"`
	CutsPerSec float64 `json:"cuts_per_second"`
}

func (f *tortureFlags) summary(out io.Writer, r *crash.Row, took time.Duration) error {
	s := tortureSummary{"summary", r.Runs, r.Cuts, r.Kinds[crash.Bricked], r.Kinds[crash.WrongImage], r.Kinds[crash.Stuck],
		r.RefetchedMax, r.RefetchedMean(), r.ErasesRatio(), f.seed, float64(r.Cuts) / took.Seconds()}
	if f.json {
		tortureLine(out, s)
	} else {
		fmt.Fprintf(out, `runs          %s
cuts          %s, %s a second
bricked       %d
wrong image   %d
stuck         %d
fetched again %s bytes a cut at most, %.0f on average
erases        %.2f for each that an update needs
`, term.Number(s.Runs), term.Number(s.Cuts), term.Number(int64(s.CutsPerSec)), s.Bricked, s.WrongImage, s.Stuck, term.Number(s.Max), s.Mean, s.Erases)
	}
	switch {
	case r.Failed() > 0:
		return hinted(errTortured, "run a failure again with 'runnel torture --replay ID'")
	case r.Cuts == 0 && !f.sweep:
		return hinted(errors.New("no run ended in the time given, so nothing was cut"), "give it more --seconds")
	}
	return nil
}

// sweepAll is depth 1 on everything, depth 2 and flash that lies on the tiny chip of each
// kind of board.
func (f *tortureFlags) sweepAll(ctx context.Context, out io.Writer) error {
	f.seed = max(f.seed, 1)
	start := time.Now()
	var total crash.Row
	if !f.json {
		fmt.Fprintf(out, "%-30s %-15s %-6s %10s %10s %8s\n", "scenario", "geometry", "what", "operations", "cuts", "failures")
	}
	row := func(what string, r *crash.Row, n int64) {
		if f.json {
			tortureLine(out, map[string]any{"event": "row", "scenario": r.Scenario, "geometry": r.Geometry, "what": what, "operations": r.Ops,
				"cuts": n, "failures": r.Failed(), "refetched_max_bytes": r.RefetchedMax, "refetched_mean_bytes": r.RefetchedMean()})
		} else {
			fmt.Fprintf(out, "%-30s %-15s %-6s %10d %10d %8d\n", r.Scenario, r.Geometry, what, r.Ops, n, r.Failed())
		}
		for _, x := range r.Failures {
			f.tell(out, x)
		}
		total.Add(r)
	}
	for _, p := range f.pick() {
		if ctx.Err() != nil {
			return fmt.Errorf("interrupted: %w", ctx.Err())
		}
		set, err := crash.NewSetup(p.s, p.g, f.seed)
		if err != nil {
			return err
		}
		depth, what := 1, "1 cut"
		if p.g.Name == crash.DeepGeometry || p.g.Deep() && f.geometry != "" {
			depth, what = 2, "2 cuts"
		}
		if p.g.Deep() {
			l := set.SweepLies(ctx)
			row("faults", &l.Row, l.Faults)
		}
		r := set.Sweep(ctx, depth, f.workers)
		row(what, &r, r.Cuts)
	}
	return f.summary(out, &total, time.Since(start))
}

func tortureReplay(out io.Writer, text string) error {
	id, err := crash.ParseID(text)
	if err != nil {
		return usagef("--replay: %v", err)
	}
	x, err := crash.Replay(id, func(format string, args ...any) { fmt.Fprintf(out, format+"\n", args...) })
	if err != nil {
		return err
	}
	if x != nil {
		return fmt.Errorf("%s: %s", x.Kind, x.Text)
	}
	fmt.Fprintln(out, "nothing is wrong")
	return nil
}

func tortureList(out io.Writer, asJSON bool) error {
	show := func(kind, name, says string) {
		if asJSON {
			tortureLine(out, map[string]string{"event": kind, "name": name, "says": says})
			return
		}
		fmt.Fprintf(out, "%-9s %-30s %s\n", kind, name, says)
	}
	for _, s := range crash.Scenarios() {
		show("scenario", s.Name, s.Says)
	}
	for _, g := range crash.Geometries() {
		show("geometry", g.Name, g.Says)
	}
	return nil
}
