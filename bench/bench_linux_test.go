// Package bench_test runs every measurement of bench/ for a second or two: that they
// run, and the form of what they print. Their figures then mean nothing.
package bench_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/runnel-fota/runnel/internal/testenv"
)

type series struct{ Median, Min, Max *float64 }

func (s series) good() bool {
	return s.Median != nil && s.Min != nil && s.Max != nil && *s.Min <= *s.Median && *s.Median <= *s.Max
}

func TestQuick(t *testing.T) {
	work := t.TempDir() // shared: the program and small fleets are made once
	for name, figures := range map[string][]string{
		"polls":    {"of_1000_polls_per_second", "of_1000000_polls_per_second", "of_1000_server_cpu_us"},
		"streams":  {"runnel_MB_per_second", "nginx_MB_per_second", "nginx_sndbuf_MB_per_second"},
		"v1chunks": {"runnel_chunks_per_second", "nginx_chunks_per_second"},
		"reports":  {"reports_per_second", "poll_p99_ms", "poll_p99_ms_without_reports"},
		"memory":   {"of_1000000_peak_MB", "of_10000_peak_MB"},
	} {
		t.Run(name, func(t *testing.T) {
			if name == "streams" || name == "v1chunks" {
				testenv.Tool(t, "nginx")
			}
			program := filepath.Join(work, name+".bench")
			if out, err := exec.Command("go", "build", "-o", program, "./"+name).CombinedOutput(); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			var out, errs bytes.Buffer
			cmd := exec.CommandContext(t.Context(), program, "--quick", "--work", work)
			cmd.Stdout, cmd.Stderr, cmd.Env = &out, &errs, os.Environ()
			if err := cmd.Run(); err != nil {
				t.Fatalf("%v\n%s", err, &errs)
			}
			var got struct {
				Bench      string            `json:"bench"`
				Quick      bool              `json:"quick"`
				Rounds     int               `json:"rounds"`
				Processors int               `json:"processors"`
				Figures    map[string]series `json:"figures"`
				Ratio      series            `json:"ratio"`
				RatioIs    string            `json:"ratio_is"`
				Targets    []struct {
					What, Want string
					Is         *float64
					Met        *bool
				} `json:"targets"`
			}
			if err := json.Unmarshal(out.Bytes(), &got); err != nil {
				t.Fatalf("%v\n%s", err, &out)
			}
			if got.Bench != name || !got.Quick || got.Rounds != 2 || got.Processors < 1 || !got.Ratio.good() || *got.Ratio.Median <= 0 || got.RatioIs == "" || len(got.Targets) == 0 {
				t.Errorf("%s", &out)
			}
			for _, f := range figures {
				if !got.Figures[f].good() {
					t.Errorf("no figure %s in %s", f, &out)
				}
			}
			for _, x := range got.Targets {
				if x.What == "" || x.Want == "" || x.Is == nil || x.Met == nil {
					t.Errorf("a target is not whole in %s", &out)
				}
			}
		})
	}
}

// Wrong use is told, and measures nothing.
func TestUsage(t *testing.T) {
	program := filepath.Join(t.TempDir(), "polls.bench")
	if out, err := exec.Command("go", "build", "-o", program, "./polls").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, args := range [][]string{{"extra"}, {"--rounds", "0"}, {"--no-such-flag"}} {
		cmd := exec.CommandContext(t.Context(), program, args...)
		out, err := cmd.CombinedOutput()
		if cmd.ProcessState.ExitCode() != 2 || !bytes.Contains(out, []byte("help")) && !bytes.Contains(out, []byte("Usage")) {
			t.Errorf("%v: %v\n%s", args, err, out)
		}
	}
}
