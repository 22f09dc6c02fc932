package archtest

import (
	"fmt"
	"go/ast"
	"regexp"
	"strings"
)

// securityPage names a test behind each of its claims.
const securityPage = "docs/security.md"

var testName = regexp.MustCompile(`\bTest[A-Z]\w*`)

// checkSecurityPage wants every test that the page names to be there, and a test in
// every row of its tables.
func checkSecurityPage(t *tree) []violation {
	tests := map[string]bool{}
	for _, f := range t.files {
		if !f.test {
			continue
		}
		for _, d := range f.ast.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil {
				tests[fn.Name.Name] = true
			}
		}
	}
	var found []violation
	rows := 0
	for i, line := range strings.Split(t.texts[securityPage], "\n") {
		names := testName.FindAllString(line, -1)
		for _, n := range names {
			if !tests[n] {
				found = append(found, violation{securityPage, i + 1, fmt.Sprintf("there is no test %s: write it, or don't claim what it would show", n)})
			}
		}
		if !strings.HasPrefix(line, "| ") {
			rows = 0
			continue
		}
		// The first two rows of a table are its head and the line below it.
		if rows++; rows > 1 && len(names) == 0 {
			found = append(found, violation{securityPage, i + 1, "a row without a test: name the one that shows it"})
		}
	}
	return found
}
