package archtest

import (
	"fmt"
	"go/ast"
	"go/build"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io/fs"
	"os"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// TestCheckProgramsReachCore wants every exported function and method of every
// core package to be used by the package's program under tools/tinygo/check:
// what no program reaches is not linked, and an allocation in it is not seen.
// Files with the build constraint "!tinygo" are for hosts, and exempt.
func TestCheckProgramsReachCore(t *testing.T) {
	root := testenv.Root()
	l := &loader{
		root: root,
		fset: token.NewFileSet(),
		pkgs: map[string]*types.Package{},
		uses: map[types.Object]bool{},
	}
	l.std = importer.ForCompiler(l.fset, "source", nil)
	dirs := goFolders(t, filepath.Join(root, "core"))
	if len(dirs) == 0 {
		t.Fatal("no core package found")
	}
	reached, missed := 0, 0
	for _, dir := range dirs {
		if strings.HasSuffix(dir, "test") { // a helper of tests
			continue
		}
		core, err := l.Import(module + "/core/" + dir)
		if err != nil {
			t.Errorf("core/%s: %v", dir, err)
			continue
		}
		program := "tools/tinygo/check/" + dir
		if _, err := os.Stat(filepath.Join(root, filepath.FromSlash(program))); err != nil {
			t.Errorf("core/%s has no program %s", dir, program)
			continue
		}
		clear(l.uses)
		if _, err := l.load(program); err != nil {
			t.Errorf("%s: %v", program, err)
			continue
		}
		for _, f := range exportedFuncs(core) {
			if l.uses[f] {
				reached++
				continue
			}
			missed++
			t.Errorf("%s does not use %s", program, f.FullName())
		}
	}
	if reached == 0 && missed == 0 {
		t.Error("core exports nothing: the test looks at the wrong folder")
	}
	t.Logf("%d exported functions and methods are reached", reached)
}

// loader type-checks packages of the repository from source, without a build
// and without TinyGo.
type loader struct {
	root string
	fset *token.FileSet
	std  types.Importer
	pkgs map[string]*types.Package
	uses map[types.Object]bool // what the programs loaded last refer to
}

// Import is types.Importer.
func (l *loader) Import(path string) (*types.Package, error) {
	rel, ours := strings.CutPrefix(path, module+"/")
	if !ours {
		return l.std.Import(path)
	}
	if p := l.pkgs[path]; p != nil {
		return p, nil
	}
	p, err := l.load(rel)
	if err == nil {
		l.pkgs[path] = p
	}
	return p, err
}

// load type-checks the files that a device would be built from. Programs see
// the plain Go face of the board package: TinyGo's own packages are not here.
func (l *loader) load(rel string) (*types.Package, error) {
	ctx := build.Default
	ctx.CgoEnabled = false
	if within(rel, "core") {
		ctx.BuildTags = []string{"tinygo"}
	}
	dir := filepath.Join(l.root, filepath.FromSlash(rel))
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var files []*ast.File
	for _, e := range entries {
		name := e.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		match, err := ctx.MatchFile(dir, name)
		if err != nil {
			return nil, err
		}
		if !match {
			continue
		}
		f, err := parser.ParseFile(l.fset, filepath.Join(dir, name), nil, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("no Go file for a device in %s", rel)
	}
	info := &types.Info{Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: l, Sizes: types.SizesFor("gc", "arm")}
	p, err := conf.Check(module+"/"+rel, l.fset, files, info)
	if !within(rel, "core") {
		for _, o := range info.Uses {
			l.uses[o] = true
		}
	}
	return p, err
}

// exportedFuncs lists the exported functions of a package and the exported
// methods of its exported types.
func exportedFuncs(p *types.Package) []*types.Func {
	var list []*types.Func
	for _, name := range p.Scope().Names() {
		o := p.Scope().Lookup(name)
		if !o.Exported() {
			continue
		}
		switch o := o.(type) {
		case *types.Func:
			list = append(list, o)
		case *types.TypeName:
			named, ok := o.Type().(*types.Named)
			if !ok || types.IsInterface(named) {
				continue
			}
			for m := range named.Methods() {
				if m.Exported() {
					list = append(list, m)
				}
			}
		}
	}
	return list
}

// goFolders lists the folders below base with a Go file that is not a test.
func goFolders(t *testing.T, base string) []string {
	t.Helper()
	seen := map[string]bool{}
	err := filepath.WalkDir(base, func(path string, d fs.DirEntry, err error) error {
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
			seen[filepath.ToSlash(rel)] = true
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	list := make([]string, 0, len(seen))
	for d := range seen {
		list = append(list, d)
	}
	sort.Strings(list)
	return list
}
