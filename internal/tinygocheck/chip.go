package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/tinygo"
)

// chips are whose instructions the tests can be compiled to. Both run on the same
// emulated board, which has RAM for the heap of the testing package: a Cortex-M3
// takes all instructions of a Cortex-M0.
var chips = []string{"m0", "m3"}

// suiteTime ends a package's tests that hang. On a free machine they take seconds.
const suiteTime = 20 * time.Minute

// chipRun is the tests of one package on one chip.
type chipRun struct {
	suite
	chip   string
	passed []string
	failed []string
	took   time.Duration // of the run, without the build
	err    error         // nil: all that are there ran and passed
	said   string
}

// testInChip builds the tests of every core package, runs them, and wants every one
// that its files declare to have passed.
func testInChip(ctx context.Context, w io.Writer, match *regexp.Regexp, on []string) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	suites, err := findSuites(root)
	if err != nil {
		return err
	}
	reasons, err := readHostOnly(hostOnly(root))
	if err != nil {
		return err
	}
	if err := account(suites, reasons); err != nil {
		return err
	}
	var runs []*chipRun
	for _, c := range on {
		if !slices.Contains(chips, c) {
			return fmt.Errorf("no chip %q: there are %s", c, strings.Join(chips, ", "))
		}
		for _, s := range suites {
			if len(s.inChip) > 0 && match.MatchString(s.pkg) {
				runs = append(runs, &chipRun{suite: s, chip: c})
			}
		}
	}
	if len(runs) == 0 {
		return fmt.Errorf("no core package with tests for the chip matches %q", match)
	}
	qemu, err := exec.LookPath("qemu-system-arm")
	if err != nil {
		return errors.New("qemu-system-arm is not installed; Debian 12: apt-get install qemu-system-arm")
	}
	tc, err := tinygo.Setup(ctx, root)
	if err != nil {
		return err
	}
	scratch, err := os.MkdirTemp("", "tinygocheck")
	if err != nil {
		return err
	}
	defer os.RemoveAll(scratch)

	begin := time.Now()
	queue := make(chan *chipRun)
	var wg sync.WaitGroup
	for range 2 { // as buildAll
		wg.Add(1)
		go func() {
			defer wg.Done()
			for r := range queue {
				r.err = r.run(ctx, tc, qemu, root, scratch)
			}
		}()
	}
	for _, r := range runs {
		queue <- r
	}
	close(queue)
	wg.Wait()
	if err := printRuns(w, runs, suites, reasons, time.Since(begin)); err != nil {
		return err
	}
	return ctx.Err()
}

func (r *chipRun) run(ctx context.Context, tc *tinygo.Toolchain, qemu, root, scratch string) error {
	elf := filepath.Join(scratch, strings.ReplaceAll(r.pkg, "/", "-")+"-"+r.chip+".elf")
	targets := filepath.Join(root, "tools", "tinygo", "targets")
	if err := tc.BuildTests(ctx, tinygo.Build{
		Module: filepath.Join(root, "core"), Package: "./" + r.pkg,
		Target: filepath.Join(targets, "mps2-"+r.chip+".json"), Words: map[string]string{"TARGETS": targets}, Output: elf,
	}); err != nil {
		return err
	}
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, suiteTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-machine", "mps2-an385", "-display", "none", "-monitor", "none", "-serial", "none",
		"-semihosting", "-kernel", elf)
	cmd.Dir = filepath.Join(root, "core", filepath.FromSlash(r.pkg)) // where go test runs them
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	r.took, r.said = time.Since(start), out.String()
	r.passed, r.failed = outcomes(r.said)
	if ctx.Err() != nil {
		err = fmt.Errorf("ended after %.0f s: %w", r.took.Seconds(), ctx.Err())
	}
	return r.judge(err)
}

// outcomes are the top-level tests that passed, and all that failed.
func outcomes(said string) (passed, failed []string) {
	lines := bufio.NewScanner(strings.NewReader(said))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		word := strings.Fields(lines.Text())
		if len(word) < 3 || word[0] != "---" {
			continue
		}
		switch word[1] {
		case "PASS:":
			if !strings.Contains(word[2], "/") {
				passed = append(passed, word[2])
			}
		case "FAIL:":
			failed = append(failed, word[2])
		}
	}
	return passed, failed
}

// judge wants what the files declare: a program that ended well with fewer tests
// proves nothing.
func (r *chipRun) judge(ended error) error {
	if len(r.failed) > 0 {
		return fmt.Errorf("failed: %s\n%s", strings.Join(r.failed, ", "), tail(r.said))
	}
	if ended != nil {
		return fmt.Errorf("%w\n%s", ended, tail(r.said))
	}
	want, got := slices.Clone(r.inChip), slices.Clone(r.passed)
	slices.Sort(want)
	slices.Sort(got)
	if !slices.Equal(want, got) {
		return fmt.Errorf("passed: %s; its files declare %s", strings.Join(got, ", "), strings.Join(want, ", "))
	}
	return nil
}

// tail is the end of what tests said, without those that passed.
func tail(said string) string {
	const most = 4000
	var b strings.Builder
	for _, line := range strings.Split(said, "\n") {
		word := strings.Fields(line)
		if len(word) > 1 && (word[0] == "===" || word[0] == "---" && word[1] == "PASS:") {
			continue
		}
		b.WriteString(line + "\n")
	}
	s := strings.TrimSpace(b.String())
	if len(s) > most {
		s = "..." + s[len(s)-most:]
	}
	return s
}

// printRuns prints a line a package and chip, the packages that run nothing there,
// and the sums; it fails where a run did.
func printRuns(w io.Writer, runs []*chipRun, suites []suite, reasons map[string]string, took time.Duration) error {
	fmt.Fprintf(w, "%-17s %-4s %6s %7s %8s   %s\n", "package", "chip", "tests", "passed", "seconds", "on hosts only")
	tests, passed, bad := 0, 0, 0
	for _, r := range runs {
		tests += len(r.inChip)
		passed += len(r.passed)
		fmt.Fprintf(w, "%-17s %-4s %6d %7d %8.1f   %s\n", r.pkg, r.chip, len(r.inChip), len(r.passed), r.took.Seconds(), strings.Join(r.onHost, ", "))
		if r.err != nil {
			bad++
			fmt.Fprintf(w, "FAILED: core/%s on %s: %v\n", r.pkg, r.chip, r.err)
		}
	}
	for _, s := range suites {
		if why := reasons[s.pkg]; why != "" {
			fmt.Fprintf(w, "%-17s none: %s\n", s.pkg, why)
		}
	}
	fmt.Fprintf(w, "%d of %d tests of core passed inside the chip, %.0f s with the builds\n", passed, tests, took.Seconds())
	if bad > 0 {
		return fmt.Errorf("%d of %d runs inside the chip failed", bad, len(runs))
	}
	return nil
}
