// Command size weighs the firmware: what each package takes of flash and RAM, how deep
// the stack goes in an update inside the emulated chip, and how long the longest Step
// is. It holds that against firmware/budget.json, writes firmware/size.json, and fails
// where something is over its budget.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"sort"
	"time"

	"github.com/runnel-fota/runnel/sim/qemu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context) error {
	root, err := os.Getwd()
	if err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(root, "firmware", "go.mod")); err != nil {
		return fmt.Errorf("run it in the repository's root: %w", err)
	}
	budgets, err := readBudgets(filepath.Join(root, "firmware", "budget.json"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, 20*time.Minute)
	defer cancel()
	builder, err := qemu.NewBuilder(ctx, root)
	if err != nil {
		return err
	}
	var all []program
	for _, weigh := range programs {
		p, err := weigh(ctx, builder)
		if err != nil {
			return err
		}
		all = append(all, p...)
	}
	if err := write(filepath.Join(root, "firmware", "size.json"), all); err != nil {
		return err
	}
	return report(os.Stdout, all, budgets)
}

// programs weighs the boards, one after the other.
var programs = []func(context.Context, *qemu.Builder) ([]program, error){microbit, netduino}

// program is one that was weighed. Bytes, but for Step.
type program struct {
	Board    string       `json:"board"`
	Program  string       `json:"program"`
	Packages []qemu.Share `json:"packages"`
	Text     int          `json:"text"` // code and constants
	Data     int          `json:"data"` // RAM that begins with a value, which lies in flash too
	BSS      int          `json:"bss"`  // RAM that begins as zero, without the stack
	Updater  int          `json:"updater"`
	// Stack is its high-water mark in an update; 0: not run. Step is the longest, in instructions.
	Stack int  `json:"stack"`
	Step  Step `json:"longest_step"`
}

// Step is one of the updater's, and the phase that it is in.
type Step struct {
	Instructions int    `json:"instructions"`
	Phase        string `json:"phase"`
}

// ram is what the program takes of RAM, stack included.
func (p *program) ram() int { return p.Data + p.BSS + p.Stack }

// flash is what it takes of flash.
func (p *program) flash() int { return p.Text + p.Data }

// budget is what a program may take at most; 0: not bounded.
type budget struct {
	Board   string `json:"board"`
	Program string `json:"program"`
	Flash   int    `json:"flash"`
	Updater int    `json:"updater"`
	RAM     int    `json:"ram"`
	Stack   int    `json:"stack"`
	Step    int    `json:"longest_step"`
}

func readBudgets(path string) ([]budget, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var b []budget
	if err := json.Unmarshal(text, &b); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return b, nil
}

func write(path string, all []program) error {
	text, err := json.MarshalIndent(all, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}

// report prints every program, and last of all each figure beside its budget.
func report(w *os.File, all []program, budgets []budget) error {
	for _, p := range all {
		fmt.Fprintf(w, "%s, %s\n", p.Board, p.Program)
		sort.SliceStable(p.Packages, func(i, j int) bool { return p.Packages[i].Text > p.Packages[j].Text })
		for _, s := range p.Packages {
			fmt.Fprintf(w, "  %-46s %7d text %6d data %6d bss\n", s.Package, s.Text, s.Data, s.BSS)
		}
	}
	fmt.Fprintf(w, "\n%-12s %-10s %16s %16s %14s %14s %18s\n", "board", "program", "flash", "of it updater", "RAM", "stack", "longest step")
	over := 0
	cell := func(width, got, most int) string {
		text := fmt.Sprintf("%d", got)
		if most > 0 {
			text += fmt.Sprintf("/%d", most)
			if got > most {
				text += "!"
				over++
			}
		}
		return fmt.Sprintf(" %*s", width, text)
	}
	for _, p := range all {
		b := budget{}
		for _, c := range budgets {
			if c.Board == p.Board && c.Program == p.Program {
				b = c
			}
		}
		if b.Board == "" {
			return fmt.Errorf("firmware/budget.json has no line for %s, %s", p.Board, p.Program)
		}
		fmt.Fprintf(w, "%-12s %-10s%s%s%s%s%s  %s\n", p.Board, p.Program, cell(16, p.flash(), b.Flash), cell(16, p.Updater, b.Updater),
			cell(14, p.ram(), b.RAM), cell(14, p.Stack, b.Stack), cell(18, p.Step.Instructions, b.Step), p.Step.Phase)
	}
	if over > 0 {
		return fmt.Errorf("%d figures are over their budget (firmware/budget.json)", over)
	}
	return nil
}
