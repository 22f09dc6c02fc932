package main

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

const (
	// leastMemory is what the server may always have, in bytes.
	leastMemory = 128 << 20
	// gcPercent: below that, garbage is collected when four times as much was made as lives. With
	// Go's own 100 a small server collects tens of times a second under load: an idle poll took 100 us
	// of processor for 84 (bench/polls). It costs some 20 MB.
	gcPercent   = 400
	followEvery = 500 * time.Millisecond
)

// followMemory keeps what Go's runtime holds of the machine a fifth above what lives,
// where that is more than leastMemory, until ctx ends. Left to itself it holds more than
// twice that: with 10,000 connections half a gigabyte (bench/memory). What the operator
// set in GOGC and GOMEMLIMIT stands.
func followMemory(ctx context.Context) {
	if os.Getenv("GOGC") == "" && os.Getenv("GOMEMLIMIT") == "" {
		debug.SetGCPercent(gcPercent)
	}
	if os.Getenv("GOMEMLIMIT") != "" {
		return
	}
	lives := []metrics.Sample{{Name: "/gc/heap/live:bytes"}, {Name: "/memory/classes/heap/stacks:bytes"}}
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	var set uint64
	for {
		metrics.Read(lives)
		limit := max(leastMemory, (lives[0].Value.Uint64()+lives[1].Value.Uint64())/5*6)
		// A new limit stops the world for a moment.
		if limit > set+set/16 || limit < set-set/16 {
			debug.SetMemoryLimit(int64(limit))
			set = limit
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}
