package main

import (
	"bytes"
	"context"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/sim/board"
)

// shaky is a way to a server that can be cut.
type shaky struct {
	*httptest.Server
	cut atomic.Bool
}

func newShaky(t *testing.T, to string) *shaky {
	t.Helper()
	u, err := url.Parse(to)
	if err != nil {
		t.Fatal(err)
	}
	proxy := httputil.NewSingleHostReverseProxy(u)
	s := &shaky{}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if s.cut.Load() {
			panic(http.ErrAbortHandler) // the connection breaks
		}
		proxy.ServeHTTP(w, r)
	}))
	t.Cleanup(s.Close)
	return s
}

// rolloutToWatch is a server with a rollout that waits for a device which never calls,
// and a way to it.
func rolloutToWatch(t *testing.T, bin string) (c *client.Client, way *shaky, env []string, create func() string) {
	t.Helper()
	dir := t.TempDir()
	p := startServer(t, bin, filepath.Join(dir, "data"))
	way = newShaky(t, p.url)
	c, err := client.New(p.url, p.token)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.AddDevice(t.Context(), "pump-7", "acme/pump", serveKey); err != nil {
		t.Fatal(err)
	}
	img, err := board.BuildImage(board.ImageSpec{Size: 64 << 10, Version: "2"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Publish(t.Context(), "acme/pump", "2", 1024, "", bytes.NewReader(img), int64(len(img)), fleet.Publication{}); err != nil {
		t.Fatal(err)
	}
	return c, way, append(os.Environ(), "RUNNEL_SERVER="+way.URL, "RUNNEL_TOKEN="+p.token, "TERM=xterm-256color"), func() string {
		o, err := c.CreateRollout(t.Context(), client.NewRollout{Product: "acme/pump", Release: "2", Phases: "1,100%", OnFailure: "pause"})
		if err != nil {
			t.Fatal(err)
		}
		return string('0' + rune(o.ID))
	}
}

// The live view of a rollout: it says that the server is away and goes on, shows what a
// person ordered and why, and ends with the rollout.
func TestRolloutWatchOnATerminal(t *testing.T) {
	bin := buildRunnel(t)
	c, way, env, create := rolloutToWatch(t, bin)
	id := create()
	const hideCursor, showCursor = "\x1b[?25l", "\x1b[?25h"
	step := 0
	drawn, status := onTerminal(t, bin, env, []string{"rollout", "watch", id}, func(drawn string) string {
		switch {
		case step == 0 && strings.Contains(drawn, "phase 1 of 2 (1) has begun"):
			step++
			way.cut.Store(true)
		case step == 1 && strings.Contains(drawn, "trying again"):
			step++
			way.cut.Store(false)
			if _, err := c.Say(context.Background(), 1, fleet.CommandCancel, "storm in the north"); err != nil {
				t.Error(err)
			}
		}
		return ""
	})
	for _, want := range []string{hideCursor, "acme/pump 2 to every device", "stops above 20.0%", "the server can't be reached", "storm in the north", "error: rollout 1 is cancelled: storm in the north"} {
		if !strings.Contains(drawn, want) {
			t.Errorf("the view does not show %q", want)
		}
	}
	if status != exitCancelled || strings.LastIndex(drawn, showCursor) < strings.LastIndex(drawn, hideCursor) {
		t.Errorf("status %d, drawn: %q", status, drawn)
	}

	// q leaves, and so does ctrl-C; without colours there are none.
	id = create()
	for _, key := range []string{"q", "\x03"} {
		drawn, status = onTerminal(t, bin, append(env, "NO_COLOR=1"), []string{"rollout", "watch", id}, once("has begun", key))
		if status != exitLeft || !strings.Contains(drawn, "rollout 2 is running and goes on without you") || strings.Contains(drawn, "\x1b[31m") || strings.Contains(drawn, "\x1b[36m") {
			t.Errorf("after %q: status %d: %q", key, status, drawn)
		}
	}
	if o, err := c.Rollout(t.Context(), 2); err != nil || o.State != string(fleet.RolloutRunning) {
		t.Errorf("left, it is %s, %v", o.State, err)
	}
}

// Without a terminal: lines, on standard error what became of the server, and a status
// that says how it ended.
func TestRolloutWatchInAPipe(t *testing.T) {
	bin := buildRunnel(t)
	c, way, env, create := rolloutToWatch(t, bin)
	id := create()
	ctx, cancel := context.WithTimeout(t.Context(), awaitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, bin, "rollout", "watch", id, "--json")
	cmd.Env = env
	lines := make(chan string, 100) // more than there are
	cmd.Stdout, cmd.Stderr = lineWriter(lines), lineWriter(lines)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	all := "" // of two streams, whose order is nobody's
	await := func(part string) {
		t.Helper()
		for !strings.Contains(all, part) {
			select {
			case l := <-lines:
				all += l
			case <-ctx.Done():
				t.Fatalf("no line has %q", part)
			}
		}
	}
	await(`"state":"running"`)
	way.cut.Store(true)
	await("trying again")
	way.cut.Store(false)
	await("the server answers again")
	if _, err := c.Say(t.Context(), 1, fleet.CommandCancel, "enough"); err != nil {
		t.Fatal(err)
	}
	await(`"state":"cancelled"`)
	await("error: rollout 1 is cancelled: enough")
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != exitCancelled {
		t.Errorf("%v", err)
	}
	// The first look is not tried again.
	way.cut.Store(true)
	out, err := exec.CommandContext(ctx, bin, "rollout", "watch", id, "--server", way.URL, "--token", "x").CombinedOutput()
	if err == nil || !strings.Contains(string(out), "the server can't be reached") || !strings.Contains(string(out), "hint: is it running") {
		t.Errorf("%v: %s", err, out)
	}
}

// lineWriter hands on what is written, a line or several at a time.
type lineWriter chan<- string

func (w lineWriter) Write(p []byte) (int, error) {
	w <- string(p)
	return len(p), nil
}
