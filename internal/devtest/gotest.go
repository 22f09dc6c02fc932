package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"sort"
	"strings"
)

// event is one line of go test -json (go doc test2json, and go help buildjson
// for the lines that come from the compiler).
type event struct {
	Action     string
	Package    string
	ImportPath string
	Test       string
	Elapsed    float64
	Output     string
}

// ledger holds what every test did. A test that passed in one step and skipped
// itself in another has run.
type ledger struct {
	ran    map[string]int // times passed
	failed map[string]int
	skip   map[string]string // name to reason
	keep   bool              // what tests that pass log is kept: it has figures
	said   []string          // it, a line each
}

func newLedger() *ledger {
	return &ledger{ran: map[string]int{}, failed: map[string]int{}, skip: map[string]string{}}
}

type skipped struct{ name, why string }

// totals counts test runs that passed and failed, and lists the tests that were
// skipped wherever they were tried, by name.
func (l *ledger) totals() (passes, fails int, skips []skipped) {
	for _, n := range l.ran {
		passes += n
	}
	for _, n := range l.failed {
		fails += n
	}
	for name, why := range l.skip {
		if l.ran[name] == 0 && l.failed[name] == 0 {
			skips = append(skips, skipped{name, why})
		}
	}
	sort.Slice(skips, func(i, j int) bool { return skips[i].name < skips[j].name })
	return passes, fails, skips
}

// goTest runs go test and shows a line a package, and the whole of what a failed
// test printed.
func goTest(ctx context.Context, e *env, environ []string, args ...string) result {
	cmd := e.command(ctx, ".", "go", append([]string{"test", "-json"}, args...)...)
	cmd.Env = append(cmd.Env, environ...)
	cmd.Stdout = nil
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		return fail("%v", err)
	}
	if err := cmd.Start(); err != nil {
		return fail("%v", err)
	}
	count, readErr := readEvents(pipe, e.out, e.tests)
	err = cmd.Wait()
	switch {
	case readErr != nil:
		return fail("reading go test -json: %v", readErr)
	case count.failed > 0 || count.broken > 0:
		return fail("%s", count)
	case err != nil:
		return fail("go test: %v", err)
	case count.passed == 0:
		return fail("no test ran")
	}
	return pass(count.String())
}

// tally counts the tests of one run, subtests included.
type tally struct{ passed, failed, skipped, broken int }

func (t tally) String() string {
	s := fmt.Sprintf("%d tests passed, %d failed, %d skipped", t.passed, t.failed, t.skipped)
	if t.broken > 0 {
		s += fmt.Sprintf(", %d packages broken", t.broken)
	}
	return s
}

// readEvents follows one run to its end.
func readEvents(r io.Reader, w io.Writer, l *ledger) (tally, error) {
	var t tally
	text := map[string]*strings.Builder{} // what each test, or package, printed
	failedIn := map[string]int{}          // tests per package
	lines := bufio.NewReader(r)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			var ev event
			if json.Unmarshal(line, &ev) != nil {
				// Not from test2json: the go command itself has something to say.
				fmt.Fprintf(w, "%s", line)
			} else {
				t.take(ev, w, l, text, failedIn)
			}
		}
		if err == io.EOF {
			return t, nil
		}
		if err != nil {
			return t, err
		}
	}
}

func (t *tally) take(ev event, w io.Writer, l *ledger, text map[string]*strings.Builder, failedIn map[string]int) {
	name := ev.Package
	if ev.Test != "" {
		name += "." + ev.Test
	}
	printed := func() string {
		b := text[name]
		delete(text, name)
		if b == nil {
			return ""
		}
		return b.String()
	}
	switch ev.Action {
	case "output":
		if text[name] == nil {
			text[name] = &strings.Builder{}
		}
		text[name].WriteString(ev.Output)
	case "build-output":
		fmt.Fprint(w, ev.Output)
	case "pass":
		out := printed()
		if ev.Test != "" {
			t.passed++
			l.ran[name]++
			if l.keep {
				l.said = append(l.said, logged(ev.Test, out)...)
			}
			return
		}
		fmt.Fprintf(w, "ok    %-60s %6.1f s\n", shortPackage(ev.Package), ev.Elapsed)
		_ = out // a package that passed needs no words
	case "fail":
		out := printed()
		if ev.Test != "" {
			t.failed++
			l.failed[name]++
			failedIn[ev.Package]++
			fmt.Fprint(w, out)
			return
		}
		fmt.Fprintf(w, "FAIL  %-60s %6.1f s\n", shortPackage(ev.Package), ev.Elapsed)
		if failedIn[ev.Package] == 0 {
			// It did not build, or died outside a test: a panic, os.Exit, a time-out.
			t.broken++
			fmt.Fprint(w, out)
			for n, b := range text {
				if strings.HasPrefix(n, ev.Package+".") {
					fmt.Fprint(w, b.String())
				}
			}
		}
	case "skip":
		out := printed()
		if ev.Test != "" { // else a package without tests
			t.skipped++
			l.skip[name] = reason(out)
		}
	}
}

// logged are the lines that a test printed about itself.
func logged(test, out string) (lines []string) {
	for _, line := range strings.Split(out, "\n") {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			lines = append(lines, test+": "+line)
		}
	}
	return lines
}

// reason is the last line that a skipped test printed about itself.
func reason(out string) string {
	why := "no reason given"
	for _, line := range strings.Split(out, "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "=== ") || strings.HasPrefix(line, "--- SKIP") {
			continue
		}
		why = line
	}
	return why
}

// shortPackage drops the module's path.
func shortPackage(path string) string {
	const module = "github.com/runnel-fota/runnel"
	short := strings.TrimPrefix(strings.TrimPrefix(path, module), "/")
	if short == "" {
		return path
	}
	return short
}
