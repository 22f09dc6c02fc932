package archtest

import (
	"go/ast"
	"path"
	"slices"
	"strings"
)

// adapters are the packages that connect the domain to something outside. They
// know the domain and never each other; cmd wires them.
var adapters = []string{"internal/adminapi", "internal/blob", "internal/bridge", "internal/client", "internal/devicehttp", "internal/store", "internal/term", "internal/web", "internal/wire"}

// domain may import this of ours at most.
var domain = map[string][]string{
	"internal/fleet":   {"core/manifest"},
	"internal/delta":   {"core", "release"},
	"internal/derive":  {"internal/fleet", "core", "release", "internal/delta"},
	"internal/ingest":  {"internal/fleet", "core", "release", "internal/derive"},
	"internal/rollout": {"internal/fleet", "core"},
	// Signing works on a machine without a server.
	"release": {"core"},
}

// checkLayers: architecture rule 2.
func checkLayers(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test {
			continue
		}
		for _, i := range f.imports() {
			if i.ours == "" {
				continue
			}
			if msg := layerBroken(f.dir, i.ours); msg != "" {
				found = append(found, t.at(i.spec, msg))
			}
		}
	}
	return found
}

func layerBroken(from, to string) string {
	for dir, allowed := range domain {
		if !within(from, dir) || within(to, dir) {
			continue
		}
		if !slices.ContainsFunc(allowed, func(a string) bool { return within(to, a) }) {
			return dir + " may not import " + to + ": it knows only " + strings.Join(allowed, ", ") + "; declare an interface where it is used"
		}
	}
	if within(to, "cmd") {
		return from + " may not import " + to + ": cmd wires, nothing uses it"
	}
	in := func(p string) string {
		for _, a := range adapters {
			if within(p, a) {
				return a
			}
		}
		return ""
	}
	a, b := in(from), in(to)
	if a != "" && b != "" && a != b {
		return a + " may not import " + b + ": adapters know the domain and never each other; let cmd wire them"
	}
	return ""
}

// checkSim: architecture rule 3.
func checkSim(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test || within(f.dir, "sim") || within(f.dir, "cmd") || within(f.dir, "bench") {
			continue
		}
		for _, i := range f.imports() {
			if within(i.ours, "sim") {
				found = append(found, t.at(i.spec, "only cmd, sim and tests may import "+i.ours))
			}
		}
	}
	return found
}

// checkFirmware: what is in a chip is core, firmware, and what TinyGo gives. (What
// allocates, the linker refuses.)
func checkFirmware(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test || !within(f.dir, "firmware") {
			continue
		}
		for _, i := range f.imports() {
			switch {
			case within(i.ours, "core"), within(i.ours, "firmware"), i.ours == "" && mayReach(i.path):
			case i.ours != "":
				found = append(found, t.at(i.spec, "firmware may not import "+i.ours+": what a chip runs is in core and firmware"))
			default:
				found = append(found, t.at(i.spec, "firmware may not import "+i.path+": only core, firmware, what core may, and what registers are reached with"))
			}
		}
	}
	return found
}

// chipStd is what firmware reaches registers with.
var chipStd = map[string]bool{"unsafe": true, "device/arm": true, "runtime/volatile": true}

func mayReach(path string) bool {
	_, ok := coreStd[path]
	return ok || chipStd[path]
}

// checkTestHelpers: what is for tests stays out of the program.
func checkTestHelpers(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test || strings.HasSuffix(f.dir, "test") || strings.HasSuffix(f.dir, "testenv") {
			continue
		}
		for _, i := range f.imports() {
			base := path.Base(i.ours)
			if i.ours == "internal/testenv" || (i.ours != "" && base != "devtest" && base != "archtest" && strings.HasSuffix(base, "test")) {
				found = append(found, t.at(i.spec, "only tests may import "+i.ours))
			}
			if i.path == "testing" {
				found = append(found, t.at(i.spec, "only tests and test helpers (packages named ...test) may import testing"))
			}
		}
	}
	return found
}

// checkImports: packages that nobody may import, with what to use.
func checkImports(t *tree) []violation {
	banned := map[string]string{
		"C":                                   "no cgo: the program is one static binary for every platform",
		"log":                                 "use log/slog, with attributes",
		"io/ioutil":                           "use io and os",
		"github.com/pkg/errors":               "use errors and fmt.Errorf with %w",
		"github.com/stretchr/testify/assert":  "use plain comparisons: the message says what was wrong",
		"github.com/stretchr/testify/require": "use plain comparisons: the message says what was wrong",
	}
	var found []violation
	for _, f := range t.files {
		for _, i := range f.imports() {
			if why, ok := banned[i.path]; ok {
				found = append(found, t.at(i.spec, "import of "+i.path+": "+why))
			}
		}
	}
	return found
}

// checkResponseWriter: architecture rule 6. A wrapper hides io.ReaderFrom, and
// with it sendfile, from http.ServeContent.
func checkResponseWriter(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test {
			continue
		}
		name := f.name("net/http")
		if name == "" {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			s, ok := n.(*ast.StructType)
			if !ok {
				return true
			}
			for _, field := range s.Fields.List {
				sel, ok := field.Type.(*ast.SelectorExpr)
				if !ok || len(field.Names) > 0 {
					continue
				}
				if x, ok := sel.X.(*ast.Ident); ok && x.Name == name && sel.Sel.Name == "ResponseWriter" {
					found = append(found, t.at(field, "nothing wraps the ResponseWriter: files would no longer go out by sendfile; log and count in the handler"))
				}
			}
			return true
		})
	}
	return found
}

// maxMethods of an interface: architecture rule 5.
const maxMethods = 6

// checkInterfaces: a larger one is several roles, or gives its reason in a
// comment that contains "methods because".
func checkInterfaces(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.test {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			g, ok := n.(*ast.GenDecl)
			if !ok {
				return true
			}
			for _, s := range g.Specs {
				spec, ok := s.(*ast.TypeSpec)
				if !ok {
					continue
				}
				i, ok := spec.Type.(*ast.InterfaceType)
				if !ok || i.Methods.NumFields() <= maxMethods {
					continue
				}
				if strings.Contains(spec.Doc.Text()+g.Doc.Text(), "methods because") {
					continue
				}
				found = append(found, t.at(spec, "an interface has six methods at most: split it by who uses it, or say 'methods because ...' in its comment"))
			}
			return true
		})
	}
	return found
}
