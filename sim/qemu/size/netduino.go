package main

import (
	"context"

	"github.com/runnel-fota/runnel/sim/qemu"
)

// netduino: its Steps wait for the host's flash, so that they are not counted.
func netduino(ctx context.Context, b *qemu.Builder) ([]program, error) {
	kit, err := qemu.BuildNetduino(ctx, b)
	if err != nil {
		return nil, err
	}
	p, err := weigh("netduinoplus2", "signed", kit.App)
	if err != nil {
		return nil, err
	}
	image, err := kit.Image("1.0.0", qemu.Healthy, netduinoImage)
	if err != nil {
		return nil, err
	}
	lab, book, err := kit.NewNetduino(image, 1)
	if err != nil {
		return nil, err
	}
	symbols, base := kit.App.Symbols, qemu.Netduino.RAM.Base
	lab.OnEnd = func(c *qemu.Chip) {
		p.Stack = max(p.Stack, qemu.HighWater(c.RAM[symbols["_stack_bottom"]-base:symbols["_stack_top"]-base]))
	}
	if image, err = kit.Image("2.0.0", qemu.Healthy, netduinoImage); err != nil {
		return nil, err
	}
	n, err := book.Add("2.0.0", image, 2, 0, 4096)
	if err != nil {
		return nil, err
	}
	lab.Server.Offer = n
	err = lab.Run(ctx, func(l *qemu.Lab) bool { return l.Server.Heard[n].Confirmed })
	return []program{p}, err
}

// netduinoImage is how long the image is that is fetched, bytes: what is executed is
// the program that the emulator loaded (docs/design/netduino.md).
const netduinoImage = 16 << 10
