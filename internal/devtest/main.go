// Command devtest is the test command: one call that runs every check the
// project has and says what it could not run, and why.
//
//	go run ./internal/devtest            all that this machine can run
//	go run ./internal/devtest -list      the steps
//	go run ./internal/devtest -run vet   some of them
//
// It needs Go and nothing else. The race detector joins where a C compiler is
// found, staticcheck where it can be built, TinyGo where its parts are installed;
// what is absent is named at the end. With CI=true nothing may be absent, and a
// test that skips itself everywhere is a failure.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"syscall"
	"time"
)

// Fuzzing time over all targets together, in seconds, unless the caller says
// otherwise. The seeds of every target run as tests in any case.
const (
	fuzzSecondsCI   = 120
	fuzzSecondsUser = 0
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string, out, errOut io.Writer) int {
	flags := flag.NewFlagSet("devtest", flag.ContinueOnError)
	flags.SetOutput(errOut)
	flags.Usage = func() {
		fmt.Fprintf(errOut, "Runs the project's checks.\n\nusage: go run ./internal/devtest [flags]\n\n")
		flags.PrintDefaults()
	}
	only := flags.String("run", "", "run only the steps whose whole name matches this regular expression, e.g. 'vet|test'")
	list := flags.Bool("list", false, "list the steps and leave")
	ci := os.Getenv("CI") == "true"
	fuzz := fuzzSecondsUser
	if ci {
		fuzz = fuzzSecondsCI
	}
	flags.IntVar(&fuzz, "fuzz-seconds", fuzz, "fuzz for `N` seconds, shared by all targets; 0: the seeds only (120 when CI=true)")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	if flags.NArg() > 0 {
		fmt.Fprintf(errOut, "error: unexpected argument %q\nhint: see 'go run ./internal/devtest --help'\n", flags.Arg(0))
		return 2
	}
	match, err := regexp.Compile("^(?:" + *only + ")$")
	if *only == "" {
		match, err = regexp.Compile("")
	}
	if err != nil {
		fmt.Fprintf(errOut, "error: -run: %v\n", err)
		return 2
	}
	if *list {
		for _, s := range steps {
			fmt.Fprintf(out, "%-13s %s\n", s.name, s.what)
		}
		return 0
	}
	root, err := findRoot()
	if err != nil {
		fmt.Fprintf(errOut, "error: %v\nhint: run it inside the repository\n", err)
		return 1
	}
	e := &env{root: root, ci: ci, out: out, fuzzSeconds: fuzz, tests: newLedger()}
	results, err := runSteps(ctx, e, match.MatchString)
	if err != nil {
		fmt.Fprintf(errOut, "error: %v\nhint: see 'go run ./internal/devtest -list'\n", err)
		return 2
	}
	if summarize(e, results) > 0 {
		return 1
	}
	return 0
}

// env is what a step sees.
type env struct {
	root        string
	ci          bool // everything is required
	out         io.Writer
	fuzzSeconds int
	tests       *ledger // what every Go test did, over all steps
}

// step is one check. Steps run in order and each runs whatever the others did.
type step struct {
	name string
	what string // for -list
	run  func(context.Context, *env) result
}

// outcome is how a step ended.
type outcome string

const (
	passed outcome = "passed"
	failed outcome = "FAILED"
	absent outcome = "NOT RUN"
)

// result is one step's end.
type result struct {
	name    string
	outcome outcome
	note    string // figures, or why it failed or did not run
	took    time.Duration
}

func pass(note string) result { return result{outcome: passed, note: note} }

func fail(format string, args ...any) result {
	return result{outcome: failed, note: fmt.Sprintf(format, args...)}
}

// missing is for a step that this machine can't run: a failure in CI.
func (e *env) missing(format string, args ...any) result {
	why := fmt.Sprintf(format, args...)
	if e.ci {
		return fail("required when CI=true: %s", why)
	}
	return result{outcome: absent, note: why}
}

// runSteps runs the steps that are wanted and fails where none is.
func runSteps(ctx context.Context, e *env, wanted func(string) bool) ([]result, error) {
	var results []result
	for _, s := range steps {
		if !wanted(s.name) {
			continue
		}
		fmt.Fprintf(e.out, "=== %s: %s\n", s.name, s.what)
		start := time.Now()
		r := s.run(ctx, e)
		r.name, r.took = s.name, time.Since(start)
		if ctx.Err() != nil {
			r.outcome, r.note = failed, "interrupted"
		}
		results = append(results, r)
		fmt.Fprintf(e.out, "--- %s: %s in %.1f s%s\n\n", r.name, r.outcome, r.took.Seconds(), dash(r.note))
		if ctx.Err() != nil {
			return results, nil
		}
	}
	if len(results) == 0 {
		return nil, errors.New("no step has that name")
	}
	return results, nil
}

// summarize prints the table, what was not run, and the closing line; it returns
// the number of failures. A Go test counts as one check, and so does a step.
func summarize(e *env, results []result) int {
	fmt.Fprintf(e.out, "%-13s %8s  %-8s %s\n", "step", "seconds", "outcome", "")
	var total time.Duration
	counts := map[outcome]int{}
	for _, r := range results {
		total += r.took
		counts[r.outcome]++
		fmt.Fprintf(e.out, "%-13s %8.1f  %-8s %s\n", r.name, r.took.Seconds(), r.outcome, firstLine(r.note))
	}
	fmt.Fprintf(e.out, "%-13s %8.1f\n", "all", total.Seconds())

	testsPassed, testsFailed, skips := e.tests.totals()
	if len(skips) > 0 {
		fmt.Fprintf(e.out, "\nTests that no step ran to the end:\n")
		for _, s := range skips {
			fmt.Fprintf(e.out, "  %s\n    %s\n", s.name, s.why)
		}
	}
	for _, r := range results {
		if r.outcome == absent {
			fmt.Fprintf(e.out, "\nNOT RUN: %s: %s\n", r.name, r.note)
		}
	}
	fails := testsFailed + counts[failed]
	if e.ci && len(skips) > 0 {
		fmt.Fprintf(e.out, "\nFAILED: with CI=true a test that runs in no step is a failure\n")
		fails += len(skips)
		skips = nil
	}
	fmt.Fprintf(e.out, "\n%d passed, %d failed, %d skipped\n",
		testsPassed+counts[passed], fails, len(skips)+counts[absent])
	return fails
}

func dash(note string) string {
	if note == "" {
		return ""
	}
	return ": " + note
}

func firstLine(s string) string {
	for i, c := range s {
		if c == '\n' {
			return s[:i]
		}
	}
	return s
}

// findRoot is the folder above the working directory that has go.work and core/.
func findRoot() (string, error) {
	dir, err := os.Getwd()
	if err != nil {
		return "", err
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "core", "go.mod")); err == nil {
			return dir, nil
		}
		parent := filepath.Dir(dir)
		if parent == dir {
			return "", errors.New("no repository here")
		}
		dir = parent
	}
}
