package sqlite

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	killDirEnv   = "RUNNEL_TEST_KILL_DIR"
	killFirstEnv = "RUNNEL_TEST_KILL_FIRST"
	killDevices  = 8
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(killDirEnv); dir != "" {
		os.Exit(reportUntilKilled(dir))
	}
	os.Exit(m.Run())
}

// reportUntilKilled writes reports of several devices at once and prints each
// that was acknowledged, until somebody kills the process.
func reportUntilKilled(dir string) int {
	fail := func(err error) int {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	first, err := strconv.Atoi(os.Getenv(killFirstEnv))
	if err != nil {
		return fail(err)
	}
	s, err := Open(ctx, Options{Path: filepath.Join(dir, "runnel.db"), Secret: testSecret})
	if err != nil {
		return fail(err)
	}
	var wg sync.WaitGroup
	for d := range killDevices {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for n := first; ; n++ {
				note := fmt.Sprint("report ", n)
				if err := s.Report(ctx, fmt.Sprint("d", d), nil, fleet.Report{Error: &note}, true, uint64(n), time.Now()); err != nil {
					fail(err)
					return
				}
				// One write call a line: none is torn by the kill.
				if _, err := os.Stdout.WriteString(fmt.Sprintf("%d %d\n", d, n)); err != nil {
					return
				}
			}
		}()
	}
	wg.Wait()
	return 1
}

// Whatever was acknowledged is there after a SIGKILL at any moment, and the file
// opens again without a word. The server is killed several times in its life.
func TestKilledServerLosesNothing(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	s := openAt(t, dir)
	for d := range killDevices {
		if err := s.AddDevice(ctx, fleet.Device{ID: fmt.Sprint("d", d)}, nil, t0); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	acked := map[string]bool{}
	first := 1
	for round := range 4 {
		lines := killAfter(t, dir, first, 1+rnd.IntN(400))
		highest := make([]int, killDevices)
		for _, line := range lines {
			var d, n int
			if _, err := fmt.Sscanf(line, "%d %d", &d, &n); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			acked[fmt.Sprintf("d%d report %d", d, n)] = true
			highest[d] = max(highest[d], n)
			first = max(first, n+1000) // nonces of the next round are above all of this one
		}
		s := openAt(t, dir)
		events, total, err := s.Events(ctx, "", 1000)
		if err != nil {
			t.Fatal(err)
		}
		have := map[string]bool{}
		for d := range killDevices {
			own, _, err := s.Events(ctx, fmt.Sprint("d", d), 1000)
			if err != nil {
				t.Fatal(err)
			}
			for _, e := range append(events, own...) {
				have[e.Device+" "+e.Detail] = true
			}
			dev, err := s.Device(ctx, fmt.Sprint("d", d))
			if err != nil || dev.Nonce < uint64(highest[d]) {
				t.Errorf("round %d: d%d: nonce %d, acknowledged was %d: %v", round, d, dev.Nonce, highest[d], err)
			}
		}
		for what := range acked {
			if !have[what] {
				t.Errorf("round %d: %s was acknowledged and is gone", round, what)
			}
		}
		t.Logf("round %d: killed after %d acknowledgements; %d events", round, len(lines), total)
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// killAfter runs reportUntilKilled, kills it after so many lines and returns all
// that it printed.
func killAfter(t *testing.T, dir string, first, lines int) []string {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), killDirEnv+"="+dir, killFirstEnv+"="+strconv.Itoa(first))
	var errOut strings.Builder
	cmd.Stderr = &errOut
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	var got []string
	r := bufio.NewScanner(out)
	for r.Scan() {
		got = append(got, r.Text())
		if len(got) == lines {
			if err := cmd.Process.Kill(); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := cmd.Wait(); err == nil || len(got) < lines || errOut.Len() > 0 {
		t.Fatalf("the process ended by itself after %d lines: %v\n%s", len(got), err, errOut.String())
	}
	return got
}
