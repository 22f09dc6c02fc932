package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// On a terminal a fleet is watched until somebody leaves; then it is summed up.
func TestFleetSimOnATerminal(t *testing.T) {
	bin := buildRunnel(t)
	p := startServer(t, bin, filepath.Join(t.TempDir(), "data"))
	env := append(os.Environ(), "RUNNEL_SERVER="+p.url, "RUNNEL_TOKEN="+p.token, "TERM=xterm-256color")
	args := []string{"fleet", "sim", "--devices", "5", "--product", "acme/pump", "--mac-only", "--poll", "50ms", "--seed", "9"}
	const hideCursor, showCursor = "\x1b[?25l", "\x1b[?25h"
	drawn, status := onTerminal(t, bin, env, args, once(" polls, ", "q"))
	for _, want := range []string{"warning: these boards check no signatures", hideCursor, "5 boards of acme/pump at http://127.0.0.1", "0 offers, 0 confirmed, 0 failed", "seed 9", "a poll took", "bytes a device"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("%q is not shown", want)
		}
	}
	if status != exitOK || strings.LastIndex(drawn, showCursor) < strings.LastIndex(drawn, hideCursor) {
		t.Errorf("after q: status %d: %q", status, drawn)
	}
	drawn, status = onTerminal(t, bin, env, append(args, "--plain", "--for", "1s"), nil)
	if status != exitOK || strings.Contains(drawn, "\x1b[?25l") || !strings.Contains(drawn, "a poll took") {
		t.Errorf("plain: status %d: %q", status, drawn)
	}
}
