package archtest

import (
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"path"
	"regexp"
	"sort"
	"strconv"
	"strings"
)

// maxLines of a Go file: one topic each, and a reader's patience.
const maxLines = 700

func checkLength(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if n := strings.Count(t.texts[f.path], "\n"); n > maxLines {
			found = append(found, violation{f.path, n, fmt.Sprintf("%d lines, more than %d: split it by topic", n, maxLines)})
		}
	}
	return found
}

// checkPackageComment: what it is for, and its limits.
func checkPackageComment(t *tree) []violation {
	first := map[string]*goFile{}
	has := map[string]bool{}
	for _, f := range t.files {
		if f.test {
			continue
		}
		if first[f.dir] == nil {
			first[f.dir] = f
		}
		if f.ast.Doc != nil {
			has[f.dir] = true
		}
	}
	var found []violation
	for dir, f := range first {
		if !has[dir] {
			found = append(found, t.at(f.ast.Name, "package "+f.ast.Name.Name+" has no package comment: say what it is for and what it must never do"))
		}
	}
	return found
}

// checkTests: tests do not wait for time, are repeatable, and stay on this machine.
func checkTests(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if !f.test && !strings.HasSuffix(f.dir, "test") {
			continue
		}
		f.selections("time", func(sel *ast.SelectorExpr) {
			if sel.Sel.Name == "Sleep" {
				found = append(found, t.at(sel, "tests do not sleep: wait for the event, or use testing/synctest"))
			}
		})
		for _, pkg := range []string{"math/rand", "math/rand/v2"} {
			f.selections(pkg, func(sel *ast.SelectorExpr) {
				if sel.Sel.IsExported() && !strings.HasPrefix(sel.Sel.Name, "New") && !seedable[sel.Sel.Name] {
					found = append(found, t.at(sel, "tests take random numbers from a seed that they print: rand.New(rand.NewPCG(seed, 0))"))
				}
			})
		}
		ast.Inspect(f.ast, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) < 2 {
				return true
			}
			sel, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || (sel.Sel.Name != "Listen" && sel.Sel.Name != "ListenPacket") {
				return true
			}
			lit, ok := call.Args[len(call.Args)-1].(*ast.BasicLit)
			if !ok || lit.Kind != token.STRING {
				return true
			}
			addr, err := strconv.Unquote(lit.Value)
			if err == nil && strings.Contains(addr, ":") && addr != "127.0.0.1:0" && addr != "[::1]:0" {
				found = append(found, t.at(lit, "tests listen on 127.0.0.1:0: the system chooses the port"))
			}
			return true
		})
	}
	return found
}

// seedable are the exported names of math/rand that are no draws from its global source.
var seedable = map[string]bool{"Rand": true, "Source": true, "Source64": true, "PCG": true, "ChaCha8": true, "Zipf": true}

// checkExit: only a program ends the process, so that its clean-up runs.
func checkExit(t *tree) []violation {
	var found []violation
	for _, f := range t.files {
		if f.main || f.test {
			continue
		}
		f.selections("os", func(sel *ast.SelectorExpr) {
			if sel.Sel.Name == "Exit" {
				found = append(found, t.at(sel, "only package main calls os.Exit: return an error"))
			}
		})
	}
	return found
}

var (
	// A home folder, a build folder: a path of the machine that somebody works on.
	machinePath = regexp.MustCompile(`(^|[^\w.~-])/(home|root|Users|work|farm)/[a-z.]`)
	openEnd     = regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`)
)

// checkTexts: what no file may hold, line by line.
func checkTexts(t *tree) []violation {
	var found []violation
	for _, p := range t.paths() {
		for i, line := range strings.Split(t.texts[p], "\n") {
			if machinePath.MatchString(line) {
				found = append(found, violation{p, i + 1, "path of somebody's machine: make it relative, or a variable"})
			}
			if openEnd.MatchString(line) && hasSuffix(p, []string{".go", ".md", ".sh", "Makefile", ".ci/run"}) {
				found = append(found, violation{p, i + 1, "an open end: finish it, or describe it as a limit"})
			}
		}
	}
	return found
}

func (t *tree) paths() []string {
	list := make([]string, 0, len(t.texts))
	for p := range t.texts {
		list = append(list, p)
	}
	sort.Strings(list)
	return list
}

var (
	mdLink   = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	codeSpan = regexp.MustCompile("`[^`]*`")
)

// checkLinks returns a rule that wants relative links in documents to lead somewhere.
func checkLinks(fsys fs.FS) func(t *tree) []violation {
	return func(t *tree) []violation {
		var found []violation
		for _, p := range t.paths() {
			if !strings.HasSuffix(p, ".md") {
				continue
			}
			fenced := false
			for i, line := range strings.Split(t.texts[p], "\n") {
				if strings.HasPrefix(strings.TrimSpace(line), "```") {
					fenced = !fenced
				}
				if fenced {
					continue
				}
				for _, m := range mdLink.FindAllStringSubmatch(codeSpan.ReplaceAllString(line, ""), -1) {
					link, _, _ := strings.Cut(m[1], "#")
					if link == "" || strings.Contains(link, ":") {
						continue
					}
					if _, err := fs.Stat(fsys, path.Join(path.Dir(p), link)); err != nil {
						found = append(found, violation{p, i + 1, "link to " + m[1] + " leads nowhere"})
					}
				}
			}
		}
		return found
	}
}

var (
	// A line of go.mod with a direct requirement: it has no comment "indirect".
	requirement = regexp.MustCompile(`^(?:require |\t)([\w.-]+\.[\w-]+/\S+) v\S+$`)
)

const librariesADR = "docs/adr/0001-libraries.md"

// checkDependencies: every direct dependency has a reason in the ADR.
func checkDependencies(t *tree) []violation {
	var found []violation
	for i, line := range strings.Split(t.texts["go.mod"], "\n") {
		m := requirement.FindStringSubmatch(line)
		if m != nil && m[1] == module+"/core" {
			continue // ours, by a replace
		}
		if m != nil && !strings.Contains(t.texts[librariesADR], "`"+m[1]+"`") {
			found = append(found, violation{"go.mod", i + 1, m[1] + " has no row in " + librariesADR + ": say why, or do without"})
		}
	}
	return found
}
