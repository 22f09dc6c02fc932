package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
)

// example is what an author reads to port the updater.
const example = "firmware/examples/minimal"

// exampleLines bounds it, start.s included: lines that are neither blank, nor a comment
// alone, nor imports.
const exampleLines = 150

// What a port implements.
var ported = []struct{ file, name string }{
	{"core/flash/flash.go", "Device"},
	{"core/device/device.go", "Port"},
	{"core/wire/serial/client.go", "Port"},
	{"firmware/agent/agent.go", "Chip"},
}

// TestExampleIsSmallAndWhole: docs/porting.md says so.
func TestExampleIsSmallAndWhole(t *testing.T) {
	root := testenv.Root()
	read := func(path string) string {
		text, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(path)))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	program := read(example + "/main.go")
	lines := codeLines(program) + codeLines(read(example+"/start.s"))
	if lines >= exampleLines {
		t.Errorf("%s has %d lines, fewer than %d are promised", example, lines, exampleLines)
	}
	entries, err := os.ReadDir(filepath.Join(root, filepath.FromSlash(example)))
	if err != nil || len(entries) != 2 {
		t.Errorf("%s holds %d files, %v: main.go and start.s are counted", example, len(entries), err)
	}
	has := methodsOf(t, program, "chip")
	page, wanted := read("docs/porting.md"), 0
	for _, i := range ported {
		for _, m := range interfaceMethods(t, read(i.file), i.name) {
			wanted++
			if !has[m] {
				t.Errorf("%s: no method %s, which %s of %s has", example, m, i.name, i.file)
			}
			if !strings.Contains(page, "`"+m) {
				t.Errorf("docs/porting.md says nothing of %s, which %s of %s has", m, i.name, i.file)
			}
		}
	}
	if wanted < 12 {
		t.Errorf("only %d methods are wanted: the test looks at the wrong place", wanted)
	}
	t.Logf("%d lines, %d methods", lines, wanted)
}

func codeLines(text string) (n int) {
	imports := false
	for _, line := range strings.Split(text, "\n") {
		line = strings.TrimSpace(line)
		switch {
		case line == "import (":
			imports = true
		case imports:
			imports = line != ")"
		case line != "" && !strings.HasPrefix(line, "//"):
			n++
		}
	}
	return n
}

func parseText(t *testing.T, text string) *ast.File {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), "", text, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func methodsOf(t *testing.T, text, typ string) map[string]bool {
	has := map[string]bool{}
	for _, d := range parseText(t, text).Decls {
		if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv != nil && fmt.Sprint(fn.Recv.List[0].Type) == typ {
			has[fn.Name.Name] = true
		}
	}
	return has
}

func interfaceMethods(t *testing.T, text, typ string) (names []string) {
	ast.Inspect(parseText(t, text), func(n ast.Node) bool {
		spec, ok := n.(*ast.TypeSpec)
		if !ok || spec.Name.Name != typ {
			return true
		}
		if i, ok := spec.Type.(*ast.InterfaceType); ok {
			for _, m := range i.Methods.List {
				for _, name := range m.Names {
					names = append(names, name.Name)
				}
			}
		}
		return false
	})
	return names
}
