// Package tinygo builds programs for microcontrollers with the TinyGo that
// tools/tinygo/setup.sh leaves in the user's cache folder (docs/design/tinygo.md).
package tinygo

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// Programs are what setup.sh can't do without.
var Programs = []string{"bash", "gcc", "clang-19", "ld.lld-19", "arm-none-eabi-gcc"}

// Toolchain is TinyGo with its runtime and libraries.
type Toolchain struct{ dir string }

// Setup runs setup.sh, which builds the tool chain at first use and says so on
// stderr. root is the repository's.
func Setup(ctx context.Context, root string) (*Toolchain, error) {
	cmd := exec.CommandContext(ctx, "bash", filepath.Join(root, "tools", "tinygo", "setup.sh"))
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tools/tinygo/setup.sh: %w", err)
	}
	return &Toolchain{dir: strings.TrimSpace(string(out))}, nil
}

// Stamp changes with the tool chain.
func (tc *Toolchain) Stamp() string { return filepath.Base(tc.dir) }

// Build is one program to build.
type Build struct {
	Module  string // its module's folder
	Package string // in the module, such as ./boot
	// Target is a target file with words between @ to be replaced: TOOLCHAIN is known,
	// Words has the others.
	Target string
	Words  map[string]string
	Tags   []string
	Output string // ELF file to write
	Size   string // "short" or "full": the table that is returned
}

// Build links a program without a heap and returns TinyGo's table of sizes. The
// error holds what TinyGo said.
func (tc *Toolchain) Build(ctx context.Context, b Build) (sizes string, err error) {
	target, err := tc.target(b)
	if err != nil {
		return "", err
	}
	defer os.Remove(target)
	args := []string{"build", "-target=" + target, "-gc=none", "-scheduler=none", "-panic=trap", "-opt=z",
		"-size=" + b.Size, "-o", b.Output}
	if len(b.Tags) > 0 {
		args = append(args, "-tags", strings.Join(b.Tags, " "))
	}
	cmd := tc.command(ctx, b.Module, append(args, b.Package)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w\n%s", b.Package, err, bytes.TrimSpace(stderr.Bytes()))
	}
	return string(out), nil
}

// BuildTests links a package's tests, and says their names and ends as they run. They
// have a heap, which the target names; all else is as firmware has it.
func (tc *Toolchain) BuildTests(ctx context.Context, b Build) error {
	target, err := tc.target(b)
	if err != nil {
		return err
	}
	defer os.Remove(target)
	cmd := tc.command(ctx, b.Module, "test", "-c", "-v", "-short", "-target="+target, "-opt=z", "-o", b.Output, b.Package)
	var said bytes.Buffer
	cmd.Stdout, cmd.Stderr = &said, &said
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w\n%s", b.Package, err, bytes.TrimSpace(said.Bytes()))
	}
	return nil
}

func (tc *Toolchain) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, filepath.Join(tc.dir, "bin", "tinygo"), args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TINYGOROOT="+filepath.Join(tc.dir, "root"),
		"GOTOOLCHAIN=go1.23.12", "GOWORK=off", "GOFLAGS=-mod=readonly", "GO111MODULE=on")
	return cmd
}

// target writes the target file with its words replaced beside the output.
func (tc *Toolchain) target(b Build) (path string, err error) {
	text, err := os.ReadFile(b.Target)
	if err != nil {
		return "", err
	}
	replace := func(word, by string) {
		text = bytes.ReplaceAll(text, []byte("@"+word+"@"), jsonText(by))
	}
	replace("TOOLCHAIN", tc.dir)
	for word, by := range b.Words {
		replace(word, by)
	}
	path = b.Output + ".target.json"
	return path, os.WriteFile(path, text, 0o600)
}

// FromRoot is path as TinyGo wants the names of extra files: from its own root.
func (tc *Toolchain) FromRoot(path string) (string, error) {
	root, err := filepath.EvalSymlinks(filepath.Join(tc.dir, "root"))
	if err != nil {
		return "", err
	}
	if path, err = filepath.EvalSymlinks(path); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, path)
	return filepath.ToSlash(rel), err
}

// jsonText is s as it stands between the quotes of a JSON string.
func jsonText(s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return quoted[1 : len(quoted)-1]
}
