// Package testenv finds what some tests need from outside the repository: real
// firmware, the shared vectors, other programs. On a user's machine such a test
// skips and says what is missing; with CI=true it fails instead, so that a test
// that silently never runs can't pass for one that does.
package testenv

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"
)

// Root is the repository's root folder.
func Root() string {
	_, file, _, _ := runtime.Caller(0)
	return filepath.Dir(filepath.Dir(filepath.Dir(file)))
}

// Shared is the path of a file or folder of the shared material: $RUNNEL_SHARED,
// or the folder "shared" beside the repository.
func Shared(t testing.TB, elem ...string) string {
	t.Helper()
	base := os.Getenv("RUNNEL_SHARED")
	if base == "" {
		base = filepath.Join(filepath.Dir(Root()), "shared")
	}
	path := filepath.Join(append([]string{base}, elem...)...)
	if _, err := os.Stat(path); err != nil {
		missing(t, "shared material "+filepath.Join(elem...)+" not found; set RUNNEL_SHARED to its folder")
	}
	return path
}

// Tool is the path of an outside program.
func Tool(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "program "+name+" not found on PATH")
	}
	return path
}

// Missing skips a test for want of something, and fails it in CI.
func Missing(t testing.TB, what string) {
	t.Helper()
	missing(t, what)
}

func missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("required in CI: %s", what)
	}
	t.Skipf("SKIPPED, NOT TESTED: %s", what)
}

// VersityGW is the path of the S3-compatible server that 'make test-s3' builds and
// names in the environment.
func VersityGW(t testing.TB) string {
	t.Helper()
	path := os.Getenv("RUNNEL_VERSITYGW")
	if path == "" {
		missing(t, "no S3-compatible server: 'make test-s3' gets one, and runs this test")
	}
	return path
}
