// Command patches measures patches between the images below the folders that it is
// given, and of each series' last image alone: sizes with everything that is sent,
// beside those of other tools where tools.csv has them, the time that making and
// applying takes, and whether each comes to its image. It is for bench/delta.
package main

import (
	"bytes"
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"text/tabwriter"

	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
)

// row is what one pair came to. Sizes are bytes.
type row struct {
	Series        string  `json:"series"`
	Old           string  `json:"old"` // empty: the image alone
	New           string  `json:"new"`
	NewBytes      int     `json:"new_bytes"`
	PatchBytes    int     `json:"patch_bytes"` // everything that is sent
	PayloadBytes  int     `json:"payload_bytes"`
	Best          int     `json:"best_tool_bytes,omitempty"`
	ESP           int     `json:"esp_delta_ota_bytes,omitempty"`
	Ratio         float64 `json:"ratio,omitempty"` // to the best tool, or to the image itself
	Variant       string  `json:"variant"`
	Restarts      int     `json:"restart_points"`
	RAM           int     `json:"ram_bytes"`
	MakeSeconds   float64 `json:"make_seconds"` // of the processor
	ApplyMBs      float64 `json:"apply_mb_per_second"`
	UpdatesPerOut float64 `json:"counter_updates_per_byte"`
}

// summary is what the rows come to.
type summary struct {
	Rows      []row   `json:"pairs"`
	Near      float64 `json:"near_geomean"` // best tool under 100 KB
	Far       float64 `json:"far_geomean"`
	Worst     float64 `json:"worst_ratio"`
	ESP       float64 `json:"esp_delta_ota_geomean"`
	Alone     float64 `json:"alone_worst_ratio"`
	NearPairs int     `json:"near_pairs"`
	FarPairs  int     `json:"far_pairs"`
	PeakBytes int64   `json:"peak_rss_bytes,omitempty"`
}

// nearBytes is where near ends: what the best tool takes.
const nearBytes = 100_000

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	os.Exit(run(ctx, os.Args[1:]))
}

func run(ctx context.Context, args []string) int {
	flags := flag.NewFlagSet("bench/delta", flag.ContinueOnError)
	asJSON := flags.Bool("json", false, "print one JSON object")
	small := flags.Bool("small", false, "the profile for 8 KiB of RAM")
	unpredicted := flags.Bool("unpredicted", false, "as if nobody knew whose instructions the images hold")
	var dirs []string
	for len(args) > 0 { // flags may stand behind folders
		if err := flags.Parse(args); err != nil {
			return 2
		}
		args = flags.Args()
		if len(args) > 0 {
			dirs, args = append(dirs, args[0]), args[1:]
		}
	}
	if len(dirs) == 0 {
		fmt.Fprintln(os.Stderr, "error: DIR is missing\nhint: a folder with a folder for each series of images, and in that one for each version")
		return 2
	}
	o := delta.Options{Profile: patch.ProfileLarge, Unpredicted: *unpredicted}
	if *small {
		o.Profile = patch.ProfileSmall
	}
	s, err := measure(ctx, dirs, o)
	if err == nil && *asJSON {
		e := json.NewEncoder(os.Stdout)
		e.SetIndent("", "  ")
		err = e.Encode(s)
	} else if err == nil {
		err = show(s)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		return 1
	}
	return 0
}

func measure(ctx context.Context, dirs []string, o delta.Options) (*summary, error) {
	pairs, err := findPairs(dirs)
	if err != nil {
		return nil, err
	}
	s := &summary{}
	for i, p := range pairs {
		fmt.Fprintf(os.Stderr, "%d of %d: %s %s to %s\n", i+1, len(pairs), p.series, p.old.version, p.new.version)
		r, err := one(ctx, p, o)
		if err != nil {
			return nil, fmt.Errorf("%s, %s to %s: %w", p.series, p.old.version, p.new.version, err)
		}
		s.Rows = append(s.Rows, *r)
	}
	var near, far, esp mean
	for _, r := range s.Rows {
		switch {
		case r.Old == "":
			s.Alone = max(s.Alone, r.Ratio)
		case r.Best == 0:
		case r.Best < nearBytes:
			near.add(r.Ratio)
		default:
			far.add(r.Ratio)
		}
		if r.Old != "" {
			s.Worst = max(s.Worst, r.Ratio)
		}
		if r.ESP > 0 {
			esp.add(float64(r.PatchBytes) / float64(r.ESP))
		}
	}
	s.Near, s.Far, s.ESP, s.NearPairs, s.FarPairs = near.value(), far.value(), esp.value(), near.n, far.n
	s.PeakBytes = peakRSS()
	return s, nil
}

// mean is a geometric one.
type mean struct {
	sum float64
	n   int
}

func (m *mean) add(x float64) { m.sum += math.Log(x); m.n++ }

func (m *mean) value() float64 {
	if m.n == 0 {
		return 0
	}
	return math.Exp(m.sum / float64(m.n))
}

// one measures a pair, or an image alone.
func one(ctx context.Context, p pair, o delta.Options) (*row, error) {
	var old []byte
	var err error
	if p.old.path != "" {
		if old, err = os.ReadFile(p.old.path); err != nil {
			return nil, err
		}
	}
	img, err := os.ReadFile(p.new.path)
	if err != nil {
		return nil, err
	}
	t := cpuSeconds()
	made, err := delta.Make(ctx, old, img, o)
	if err != nil {
		return nil, err
	}
	r := &row{Series: p.series, Old: p.old.version, New: p.new.version, NewBytes: len(img), PayloadBytes: len(made.Payload), Best: p.best, ESP: p.esp,
		Variant: made.Variant, Restarts: made.Restarts, RAM: delta.RAM(o.Profile), MakeSeconds: cpuSeconds() - t,
		UpdatesPerOut: float64(made.Report.Updates) / float64(len(img))}
	f := delta.NewFile(old, img, made)
	if r.PatchBytes, err = f.Sent(ctx); err != nil {
		return nil, err
	}
	t = cpuSeconds()
	got, err := delta.Apply(old, made.Payload, uint32(len(img)))
	if err != nil || !bytes.Equal(got, img) {
		return nil, fmt.Errorf("the patch does not make its image: %w", err)
	}
	r.ApplyMBs = float64(len(img)) / 1e6 / (cpuSeconds() - t)
	switch {
	case r.Old == "":
		r.Ratio = float64(r.PatchBytes) / float64(r.NewBytes)
	case r.Best > 0:
		r.Ratio = float64(r.PatchBytes) / float64(r.Best)
	}
	return r, nil
}

func show(s *summary) error {
	t := tabwriter.NewWriter(os.Stdout, 0, 4, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(t, "series\told\tnew\timage\tsent\tbest tool\tratio\tesp_delta_ota\tmake, CPU s\tapply, MB/s\tupdates/byte\trestarts\tvariant\t")
	for _, r := range s.Rows {
		best, esp, ratio := "-", "-", "-"
		if r.Best > 0 {
			best = fmt.Sprint(r.Best)
		}
		if r.ESP > 0 {
			esp = fmt.Sprint(r.ESP)
		}
		if r.Ratio > 0 {
			ratio = fmt.Sprintf("%.3f", r.Ratio)
		}
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%d\t%s\t%s\t%s\t%.1f\t%.1f\t%.1f\t%d\t%s\t\n", r.Series, r.Old, r.New, r.NewBytes, r.PatchBytes, best, ratio, esp, r.MakeSeconds, r.ApplyMBs, r.UpdatesPerOut, r.Restarts, r.Variant)
	}
	if err := t.Flush(); err != nil {
		return err
	}
	fmt.Printf("\nnear: geometric mean %.3f of the best tool of equal RAM, %d pairs\n", s.Near, s.NearPairs)
	fmt.Printf("far: geometric mean %.3f, %d pairs\n", s.Far, s.FarPairs)
	fmt.Printf("worst of all: %.3f\n", s.Worst)
	fmt.Printf("to esp_delta_ota's default: geometric mean %.3f\n", s.ESP)
	fmt.Printf("images alone: at most %.3f of themselves\n", s.Alone)
	if s.PeakBytes > 0 {
		fmt.Printf("memory: at most %d MB\n", s.PeakBytes/1e6)
	}
	return nil
}
