// Command microbit builds the microbit's firmware and runs it in the emulator:
//
//	microbit build [-signed=false] DIR      boot.bin, slot0.bin, slot1.bin
//	microbit flash -page FILE -o CHIP DIR   a chip as it leaves the factory
//	microbit run -line SOCKET CHIP          the chip, on 'runnel bridge --serial unix:SOCKET --listen'
//
// CHIP is the whole flash, 256 KiB. Ctrl-C is the power cut. docs/design/microbit.md
// tells the story from the keys to the update.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/sim/qemu"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "error: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	commands := map[string]func(context.Context, []string) error{"build": build, "flash": flash, "run": power}
	if len(args) == 0 || commands[args[0]] == nil {
		return errors.New("usage: microbit build|flash|run; the package's comment has the flags")
	}
	return commands[args[0]](ctx, args[1:])
}

// parse wants one argument behind the flags.
func parse(f *flag.FlagSet, args []string, what string) (string, error) {
	if err := f.Parse(args); err != nil {
		return "", err
	}
	if f.NArg() != 1 {
		return "", fmt.Errorf("usage: microbit %s [flags] %s", f.Name(), what)
	}
	return f.Arg(0), nil
}

func build(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("build", flag.ContinueOnError)
	signed := f.Bool("signed", true, "check signatures; false: believe the HMAC key alone")
	version := f.String("version", "1.0.0", "`text` in the image, 16 bytes at most")
	dir, err := parse(f, args, "DIR")
	if err != nil {
		return err
	}
	b, err := qemu.NewBuilder(ctx, ".")
	if err != nil {
		return err
	}
	var tags []string
	if *signed {
		tags = []string{"signed"}
	}
	kit, err := qemu.BuildKit(ctx, b, tags...)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(dir, "boot.bin"), kit.Boot.Image, 0o644); err != nil {
		return err
	}
	for slot := range kit.App {
		img, err := kit.Image(slot, *version, qemu.Healthy)
		if err != nil {
			return err
		}
		name := filepath.Join(dir, fmt.Sprintf("slot%d.bin", slot))
		if err := os.WriteFile(name, img, 0o644); err != nil {
			return err
		}
		fmt.Printf("%s: %d bytes\n", name, len(img))
	}
	return nil
}

func flash(_ context.Context, args []string) error {
	f := flag.NewFlagSet("flash", flag.ContinueOnError)
	pageFile := f.String("page", "", "factory page, which 'runnel board page' writes")
	out := f.String("o", "", "`file` to make")
	dir, err := parse(f, args, "DIR")
	if err != nil {
		return err
	}
	stage, err := os.ReadFile(filepath.Join(dir, "boot.bin"))
	if err != nil {
		return err
	}
	image, err := os.ReadFile(filepath.Join(dir, "slot0.bin"))
	if err != nil {
		return err
	}
	text, err := os.ReadFile(*pageFile)
	if err != nil {
		return err
	}
	var page factory.Page
	if e := page.Parse(text); e != 0 {
		return fmt.Errorf("%s: %w", *pageFile, e)
	}
	chip, err := (&qemu.Kit{Boot: &qemu.Firmware{Image: stage}}).Flash(image, &page)
	if err != nil {
		return err
	}
	return os.WriteFile(*out, chip, 0o600)
}

func power(ctx context.Context, args []string) error {
	f := flag.NewFlagSet("run", flag.ContinueOnError)
	line := f.String("line", "", "`socket` that the bridge listens on")
	file, err := parse(f, args, "CHIP")
	if err != nil {
		return err
	}
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	chip := &qemu.Chip{Board: qemu.Microbit, Flash: content}
	for ctx.Err() == nil {
		err := start(ctx, chip, *line)
		if err := os.WriteFile(file, chip.Flash, 0o600); err != nil {
			return err
		}
		switch {
		case errors.Is(err, qemu.ErrReset):
			fmt.Println("reset")
		case ctx.Err() != nil:
			fmt.Println("power cut")
		default:
			return err
		}
	}
	return nil
}

// start is one start of the chip.
func start(ctx context.Context, chip *qemu.Chip, line string) error {
	bridge, err := dial(ctx, line)
	if err != nil {
		return err
	}
	defer bridge.Close()
	r, err := chip.Start(ctx, false)
	if err != nil {
		return err
	}
	defer r.Kill()
	go func() { _, _ = io.Copy(bridge, r.Serial) }() // either ends with its connection
	go func() { _, _ = io.Copy(r.Serial, bridge) }()
	end := r.Wait(ctx)
	if errors.Is(end, qemu.ErrDied) {
		return end
	}
	return errors.Join(end, r.Off())
}

// dial waits for the bridge.
func dial(ctx context.Context, path string) (net.Conn, error) {
	for {
		c, err := net.Dial("unix", path)
		if err == nil {
			return c, nil
		}
		select {
		case <-ctx.Done():
			return nil, err
		case <-time.After(200 * time.Millisecond):
		}
	}
}
