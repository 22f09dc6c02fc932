// Memory measures how much of the server is in RAM with 1,000,000 devices registered
// and 10,000 connected that poll, and with 10,000 registered.
package main

import (
	"context"
	"flag"
	"os"
	"time"

	"github.com/runnel-fota/runnel/bench/internal/rig"
)

var (
	large     = flag.Int("devices", 1_000_000, "registered devices of the large fleet")
	connected = flag.Int("connected", 10_000, "kept connections, each a device's")
	seconds   = flag.Int("seconds", 20, "of polls by all of them in turn")
	rate      = flag.Int("rate", 2000, "polls per second, of all together")
)

func main() {
	os.Exit(rig.Main("memory", "Memory of the server (RssAnon and RssFile) with 1,000,000 devices registered and 10,000\nconnected, beside that with 10,000 registered.", measure))
}

// sample is megabytes.
type sample struct{ anonymous, file float64 }

func (s sample) total() float64 { return s.anonymous + s.file }

func measure(ctx context.Context, b *rig.Bench) (*rig.Result, error) {
	k := b.Pick(*connected, 100)
	small, err := b.NativeFleet(ctx, k)
	if err != nil {
		return nil, err
	}
	big, err := b.NativeFleet(ctx, b.Pick(*large, 400))
	if err != nil {
		return nil, err
	}
	names := []string{"of_10000", "of_1000000"}
	peaks := make([][]float64, 2)
	figures := map[string][]float64{}
	for round := range b.Rounds {
		for i := range names {
			side := (i + round) % 2
			f := []*rig.Fleet{small, big}[side]
			idle, peak, err := drive(ctx, b, f, k)
			if err != nil {
				return nil, err
			}
			b.Log("round", "number", round+1, "devices", names[side], "started_MB", idle.total(), "peak_anonymous_MB", peak.anonymous, "peak_file_MB", peak.file)
			peaks[side] = append(peaks[side], peak.total())
			for name, value := range map[string]float64{"started_MB": idle.total(), "peak_RssAnon_MB": peak.anonymous, "peak_RssFile_MB": peak.file, "peak_MB": peak.total()} {
				figures[names[side]+"_"+name] = append(figures[names[side]+"_"+name], value)
			}
		}
	}
	r := &rig.Result{Figures: map[string]rig.Series{}, Ratio: rig.Ratio(peaks[1], peaks[0]), About: "memory with 1,000,000 devices registered to that with 10,000"}
	for name, values := range figures {
		r.Figures[name] = rig.Of(values)
	}
	r.Targets = []rig.Target{rig.AtMost("RssAnon and RssFile at their peak with 1,000,000 devices, MB", rig.Of(peaks[1]).Max, 300)}
	return r, nil
}

// drive starts a server, connects k of its devices, spread over the fleet, has them poll
// in turn, and answers what it took before the first and at its peak.
func drive(ctx context.Context, b *rig.Bench, f *rig.Fleet, k int) (idle, peak sample, err error) {
	p, err := b.Serve(ctx, f.Data)
	if err != nil {
		return idle, peak, err
	}
	defer p.Stop()
	look := func() sample {
		anonymous, file := p.Memory()
		s := sample{float64(anonymous) / 1e6, float64(file) / 1e6}
		if s.total() > peak.total() {
			peak = s
		}
		return s
	}
	idle = look()
	devices := make([]*rig.Device, k)
	for i := range devices {
		devices[i] = f.Device(i * (f.Devices / k))
	}
	list := make(rig.Conns, 0, k)
	defer func() { list.Close() }()
	every := time.Second / time.Duration(*rate)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	begin := time.Now()
	total := k + b.Pick(*seconds**rate, 100)
	for sent := 0; sent < total; {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return idle, peak, ctx.Err()
		}
		look()
		for due := int(time.Since(begin) / every); sent < min(due, total); sent++ {
			if sent < k { // it connects, and polls at once
				one, err := rig.Dial(p.Addr, 1, 1024)
				if err != nil {
					return idle, peak, err
				}
				list = append(list, one...)
			}
			q, err := devices[sent%k].Poll()
			if err != nil {
				return idle, peak, err
			}
			_, body, err := list[sent%k].Do(q)
			if err == nil {
				err = devices[sent%k].Idle(body)
			}
			if err != nil {
				return idle, peak, err
			}
		}
	}
	look()
	return idle, peak, nil
}
