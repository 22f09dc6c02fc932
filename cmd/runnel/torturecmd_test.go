package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/sim/crash"
)

func runTorture(t *testing.T, args ...string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = run(t.Context(), append([]string{"torture"}, args...), nil, &o, &e)
	return code, o.String(), e.String()
}

// The last line of --json is the summary, with these members.
func TestTortureSummary(t *testing.T) {
	code, out, errOut := runTorture(t, "--seconds", "1", "--seed", "5", "--json")
	lines := strings.Split(strings.TrimSpace(out), "\n")
	var s map[string]any
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &s); err != nil || code != exitOK {
		t.Fatalf("status %d, %v: %s%s", code, err, out, errOut)
	}
	for _, name := range []string{"runs", "cuts", "bricked", "wrong_image", "stuck", "refetched_max_bytes", "refetched_mean_bytes", "erases_ratio"} {
		if _, ok := s[name].(float64); !ok {
			t.Errorf("%s is %v", name, s[name])
		}
	}
	if s["event"] != "summary" || s["runs"].(float64) < 1 || s["cuts"].(float64) < 1 || s["bricked"].(float64) != 0 {
		t.Errorf("summary %v", s)
	}
}

func TestTortureReplayAndList(t *testing.T) {
	if code, out, errOut := runTorture(t, "--replay", "v1-update/tiny/1:k7t1,k3t2"); code != exitOK ||
		!strings.Contains(out, "the power is cut") || !strings.Contains(out, "nothing is wrong") {
		t.Errorf("status %d: %s%s", code, out, errOut)
	}
	code, out, _ := runTorture(t, "--list")
	for _, s := range crash.Scenarios() {
		if code != exitOK || !strings.Contains(out, s.Name) || s.Says == "" {
			t.Errorf("%s is not listed", s.Name)
		}
	}
}

func TestTortureSweep(t *testing.T) {
	code, out, errOut := runTorture(t, "--sweep", "--scenario", "v1-revert", "--geometry", "unequal")
	if code != exitOK || !strings.Contains(out, "v1-revert") || !strings.Contains(out, "bricked       0") {
		t.Errorf("status %d: %s%s", code, out, errOut)
	}
}

func TestTortureWrongCalls(t *testing.T) {
	for _, args := range []string{"--seconds 0", "--depth 0", "--workers 0", "--scenario nothing", "--replay nonsense",
		"--replay v1-update/tiny/1 --sweep", "--sweep --seconds 5"} {
		if code, out, errOut := runTorture(t, strings.Fields(args)...); code != exitUsage {
			t.Errorf("%s: status %d: %s%s", args, code, out, errOut)
		}
	}
	if code, _, errOut := runTorture(t, "--replay", "v1-update/tiny/1:k9999t0"); code != exitFailed || !strings.Contains(errOut, "ended before") {
		t.Errorf("status %d: %s", code, errOut)
	}
}
