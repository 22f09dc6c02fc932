package main

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

// targets are the files of tools/tinygo/targets without .json: a Cortex-M0 with
// 16 KiB of RAM, the smallest device that core must fit, and a Cortex-M3.
var targets = []string{"nrf51", "lm3s6965"}

// toolchain is TinyGo as tools/tinygo/setup.sh left it, with target files whose
// paths are those of this machine.
type toolchain struct {
	dir     string // of setup.sh
	check   string // the module with the programs
	scratch string // target files and ELF files; removed by close
}

// setup runs setup.sh, which builds the tool chain at first use.
func setup(ctx context.Context, root string) (*toolchain, error) {
	script := filepath.Join(root, "tools", "tinygo", "setup.sh")
	cmd := exec.CommandContext(ctx, "bash", script)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("tools/tinygo/setup.sh: %w", err)
	}
	scratch, err := os.MkdirTemp("", "tinygocheck")
	if err != nil {
		return nil, err
	}
	tc := &toolchain{
		dir:     strings.TrimSpace(string(out)),
		check:   filepath.Join(root, "tools", "tinygo", "check"),
		scratch: scratch,
	}
	folder := filepath.Join(root, "tools", "tinygo", "targets")
	for _, t := range targets {
		text, err := os.ReadFile(filepath.Join(folder, t+".json"))
		if err != nil {
			tc.close()
			return nil, err
		}
		text = bytes.ReplaceAll(text, []byte("@TOOLCHAIN@"), jsonText(tc.dir))
		text = bytes.ReplaceAll(text, []byte("@TARGETS@"), jsonText(folder))
		if err := os.WriteFile(filepath.Join(scratch, t+".json"), text, 0o600); err != nil {
			tc.close()
			return nil, err
		}
	}
	return tc, nil
}

func (tc *toolchain) close() {
	// Only files of this run are in it; what can't be removed is left to the system.
	_ = os.RemoveAll(tc.scratch)
}

// jsonText is s as it stands between the quotes of a JSON string.
func jsonText(s string) []byte {
	quoted, err := json.Marshal(s)
	if err != nil {
		panic(err) // a string always marshals
	}
	return quoted[1 : len(quoted)-1]
}

// elf is where build puts a program.
func (tc *toolchain) elf(program, target string) string {
	return filepath.Join(tc.scratch, strings.ReplaceAll(program, "/", "-")+"-"+target+".elf")
}

// build links one program. The error holds what TinyGo said.
func (tc *toolchain) build(ctx context.Context, program, target string) (size, error) {
	cmd := exec.CommandContext(ctx, filepath.Join(tc.dir, "bin", "tinygo"), "build",
		"-target="+filepath.Join(tc.scratch, target+".json"),
		"-gc=none", "-scheduler=none", "-panic=trap", "-opt=z", "-size=short",
		"-o", tc.elf(program, target), "./"+program)
	cmd.Dir = tc.check
	cmd.Env = append(os.Environ(),
		"TINYGOROOT="+filepath.Join(tc.dir, "root"),
		"GOTOOLCHAIN=go1.23.12", "GOWORK=off", "GOFLAGS=-mod=readonly", "GO111MODULE=on")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return size{}, fmt.Errorf("%w\n%s", err, bytes.TrimSpace(stderr.Bytes()))
	}
	return parseSize(string(out))
}
