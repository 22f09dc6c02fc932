// Command tinygocheck links every core package for two emulated microcontrollers
// with -gc=none, where the linker refuses any reachable allocation, and prints
// what each takes of flash and RAM.
//
// A package that is only imported is not linked, so each has a program under
// tools/tinygo/check that reaches its exported API (internal/archtest checks that
// it does). The programs under check/refuse allocate, one way each: that the
// linker refuses them is what shows that the check can fail. Those under
// check/measure are run on QEMU with -measure: they count instructions and stack.
// With -test it runs core's own tests on QEMU, compiled by TinyGo.
//
// It needs what tools/tinygo/setup.sh needs; docs/design/tinygo.md says why.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"sort"
	"strings"
	"sync"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	code := run(ctx, os.Args[1:])
	stop()
	os.Exit(code)
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("tinygocheck", flag.ContinueOnError)
	only := flags.String("run", "", "build only the programs whose name matches this regular expression")
	strict := flags.Bool("strict", false, "fail where a size grew past the committed one by more than the tolerance")
	update := flags.Bool("update", false, "write the sizes to the committed file")
	measured := flags.Bool("measure", false, "run the programs under check/measure on QEMU, and print what they say")
	tested := flags.Bool("test", false, "run core's tests inside an emulated chip")
	chip := flags.String("chip", "m0", "with -test: whose instructions they are compiled to: m0, m3, or m0,m3")
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, flag.ErrHelp) {
			return 0
		}
		return 2
	}
	match, err := regexp.Compile(*only)
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: -run: %v\n", err)
		return 2
	}
	switch {
	case *measured:
		err = measure(ctx, match)
	case *tested:
		err = testInChip(ctx, os.Stdout, match, strings.Split(*chip, ","))
	default:
		err = check(ctx, match, *strict, *update)
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	return 0
}

// job is one program for one target.
type job struct {
	program string // folder under tools/tinygo/check, with slashes
	target  string
	refuse  bool // the linker must refuse it
	size    size
	err     error
}

func check(ctx context.Context, match *regexp.Regexp, strict, update bool) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	programs, refused, missing, err := listPrograms(root)
	if err != nil {
		return err
	}
	tc, err := setup(ctx, root)
	if err != nil {
		return err
	}
	defer tc.close()

	var jobs []*job
	for _, p := range programs {
		for _, t := range targets {
			if match.MatchString(p) {
				jobs = append(jobs, &job{program: p, target: t})
			}
		}
	}
	for _, p := range refused {
		if match.MatchString(p) {
			jobs = append(jobs, &job{program: p, target: targets[0], refuse: true})
		}
	}
	if len(jobs) == 0 {
		return fmt.Errorf("no program matches %q", match)
	}
	buildAll(ctx, tc, jobs)

	committed, err := readSizes(sizesFile(root))
	if err != nil {
		return err
	}
	failed, grown := printJobs(os.Stdout, jobs, committed)
	if len(missing) > 0 {
		return fmt.Errorf("no program under tools/tinygo/check for %s", strings.Join(missing, ", "))
	}
	if failed > 0 {
		return fmt.Errorf("%d of %d builds are not as they must be", failed, len(jobs))
	}
	if update {
		return writeSizes(sizesFile(root), jobs, committed)
	}
	if strict && len(grown) > 0 {
		return fmt.Errorf("grew past the committed size: %s; 'make size-update' accepts it", strings.Join(grown, ", "))
	}
	return nil
}

// buildAll runs two builds at a time: TinyGo's are single-threaded for the most part.
func buildAll(ctx context.Context, tc *toolchain, jobs []*job) {
	const parallel = 2
	queue := make(chan *job)
	var wg sync.WaitGroup
	for range parallel {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for j := range queue {
				j.size, j.err = tc.build(ctx, j.program, j.target)
				if j.refuse {
					j.err = wantRefusal(j.err)
				}
			}
		}()
	}
	for _, j := range jobs {
		queue <- j
	}
	close(queue)
	wg.Wait()
}

// wantRefusal turns a build's result round: only the linker's refusal of an
// allocation is a pass; another failure proves nothing.
func wantRefusal(err error) error {
	switch {
	case err == nil:
		return errors.New("linked, though it allocates: the check is blind")
	case !strings.Contains(err.Error(), "linker could not find symbol runtime.alloc"):
		return fmt.Errorf("failed, but not because it allocates: %w", err)
	}
	return nil
}

// findRoot is the folder of the go.mod above the working directory that has core/.
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
			return "", errors.New("run it inside the repository")
		}
		dir = parent
	}
}

// listPrograms lists the programs to link, those to be refused, and the core
// packages that have none.
func listPrograms(root string) (programs, refused, missing []string, err error) {
	base := filepath.Join(root, "tools", "tinygo", "check")
	all, err := foldersWithGo(base)
	if err != nil {
		return nil, nil, nil, err
	}
	for _, p := range all {
		switch {
		case p == "board" || strings.HasPrefix(p, "board/") || strings.HasPrefix(p, "measure/"):
		case strings.HasPrefix(p, "refuse/"):
			refused = append(refused, p)
		default:
			programs = append(programs, p)
		}
	}
	if len(refused) == 0 {
		return nil, nil, nil, errors.New("no program under tools/tinygo/check/refuse: nothing shows that the check can fail")
	}
	have := map[string]bool{}
	for _, p := range programs {
		have[p] = true
	}
	core, err := foldersWithGo(filepath.Join(root, "core"))
	if err != nil {
		return nil, nil, nil, err
	}
	for _, p := range core {
		if !helper(p) && !have[p] {
			missing = append(missing, "core/"+p)
		}
	}
	return programs, refused, missing, nil
}

// helper says whether a core package is for tests: those may use the standard
// library.
func helper(p string) bool { return strings.HasSuffix(p, "test") }

// foldersWithGo lists the folders below base that hold a Go file which is not a
// test, relative and with slashes.
func foldersWithGo(base string) ([]string, error) {
	found := map[string]bool{}
	err := filepath.WalkDir(base, func(path string, d os.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() == "testdata" {
			return filepath.SkipDir
		}
		if !d.IsDir() && strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			rel, err := filepath.Rel(base, filepath.Dir(path))
			if err != nil {
				return err
			}
			found[filepath.ToSlash(rel)] = true
		}
		return nil
	})
	list := make([]string, 0, len(found))
	for p := range found {
		list = append(list, p)
	}
	sort.Strings(list)
	return list, err
}
