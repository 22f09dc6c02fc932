package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// fuzzTarget is one FuzzXxx function.
type fuzzTarget struct {
	dir  string // relative to the root, with slashes
	name string
}

var fuzzFunc = regexp.MustCompile(`(?m)^func (Fuzz[A-Z_0-9]\w*)\(\w+ \*testing\.F\)`)

// findFuzz lists the targets of the whole tree, by folder and name.
func findFuzz(root string) ([]fuzzTarget, error) {
	var targets []fuzzTarget
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && path != root && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		for _, m := range fuzzFunc.FindAllSubmatch(text, -1) {
			targets = append(targets, fuzzTarget{filepath.ToSlash(rel), string(m[1])})
		}
		return nil
	})
	return targets, err
}

func stepFuzz(ctx context.Context, e *env) result {
	targets, err := findFuzz(e.root)
	if err != nil {
		return fail("%v", err)
	}
	if len(targets) == 0 {
		return fail("no fuzz target in the tree")
	}
	if e.fuzzSeconds <= 0 {
		return e.missing("the seeds of %d targets ran with the tests; new inputs need --fuzz-seconds N", len(targets))
	}
	cache, err := cacheDir()
	if err != nil {
		return fail("%v", err)
	}
	scratch, err := os.MkdirTemp("", "devtest")
	if err != nil {
		return fail("%v", err)
	}
	defer os.RemoveAll(scratch)

	each := time.Duration(e.fuzzSeconds) * time.Second / time.Duration(len(targets))
	binaries := map[string]string{} // one build a folder, not one a target
	var broken []string
	for _, t := range targets {
		bin := binaries[t.dir]
		if bin == "" {
			bin = filepath.Join(scratch, exe(fmt.Sprintf("fuzz%d", len(binaries))))
			binaries[t.dir] = bin
			// With -fuzz the compiler adds the coverage counters that guide the search.
			build := e.command(ctx, ".", "go", "test", "-c", "-vet=off", "-fuzz=Fuzz", "-o", bin, "./"+t.dir)
			if err := build.Run(); err != nil {
				return fail("building the fuzz targets of %s: %v", t.dir, err)
			}
		}
		if !fuzzOne(ctx, e, t, bin, filepath.Join(cache, "fuzz", filepath.FromSlash(t.dir)), each) {
			broken = append(broken, t.dir+"."+t.name)
		}
	}
	if len(broken) > 0 {
		return fail("%s", strings.Join(broken, ", "))
	}
	return pass(fmt.Sprintf("%d targets, %.1f s each", len(targets), each.Seconds()))
}

// fuzzOne runs one target for the given time. Inputs found interesting are kept
// in corpus for the next time; one that fails the target goes into its package's
// testdata/fuzz, to be committed with the mend.
func fuzzOne(ctx context.Context, e *env, t fuzzTarget, bin, corpus string, d time.Duration) bool {
	if err := os.MkdirAll(corpus, 0o755); err != nil {
		fmt.Fprintln(e.out, err)
		return false
	}
	// Up to Go 1.26 a search whose time is up may report that itself as a failure
	// (golang/go#75804, a race in the coordinator): such an end, with no input
	// named, is tried again.
	const tries = 3
	for try := 1; ; try++ {
		var out bytes.Buffer
		cmd := e.command(ctx, filepath.FromSlash(t.dir), bin, "-test.run=^$", "-test.fuzz=^"+t.name+"$",
			"-test.fuzztime="+d.String(), "-test.fuzzcachedir="+corpus, "-test.fuzzminimizetime=5s")
		cmd.Stdout, cmd.Stderr = &out, &out
		err := cmd.Run()
		text := out.String()
		if err == nil {
			fmt.Fprintf(e.out, "ok    %-60s %s\n", t.dir+"."+t.name, executions(text))
			return true
		}
		if try < tries && strings.Contains(text, "context deadline exceeded") && !strings.Contains(text, "Failing input") {
			continue
		}
		fmt.Fprintf(e.out, "FAIL  %s: %v\n%s", t.dir+"."+t.name, err, tail(text, 60))
		e.showFound(t)
		return false
	}
}

var fuzzLine = regexp.MustCompile(`execs: (\d+) .*new interesting: (\d+)`)

// executions is how much one search did, from its last line of progress.
func executions(text string) string {
	all := fuzzLine.FindAllStringSubmatch(text, -1)
	if len(all) == 0 {
		return ""
	}
	last := all[len(all)-1]
	return fmt.Sprintf("%s runs, %s new inputs", last[1], last[2])
}

// showFound prints the inputs on which a target failed: a CI machine is gone
// when somebody wants them.
func (e *env) showFound(t fuzzTarget) {
	dir := filepath.Join(e.root, filepath.FromSlash(t.dir), "testdata", "fuzz", t.name)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return // no input was written: the target failed otherwise
	}
	for _, entry := range entries {
		text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
		if err != nil {
			fmt.Fprintln(e.out, err)
			continue
		}
		const most = 4096
		if len(text) > most {
			text = text[:most]
		}
		fmt.Fprintf(e.out, "%s:\n%s\n", entry.Name(), text)
	}
}
