// Package rig is what the measurements in bench/ share: servers as processes of
// their own, fleets in data folders, nginx beside them, a load generator that costs
// little, and the form in which figures are printed. It runs on Linux, whose /proc
// it reads; nothing of it is in the program.
package rig

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"syscall"
)

const usage = `%[1]s

Usage: go run ./bench/%[2]s [flags]

Prints one JSON object; what it does goes to stderr. Exit status 0: measured, also
where a target was missed, which the object says; 1: not measured; 2: wrong usage.

  go run ./bench/%[2]s >%[2]s.json       a fleet that is not there yet is made first
  go run ./bench/%[2]s --quick           does it run here?

`

// Bench is one run of a measurement.
type Bench struct {
	Name   string
	Rounds int  // that take turns
	Quick  bool // seconds, to see that it works: its figures mean nothing
	Work   string
	log    *slog.Logger
	binary string
	ends   []func()
}

// Main runs a measurement, prints what it returns as one JSON object, and answers the
// exit status. More flags are defined before.
func Main(name, about string, measure func(context.Context, *Bench) (*Result, error)) int {
	b := &Bench{Name: name, log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	flag.IntVar(&b.Rounds, "rounds", 5, "rounds that take turns")
	flag.BoolVar(&b.Quick, "quick", false, "a small fleet and a second's work, to see that it runs; the figures mean nothing")
	flag.StringVar(&b.Work, "work", "", "`folder` for the program and the fleets, which are kept for the next run (default: in the user's cache folder)")
	flag.Usage = func() {
		fmt.Fprintf(flag.CommandLine.Output(), usage, about, name)
		flag.PrintDefaults()
	}
	flag.Parse()
	if flag.NArg() > 0 || b.Rounds < 1 {
		fmt.Fprintln(os.Stderr, "error: there are no arguments, and one round at least; see --help")
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := b.run(ctx, os.Stdout, measure)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		return 1
	}
	return 0
}

func (b *Bench) run(ctx context.Context, out io.Writer, measure func(context.Context, *Bench) (*Result, error)) (err error) {
	defer func() {
		for i := len(b.ends) - 1; i >= 0; i-- {
			b.ends[i]()
		}
	}()
	if _, err := os.Stat("/proc/self/status"); err != nil {
		return errors.New("this needs Linux: processor time and memory are read from /proc")
	}
	if b.Quick {
		b.Rounds = min(b.Rounds, 2)
	}
	if b.Work == "" {
		cache, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		b.Work = filepath.Join(cache, "runnel-bench")
	}
	if err := os.MkdirAll(b.Work, 0o700); err != nil {
		return err
	}
	if err := b.build(ctx); err != nil {
		return err
	}
	r, err := measure(ctx, b)
	if err != nil {
		return err
	}
	return r.print(out, b)
}

// build makes the program that is measured from the tree that this is run in.
func (b *Bench) build(ctx context.Context) error {
	b.binary = filepath.Join(b.Work, "runnel")
	cmd := exec.CommandContext(ctx, "go", "build", "-o", b.binary, "github.com/runnel-fota/runnel/cmd/runnel")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("go build: %w\n%s", err, out)
	}
	return nil
}

// End has f called when the measurement is over, the last first.
func (b *Bench) End(f func()) { b.ends = append(b.ends, f) }

// Log tells people what is being done.
func (b *Bench) Log(message string, args ...any) { b.log.Info(message, args...) }

// Pick is the size of something: full, or small in a quick run.
func (b *Bench) Pick(full, small int) int {
	if b.Quick {
		return small
	}
	return full
}

// command is the program with the environment of the measurement.
func (b *Bench) command(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, b.binary, args...)
	cmd.Dir = dir
	return cmd
}

// do runs the program to its end.
func (b *Bench) do(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := b.command(ctx, dir, args...)
	cmd.Env = append(os.Environ(), env...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("runnel %s: %w\n%s", args[0], err, out)
	}
	return nil
}

func processors() int { return runtime.NumCPU() }
