package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/light"
)

// A simulated fleet that runs.
type fleetRun struct {
	o       *fleetOptions
	c       *client.Client // nil: no operator's token, and no rollout is shown
	lib     *light.Library
	meter   light.Meter
	boards  []light.Board
	clients []*devicehttp.Client
	began   time.Time // the boards' clock is 0
	before  uint64    // bytes of memory in use without boards
	last    sample    // for the rate of polls
	watch   rolloutWatch
	known   []int64 // rollouts that are shown
	old     int64   // the newest when the fleet began
	looks   int
}

// sample is how many polls there were at a time, and how many a second before.
type sample struct {
	at    time.Time
	polls int64
	rate  float64
}

func simulateFleet(cmd *cobra.Command, o *fleetOptions) error {
	if o.server == "" {
		o.server = os.Getenv("RUNNEL_SERVER")
	}
	if err := o.bake(cmd); err != nil {
		return err
	}
	r := &fleetRun{o: o, lib: light.NewLibrary()}
	// A token makes devices known without an operator: then nothing of rollouts is seen.
	if c, err := o.client(); err == nil {
		r.c = c
	} else if o.token == "" || o.server == "" || len(o.rollouts) > 0 {
		return err
	}
	if r.c != nil {
		for _, id := range o.rollouts {
			if _, err := r.c.Rollout(cmd.Context(), id); err != nil {
				return rolloutError(err)
			}
		}
	}
	if o.macOnly {
		warn(cmd, "these boards check no signatures: whoever takes over the server chooses what they run")
	}
	err := r.run(cmd)
	if err != nil {
		return err
	}
	if len(o.rollouts) > 0 {
		for _, one := range r.watch.list {
			if err := rolloutEnd(one); err != nil {
				return err
			}
		}
	}
	return nil
}

// run makes the fleet, runs it, and sums it up.
func (r *fleetRun) run(cmd *cobra.Command) error {
	ctx, leave := context.WithCancel(cmd.Context())
	defer leave()
	r.before = memoryInUse()
	r.boards = make([]light.Board, r.o.devices)
	bar := newProgress(cmd.ErrOrStderr(), "making devices known")
	err := r.o.makeKnown(ctx, cmd, r.c, r.boards, func(n int) {
		bar.Say(float64(n)/float64(len(r.boards)), fmt.Sprintf("%s of %s", term.Number(n), term.Number(len(r.boards))))
	})
	bar.End()
	switch {
	case cmd.Context().Err() != nil:
		return &statusError{exitLeft, "left before all devices were known; those that are stay known"}
	case err != nil:
		return err
	}
	benches, err := r.benches()
	if err != nil {
		return err
	}
	defer func() {
		for _, c := range r.clients {
			c.Close()
		}
	}()
	if err := r.begin(cmd, leave); err != nil {
		return err
	}
	if r.o.last > 0 {
		ctx, leave = context.WithTimeout(ctx, r.o.last)
		defer leave()
	}
	r.began = time.Now()
	g, running := errgroup.WithContext(ctx)
	for _, b := range benches {
		g.Go(func() error { return b.Run(running) })
	}
	g.Go(func() error {
		defer leave()
		err := r.follow(running, cmd)
		if running.Err() != nil {
			return nil // a bench says why, or it was asked for
		}
		return err
	})
	err = g.Wait()
	seconds := time.Since(r.began).Seconds()
	if r.watch.view != nil {
		err = errors.Join(err, r.watch.view.Close())
	}
	if err != nil {
		return err
	}
	r.lastLook(cmd.Context())
	return r.sumUp(cmd, seconds)
}

// lastLookTime bounds it.
const lastLookTime = 5 * time.Second

// lastLook is for the summary: how the rollouts are now, not some seconds ago. A server
// that is gone leaves it at what was seen last.
func (r *fleetRun) lastLook(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), lastLookTime) // ctrl-C ended the fleet, and not this
	defer cancel()
	r.looks += lookEvery - r.looks%lookEvery // at all of them
	if list, err := r.look(ctx); err == nil {
		r.watch.list = list
	}
}

// benches share the boards out.
func (r *fleetRun) benches() ([]*light.Bench, error) {
	o := r.o
	n := min(o.concurrency, len(r.boards))
	var out []*light.Bench
	for i := range n {
		list := r.boards[len(r.boards)*i/n : len(r.boards)*(i+1)/n]
		// Each bench starts its own boards over all of the ramp.
		at := make([]uint64, len(list))
		for j := range at {
			at[j] = uint64(float64(o.ramp.Milliseconds()) * o.speed * (float64(j) + float64(i)/float64(n)) / float64(len(list)))
		}
		d, err := devicehttp.New(o.server)
		if err != nil {
			return nil, usagef("%v", err)
		}
		r.clients = append(r.clients, d)
		poll := uint32(float64(o.poll.Milliseconds()) * o.speed)
		c := light.Config{Library: r.lib, Meter: &r.meter, Transport: &carrier{c: d}, Product: o.product, Chip: o.chipID, Roots: o.baked, Chunk: simChunk,
			Millis: r.millis, Wait: r.wait, Fate: r.fate, Seed: o.seed + uint64(i), TrialMillis: uint32(float64(o.trial.Milliseconds()) * o.speed)}
		if poll > 0 {
			c.MinPollMillis, c.MaxPollMillis = poll, poll
		}
		b, err := light.NewBench(c, list, o.image, at)
		if err != nil {
			return nil, err
		}
		out = append(out, b)
	}
	return out, nil
}

// simChunk is the largest chunk size that the boards take, in bytes: buffers are shared.
const simChunk = 4096

func (r *fleetRun) millis() uint64 {
	return uint64(float64(time.Since(r.began).Microseconds()) * r.o.speed / 1000)
}

func (r *fleetRun) wait(ctx context.Context, ms uint64) error {
	// At most an hour at a time: who waits looks again.
	t := time.NewTimer(time.Duration(min(float64(ms)/r.o.speed, 3_600_000) * float64(time.Millisecond)))
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fate is what becomes of a device with a new image: the same each time for the same
// seed, device and release.
func (r *fleetRun) fate(id, hardware, version string) light.Fate {
	o := r.o
	if o.release != "" && o.release != version {
		return light.FateRun
	}
	fails := light.FateCrash
	if o.how == "self-test" {
		fails = light.FateSelfTest
	}
	if o.filter != nil {
		env := &fleet.FilterEnv{ID: id, Product: o.product, Hardware: hardware, Version: version, Chip: int(o.chipID),
			VersionOlder: func(than string) bool { return fleet.CompareVersions(version, than) < 0 }}
		// One that fails for a device does not take it, as on the server.
		if ok, err := o.filter.Match(env); err == nil && ok {
			return fails
		}
	}
	switch p := drawn(o.seed, id, version); {
	case p < o.failShare:
		return fails
	case p < o.failShare+o.silentShare:
		return light.FateSilent
	case p < o.failShare+o.silentShare+o.mutedShare:
		return light.FateMute
	}
	return light.FateRun
}

// drawn is a fraction that follows from what it is drawn for.
func drawn(seed uint64, id, version string) float64 {
	sum := sha256.Sum256(fmt.Appendf(nil, "%d/%s/%s", seed, id, version))
	return float64(binary.BigEndian.Uint64(sum[:])>>11) / (1 << 53) // as many bits as a float64 holds
}

// begin says what begins, or starts the view.
func (r *fleetRun) begin(cmd *cobra.Command, leave func()) error {
	r.last.at = time.Now()
	r.watch = rolloutWatch{c: r.c, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), figures: r.figures}
	title := fmt.Sprintf("%s boards of %s at %s, from %s on; seed %d", term.Number(len(r.boards)), r.o.product, r.o.server, r.boards[0].ID, r.o.seed)
	if f := terminal(cmd.OutOrStdout()); f != nil && !r.o.json && !r.o.plain {
		r.watch.view = term.Start(cmd.InOrStdin(), f, "fleet sim  "+title, term.Rollouts{}, leave)
		return nil
	}
	if r.o.json {
		r.watch.out = io.Discard // one object, at the end
		return nil
	}
	_, err := fmt.Fprintln(cmd.OutOrStdout(), title)
	return err
}

// linesEvery is how often a fleet that nobody looks at says how it goes.
const linesEvery = 5

// follow shows rollouts and figures until the rollouts that were named have ended.
func (r *fleetRun) follow(ctx context.Context, cmd *cobra.Command) error {
	n := 0
	return r.watch.follow(ctx, nil, func(ctx context.Context) ([]client.Rollout, error) {
		r.sample()
		if n++; n%linesEvery == 0 && r.watch.view == nil && !r.o.json {
			fmt.Fprintf(cmd.OutOrStdout(), "%s  %s\n", stamp(time.Now()), joined(r.figures()))
		}
		return r.look(ctx)
	}, func(list []client.Rollout) bool { return len(r.o.rollouts) > 0 && len(list) > 0 && allEnded(list) })
}

func joined(parts []string) string { return strings.Join(parts, "; ") }

// Bounds of what is asked of the server for the picture alone: all rollouts of the
// product now and then, and the newest few each second.
const (
	lookEvery = 5
	lookMost  = 3
)

// look is at the rollouts that were named; else at those of the product that were in
// force while the fleet ran.
func (r *fleetRun) look(ctx context.Context) ([]client.Rollout, error) {
	if r.c == nil {
		return nil, nil
	}
	if len(r.o.rollouts) > 0 {
		return looks(ctx, r.c, r.o.rollouts...)
	}
	if r.looks++; r.looks%lookEvery == 1 {
		all, err := r.c.Rollouts(ctx, r.o.product)
		if err != nil {
			return nil, err
		}
		if r.looks == 1 && len(all) > 0 {
			r.old = all[0].ID
		}
		for _, o := range all {
			// One that is over was in force between two looks.
			if (o.ID > r.old || fleet.RolloutState(o.State).InForce()) && !slices.Contains(r.known, o.ID) {
				r.known = append(r.known, o.ID)
			}
		}
		slices.Sort(r.known)
		r.known = r.known[max(0, len(r.known)-lookMost):]
	}
	return looks(ctx, r.c, r.known...)
}

func (r *fleetRun) sample() {
	now, polls := time.Now(), r.meter.Polls.Load()
	if s := now.Sub(r.last.at).Seconds(); s > 0 {
		r.last = sample{now, polls, float64(polls-r.last.polls) / s}
	}
}

// figures say how the fleet does. (Called where follow is, and nowhere else.)
func (r *fleetRun) figures() []string {
	m := &r.meter
	up := fmt.Sprintf("%s polls, %.0f/s", term.Number(m.Polls.Load()), r.last.rate)
	if p := m.Latency.Percentile(0.5); p > 0 {
		up += fmt.Sprintf(", p50 %s, p99 %s", millis(p), millis(m.Latency.Percentile(0.99)))
	}
	out := []string{up, fmt.Sprintf("%s offers, %s confirmed, %s failed", term.Number(m.Offers.Load()), term.Number(m.Confirmed.Load()), term.Number(m.Failed.Load())),
		fmt.Sprintf("%s rolled back, %s unproven, %s silent", term.Number(m.RolledBack.Load()), term.Number(m.Unproven.Load()), term.Number(m.Silent.Load()))}
	if n := m.Unanswered.Load(); n > 0 {
		out = append(out, term.Number(n)+" unanswered")
	}
	return out
}

func millis(d time.Duration) string { return fmt.Sprintf("%.1f ms", ms(d)) }

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// memoryInUse is what the heap and the stacks take after a collection, in bytes.
func memoryInUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc + m.StackInuse
}

// fleetSummary is what a fleet did.
type fleetSummary struct {
	Devices        int              `json:"devices"`
	Product        string           `json:"product"`
	FirstID        string           `json:"first_id"`
	Seed           uint64           `json:"seed"`
	Seconds        float64          `json:"seconds"`
	Polls          int64            `json:"polls"`
	PollsPerSecond float64          `json:"polls_per_second"`
	Unanswered     int64            `json:"unanswered"`
	Statuses       map[string]int   `json:"unanswered_statuses"` // 0: no answer
	Offers         int64            `json:"offers"`
	Confirmed      int64            `json:"confirmed"`
	Failed         int64            `json:"failed"`
	Reasons        map[string]int   `json:"reasons"`
	RolledBack     int64            `json:"rolled_back"`
	Unproven       int64            `json:"unproven"`
	Silent         int64            `json:"silent"`
	Reports        int64            `json:"reports"`
	Resets         int64            `json:"resets"`
	Records        int64            `json:"records"`
	ImageBytes     int64            `json:"image_bytes"`
	BytesSent      int64            `json:"bytes_sent"`
	BytesReceived  int64            `json:"bytes_received"`
	Latency        latencySummary   `json:"poll_latency_ms"`
	RAMPerDevice   int64            `json:"ram_per_device"`
	SharedFlash    int              `json:"shared_flash_bytes"`
	Rollouts       []client.Rollout `json:"rollouts"`
}

type latencySummary struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p999"`
}

func (r *fleetRun) sumUp(cmd *cobra.Command, seconds float64) error {
	m := &r.meter
	s := fleetSummary{Devices: len(r.boards), Product: r.o.product, FirstID: r.boards[0].ID, Seed: r.o.seed, Seconds: seconds,
		Polls: m.Polls.Load(), PollsPerSecond: float64(m.Polls.Load()) / seconds, Unanswered: m.Unanswered.Load(), Offers: m.Offers.Load(), Confirmed: m.Confirmed.Load(),
		Failed: m.Failed.Load(), Reasons: m.Reasons(), RolledBack: m.RolledBack.Load(), Unproven: m.Unproven.Load(), Silent: m.Silent.Load(), Reports: m.Reports.Load(), Resets: m.Resets.Load(),
		Records: m.Records.Load(), ImageBytes: m.ImageBytes.Load(),
		Latency:     latencySummary{ms(m.Latency.Percentile(0.5)), ms(m.Latency.Percentile(0.9)), ms(m.Latency.Percentile(0.99)), ms(m.Latency.Percentile(0.999))},
		SharedFlash: r.lib.Bytes(), Rollouts: append([]client.Rollout{}, r.watch.list...)}
	for _, c := range r.clients {
		sent, received := c.Traffic()
		s.BytesSent, s.BytesReceived = s.BytesSent+sent, s.BytesReceived+received
	}
	s.RAMPerDevice = max(int64(memoryInUse())-int64(r.before), 0) / int64(len(r.boards))
	if s.Reasons == nil {
		s.Reasons = map[string]int{}
	}
	s.Statuses = map[string]int{}
	for status, n := range m.Statuses() {
		s.Statuses[strconv.Itoa(status)] = n
	}
	if r.o.json {
		return printJSON(cmd.OutOrStdout(), s)
	}
	rows := [][]string{
		{"fleet", fmt.Sprintf("%s boards of %s, from %s on; seed %d", term.Number(s.Devices), s.Product, s.FirstID, s.Seed)},
		{"polls", fmt.Sprintf("%s in %.1f s: %.0f a second, %s requests unanswered", term.Number(s.Polls), s.Seconds, s.PollsPerSecond, term.Number(s.Unanswered))},
		{"a poll took", fmt.Sprintf("p50 %.1f ms, p90 %.1f, p99 %.1f, p99.9 %.1f", s.Latency.P50, s.Latency.P90, s.Latency.P99, s.Latency.P999)},
		{"releases", fmt.Sprintf("%s offered, %s confirmed, %s failed, %s unproven, %s rolled back, %s devices fell silent", term.Number(s.Offers), term.Number(s.Confirmed), term.Number(s.Failed),
			term.Number(s.Unproven), term.Number(s.RolledBack), term.Number(s.Silent))},
	}
	if s.Unanswered > 0 {
		var parts []string
		for _, status := range slices.Sorted(maps.Keys(m.Statuses())) {
			n := term.Number(m.Statuses()[status])
			parts = append(parts, yes(status == 0, n+" without a whole answer", fmt.Sprintf("%s with status %d", n, status)))
		}
		rows = append(rows, []string{"unanswered", joined(parts)})
	}
	reasons := make([]string, 0, len(s.Reasons))
	for why := range s.Reasons {
		reasons = append(reasons, why)
	}
	slices.SortFunc(reasons, func(a, b string) int { return s.Reasons[b] - s.Reasons[a] })
	for _, why := range reasons {
		rows = append(rows, []string{"failed", fmt.Sprintf("%s: %s", term.Number(s.Reasons[why]), why)})
	}
	rows = append(rows,
		[]string{"bytes", fmt.Sprintf("%s received, %s sent, %s of images proven", term.Number(s.BytesReceived), term.Number(s.BytesSent), term.Number(s.ImageBytes))},
		[]string{"memory", fmt.Sprintf("%s bytes a device, %s of flash that they share included", term.Number(s.RAMPerDevice), term.Number(s.SharedFlash))})
	return table(cmd.OutOrStdout(), rows)
}
