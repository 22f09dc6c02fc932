package main

import (
	"errors"
	"fmt"
	"go/ast"
	"go/build"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"unicode"
	"unicode/utf8"
)

// chipTags are the build tags of tools/tinygo/targets/mps2-*.json and TinyGo's own,
// as far as files of tests ask for them.
var chipTags = []string{"tinygo", "baremetal", "cortexm", "semihosting"}

// suite is the tests of one core package.
type suite struct {
	pkg    string   // folder below core
	inChip []string // top-level tests that are compiled for the chip
	onHost []string // those in files that are for hosts only
}

// findSuites lists core's packages with their tests, by name.
func findSuites(root string) ([]suite, error) {
	core := filepath.Join(root, "core")
	folders, err := foldersWithGo(core)
	if err != nil {
		return nil, err
	}
	list := make([]suite, 0, len(folders))
	for _, p := range folders {
		s, err := findTests(core, p)
		if err != nil {
			return nil, err
		}
		list = append(list, s)
	}
	return list, nil
}

func findTests(core, pkg string) (suite, error) {
	s := suite{pkg: pkg}
	dir := filepath.Join(core, filepath.FromSlash(pkg))
	files, err := filepath.Glob(filepath.Join(dir, "*_test.go"))
	if err != nil {
		return s, err
	}
	chip := build.Default
	chip.GOOS, chip.GOARCH, chip.CgoEnabled, chip.BuildTags = "linux", "arm", false, chipTags
	for _, f := range files {
		match, err := chip.MatchFile(dir, filepath.Base(f))
		if err != nil {
			return s, err
		}
		file, err := parser.ParseFile(token.NewFileSet(), f, nil, parser.SkipObjectResolution)
		if err != nil {
			return s, err
		}
		for _, d := range file.Decls {
			fn, ok := d.(*ast.FuncDecl)
			switch {
			case !ok || fn.Recv != nil || !isTest(fn.Name.Name):
			case match:
				s.inChip = append(s.inChip, fn.Name.Name)
			default:
				s.onHost = append(s.onHost, fn.Name.Name)
			}
		}
	}
	return s, nil
}

// isTest is go test's rule: TestMain is none, nor is Testing.
func isTest(name string) bool {
	rest, ok := strings.CutPrefix(name, "Test")
	first, _ := utf8.DecodeRuneInString(rest)
	return ok && name != "TestMain" && (rest == "" || !unicode.IsLower(first))
}

// hostOnly is the file with the core packages that run no test inside the chip:
// "package: reason" a line.
func hostOnly(root string) string { return filepath.Join(root, "tools", "tinygo", "hostonly.txt") }

// readHostOnly reads it; none is no such package.
func readHostOnly(path string) (map[string]string, error) {
	reasons := map[string]string{}
	text, err := os.ReadFile(path)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			return reasons, nil
		}
		return nil, err
	}
	for _, line := range strings.Split(string(text), "\n") {
		if line == "" || line[0] == '#' {
			continue
		}
		pkg, why, _ := strings.Cut(line, ": ")
		if strings.TrimSpace(why) == "" {
			return nil, fmt.Errorf("%s: line %q gives no reason", path, line)
		}
		reasons[pkg] = why
	}
	return reasons, nil
}

// account says what is wrong between the packages and the file of those without:
// each has tests for the chip, or a reason there, and not both.
func account(suites []suite, reasons map[string]string) error {
	var wrong []string
	left := map[string]bool{}
	for pkg := range reasons {
		left[pkg] = true
	}
	for _, s := range suites {
		switch {
		case len(s.inChip) == 0 && reasons[s.pkg] == "":
			wrong = append(wrong, "core/"+s.pkg+" has no test that runs inside the chip: write one, or give the reason in tools/tinygo/hostonly.txt")
		case len(s.inChip) > 0 && reasons[s.pkg] != "":
			wrong = append(wrong, "core/"+s.pkg+" has tests for the chip: take it out of tools/tinygo/hostonly.txt")
		}
		delete(left, s.pkg)
	}
	for pkg := range left {
		wrong = append(wrong, "tools/tinygo/hostonly.txt names core/"+pkg+", which is not there")
	}
	sort.Strings(wrong)
	if len(wrong) > 0 {
		return errors.New(strings.Join(wrong, "\n"))
	}
	return nil
}
