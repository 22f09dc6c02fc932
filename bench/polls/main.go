// Polls measures idle polls per second with 1,000 and with 1,000,000 registered
// devices: the native wire, through the real server, in turns.
package main

import (
	"context"
	"flag"
	"math/rand/v2"
	"os"

	"github.com/runnel-fota/runnel/bench/internal/rig"
)

var (
	large = flag.Int("devices", 1_000_000, "registered devices of the large fleet")
	polls = flag.Int("polls", 40_000, "polls of a round, to each server")
	conns = flag.Int("connections", 64, "kept connections to each server")
	seed  = flag.Uint64("seed", 1, "of which devices poll")
)

func main() {
	os.Exit(rig.Main("polls", "Idle polls per second with 1,000 and with 1,000,000 registered devices. Polls are of devices\ndrawn from all of the 1,000, from 10,000 of the 1,000,000, and, apart, from all of these.", measure))
}

// side is a server and those of its devices that poll.
type side struct {
	name      string
	f         *rig.Fleet
	p         *rig.Process
	conns     int
	of        int // devices that poll
	rand      *rand.Rand
	devices   map[int]*rig.Device // of the fleet; each polls on one connection alone
	perSecond []float64
	micros    []float64
	generator []float64
}

func measure(ctx context.Context, b *rig.Bench) (*rig.Result, error) {
	many, few, n := b.Pick(*large, 400), b.Pick(1000, 100), b.Pick(*polls, 200)
	small, err := b.NativeFleet(ctx, few)
	if err != nil {
		return nil, err
	}
	big, err := b.NativeFleet(ctx, many)
	if err != nil {
		return nil, err
	}
	smallServer, err := b.Serve(ctx, small.Data)
	if err != nil {
		return nil, err
	}
	bigServer, err := b.Serve(ctx, big.Data)
	if err != nil {
		return nil, err
	}
	r := &rig.Result{Figures: map[string]rig.Series{}, About: "polls per second with 1,000,000 devices, of which 10,000 poll, to those with 1,000",
		Notes: []string{"of_1000000_all: every poll is of another of all devices; most of them are then not in memory, and each has a last-seen to be written"}}
	few1000 := &side{name: "of_1000", f: small, p: smallServer, of: few, devices: map[int]*rig.Device{}}
	active := &side{name: "of_1000000", f: big, p: bigServer, of: min(many, 10_000), devices: map[int]*rig.Device{}}
	if r.Ratio, err = compare(ctx, b, r, few1000, active, n); err != nil {
		return nil, err
	}
	// Apart from the others: what it leaves to be written would be written in their rounds.
	beside := &side{name: "of_1000_beside_all", f: small, p: smallServer, of: few, devices: few1000.devices}
	all := &side{name: "of_1000000_all", f: big, p: bigServer, of: many, devices: active.devices}
	ratio, err := compare(ctx, b, r, beside, all, n)
	if err != nil {
		return nil, err
	}
	r.Figures["ratio_all"] = ratio
	r.Targets = []rig.Target{
		rig.AtLeast("polls per second with 1,000 devices", rig.Of(few1000.perSecond).Median, 10_000),
		rig.AtLeast("polls per second with 1,000,000 devices", rig.Of(active.perSecond).Median, 10_000),
		rig.AtLeast("ratio", r.Ratio.Median, 0.85),
		rig.AtLeast("ratio where all of 1,000,000 poll", ratio.Median, 0.85),
	}
	return r, nil
}

// compare has two sides poll in turns, notes their figures, and answers the ratio of the
// second to the first.
func compare(ctx context.Context, b *rig.Bench, r *rig.Result, first, second *side, n int) (ratio rig.Series, err error) {
	sides := []*side{first, second}
	for _, s := range sides {
		s.conns = min(*conns, s.of)
		s.rand = rand.New(rand.NewPCG(*seed, 0))
	}
	for round := range b.Rounds + 1 { // the first warms up
		for i := range sides {
			s := sides[(i+round)%2]
			run, err := s.drive(ctx, n)
			if err != nil {
				return ratio, err
			}
			generator := run.Generator.Seconds() * 1e6 / float64(run.Requests)
			b.Log("round", "number", round, "devices", s.name, "polls_per_second", run.PerSecond(), "server_us_per_poll", run.Micros(), "generator_us_per_poll", generator)
			if round > 0 {
				s.perSecond, s.micros, s.generator = append(s.perSecond, run.PerSecond()), append(s.micros, run.Micros()), append(s.generator, generator)
			}
		}
	}
	for _, s := range sides {
		r.Figures[s.name+"_polls_per_second"] = rig.Of(s.perSecond)
		r.Figures[s.name+"_server_cpu_us"] = rig.Of(s.micros)
		r.Figures[s.name+"_generator_cpu_us"] = rig.Of(s.generator)
	}
	return rig.Ratio(second.perSecond, first.perSecond), nil
}

// drive prepares a round's polls, and sends them.
func (s *side) drive(ctx context.Context, n int) (rig.Run, error) {
	k := s.conns
	requests := make([][]rig.Request, k)
	last := make([]*rig.Device, k)
	for i := range n {
		c := i % k
		// Spread over the fleet, and each on one connection alone.
		number := (c + k*s.rand.IntN((s.of-c+k-1)/k)) * (s.f.Devices / s.of)
		d := s.devices[number]
		if d == nil {
			d = s.f.Device(number)
			s.devices[number] = d
		}
		q, err := d.Poll()
		if err != nil {
			return rig.Run{}, err
		}
		requests[c], last[c] = append(requests[c], q), d
	}
	list, err := rig.Dial(s.p.Addr, k, 4096)
	if err != nil {
		return rig.Run{}, err
	}
	defer list.Close()
	return rig.Drive(ctx, s.p, list, requests, func(c int, body []byte) error { return last[c].Idle(body) })
}
