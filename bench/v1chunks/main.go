// V1chunks measures chunks of the v1 wire per second, each asked for by a device of
// its own with a fresh MAC and answered with one, beside nginx that serves the same
// bytes from files that it holds open.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/runnel-fota/runnel/bench/internal/rig"
)

var (
	chunks = flag.Int("chunks", 100_000, "chunks of a round, from each server")
	conns  = flag.Int("connections", 64, "kept connections to each server, each a device's")
)

func main() {
	os.Exit(rig.Main("v1chunks", "Chunks of the v1 wire per second, beside nginx serving the same bytes from files.", measure))
}

type side struct {
	name              string
	p                 *rig.Process
	requests          func(n int) ([][]rig.Request, error)
	perSecond, micros []float64
}

func measure(ctx context.Context, b *rig.Bench) (*rig.Result, error) {
	k := *conns
	f, err := b.V1Fleet(ctx, k)
	if err != nil {
		return nil, err
	}
	// A run's nonces go by the time, and leap as far as the last run is ago.
	ours, err := b.Serve(ctx, f.Data, "--v1-nonce-jump", "9223372036854775807")
	if err != nil {
		return nil, err
	}
	devices := make([]*rig.V1Device, k)
	for i := range devices {
		devices[i] = f.V1Device(i)
	}
	if err := poll(ctx, ours, devices); err != nil {
		return nil, err
	}
	root := filepath.Join(b.Work, "v1-files")
	if err := files(ours, devices[0], root, f.Release.Chunks()); err != nil {
		return nil, err
	}
	peer, err := b.Nginx(ctx, "nginx-v1", root, 0)
	if err != nil {
		return nil, err
	}
	count := f.Release.Chunks()
	ask := func(path func(chunk int) string) func(int) ([][]rig.Request, error) {
		return func(n int) ([][]rig.Request, error) {
			list := make([][]rig.Request, k)
			for i := range n {
				list[i%k] = append(list[i%k], devices[i%k].Get(path(i/k%count)))
			}
			return list, nil
		}
	}
	sides := []*side{
		{name: "runnel", p: ours, requests: ask(rig.ChunkPath)},
		// The same heads too: nginx reads them and does not look.
		{name: "nginx", p: peer, requests: ask(func(chunk int) string { return "/" + strconv.Itoa(chunk) })},
	}
	n := b.Pick(*chunks, 500)
	for round := range b.Rounds + 1 { // the first warms up
		for i := range sides {
			s := sides[(i+round)%len(sides)]
			requests, err := s.requests(n)
			if err != nil {
				return nil, err
			}
			list, err := rig.Dial(s.p.Addr, k, 8192)
			if err != nil {
				return nil, err
			}
			run, err := rig.Drive(ctx, s.p, list, requests, nil)
			list.Close()
			if err != nil {
				return nil, err
			}
			b.Log("round", "number", round, "server", s.name, "chunks_per_second", run.PerSecond(), "server_us_per_chunk", run.Micros())
			if round > 0 {
				s.perSecond, s.micros = append(s.perSecond, run.PerSecond()), append(s.micros, run.Micros())
			}
		}
	}
	r := &rig.Result{Figures: map[string]rig.Series{}, About: "chunks per second of runnel to those of nginx"}
	for _, s := range sides {
		r.Figures[s.name+"_chunks_per_second"] = rig.Of(s.perSecond)
		r.Figures[s.name+"_cpu_us"] = rig.Of(s.micros)
	}
	r.Ratio = rig.Ratio(sides[0].perSecond, sides[1].perSecond)
	r.Targets = []rig.Target{rig.AtLeast("ratio", r.Ratio.Median, 0.8)}
	return r, nil
}

// poll has each device ask what there is: chunks are of what it was offered.
func poll(ctx context.Context, p *rig.Process, devices []*rig.V1Device) error {
	list, err := rig.Dial(p.Addr, len(devices), 4096)
	if err != nil {
		return err
	}
	defer list.Close()
	requests := make([][]rig.Request, len(devices))
	for i, d := range devices {
		requests[i] = []rig.Request{d.Get(rig.PollPath)}
	}
	_, err = rig.Drive(ctx, p, list, requests, nil)
	return err
}

// files writes what the server answers for each chunk to a file of its number.
func files(p *rig.Process, d *rig.V1Device, root string, chunks int) error {
	if err := os.MkdirAll(root, 0o700); err != nil {
		return err
	}
	list, err := rig.Dial(p.Addr, 1, 64<<10)
	if err != nil {
		return err
	}
	defer list.Close()
	for i := range chunks {
		status, body, err := list[0].Do(d.Get(rig.ChunkPath(i)))
		if err == nil && (status != 200 || body == nil) {
			err = fmt.Errorf("chunk %d: status %d", i, status)
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(root, strconv.Itoa(i)), body, 0o600)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
