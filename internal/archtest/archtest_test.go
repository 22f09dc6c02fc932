package archtest

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/rogpeppe/go-internal/txtar"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// rules are the checks by name. testdata/NAME.txtar breaks each.
func rules(fsys fs.FS) map[string]func(*tree) []violation {
	return map[string]func(*tree) []violation{
		"core-imports":    checkCoreImports,
		"core-language":   checkCoreLanguage,
		"core-modules":    checkCoreModules,
		"dependencies":    checkDependencies,
		"exit":            checkExit,
		"firmware":        checkFirmware,
		"fuzz":            checkFuzz,
		"imports":         checkImports,
		"interfaces":      checkInterfaces,
		"layers":          checkLayers,
		"length":          checkLength,
		"links":           checkLinks(fsys),
		"package-comment": checkPackageComment,
		"response-writer": checkResponseWriter,
		"security-page":   checkSecurityPage,
		"sim":             checkSim,
		"test-helpers":    checkTestHelpers,
		"tests":           checkTests,
		"texts":           checkTexts,
	}
}

func TestRulesAreKept(t *testing.T) {
	fsys := os.DirFS(testenv.Root())
	tr, err := loadTree(fsys)
	if err != nil {
		t.Fatal(err)
	}
	if len(tr.files) < 20 {
		t.Fatalf("only %d Go files found: the rules look at the wrong folder", len(tr.files))
	}
	for name, check := range rules(fsys) {
		t.Run(name, func(t *testing.T) {
			for _, v := range sorted(check(tr)) {
				t.Errorf("%s:%d: %s", v.path, v.line, v.msg)
			}
		})
	}
}

// TestRulesFindWhatIsPlanted runs each rule on a tree that breaks it. The comment
// of the archive lists what must be found, and nothing else may be:
//
//	want PATH:LINE part of the message
func TestRulesFindWhatIsPlanted(t *testing.T) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	planted := map[string]bool{}
	for _, n := range names {
		planted[strings.TrimSuffix(filepath.Base(n), ".txtar")] = true
	}
	for name := range rules(nil) {
		if !planted[name] {
			t.Errorf("rule %s has no testdata/%s.txtar that breaks it", name, name)
		}
		delete(planted, name)
	}
	for name := range planted {
		t.Errorf("testdata/%s.txtar belongs to no rule", name)
	}
	for _, file := range names {
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		t.Run(name, func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			fsys := fstest.MapFS{}
			for _, f := range archive.Files {
				fsys[f.Name] = &fstest.MapFile{Data: f.Data}
			}
			tr, err := loadTree(fsys)
			if err != nil {
				t.Fatal(err)
			}
			check := rules(fsys)[name]
			if check == nil {
				t.Skip("belongs to no rule: reported above")
			}
			compare(t, string(archive.Comment), sorted(check(tr)))
		})
	}
}

func compare(t *testing.T, comment string, found []violation) {
	t.Helper()
	type want struct{ place, part string }
	var wants []want
	for _, line := range strings.Split(comment, "\n") {
		rest, ok := strings.CutPrefix(line, "want ")
		if !ok {
			continue
		}
		place, part, _ := strings.Cut(rest, " ")
		wants = append(wants, want{place, part})
	}
	if len(wants) == 0 {
		t.Fatal("nothing planted")
	}
	for _, w := range wants {
		hit := -1
		for i, v := range found {
			if fmt.Sprintf("%s:%d", v.path, v.line) == w.place && strings.Contains(v.msg, w.part) {
				hit = i
				break
			}
		}
		if hit < 0 {
			t.Errorf("not found: %s %s", w.place, w.part)
			continue
		}
		found = append(found[:hit], found[hit+1:]...)
	}
	for _, v := range found {
		t.Errorf("found but not planted: %s:%d: %s", v.path, v.line, v.msg)
	}
}

func sorted(list []violation) []violation {
	sort.Slice(list, func(i, j int) bool {
		a, b := list[i], list[j]
		if a.path != b.path {
			return a.path < b.path
		}
		return a.line < b.line
	})
	return list
}
