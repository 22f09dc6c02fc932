package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"strings"

	"github.com/runnel-fota/runnel/sim/qemu"
)

func microbit(ctx context.Context, b *qemu.Builder) ([]program, error) {
	var all []program
	for _, profile := range []struct {
		name string
		tags []string
	}{{"mac-only", nil}, {"signed", []string{"signed"}}} {
		kit, err := qemu.BuildKit(ctx, b, profile.tags...)
		if err != nil {
			return nil, err
		}
		if all == nil {
			stage, err := weigh("microbit", "boot", kit.Boot)
			if err != nil {
				return nil, err
			}
			all = append(all, stage)
		}
		p, err := weigh("microbit", profile.name, kit.App[0])
		if err != nil {
			return nil, err
		}
		if p.Stack, _, err = deepest(ctx, kit); err != nil {
			return nil, err
		}
		// The clock of the measuring build costs code and stack of its own.
		measuring, err := qemu.BuildKit(ctx, b, append(profile.tags, "measure")...)
		if err != nil {
			return nil, err
		}
		if _, p.Step, err = deepest(ctx, measuring); err != nil {
			return nil, err
		}
		all = append(all, p)
	}
	return all, nil
}

func weigh(board, name string, f *qemu.Firmware) (program, error) {
	shares, err := f.Shares()
	if err != nil {
		return program{}, err
	}
	p := program{Board: board, Program: name}
	for _, s := range shares {
		if s.Package == qemu.StackShare {
			continue // the linker's reserve; what is used of it is measured
		}
		p.Packages = append(p.Packages, s)
		p.Text, p.Data, p.BSS = p.Text+s.Text, p.Data+s.Data, p.BSS+s.BSS
		if updater(s.Package) {
			p.Updater += s.Text + s.Data
		}
	}
	return p, nil
}

// updater: what every board links for it, with the compiler's and the C library's part. A
// board's own are drivers, its line, its factory page and the program around.
func updater(name string) bool {
	if strings.HasPrefix(name, "core/") {
		return name != "core/wire/serial" && name != "core/factory"
	}
	return name == "(unknown)" || strings.HasPrefix(name, "Go ") || name == "encoding/binary" || name == "math/bits"
}

// deepest runs an update, over the switch and the trial to confirmed, and another one
// back, and returns the stack's high-water mark in bytes, and the longest Step in
// instructions where the image measures it.
func deepest(ctx context.Context, kit *qemu.Kit) (stack int, step Step, err error) {
	image, err := kit.Image(0, "1.0.0", qemu.Healthy)
	if err != nil {
		return 0, step, err
	}
	lab, book, err := kit.NewMicrobit(image)
	if err != nil {
		return 0, step, err
	}
	app := kit.App[0] // RAM is laid out alike in both slots
	lab.OnEnd = func(c *qemu.Chip) {
		ram := c.RAM
		stack = max(stack, qemu.HighWater(ram[:app.Symbols["_stack_top"]-qemu.Microbit.RAM.Base]))
		if at, ok := app.Symbols[longest]; ok {
			at -= qemu.Microbit.RAM.Base
			if n := int(binary.LittleEndian.Uint32(ram[at:])) * qemu.InstructionsPerMicro; n > step.Instructions {
				step = Step{Instructions: n, Phase: string(bytes.TrimRight(ram[at+4:at+32], "\x00"))}
			}
		}
	}
	for i, version := range []string{"2.0.0", "3.0.0"} {
		first, _, err := kit.Release(book, version, uint32(i)+2, qemu.Healthy)
		if err != nil {
			return 0, step, err
		}
		lab.Server.Offer = first
		err = lab.Run(ctx, func(l *qemu.Lab) bool { return l.Server.Heard[first].Confirmed || l.Server.Heard[first+1].Confirmed })
		if err != nil {
			return 0, step, err
		}
	}
	return stack, step, nil
}

// longest is firmware/agent's variable.
const longest = "github.com/runnel-fota/runnel/firmware/agent.Longest"
