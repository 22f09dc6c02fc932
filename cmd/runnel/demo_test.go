package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/sim/board"
)

// runDemo runs the program as a user would: its server is a process of its own,
// and board and server speak HTTP on loopback.
func runDemo(t *testing.T, bin string, args ...string) (out string, status int) {
	t.Helper()
	tmp := t.TempDir()
	cmd := exec.CommandContext(t.Context(), bin, append([]string{"demo"}, args...)...)
	cmd.Env = append(os.Environ(), "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if stderr.Len() > 0 {
		t.Logf("stderr: %s", stderr.String())
	}
	if left, err := os.ReadDir(tmp); err != nil || len(left) > 0 {
		t.Errorf("the demo leaves %v behind, %v", left, err)
	}
	return stdout.String(), cmd.ProcessState.ExitCode()
}

// demoLines reads demo --json: events, and the summary at the end.
func demoLines(t *testing.T, out string) (lines []boardEvent, s summary) {
	t.Helper()
	texts := strings.Split(strings.TrimSpace(out), "\n")
	for i, text := range texts {
		var l boardEvent
		if err := json.Unmarshal([]byte(text), &l); err != nil {
			t.Fatalf("line %d: %v: %s", i+1, err, text)
		}
		lines = append(lines, l)
	}
	if err := json.Unmarshal([]byte(texts[len(texts)-1]), &s); err != nil {
		t.Fatal(err)
	}
	return lines, s
}

// checkStory wants every step of the demo, in its order, and figures that agree.
func checkStory(t *testing.T, out string, imageBytes int) {
	t.Helper()
	lines, s := demoLines(t, out)
	story := []string{"server", "published B", "running ota_0", "offer B", "power_cut", "running ota_0", "resume B", "verified", "staged",
		"running ota_1", "trial ota_1", "confirmed ota_1", "checked ota_1", "published C", "offer C", "staged", "running ota_1", "failed", "checked ota_1", "summary"}
	var told []string
	programmed, peak := 0, 0
	for _, l := range lines {
		name := l.Event
		switch name {
		case "published", "offer", "resume":
			name += " " + l.Version
		case "running", "trial", "confirmed", "checked":
			name += " " + l.Slot
		case "chunk":
			peak = max(peak, l.RAMPeak)
			if !slices.Contains(told, "verified") {
				programmed++
			}
		case "failed":
			if !strings.Contains(l.Reason, "crashed") {
				t.Errorf("C failed for %q", l.Reason)
			}
		}
		told = append(told, name)
		if l.Event == "resume" && (int(l.Bytes) < imageBytes/2-maxRefetched || int(l.Bytes) > imageBytes/2+demoChunk) {
			t.Errorf("resumed at %d of %d bytes, after a cut in the middle", l.Bytes, imageBytes)
		}
	}
	rest := told
	for _, want := range story {
		i := slices.Index(rest, want)
		if i < 0 {
			t.Fatalf("no %q after the steps before it; told:\n%s", want, strings.Join(told, "\n"))
		}
		rest = rest[i+1:]
	}
	chunks := (imageBytes + demoChunk - 1) / demoChunk
	if s.Event != "summary" || !s.OK || s.ImageBytes != imageBytes || s.Chunks != chunks || s.ChunkBytes != demoChunk || s.Allocs != 0 || !s.RolledBack || s.Error != "" {
		t.Errorf("summary: %+v", s)
	}
	if s.WorkingSet != peak || peak > demoChunk+ramBeside {
		t.Errorf("the working set is %d bytes, and %d were seen in use", s.WorkingSet, peak)
	}
	// A chunk that was torn is fetched twice, but was never told as in flash.
	if twice := (programmed - chunks) * demoChunk; s.Refetched < demoChunk || s.Refetched > maxRefetched || twice > s.Refetched {
		t.Errorf("%d bytes fetched twice, %d programmed twice", s.Refetched, twice)
	}
	if s.Seconds <= 0 || s.Seconds >= demoLimit.Seconds() {
		t.Errorf("%g seconds", s.Seconds)
	}
}

// checkNative wants what the native wire adds to the story, and its figures.
func checkNative(t *testing.T, out string) {
	t.Helper()
	lines, s := demoLines(t, out)
	seen := map[string]int{}
	for _, l := range lines {
		seen[l.Event]++
	}
	// Two boards: the list that the second one takes is not told.
	if seen["keys"] != 1 || seen["key_list"] != 1 || seen["measured"] != 1 {
		t.Errorf("keys, lists and measurements: %v", seen)
	}
	n := s.NativeSummary
	if n == nil {
		t.Fatalf("no native figures: %s", out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:])
	}
	hashes := int64(32 * (demoImageBytes/demoChunk - 1))
	if n.WireBytes < demoImageBytes+hashes || n.WireBytes > demoImageBytes*105/100 {
		t.Errorf("%d bytes on the wire for an image of %d with hashes of %d", n.WireBytes, demoImageBytes, hashes)
	}
	if n.Wire != "native" || n.TimeRatio < 1 || n.TimeRatio > 1.10 || n.TimeRatioCut <= n.TimeRatio || n.Overhead <= 1 {
		t.Errorf("%+v", *n)
	}
}

func TestDemo(t *testing.T) {
	bin := buildRunnel(t)
	const contract = `{"event":"summary","ok":true,"image_bytes":1068032,"chunks":1043,"chunk_bytes":1024,"working_set_bytes":`
	for _, wire := range []string{"native", "v1"} {
		t.Run("json, "+wire, func(t *testing.T) {
			args := []string{"--json"}
			if wire == "v1" {
				args = append(args, "--wire", "v1")
			}
			out, status := runDemo(t, bin, args...)
			if status != exitOK {
				t.Fatalf("status %d:\n%s", status, out)
			}
			checkStory(t, out, demoImageBytes)
			last := out[strings.LastIndex(strings.TrimSpace(out), "\n")+1:]
			if !strings.HasPrefix(last, contract) || strings.Contains(last, `"wire"`) != (wire == "native") {
				t.Errorf("the summary is %s", last)
			}
			if wire == "native" {
				checkNative(t, out)
			}
		})
	}
	t.Run("table", func(t *testing.T) {
		out, status := runDemo(t, bin)
		if status != exitOK {
			t.Fatalf("status %d:\n%s", status, out)
		}
		for _, line := range strings.Split(out[strings.Index(out, "RAM and flash"):], "\n") {
			if len(line) > 80 {
				t.Errorf("%d columns: %s", len(line), line)
			}
		}
		at := 0
		for _, want := range []string{"RAM in use", "free of 3,072", "in flash", "\nbefore ", "\nwith a chunk in hand ", "\nafter it", " 1,024\n", "\npower cut ",
			"\nresumed ", "\nwith the last chunk in hand ", "\nafter, all chunks in flash ", " 1,068,032\n", "285,432 - 282,156 = 3,276", "1,043 chunks of 1,024", "fetched twice", "on the wire", " x the image\n", "the flash's own", "result", "ok\n"} {
			i := strings.Index(out[at:], want)
			if i < 0 {
				t.Fatalf("no %q after what comes before it:\n%s", want, out)
			}
			at += i + len(want) - 1
		}
		if strings.ContainsAny(out, "\x1b\r") {
			t.Error("control characters in a pipe")
		}
	})
	build := func(t *testing.T, s board.ImageSpec) string {
		t.Helper()
		s.Project = "demo-test"
		img, err := board.BuildImage(s)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), s.Version+".bin")
		if err := os.WriteFile(file, img, 0o600); err != nil {
			t.Fatal(err)
		}
		return file
	}
	old := build(t, board.ImageSpec{Size: 64 << 10, Version: "old"})
	t.Run("a step fails", func(t *testing.T) {
		out, status := runDemo(t, bin, "--json", "--image", old, "--image", build(t, board.ImageSpec{Size: 64 << 10, Version: "bad", Behave: board.BehavePanic}))
		_, s := demoLines(t, out)
		if status != exitFailed || s.Event != "summary" || s.OK || s.RolledBack || !strings.Contains(s.Error, "B failed: new image crashed") {
			t.Errorf("B crashes, and the demo ends with status %d and %+v", status, s)
		}
	})
	t.Run("a chip without a name", func(t *testing.T) {
		first := build(t, board.ImageSpec{Size: 64 << 10, Version: "1", Chip: 77})
		out, status := runDemo(t, bin, "--json", "--image", first, "--image", build(t, board.ImageSpec{Size: 80 << 10, Version: "2", Chip: 77}))
		if status != exitOK {
			t.Fatalf("status %d:\n%s", status, out)
		}
	})
	for name, second := range map[string]string{
		"another chip": build(t, board.ImageSpec{Size: 64 << 10, Version: "c3", Chip: esp32.ChipESP32C3}),
		"too large":    build(t, board.ImageSpec{Size: 2 << 20, Version: "large"}),
		"the same":     old,
	} {
		t.Run(name, func(t *testing.T) {
			if out, status := runDemo(t, bin, "--image", old, "--image", second); status != exitUsage {
				t.Errorf("status %d:\n%s", status, out)
			}
		})
	}
}

// The demo with what real projects shipped.
func TestDemoRealImages(t *testing.T) {
	bin := buildRunnel(t)
	for _, c := range []struct{ name, folder, from, to string }{
		{"fluidnc on an ESP32", "fluidnc-esp32", "v4.0.0", "v4.0.1"},
		{"nerdminer on an ESP32-C3", "nerdminer-esp32c3", "V1.6.4-e4d984e", "V1.7.0-9bf9108"},
	} {
		t.Run(c.name, func(t *testing.T) {
			from := testenv.Shared(t, "firmware", c.folder, c.from, "firmware.bin")
			to := testenv.Shared(t, "firmware", c.folder, c.to, "firmware.bin")
			st, err := os.Stat(to)
			if err != nil {
				t.Fatal(err)
			}
			out, status := runDemo(t, bin, "--json", "--image", from, "--image", to)
			if status != exitOK {
				t.Fatalf("status %d:\n%s", status, out)
			}
			checkStory(t, out, int(st.Size()))
		})
	}
}
