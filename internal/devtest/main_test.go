package main

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestStepNamesAreUnique(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range steps {
		if seen[s.name] || s.what == "" || s.run == nil {
			t.Errorf("step %q is listed twice or incomplete", s.name)
		}
		seen[s.name] = true
	}
}

func TestWrongUsage(t *testing.T) {
	for _, args := range [][]string{{"-no-such-flag"}, {"word"}, {"-run", "("}, {"-run", "nosuchstep"}} {
		var out, errOut bytes.Buffer
		if code := run(context.Background(), args, &out, &errOut); code != 2 {
			t.Errorf("%v: exit status %d, not 2; %s", args, code, errOut.String())
		}
	}
}

func TestAbsenceIsFailureInCI(t *testing.T) {
	user, ci := &env{}, &env{ci: true}
	if r := user.missing("no %s", "gcc"); r.outcome != absent || r.note != "no gcc" {
		t.Errorf("user: %+v", r)
	}
	if r := ci.missing("no gcc"); r.outcome != failed {
		t.Errorf("CI: %+v", r)
	}
}

func TestSummaryCounts(t *testing.T) {
	for _, c := range []struct {
		name  string
		ci    bool
		fails int
		last  string
	}{
		{"user", false, 2, "4 passed, 2 failed, 2 skipped"},
		{"CI", true, 3, "4 passed, 3 failed, 1 skipped"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			l := newLedger()
			l.ran["a"], l.ran["b"] = 2, 1
			l.failed["c"] = 1
			l.skip["b"] = "too slow here" // it ran elsewhere
			l.skip["d"] = "no gcc"
			fails := summarize(&env{ci: c.ci, out: &out, tests: l}, []result{
				{name: "x", outcome: passed, took: time.Second},
				{name: "y", outcome: failed, note: "one\ntwo"},
				{name: "z", outcome: absent, note: "not here"},
			})
			text := out.String()
			lines := strings.Split(strings.TrimSpace(text), "\n")
			if fails != c.fails || lines[len(lines)-1] != c.last {
				t.Errorf("%d failures, closing line %q", fails, lines[len(lines)-1])
			}
			for _, want := range []string{"NOT RUN: z: not here", "  d\n    no gcc"} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in:\n%s", want, text)
				}
			}
			if strings.Contains(text, "too slow here") {
				t.Errorf("a test that ran is listed as skipped:\n%s", text)
			}
		})
	}
}

func TestFindFuzz(t *testing.T) {
	root := t.TempDir()
	write := func(path, text string) {
		t.Helper()
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("a/a_test.go", "package a\n\nfunc FuzzOne(f *testing.F) {}\n\nfunc FuzzTwo(fz *testing.F) {}\n\nfunc TestX(t *testing.T) {}\n")
	write("a/a.go", "package a\n\nfunc FuzzNot(f *testing.F) {}\n")
	write("a/testdata/b_test.go", "package b\n\nfunc FuzzNot(f *testing.F) {}\n")
	write(".hidden/b_test.go", "package b\n\nfunc FuzzNot(f *testing.F) {}\n")
	got, err := findFuzz(root)
	if err != nil || len(got) != 2 || got[0] != (fuzzTarget{"a", "FuzzOne"}) || got[1] != (fuzzTarget{"a", "FuzzTwo"}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestExecutions(t *testing.T) {
	text := "fuzz: elapsed: 0s, execs: 10 (1/sec), new interesting: 1 (total: 2)\n" +
		"fuzz: elapsed: 3s, execs: 9000 (300/sec), new interesting: 4 (total: 6)\nPASS\n"
	if got := executions(text); got != "9000 runs, 4 new inputs" {
		t.Errorf("got %q", got)
	}
}
