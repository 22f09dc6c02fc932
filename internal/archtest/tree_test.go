package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"strconv"
	"strings"
)

const module = "github.com/runnel-fota/runnel"

// tree is the source that the rules look at. Paths are relative, with slashes.
type tree struct {
	fset  *token.FileSet
	files []*goFile         // every Go file, in order of path
	texts map[string]string // every file that is text
}

type goFile struct {
	path string
	dir  string // of path
	test bool
	main bool // package main
	ast  *ast.File
}

// textSuffixes are the files that are read; others may be images or firmware.
var textSuffixes = []string{".go", ".md", ".sh", ".mod", ".txt", ".txtar", ".json", ".yaml", ".yml", ".sql", ".html", ".css", ".js", ".ld", ".csv", "Makefile", ".ci/run"}

// loadTree reads a tree. Folders that begin with a dot (but .ci) are not part of
// it, nor is the testdata of this package, which breaks every rule on purpose.
func loadTree(fsys fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}}
	err := fs.WalkDir(fsys, ".", func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			hidden := strings.HasPrefix(d.Name(), ".") && p != "." && p != ".ci"
			if hidden || p == "internal/archtest/testdata" || p == "bin" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || !hasSuffix(p, textSuffixes) {
			return nil
		}
		text, err := fs.ReadFile(fsys, p)
		if err != nil {
			return err
		}
		t.texts[p] = string(text)
		if !strings.HasSuffix(p, ".go") || strings.Contains(p, "testdata/") {
			return nil
		}
		f, err := parser.ParseFile(t.fset, p, text, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		t.files = append(t.files, &goFile{
			path: p,
			dir:  path.Dir(p),
			test: strings.HasSuffix(p, "_test.go"),
			main: f.Name.Name == "main",
			ast:  f,
		})
		return nil
	})
	return t, err
}

func hasSuffix(s string, suffixes []string) bool {
	for _, x := range suffixes {
		if strings.HasSuffix(s, x) {
			return true
		}
	}
	return false
}

// violation is one place where a rule is broken.
type violation struct {
	path string
	line int
	msg  string
}

func (t *tree) at(n ast.Node, msg string) violation {
	p := t.fset.Position(n.Pos())
	return violation{p.Filename, p.Line, msg}
}

// within says whether p is dir or below it.
func within(p, dir string) bool {
	return p == dir || strings.HasPrefix(p, dir+"/")
}

// device is code that runs on the chip: core without tests and test helpers.
func (f *goFile) device() bool {
	return within(f.dir, "core") && !f.test && !strings.HasSuffix(f.dir, "test")
}

// imported is one import: its path, and the folder where it is ours.
type imported struct {
	spec *ast.ImportSpec
	path string
	ours string // folder of the package, "" if it is not ours
}

func (f *goFile) imports() []imported {
	var list []imported
	for _, s := range f.ast.Imports {
		p, err := strconv.Unquote(s.Path.Value)
		if err != nil {
			continue // the parser has refused it already
		}
		ours := ""
		if within(p, module) {
			ours = strings.TrimPrefix(strings.TrimPrefix(p, module), "/")
		}
		list = append(list, imported{s, p, ours})
	}
	return list
}

var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// name is how the file calls an imported package, "" if it does not import it.
func (f *goFile) name(importPath string) string {
	for _, i := range f.imports() {
		if i.path != importPath {
			continue
		}
		if i.spec.Name != nil {
			return i.spec.Name.Name
		}
		if base := path.Base(importPath); !majorVersion.MatchString(base) {
			return base
		}
		return path.Base(path.Dir(importPath))
	}
	return ""
}

// selections calls visit for each pkg.Name in the file, where pkg is an import.
func (f *goFile) selections(importPath string, visit func(sel *ast.SelectorExpr)) {
	name := f.name(importPath)
	if name == "" {
		return
	}
	ast.Inspect(f.ast, func(n ast.Node) bool {
		if sel, ok := n.(*ast.SelectorExpr); ok {
			if x, ok := sel.X.(*ast.Ident); ok && x.Name == name {
				visit(sel)
			}
		}
		return true
	})
}
