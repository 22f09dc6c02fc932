package archtest

import (
	"go/ast"
	"go/token"
	"regexp"
	"slices"
	"strings"
)

// coreStd is all that device code may import of the standard library. The rest
// allocates under TinyGo, or drags in what does (docs/design/tinygo.md).
var coreStd = map[string]string{
	"errors":          "",
	"encoding/binary": "LittleEndian BigEndian ByteOrder",
	"math/bits":       "",
	"crypto/sha256":   "Sum256 Size BlockSize",
}

// coreInstead names what to use for what is often reached for.
var coreInstead = map[string]string{
	"fmt":             "a type Error uint8 with its text by switch",
	"strings":         "loops over bytes of the caller's buffer",
	"bytes":           "loops over the caller's buffer",
	"strconv":         "a loop over decimal digits",
	"encoding/json":   "the reader of core/wire/v1",
	"encoding/base64": "the decoder of core/wire/v1",
	"encoding/hex":    "a loop over hex digits",
	"hash/crc32":      "core/digest",
	"crypto/hmac":     "core/digest",
	"crypto/subtle":   "core/digest",
	"time":            "milliseconds that the port gives",
	"sync":            "nothing: core has no concurrency",
	"unsafe":          "nothing: core has no unsafe code",
}

// coreLayers says what each core package may import of core. Downward only; the
// port of a chip (esp32) is imported by no other package of core.
var coreLayers = map[string][]string{
	"core/cbor":        {},
	"core/digest":      {},
	"core/flash":       {},
	"core/boot":        {"digest", "flash"},
	"core/esp32":       {"boot", "digest", "flash"},
	"core/ed25519":     {"digest"},
	"core/manifest":    {"cbor", "digest"},
	"core/stream":      {"digest", "flash"},
	"core/patch":       {"digest", "flash"},
	"core/state":       {"boot", "digest", "flash"},
	"core/factory":     {"digest"},
	"core/wire/v1":     {"digest"},
	"core/wire/native": {"cbor", "digest"},
	"core/wire/serial": {"digest"},
	"core/device":      {"boot", "digest", "flash", "manifest", "patch", "state", "stream", "wire/native", "wire/v1"},
}

// checkCoreImports: architecture rule 1 and 4.
func checkCoreImports(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if !f.device() {
			continue
		}
		allowed, known := coreLayers[f.dir]
		if !known {
			found = append(found, t.at(f.ast.Name, f.dir+" has no place in the layers: give it one in internal/archtest, with an ADR"))
		}
		for _, i := range f.imports() {
			switch {
			case within(i.ours, "core"):
				if !slices.Contains(allowed, strings.TrimPrefix(i.ours, "core/")) {
					found = append(found, t.at(i.spec, f.dir+" may not import "+i.ours+": core imports downward only"))
				}
			case i.ours != "":
				found = append(found, t.at(i.spec, "core may not import "+i.ours+": what both sides need is in core"))
			default:
				found = append(found, t.checkCoreStd(f, i)...)
			}
		}
	}
	return found
}

func (t *tree) checkCoreStd(f *goFile, i imported) []violation {
	names, ok := coreStd[i.path]
	if !ok {
		msg := "core may not import " + i.path
		if instead := coreInstead[i.path]; instead != "" {
			msg += ": use " + instead
		}
		return []violation{t.at(i.spec, msg)}
	}
	var found []violation
	if names == "" {
		return nil
	}
	f.selections(i.path, func(sel *ast.SelectorExpr) {
		if !slices.Contains(strings.Fields(names), sel.Sel.Name) {
			found = append(found, t.at(sel, "core may use only "+names+" of "+i.path+": "+sel.Sel.Name+" allocates"))
		}
	})
	return found
}

// checkCoreLanguage: what always needs a heap or a scheduler. The linker finds
// the rest (make tinygo-check); this says it sooner and to people without TinyGo.
func checkCoreLanguage(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if !f.device() {
			continue
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.GoStmt:
				found = append(found, t.at(n, "core has no goroutines: do a bounded piece of work in Step"))
			case *ast.ChanType:
				found = append(found, t.at(n, "core has no channels: return what is needed next"))
			case *ast.SelectStmt:
				found = append(found, t.at(n, "core has no select: return what is needed next"))
			case *ast.MapType:
				found = append(found, t.at(n, "core has no maps: use an array or a switch"))
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && id.Name == "append" {
					found = append(found, t.at(n, "core does not append: copy into the caller's buffer"))
				}
			case *ast.BinaryExpr:
				if n.Op == token.ADD && (isText(n.X) != isText(n.Y)) {
					found = append(found, t.at(n, "core does not join strings: return constants"))
				}
			}
			return true
		})
	}
	return found
}

func isText(e ast.Expr) bool {
	lit, ok := e.(*ast.BasicLit)
	return ok && lit.Kind == token.STRING
}

var (
	goLine      = regexp.MustCompile(`(?m)^go (\S+)$`)
	requireLine = regexp.MustCompile(`(?m)^(require|replace|toolchain)\b`)
)

// checkCoreModules: TinyGo refuses a newer go line, and the device core has no dependencies.
func checkCoreModules(t *tree) []violation {
	var found []violation
	for _, p := range []string{"core/go.mod", "firmware/go.mod", "tools/tinygo/check/go.mod"} {
		text, ok := t.texts[p]
		if !ok {
			continue
		}
		if m := goLine.FindStringSubmatch(text); m == nil || (m[1] != "1.23" && !strings.HasPrefix(m[1], "1.23.")) {
			found = append(found, violation{p, 1, "must say go 1.23: TinyGo refuses a newer one"})
		}
		if p == "core/go.mod" && requireLine.MatchString(text) {
			found = append(found, violation{p, 1, "core has no dependencies, no replacements and no toolchain line"})
		}
	}
	return found
}

// parsers are the packages that read bytes from outside, whatever their functions are called.
var parsers = []string{"core/cbor", "core/esp32", "core/manifest", "core/patch", "core/state", "core/stream", "core/wire/v1", "core/wire/native", "core/wire/serial"}

// parserName are exported functions that read bytes from outside.
var parserName = regexp.MustCompile(`^(Parse|Decode|Unmarshal)`)

// checkFuzz: every parser has a fuzz target in its package.
func checkFuzz(t *tree) []violation {
	fuzzed := map[string]bool{}
	reads := map[string]violation{}
	for _, f := range t.files {
		if !f.test && slices.Contains(parsers, f.dir) {
			if _, ok := reads[f.dir]; !ok {
				reads[f.dir] = t.at(f.ast.Name, "")
			}
		}
		for _, d := range f.ast.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if f.test && strings.HasPrefix(fn.Name.Name, "Fuzz") {
				fuzzed[f.dir] = true
			}
			inScope := within(f.dir, "core") || within(f.dir, "internal/wire") || within(f.dir, "internal/ingest") || within(f.dir, "release")
			if !f.test && inScope && parserName.MatchString(fn.Name.Name) && takesBytes(fn) {
				reads[f.dir] = t.at(fn, "")
			}
		}
	}
	var found []violation
	for dir, v := range reads {
		if !fuzzed[dir] {
			v.msg = dir + " reads bytes from outside and has no fuzz target: add a FuzzXxx with seeds"
			found = append(found, v)
		}
	}
	return found
}

func takesBytes(fn *ast.FuncDecl) bool {
	for _, p := range fn.Type.Params.List {
		switch x := p.Type.(type) {
		case *ast.ArrayType:
			if id, ok := x.Elt.(*ast.Ident); ok && x.Len == nil && id.Name == "byte" {
				return true
			}
		case *ast.Ident:
			if x.Name == "string" {
				return true
			}
		case *ast.SelectorExpr:
			if x.Sel.Name == "Reader" {
				return true
			}
		}
	}
	return false
}
