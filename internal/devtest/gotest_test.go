package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const pkg = "github.com/runnel-fota/runnel/internal/x"

func lines(events ...string) string { return strings.Join(events, "\n") + "\n" }

func ev(action, test, output string) string {
	s := `{"Action":"` + action + `","Package":"` + pkg + `"`
	if test != "" {
		s += `,"Test":"` + test + `"`
	}
	if output != "" {
		s += `,"Output":"` + output + `"`
	}
	return s + "}"
}

func TestReadEvents(t *testing.T) {
	for _, c := range []struct {
		name   string
		in     string
		want   tally
		shown  []string
		hidden []string
	}{
		{
			"a pass is one line",
			lines(ev("run", "TestA", ""), ev("output", "TestA", `chatter\n`), ev("pass", "TestA", ""), ev("pass", "", "")),
			tally{passed: 1}, []string{"ok    internal/x"}, []string{"chatter"},
		},
		{
			"a failure shows what it printed",
			lines(ev("output", "TestA", `a.go:3: wrong\n`), ev("fail", "TestA", ""), ev("pass", "TestB", ""), ev("fail", "", "")),
			tally{passed: 1, failed: 1}, []string{"a.go:3: wrong", "FAIL  internal/x"}, nil,
		},
		{
			"a package that does not build",
			lines(`{"ImportPath":"`+pkg+`","Action":"build-output","Output":"x.go:1: undefined: y\n"}`,
				`{"ImportPath":"`+pkg+`","Action":"build-fail"}`, ev("output", "", `FAIL [build failed]\n`), ev("fail", "", "")),
			tally{broken: 1}, []string{"undefined: y", "build failed"}, nil,
		},
		{
			"a panic outside a test's end",
			lines(ev("output", "TestA", `panic: gone\n`), ev("fail", "", "")),
			tally{broken: 1}, []string{"panic: gone"}, nil,
		},
		{
			"a package without tests is not a skip",
			lines(ev("output", "", `?   no test files\n`), ev("skip", "", "")),
			tally{}, nil, nil,
		},
		{
			"what the go command says itself",
			"go: warning: something\n" + lines(ev("pass", "TestA", ""), ev("pass", "", "")),
			tally{passed: 1}, []string{"go: warning"}, nil,
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			var out bytes.Buffer
			got, err := readEvents(strings.NewReader(c.in), &out, newLedger())
			if err != nil || got != c.want {
				t.Errorf("got %+v, %v; want %+v", got, err, c.want)
			}
			for _, s := range c.shown {
				if !strings.Contains(out.String(), s) {
					t.Errorf("no %q in:\n%s", s, out.String())
				}
			}
			for _, s := range c.hidden {
				if strings.Contains(out.String(), s) {
					t.Errorf("%q in:\n%s", s, out.String())
				}
			}
		})
	}
}

func TestSkipReason(t *testing.T) {
	l := newLedger()
	in := lines(ev("output", "TestA", `=== RUN   TestA\n`), ev("output", "TestA", `    x.go:9: SKIPPED, NOT TESTED: no qemu\n`),
		ev("output", "TestA", `--- SKIP: TestA (0.00s)\n`), ev("skip", "TestA", ""), ev("pass", "", ""))
	got, err := readEvents(strings.NewReader(in), &bytes.Buffer{}, l)
	if err != nil || got.skipped != 1 {
		t.Fatalf("got %+v, %v", got, err)
	}
	_, _, skips := l.totals()
	if len(skips) != 1 || skips[0].name != pkg+".TestA" || skips[0].why != "x.go:9: SKIPPED, NOT TESTED: no qemu" {
		t.Errorf("got %v", skips)
	}
}

// What a test that passes logs is figures where somebody wants them.
func TestFiguresAreKept(t *testing.T) {
	in := lines(ev("run", "TestA", ""), ev("output", "TestA", `=== RUN   TestA\n`), ev("output", "TestA", `    a_test.go:9: 20 cuts\n`),
		ev("output", "TestA", `--- PASS: TestA (0.00s)\n`), ev("pass", "TestA", ""), ev("pass", "", ""))
	for _, keep := range []bool{false, true} {
		l := newLedger()
		l.keep = keep
		if _, err := readEvents(strings.NewReader(in), &bytes.Buffer{}, l); err != nil {
			t.Fatal(err)
		}
		if got := strings.Join(l.said, "|"); keep && got != "TestA: a_test.go:9: 20 cuts" || !keep && got != "" {
			t.Errorf("kept %v: %q", keep, got)
		}
	}
}

// The packages that have a step of their own are there, and in no other.
func TestPackagesApart(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	all := []string{"github.com/runnel-fota/runnel/core/boot", "github.com/runnel-fota/runnel/sim/qemuother"}
	apart := slices.Concat(emulated, postgresPackages)
	for _, p := range apart {
		if tests, err := filepath.Glob(filepath.Join(root, p, "*_test.go")); err != nil || len(tests) == 0 {
			t.Errorf("%s has no tests: %v", p, err)
		}
		all = append(all, "github.com/runnel-fota/runnel/"+p)
	}
	if got := without(all, apart); len(got) != 2 {
		t.Errorf("left: %v", got)
	}
}

// What the race detector leaves out is what is meant, and is there.
func TestRaceless(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	const module = "github.com/runnel-fota/runnel/"
	for p, want := range map[string]bool{"core": true, "core/boot": true, "sim/nor": true, "sim/board": false, "internal/bridge": false, "sim/crash": false} {
		if got := raceless.MatchString(module + p); got != want {
			t.Errorf("%s: %v", p, got)
		}
	}
	names := strings.Split(strings.Trim(racelessTests, "^$()"), "|")
	files, err := filepath.Glob(filepath.Join(root, "sim", "*", "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	for _, n := range names {
		if !strings.Contains(all.String(), "func "+n+"(") {
			t.Errorf("there is no test %s", n)
		}
	}
}
