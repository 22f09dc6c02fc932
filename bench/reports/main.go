// Reports measures durable reports per second, and how long an idle poll takes while
// reports are written: the native wire, through the real server.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	core "github.com/runnel-fota/runnel/core/wire/native"

	"github.com/runnel-fota/runnel/bench/internal/rig"
)

var (
	reports  = flag.Int("reports", 20_000, "reports of a round, as fast as they are acknowledged")
	conns    = flag.Int("connections", 64, "kept connections, each a device's")
	seconds  = flag.Int("seconds", 10, "of polls, with and without reports beside them")
	pollRate = flag.Int("poll-rate", 1000, "idle polls per second whose time is taken")
	rate     = flag.Int("report-rate", 500, "reports per second beside them")
)

func main() {
	os.Exit(rig.Main("reports", "Durable reports per second, and the 99th percentile of an idle poll while 500 reports per\nsecond are written.", measure))
}

type bench struct {
	p       *rig.Process
	devices []*rig.Device // the first half report, the second half poll
	number  uint32        // of bytes in flash: each report says something new
}

func measure(ctx context.Context, b *rig.Bench) (*rig.Result, error) {
	k := *conns
	f, err := b.NativeFleet(ctx, b.Pick(10_000, 400))
	if err != nil {
		return nil, err
	}
	p, err := b.Serve(ctx, f.Data)
	if err != nil {
		return nil, err
	}
	x := &bench{p: p}
	for i := range 2 * k {
		x.devices = append(x.devices, f.Device(i))
	}
	var perSecond, micros, alone, beside []float64
	length := time.Duration(b.Pick(*seconds*1000, 300)) * time.Millisecond
	for round := range b.Rounds + 1 { // the first warms up
		run, err := x.fast(ctx, b.Pick(*reports, 200))
		if err != nil {
			return nil, err
		}
		with, err := x.polls(ctx, length, *rate)
		if err != nil {
			return nil, err
		}
		without, err := x.polls(ctx, length, 0)
		if err != nil {
			return nil, err
		}
		b.Log("round", "number", round, "reports_per_second", run.PerSecond(), "server_us_per_report", run.Micros(), "poll_p99_ms", with, "poll_p99_ms_without_reports", without)
		if round > 0 {
			perSecond, micros = append(perSecond, run.PerSecond()), append(micros, run.Micros())
			beside, alone = append(beside, with), append(alone, without)
		}
	}
	return &rig.Result{
		Figures: map[string]rig.Series{"reports_per_second": rig.Of(perSecond), "report_server_cpu_us": rig.Of(micros),
			"poll_p99_ms": rig.Of(beside), "poll_p99_ms_without_reports": rig.Of(alone)},
		Ratio: rig.Ratio(beside, alone), About: "the 99th percentile of an idle poll beside reports to that without",
		Targets: []rig.Target{rig.AtLeast("reports per second", rig.Of(perSecond).Median, float64(*rate))},
		Notes: []string{fmt.Sprintf("%d polls per second, each timed from when it was due", *pollRate),
			"a report is acknowledged when its transaction is on the disk: how long that takes is the disk's"},
	}, nil
}

// next is device i's next report: of progress, with another number each time.
func (x *bench) next(i int) (rig.Request, error) {
	x.number++
	return x.devices[i].Report(core.StateDownloading, 1024+x.number%1024)
}

// fast sends n reports as fast as they are acknowledged.
func (x *bench) fast(ctx context.Context, n int) (rig.Run, error) {
	k := len(x.devices) / 2
	requests := make([][]rig.Request, k)
	for i := range n {
		q, err := x.next(i % k)
		if err != nil {
			return rig.Run{}, err
		}
		requests[i%k] = append(requests[i%k], q)
	}
	list, err := rig.Dial(x.p.Addr, k, 4096)
	if err != nil {
		return rig.Run{}, err
	}
	defer list.Close()
	return rig.Drive(ctx, x.p, list, requests, func(i int, body []byte) error { return x.devices[i].Acked(body) })
}

// polls sends idle polls, and reports beside them, at their rates, and answers the
// polls' 99th percentile in milliseconds.
func (x *bench) polls(ctx context.Context, length time.Duration, reportRate int) (p99 float64, err error) {
	k := len(x.devices) / 2
	polls, err := x.schedule(k, length, *pollRate, func(i int) (rig.Request, error) { return x.devices[k+i].Poll() })
	if err != nil {
		return 0, err
	}
	reports, err := x.schedule(k, length, reportRate, x.next)
	if err != nil {
		return 0, err
	}
	list, err := rig.Dial(x.p.Addr, 2*k, 4096)
	if err != nil {
		return 0, err
	}
	defer list.Close()
	took := make([][]time.Duration, 2*k)
	errs := make(chan error, 2*k)
	var left sync.WaitGroup
	begin := time.Now()
	for i, c := range list {
		q, rate := reports[i%k], reportRate
		if i < k {
			q, rate = polls[i], *pollRate
		}
		left.Go(func() {
			var err error
			if took[i], err = paced(ctx, c, q, begin.Add(time.Duration(i%k)*time.Second/time.Duration(max(rate, 1))), time.Duration(k)*time.Second/time.Duration(max(rate, 1))); err != nil {
				errs <- err
			}
		})
	}
	left.Wait()
	select {
	case err := <-errs:
		return 0, err
	default:
	}
	all := slices.Concat(took[:k]...)
	slices.Sort(all)
	return all[len(all)*99/100].Seconds() * 1e3, nil
}

// schedule makes the requests of k connections that share a rate.
func (x *bench) schedule(k int, length time.Duration, rate int, make1 func(i int) (rig.Request, error)) ([][]rig.Request, error) {
	list := make([][]rig.Request, k)
	for i := range int(length.Seconds() * float64(rate)) {
		q, err := make1(i % k)
		if err != nil {
			return nil, err
		}
		list[i%k] = append(list[i%k], q)
	}
	return list, nil
}

// paced sends requests when they are due, and answers how long each took since then.
func paced(ctx context.Context, c *rig.Conn, list []rig.Request, due time.Time, every time.Duration) ([]time.Duration, error) {
	took := make([]time.Duration, 0, len(list))
	timer := time.NewTimer(0)
	defer timer.Stop()
	for _, q := range list {
		timer.Reset(time.Until(due))
		select {
		case <-timer.C:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		status, _, err := c.Do(q)
		if err == nil && status != 200 {
			err = fmt.Errorf("status %d for %.40q", status, q)
		}
		if err != nil {
			return nil, err
		}
		took = append(took, time.Since(due))
		due = due.Add(every)
	}
	return took, nil
}
