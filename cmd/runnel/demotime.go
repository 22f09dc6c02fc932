package main

import (
	"context"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/link"
	"github.com/runnel-fota/runnel/sim/nor"
)

// How long B's update would take on a real board: what happens in the demo, on
// another clock. Charged is every flash operation and every read of flash, at the
// typical times of the modelled chip; the line for every request, at the size of
// what devicehttp and the server send; SHA-256 over what comes and over what is
// proven in flash. It runs from the accepted offer to the switch: once on a board that
// nothing interrupts, and once with the power cut and all that it costs, which is the
// second start, its look at the running image, the walk back, sectors that are erased
// anew one by one. Not in it: the board's processor but for the hash, and TLS. The
// conditions are the first of those in docs/design/updater.md, Time.
var demoLine = link.Line{BytesPerSecond: 1_250_000, RoundTrip: 5 * time.Millisecond, Window: 16 << 10}

const (
	demoHash                    = 90_000_000 // bytes/s: the hash engine of an ESP32-S3 or C3
	demoRequestHead, demoAnswer = 250, 300   // bytes of HTTP around a body
)

// demoClock is that other clock.
type demoClock struct {
	chip  *nor.Chip
	spent time.Duration // before this chip was powered on, and by line and hash
	read  uint64        // of the chip's bytes, those that are charged for as hashed
	from  time.Duration
	begun bool
	took  time.Duration // of the update; 0: it has not ended
}

func (c *demoClock) Now() time.Duration {
	if c.chip == nil {
		return c.spent
	}
	return c.spent + c.chip.Clock()
}

func (c *demoClock) Wait(d time.Duration) { c.spent += d }

// power is a chip that is powered on: its own clock begins at 0.
func (c *demoClock) power(chip *nor.Chip) {
	c.spent = c.Now()
	c.chip, c.read = chip, chip.Stats().BytesRead
	c.spent -= chip.Clock()
}

func (c *demoClock) hashed(n uint64) {
	c.Wait(time.Duration(n) * time.Second / demoHash)
}

// step charges for what was hashed out of flash since the last look.
func (c *demoClock) step(phase string) {
	n := c.chip.Stats().BytesRead
	if phase == "verifying" || phase == "proving what is in flash" {
		c.hashed(n - c.read)
	}
	c.read = n
}

// event finds the beginning and the end of the first update.
func (c *demoClock) event(e device.Event) {
	switch {
	case e.Kind == device.EventOffer && !c.begun:
		c.begun, c.from = true, c.Now()
	case e.Kind == device.EventStaged && c.took == 0:
		c.took = c.Now() - c.from
	}
}

// timedLine carries requests over the real network, and charges for the modelled one.
type timedLine struct {
	dev   *devicehttp.Client
	clock demoClock
	// count is told what came of a body: n bytes, from at on; nil: nobody counts.
	count func(path string, at, n int)
}

// Do is board.Transport's.
func (l *timedLine) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	// How long the body is the line need not know: its reader ends it.
	body := demoLine.Ask(&l.clock, demoRequestHead+len(r.Target)+len(r.Body), demoAnswer, 1<<30)
	path, _, _ := strings.Cut(string(r.Target), "?")
	a, err := l.dev.Do(ctx, &r)
	if err != nil {
		return nil, err
	}
	return &timedAnswer{Answer: a, l: l, body: body, path: path, at: int(r.From)}, nil
}

// timedAnswer is an answer whose bytes are charged for, and counted.
type timedAnswer struct {
	board.Answer
	l    *timedLine
	body *link.Body
	path string
	at   int
}

func (a *timedAnswer) Read(p []byte) (int, bool, error) {
	n, eof, err := a.Answer.Read(p)
	a.body.Read(n)
	a.l.clock.hashed(uint64(n))
	if a.l.count != nil {
		a.l.count(a.path, a.at, n)
	}
	a.at += n
	return n, eof, err
}

// flashTime is what the chip alone needs for an image: to erase by blocks what
// blocks fill and by sectors the rest, and to program its pages
// (docs/design/flash.md).
func flashTime(size int) time.Duration {
	const sector, block, page = 4096, 64 << 10, 256
	t := time.Duration(size/block) * nor.Typical.Block
	t += time.Duration((size%block+sector-1)/sector) * nor.Typical.Sector
	return t + time.Duration((size+page-1)/page)*nor.Typical.Page
}

var _ link.Clock = (*demoClock)(nil)
