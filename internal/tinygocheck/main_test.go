package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestWantRefusal(t *testing.T) {
	for _, c := range []struct {
		name string
		in   error
		ok   bool
	}{
		{"linked", nil, false},
		{"refused for an allocation", errors.New("main.go:10: linker could not find symbol runtime.alloc"), true},
		{"broken for another reason", errors.New("main.go:3: undefined: x"), false},
	} {
		if err := wantRefusal(c.in); (err == nil) != c.ok {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
}

func TestParseSize(t *testing.T) {
	s, err := parseSize("   code    data     bss |   flash     ram\n   2852      16    8248 |    2868    8264\n")
	if err != nil || s != (size{2868, 8264}) {
		t.Errorf("got %v, %v", s, err)
	}
	if _, err := parseSize("no such thing"); err == nil {
		t.Error("text without sizes was taken")
	}
}

func TestListProgramsWantsOnePerPackage(t *testing.T) {
	root := t.TempDir()
	write := func(path string) {
		t.Helper()
		path = filepath.Join(root, filepath.FromSlash(path))
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("package x\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("core/flash/flash.go")
	write("core/flash/flashtest/suite.go")
	write("core/wire/v1/v1.go")
	write("tools/tinygo/check/board/board.go")
	write("tools/tinygo/check/flash/main.go")
	if _, _, _, err := listPrograms(root); err == nil || !strings.Contains(err.Error(), "refuse") {
		t.Errorf("without a program to refuse: %v", err)
	}
	write("tools/tinygo/check/refuse/make/main.go")
	if _, _, missing, err := listPrograms(root); err != nil || len(missing) != 1 || missing[0] != "core/wire/v1" {
		t.Errorf("core/wire/v1 has no program: got %v, %v", missing, err)
	}
	write("tools/tinygo/check/wire/v1/main.go")
	write("tools/tinygo/check/measure/wire/main.go") // is run, not linked for its size
	programs, refused, missing, err := listPrograms(root)
	if err != nil || len(programs) != 2 || len(refused) != 1 || len(missing) != 0 {
		t.Errorf("got %v, %v, %v, %v", programs, refused, missing, err)
	}
}

func TestSizesKeepWhatWasNotBuilt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "sizes.txt")
	old := map[string]size{"flash nrf51": {1000, 2000}, "boot nrf51": {10, 20}}
	jobs := []*job{
		{program: "boot", target: "nrf51", size: size{11, 21}},
		{program: "refuse/make", target: "nrf51", refuse: true},
	}
	if err := writeSizes(path, jobs, old); err != nil {
		t.Fatal(err)
	}
	got, err := readSizes(path)
	if err != nil || len(got) != 2 || got["flash nrf51"] != (size{1000, 2000}) || got["boot nrf51"] != (size{11, 21}) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestGrowthIsSeen(t *testing.T) {
	committed := map[string]size{"a nrf51": {1000, 100}, "b nrf51": {1000, 100}, "c nrf51": {1000, 100}}
	jobs := []*job{
		{program: "a", target: "nrf51", size: size{1084, 100}},
		{program: "b", target: "nrf51", size: size{1085, 100}},
		{program: "c", target: "nrf51", size: size{1000, 101}},
		{program: "d", target: "nrf51", err: errors.New("no")},
	}
	failed, grown := printJobs(&strings.Builder{}, jobs, committed)
	if failed != 1 || strings.Join(grown, ",") != "b nrf51,c nrf51" {
		t.Errorf("failed %d, grown %v", failed, grown)
	}
}

// What is there has tests for the chip, or a reason why not.
func TestEveryPackageIsAccountedFor(t *testing.T) {
	root, err := findRoot()
	if err != nil {
		t.Fatal(err)
	}
	suites, err := findSuites(root)
	if err != nil || len(suites) < 10 {
		t.Fatalf("%d packages, %v", len(suites), err)
	}
	reasons, err := readHostOnly(hostOnly(root))
	if err != nil {
		t.Fatal(err)
	}
	if err := account(suites, reasons); err != nil {
		t.Error(err)
	}
}

func TestAccount(t *testing.T) {
	with, without := suite{pkg: "a", inChip: []string{"TestX"}}, suite{pkg: "a", onHost: []string{"TestX"}}
	for _, c := range []struct {
		name    string
		suites  []suite
		reasons map[string]string
		want    string
	}{
		{"tests for the chip", []suite{with}, nil, ""},
		{"a reason", []suite{without}, map[string]string{"a": "it has"}, ""},
		{"neither", []suite{without}, nil, "core/a has no test"},
		{"both", []suite{with}, map[string]string{"a": "it had"}, "take it out"},
		{"a reason for nothing", nil, map[string]string{"b": "it was"}, "core/b, which is not there"},
	} {
		err := account(c.suites, c.reasons)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestFindTestsKnowsTheChipsFiles(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"a_test.go": "package a\n\nfunc TestA(t *testing.T) {}\nfunc (x) TestNo() {}\nfunc Testing() {}\nfunc TestMain(m *testing.M) {}\nfunc FuzzA(f *testing.F) {}\n",
		"b_test.go": "//go:build !tinygo\n\npackage a\n\nfunc TestB(t *testing.T) {}\n",
		"c_test.go": "//go:build !tinygo || semihosting\n\npackage a\n\nfunc TestC(t *testing.T) {}\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	s, err := findTests(filepath.Dir(dir), filepath.Base(dir))
	if err != nil || strings.Join(s.inChip, " ") != "TestA TestC" || strings.Join(s.onHost, " ") != "TestB" {
		t.Errorf("in the chip %v, on hosts %v, %v", s.inChip, s.onHost, err)
	}
}

// A run counts only if each test that the files declare has passed.
func TestJudge(t *testing.T) {
	for _, c := range []struct {
		name, said string
		ended      error
		want       string
	}{
		{"all", "--- PASS: TestA (0.00s)\n    --- PASS: TestB/x (0.00s)\n--- PASS: TestB (1.00s)\nPASS\n", nil, ""},
		{"nothing", "PASS\n", nil, "passed: ;"},
		{"one is missing", "--- PASS: TestA (0.00s)\nPASS\n", nil, "passed: TestA;"},
		{"only a subtest", "--- PASS: TestA (0.00s)\n    --- PASS: TestB/x (0.00s)\nPASS\n", nil, "passed: TestA;"},
		{"one failed", "--- PASS: TestA (0.00s)\n    why\n--- FAIL: TestB (0.00s)\n", nil, "failed: TestB\nwhy"},
		{"the program died", "--- PASS: TestA (0.00s)\npanic: gone\n", errors.New("exit status 1"), "panic: gone"},
		{"it died at its end", "--- PASS: TestA (0.00s)\n--- PASS: TestB (0.00s)\n", errors.New("exit status 1"), "exit status 1"},
	} {
		r := chipRun{suite: suite{pkg: "a", inChip: []string{"TestB", "TestA"}}, said: c.said}
		r.passed, r.failed = outcomes(c.said)
		err := r.judge(c.ended)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
