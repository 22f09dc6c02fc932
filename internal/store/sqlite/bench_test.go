package sqlite

import (
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// BenchmarkReport is what the store can acknowledge: each report is on the disk
// when it is counted.
func BenchmarkReport(b *testing.B) {
	for _, writers := range []int{1, 64} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			s := openAt(b, b.TempDir())
			defer s.Close()
			r, _, err := s.Publish(ctx, fleet.Release{Product: "p", Version: "1", ChunkSize: 1024, Image: fleet.Image{Size: 1068032}}, t0)
			if err != nil {
				b.Fatal(err)
			}
			for w := range writers {
				if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("d", w)}, &fleet.Key{byte(w)}, t0); err != nil {
					b.Fatal(err)
				}
			}
			before := s.w.transactions.Load()
			var next atomic.Int64
			var wg sync.WaitGroup
			b.ResetTimer()
			for w := range writers {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for nonce := uint64(1); next.Add(1) <= int64(b.N); nonce++ {
						n := int(nonce) % 1043
						if err := s.Report(ctx, fmt.Sprint("d", w), &r, fleet.Report{ChunkReceived: &n}, true, nonce, time.Now()); err != nil {
							b.Error(err)
							return
						}
					}
				}()
			}
			wg.Wait()
			b.StopTimer()
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "writes/s")
			b.ReportMetric(float64(b.N)/float64(s.w.transactions.Load()-before), "writes/commit")
		})
	}
}

// BenchmarkRead is what a poll and a start of the server read.
func BenchmarkRead(b *testing.B) {
	s := openAt(b, b.TempDir())
	defer s.Close()
	const devices = 10_000
	var next atomic.Int64
	var wg sync.WaitGroup
	for range 256 { // that share a COMMIT
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := next.Add(1) - 1; i < devices; i = next.Add(1) - 1 {
				if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("d", i)}, &fleet.Key{1}, t0); err != nil {
					b.Error(err)
					return
				}
			}
		}()
	}
	wg.Wait()
	id := func(i int) string { return fmt.Sprint("d", i%devices) }
	for name, f := range map[string]func(i int) error{
		"DeviceKey": func(i int) error { _, _, err := s.DeviceKey(ctx, id(i)); return err },
		"Device":    func(i int) error { _, err := s.Device(ctx, id(i)); return err },
	} {
		b.Run(name, func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				if err := f(i); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
	b.Run("SaveSeen10000", func(b *testing.B) {
		seen := make([]fleet.Seen, devices)
		for n := uint64(1); b.Loop(); n++ {
			for i := range seen {
				seen[i] = fleet.Seen{Device: id(i), Nonce: n, At: t0.Add(time.Duration(n) * time.Second)}
			}
			if err := s.SaveSeen(ctx, seen); err != nil {
				b.Fatal(err)
			}
		}
	})
}
