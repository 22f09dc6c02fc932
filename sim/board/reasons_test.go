package board

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/testenv"
)

// TestReasonsPage: numbers on the wire are for ever, and people look them up.
func TestReasonsPage(t *testing.T) {
	page, err := os.ReadFile(filepath.Join(testenv.Root(), "docs", "api", "reasons.md"))
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for r := device.Reason(1); r.String() != device.Reason(255).String(); r++ {
		n++
		if !strings.Contains(string(page), fmt.Sprintf("\n| %d | %s |\n", r, r)) {
			t.Errorf("reason %d is not on the page as %q", r, r)
		}
	}
	if rows := strings.Count(string(page), "\n| ") - 1; rows != n || n < 40 {
		t.Errorf("%d reasons, %d rows", n, rows)
	}
}
