package notify

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

var (
	t0     = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	secret = []byte("a secret of some 32 bytes, known")
)

// world is a hook on a virtual clock, and a receiver that answers what it is told to.
type world struct {
	t    *testing.T
	hook *Hook
	log  lockedBuffer

	mu       sync.Mutex
	statuses []int // answers, in turn; then 200
	got      []http.Header
	bodies   [][]byte
	waits    []time.Duration
	now      time.Time
	came     chan struct{}
}

// lockedBuffer is a log that a test reads while it is written.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func newWorld(t *testing.T, statuses ...int) *world {
	w := &world{t: t, statuses: statuses, now: t0, came: make(chan struct{}, 100)}
	s := httptest.NewServer(w)
	t.Cleanup(s.Close)
	var err error
	w.hook, err = New(Config{URL: s.URL + "/hidden-path", Secret: secret, Log: slog.New(slog.NewTextHandler(&w.log, nil)), Now: w.clock, After: w.after})
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func (w *world) clock() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.now
}

// after has the time pass at once.
func (w *world) after(d time.Duration) <-chan time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.waits = append(w.waits, d)
	w.now = w.now.Add(d)
	c := make(chan time.Time, 1)
	c <- w.now
	return c
}

func (w *world) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		w.t.Error(err)
	}
	w.mu.Lock()
	status := http.StatusOK
	if n := len(w.got); n < len(w.statuses) {
		status = w.statuses[n]
	}
	w.got, w.bodies = append(w.got, r.Header), append(w.bodies, body)
	w.mu.Unlock()
	rw.Header().Set("Location", "/elsewhere")
	rw.WriteHeader(status)
	w.came <- struct{}{}
}

// run delivers notices until the receiver got n requests, then stops.
func (w *world) run(n int, notices ...fleet.Notice) {
	w.t.Helper()
	for _, o := range notices {
		w.hook.Notify(o)
	}
	ctx, stop := context.WithCancel(w.t.Context())
	done := make(chan error, 1)
	go func() { done <- w.hook.Run(ctx) }()
	for range n {
		select {
		case <-w.came:
		case <-time.After(time.Minute):
			w.t.Fatalf("the receiver got %d requests, not %d", len(w.got), n)
		}
	}
	stop()
	if err := <-done; err != nil {
		w.t.Error(err)
	}
}

func notice(version int64) fleet.Notice {
	r := fleet.Rollout{ID: 7, Version: version, Product: "acme/pump", ReleaseVersion: "1.4.0", State: fleet.RolloutPaused, Reason: "4 of 6 failed", Course: fleet.Course{Phases: make([]fleet.Phase, 2)}}
	return fleet.NoticeOf(r, fleet.Counts{Offered: 6, Failed: 4}, t0)
}

// A receiver that is away for a while gets it, signed anew each time.
func TestTriedAgain(t *testing.T) {
	w := newWorld(t, 503, 429, 500)
	w.run(4, notice(3))
	if want := []time.Duration{time.Second, 2 * time.Second, 4 * time.Second}; !slices.Equal(w.waits, want) {
		t.Errorf("waits %v, not %v", w.waits, want)
	}
	at := t0
	for i, h := range w.got {
		if h.Get(HeaderDelivery) != "rollout-7-3" || h.Get(HeaderEvent) != fleet.EventRolloutNo || h.Get("Content-Type") != "application/json" {
			t.Errorf("%v", h)
		}
		m := hmac.New(sha256.New, secret)
		fmt.Fprintf(m, "%d.%s", at.Unix(), w.bodies[i])
		if want := fmt.Sprintf("t=%d,v1=%s", at.Unix(), hex.EncodeToString(m.Sum(nil))); h.Get(HeaderSignature) != want {
			t.Errorf("try %d: %s, not %s", i+1, h.Get(HeaderSignature), want)
		}
		if i < len(w.waits) {
			at = at.Add(w.waits[i])
		}
	}
	var n map[string]any
	if err := json.Unmarshal(w.bodies[0], &n); err != nil || n["rollout"] != 7.0 || n["state"] != "paused" || n["phase"] != 1.0 || n["phases"] != 2.0 || n["time"] != "2026-11-23T12:00:00Z" ||
		n["text"] != "rollout 7 of acme/pump 1.4.0 is paused: 4 of 6 failed" || n["devices"].(map[string]any)["failed"] != 4.0 {
		t.Errorf("%s %v", w.bodies[0], err)
	}
	for _, hidden := range []string{"hidden-path", string(secret)} {
		if strings.Contains(w.log.String(), hidden) {
			t.Errorf("the log has %s: %s", hidden, w.log.String())
		}
	}
}

// What is not worth a try is given up at once, and the next one comes.
func TestGivenUp(t *testing.T) {
	for _, status := range []int{302, 400, 404, 410} {
		w := newWorld(t, status)
		w.run(2, notice(1), notice(2))
		if len(w.waits) != 0 || w.got[1].Get(HeaderDelivery) != "rollout-7-2" || !strings.Contains(w.log.String(), "given up") {
			t.Errorf("%d: %v %s", status, w.waits, w.log.String())
		}
	}
	w := newWorld(t, slices.Repeat([]int{500}, Tries)...)
	w.run(Tries+1, notice(1), notice(2))
	var all time.Duration
	for _, d := range w.waits {
		all += d
	}
	if len(w.waits) != Tries-1 || all != 511*time.Second {
		t.Errorf("%d waits, %s in all", len(w.waits), all)
	}
}

// Nobody listens: that is no reason to stop.
func TestNobodyThere(t *testing.T) {
	s := httptest.NewServer(http.NotFoundHandler())
	s.Close()
	w := newWorld(t)
	w.hook.c.URL = s.URL
	if again, err := w.hook.send(t.Context(), notice(1)); !again || err == nil || strings.Contains(err.Error(), s.URL) {
		t.Errorf("%v %v", again, err)
	}
}

// Who tells never waits: what the queue has no room for is dropped.
func TestQueueIsBounded(t *testing.T) {
	w := newWorld(t)
	for i := range Queue + 3 {
		w.hook.Notify(notice(int64(i)))
	}
	if n := strings.Count(w.log.String(), "was dropped"); n != 3 || len(w.hook.queue) != Queue {
		t.Errorf("%d dropped, %d wait", n, len(w.hook.queue))
	}
}

// What is left when the server stops is tried once more; what is lost is said.
func TestStop(t *testing.T) {
	w := newWorld(t, 200, 500)
	for i := range 2 {
		w.hook.Notify(notice(int64(i)))
	}
	ctx, stop := context.WithCancel(t.Context())
	stop()
	if err := w.hook.Run(ctx); err != nil || len(w.got) != 2 || len(w.hook.queue) != 0 || strings.Count(w.log.String(), "was lost") != 1 {
		t.Errorf("%v, %d came: %s", err, len(w.got), w.log.String())
	}
}

func TestConfig(t *testing.T) {
	for _, u := range []string{"", "hooks.example.com/x", "ftp://example.com", "https://", "https://a:b@example.com/", "http://[::1", "https://example.com/#x"} {
		if _, err := New(Config{URL: u}); err == nil {
			t.Errorf("%q is taken", u)
		}
	}
	if _, err := New(Config{URL: "https://example.com/hook?x=1", Secret: []byte("short")}); err == nil {
		t.Error("a short secret is taken")
	}
	if _, err := New(Config{URL: "https://example.com/hook?x=1"}); err != nil {
		t.Error(err)
	}
}
