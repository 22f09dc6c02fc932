// Streams measures downloads of a stream in bytes per second, beside nginx that
// serves the same file, both with their send buffer left to the system and set.
package main

import (
	"context"
	"flag"
	"os"
	"path/filepath"

	"github.com/runnel-fota/runnel/bench/internal/rig"
	"github.com/runnel-fota/runnel/internal/httpserver"
)

var (
	downloads = flag.Int("downloads", 3000, "downloads of a round, from each server")
	conns     = flag.Int("connections", 8, "kept connections to each server")
)

func main() {
	os.Exit(rig.Main("streams", "Downloads of a stream of 1 MiB in bytes per second, beside nginx serving the same file.", measure))
}

type side struct {
	name                string
	p                   *rig.Process
	request             rig.Request
	megabytes, cpuPerGB []float64
}

func measure(ctx context.Context, b *rig.Bench) (*rig.Result, error) {
	f, err := b.NativeFleet(ctx, b.Pick(1000, 100))
	if err != nil {
		return nil, err
	}
	blobs := filepath.Join(f.Data, "blobs")
	file := f.Stream.Digest.String()
	ours, err := b.Serve(ctx, f.Data)
	if err != nil {
		return nil, err
	}
	other, err := b.NativeFleet(ctx, 64) // the same file in another folder: a folder is one server's
	if err != nil {
		return nil, err
	}
	system, err := b.Serve(ctx, other.Data, "--send-buffer", "0")
	if err != nil {
		return nil, err
	}
	plain, err := b.Nginx(ctx, "nginx", blobs, 0)
	if err != nil {
		return nil, err
	}
	sized, err := b.Nginx(ctx, "nginx-sndbuf", blobs, httpserver.DefaultSendBuffer)
	if err != nil {
		return nil, err
	}
	sides := []*side{
		{name: "runnel", p: ours, request: rig.Get("/r1/streams/" + file)},
		{name: "nginx", p: plain, request: rig.Get("/" + file)},
		{name: "nginx_sndbuf", p: sized, request: rig.Get("/" + file)},
		{name: "runnel_system_buffer", p: system, request: rig.Get("/r1/streams/" + other.Stream.Digest.String())},
	}
	n := b.Pick(*downloads, 40)
	for round := range b.Rounds + 1 { // the first warms up
		for i := range sides {
			s := sides[(i+round)%len(sides)]
			run, err := s.drive(ctx, n)
			if err != nil {
				return nil, err
			}
			mb := run.PerSecond() * float64(f.Stream.Length) / 1e6
			cpu := run.Server.Seconds() / (float64(run.Requests) * float64(f.Stream.Length) / 1e9)
			b.Log("round", "number", round, "server", s.name, "MB_per_second", mb, "server_cpu_s_per_GB", cpu)
			if round > 0 {
				s.megabytes, s.cpuPerGB = append(s.megabytes, mb), append(s.cpuPerGB, cpu)
			}
		}
	}
	r := &rig.Result{Figures: map[string]rig.Series{}, About: "bytes per second of runnel to those of the better nginx of each round"}
	better := make([]float64, b.Rounds)
	for i := range better {
		better[i] = max(sides[1].megabytes[i], sides[2].megabytes[i])
	}
	for _, s := range sides {
		r.Figures[s.name+"_MB_per_second"] = rig.Of(s.megabytes)
		r.Figures[s.name+"_cpu_s_per_GB"] = rig.Of(s.cpuPerGB)
	}
	r.Ratio = rig.Ratio(sides[0].megabytes, better)
	r.Targets = []rig.Target{rig.AtLeast("ratio", r.Ratio.Median, 0.95)}
	return r, nil
}

func (s *side) drive(ctx context.Context, n int) (rig.Run, error) {
	list, err := rig.Dial(s.p.Addr, *conns, 256<<10)
	if err != nil {
		return rig.Run{}, err
	}
	defer list.Close()
	requests := make([][]rig.Request, len(list))
	for i := range n {
		requests[i%len(list)] = append(requests[i%len(list)], s.request)
	}
	return rig.Drive(ctx, s.p, list, requests, nil)
}
