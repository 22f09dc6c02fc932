package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"time"
)

// measureTarget is the chip that the measuring programs run on: QEMU's microbit
// faults where a program leaves the 16 KiB of RAM, at the end of its stack too.
const measureTarget = "nrf51"

// measureTime is far more than a program needs; one that hangs is ended.
const measureTime = 2 * time.Minute

// measure builds the programs under check/measure, and runs them.
func measure(ctx context.Context, match *regexp.Regexp) error {
	root, err := findRoot()
	if err != nil {
		return err
	}
	base := filepath.Join(root, "tools", "tinygo", "check", "measure")
	programs, err := foldersWithGo(base)
	if err != nil {
		return err
	}
	qemu, err := exec.LookPath("qemu-system-arm")
	if err != nil {
		return errors.New("qemu-system-arm is not installed; Debian 12: apt-get install qemu-system-arm")
	}
	tc, err := setup(ctx, root)
	if err != nil {
		return err
	}
	defer tc.close()
	ran := 0
	for _, p := range programs {
		if !match.MatchString(p) {
			continue
		}
		ran++
		program := "measure/" + p
		if _, err := tc.build(ctx, program, measureTarget); err != nil {
			return err
		}
		text, err := emulate(ctx, qemu, tc.elf(program, measureTarget))
		fmt.Printf("%s on a Cortex-M0\n%s", p, indent(text))
		if err != nil {
			return fmt.Errorf("%s: %w", program, err)
		}
	}
	if ran == 0 {
		return fmt.Errorf("no program under %s matches %q", base, match)
	}
	return nil
}

// emulate runs a program to its end. With -icount each instruction takes 2^10 ns
// of the emulated time: what the program's timer counts is instructions.
func emulate(ctx context.Context, qemu, elf string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, measureTime)
	defer cancel()
	cmd := exec.CommandContext(ctx, qemu, "-machine", "microbit", "-display", "none", "-monitor", "none", "-serial", "none",
		"-semihosting", "-icount", "shift=10,align=off,sleep=off", "-kernel", elf)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	return out.String(), err
}

func indent(text string) string {
	if text == "" {
		return ""
	}
	return "  " + strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  ") + "\n"
}
