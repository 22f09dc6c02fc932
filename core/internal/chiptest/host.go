//go:build !tinygo

package chiptest

import (
	"os"
	"testing"
)

// Read reads a file; a path counts from the folder of the package under test.
func Read(t testing.TB, path string) []byte {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// Allocs is how often f allocates, the mean of some runs.
func Allocs(runs int, f func()) float64 { return testing.AllocsPerRun(runs, f) }
