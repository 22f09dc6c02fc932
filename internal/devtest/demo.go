package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"time"
)

// Bounds of the demo's figures: what the README promises.
const (
	demoImageBytes   = 1068032 // the original project's image
	demoChunkBytes   = 1024
	demoWorkingSet   = 3072 // bytes at most, at 1,024-byte chunks
	demoRefetchBytes = 4096 // at most, after a cut at any moment
	demoTime         = time.Minute
	demoTimeRatio    = 1.10 // of the flash chip's own time, for an update that nothing interrupts
	demoCutRatio     = 1.50 // with a power cut in the middle: the second start, the walk back, sectors erased anew
	demoOverhead     = 1.05 // of the image's bytes: hashes are 3.1 %, the rest is headers, polls and reports
)

// summary is the last line of runnel demo --json.
type summary struct {
	Event           string  `json:"event"`
	OK              bool    `json:"ok"`
	ImageBytes      int     `json:"image_bytes"`
	Chunks          int     `json:"chunks"`
	ChunkBytes      int     `json:"chunk_bytes"`
	WorkingSetBytes int     `json:"working_set_bytes"`
	AllocsPerChunk  *int    `json:"allocs_per_chunk"`
	RefetchedBytes  *int    `json:"refetched_bytes"`
	RolledBack      bool    `json:"rolled_back"`
	Seconds         float64 `json:"seconds"`

	// On the native wire.
	Wire         string  `json:"wire"`
	TimeRatio    float64 `json:"update_time_ratio"`
	TimeRatioCut float64 `json:"update_time_ratio_cut"`
	WireBytes    int     `json:"wire_bytes"`
	Overhead     float64 `json:"overhead_ratio"`
}

// stepDemo runs the demo over both wires.
func stepDemo(ctx context.Context, e *env) result {
	var said []string
	for _, wire := range []string{"native", "v1"} {
		var out bytes.Buffer
		args := []string{"run", "./cmd/runnel", "demo", "--json"}
		if wire != "native" { // which it is by itself
			args = append(args, "--wire", wire)
		}
		cmd := e.command(ctx, ".", "go", args...)
		cmd.Stdout = &out
		runErr := cmd.Run()
		s, err := checkDemo(out.Bytes(), wire)
		if runErr != nil || err != nil {
			fmt.Fprint(e.out, tail(out.String(), 20))
			if runErr != nil {
				return fail("runnel demo --json, %s: %v", wire, runErr)
			}
			return fail("%s: %v", wire, err)
		}
		text := fmt.Sprintf("%s: working set %d bytes, %d bytes fetched twice, rolled back, %.1f s", wire, s.WorkingSetBytes, *s.RefetchedBytes, s.Seconds)
		if wire == "native" {
			text = fmt.Sprintf("%d bytes; %s, %.3f x the image on the wire, %.2f x the flash's time", s.ImageBytes, text, s.Overhead, s.TimeRatio)
		}
		said = append(said, text)
	}
	return pass(strings.Join(said, "; "))
}

// checkDemo wants one JSON object a line and a summary within its bounds.
func checkDemo(out []byte, wire string) (summary, error) {
	var s summary
	lines := bytes.Split(bytes.TrimSpace(out), []byte("\n"))
	for i, line := range lines {
		var any map[string]any
		if err := json.Unmarshal(line, &any); err != nil {
			return s, fmt.Errorf("line %d is not a JSON object: %w", i+1, err)
		}
	}
	if err := json.Unmarshal(lines[len(lines)-1], &s); err != nil {
		return s, fmt.Errorf("the summary: %w", err)
	}
	var wrong []string
	want := func(ok bool, format string, args ...any) {
		if !ok {
			wrong = append(wrong, fmt.Sprintf(format, args...))
		}
	}
	want(s.Event == "summary", "the last event is %q, not a summary", s.Event)
	want(s.OK, "ok is false")
	want(s.ImageBytes == demoImageBytes, "image_bytes is %d, not %d", s.ImageBytes, demoImageBytes)
	want(s.ChunkBytes == demoChunkBytes, "chunk_bytes is %d, not %d", s.ChunkBytes, demoChunkBytes)
	want(s.Chunks == demoImageBytes/demoChunkBytes, "chunks is %d, not %d", s.Chunks, demoImageBytes/demoChunkBytes)
	want(s.WorkingSetBytes > demoChunkBytes && s.WorkingSetBytes <= demoWorkingSet,
		"working_set_bytes is %d, not between %d and %d", s.WorkingSetBytes, demoChunkBytes, demoWorkingSet)
	want(s.AllocsPerChunk != nil && *s.AllocsPerChunk == 0, "allocs_per_chunk is not 0")
	want(s.RefetchedBytes != nil && *s.RefetchedBytes >= 0 && *s.RefetchedBytes <= demoRefetchBytes,
		"refetched_bytes is absent or above %d", demoRefetchBytes)
	want(s.RolledBack, "rolled_back is false")
	want(s.Seconds > 0 && s.Seconds < demoTime.Seconds(), "seconds is %.1f, not between 0 and %.0f", s.Seconds, demoTime.Seconds())
	if wire == "native" {
		want(s.Wire == wire, "wire is %q, not %q", s.Wire, wire)
		want(s.TimeRatio >= 1 && s.TimeRatio <= demoTimeRatio, "update_time_ratio is %g, not between 1 and %g", s.TimeRatio, demoTimeRatio)
		want(s.TimeRatioCut > s.TimeRatio && s.TimeRatioCut <= demoCutRatio, "update_time_ratio_cut is %g, not between %g and %g", s.TimeRatioCut, s.TimeRatio, demoCutRatio)
		want(s.Overhead > 1 && s.Overhead <= demoOverhead, "overhead_ratio is %g, not between 1 and %g", s.Overhead, demoOverhead)
		// The one is the other over the image, to four places.
		want(math.Abs(float64(s.WireBytes)/demoImageBytes-s.Overhead) < 1e-4, "wire_bytes is %d: that is not %g x the image", s.WireBytes, s.Overhead)
	}
	if len(wrong) > 0 {
		return s, fmt.Errorf("the demo's summary: %s", strings.Join(wrong, "; "))
	}
	return s, nil
}

// tail is the last n lines of s.
func tail(s string, n int) string {
	lines := strings.SplitAfter(s, "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "")
}
