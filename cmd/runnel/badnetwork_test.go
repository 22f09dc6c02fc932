package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// fault is what a network, or a box on the way, does to one answer.
type fault int

const (
	noFault    fault = iota
	refuse           // nobody there
	resetEarly       // the connection is reset before the head
	resetLate        // and in the middle of the body
	truncate         // the body ends early, and says so properly
	flip             // one bit
	twice            // the body, and the body again
	stale            // an older answer to the same request
	poisoned         // the answer to another request
	portal           // a page that wants a login, with status 200
	notRange         // the whole file, where a part was asked for
	endless          // a body that goes on
	drip             // a byte, and then nothing
	faults
)

func (f fault) String() string {
	return [...]string{"none", "refuse", "reset early", "reset late", "truncate", "flip", "twice", "stale", "poisoned", "portal", "not range", "endless", "drip"}[f]
}

// badNetwork is a proxy in front of a real server that does what faults say, in an
// order that its seed decides, so often; then it heals.
type badNetwork struct {
	to   string
	mu   sync.Mutex
	rnd  *rand.Rand
	left int
	seen map[fault]int
	old  map[string][]byte // last body by method and path
	last []byte
	sent int64 // bytes of bodies
}

func (n *badNetwork) pick(r *http.Request) fault {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.left == 0 || n.rnd.IntN(3) == 0 {
		return noFault
	}
	n.left--
	f := fault(1 + n.rnd.IntN(int(faults)-1))
	n.seen[f]++
	return f
}

func (n *badNetwork) draw(limit int) int {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.rnd.IntN(max(limit, 1))
}

func (n *badNetwork) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	f := n.pick(r)
	if f == refuse || f == resetEarly {
		hangUp(w, f == resetEarly)
		return
	}
	req, err := http.NewRequestWithContext(r.Context(), r.Method, n.to+r.URL.RequestURI(), r.Body)
	if err != nil {
		hangUp(w, false)
		return
	}
	req.Header = r.Header.Clone()
	if f == notRange {
		req.Header.Del("Range")
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		hangUp(w, false)
		return
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		hangUp(w, true)
		return
	}
	key := r.Method + r.URL.Path + r.Header.Get("Range")
	n.mu.Lock()
	before, other := n.old[key], n.last
	n.old[key], n.last = body, body
	n.mu.Unlock()
	status := resp.StatusCode
	switch f {
	case flip:
		if len(body) > 0 {
			body = bytes.Clone(body)
			body[n.draw(len(body))] ^= 1 << n.draw(8)
		}
	case truncate:
		body = body[:n.draw(len(body))]
	case twice:
		body = append(bytes.Clone(body), body...)
	case stale:
		if before != nil {
			body = before
		}
	case poisoned:
		if other != nil {
			body = other
		}
	case portal:
		body, status = []byte("<html><body>Please log in</body></html>"), 200
	}
	for k, v := range resp.Header {
		if k != "Content-Length" {
			w.Header()[k] = v
		}
	}
	switch f {
	case endless:
		w.WriteHeader(status)
		n.pour(w, r, body)
		return
	case resetLate, drip:
		w.Header().Set("Content-Length", strconv.Itoa(len(body)+1))
		w.WriteHeader(status)
		k := n.draw(len(body))
		if f == drip {
			k = min(k, 1)
		}
		w.Write(body[:k])
		w.(http.Flusher).Flush()
		if f == drip {
			<-r.Context().Done() // the device gives up first
			return
		}
		panic(http.ErrAbortHandler)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	k, _ := w.Write(body)
	n.mu.Lock()
	n.sent += int64(k)
	n.mu.Unlock()
}

// pour writes on and on, until whoever reads has enough.
func (n *badNetwork) pour(w http.ResponseWriter, r *http.Request, body []byte) {
	for r.Context().Err() == nil {
		k, err := w.Write(body)
		n.mu.Lock()
		n.sent += int64(k)
		n.mu.Unlock()
		if err != nil || k == 0 && len(body) == 0 {
			return
		}
	}
}

func hangUp(w http.ResponseWriter, hard bool) {
	c, _, err := w.(http.Hijacker).Hijack()
	if err != nil {
		return
	}
	if t, ok := c.(*net.TCPConn); ok && hard {
		t.SetLinger(0)
	}
	c.Close()
}

// jumpClock is a board's time that goes with its waits alone.
type jumpClock struct{ board.VirtualClock }

// TestBadNetwork: a real server behind a network that does everything to answers that
// a network can do. The board ends with the right image, within bounds of time and
// bytes, on either wire; while the network is bad nothing wrong is confirmed.
func TestBadNetwork(t *testing.T) {
	bin := buildRunnel(t)
	p := startServer(t, bin, t.TempDir())
	c, err := client.New(p.url, p.token)
	if err != nil {
		t.Fatal(err)
	}
	const product = "bad/network"
	build := func(version string, size int) []byte {
		img, err := board.BuildImage(board.ImageSpec{Size: size, Chip: esp32.ChipESP32, Project: "bad", Version: version, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		return img
	}
	oldImage, newImage := build("1.0", 16<<10), build("1.1", 48<<10)
	list := releasetest.List(1, product)
	if _, _, err := c.PublishKeyList(t.Context(), releasetest.SealList(t, list)); err != nil {
		t.Fatal(err)
	}
	trust, err := release.TrustRoots(1, list.M, list.Roots...)
	if err != nil {
		t.Fatal(err)
	}
	file := releasetest.File(t, nil, releasetest.Manifest(t, product, "1.1", newImage), newImage, nil)
	if _, err := c.PublishRelease(t.Context(), bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil {
		t.Fatal(err)
	}
	rounds := 12
	if testing.Short() {
		rounds = 3
	}
	all := map[fault]int{}
	for seed := range uint64(rounds) {
		t.Logf("seed %d", seed)
		n := &badNetwork{to: p.url, rnd: rand.New(rand.NewPCG(seed, 1)), left: 25, seen: map[fault]int{}, old: map[string][]byte{}}
		proxy := httptest.NewServer(n)
		id := fmt.Sprintf("board-%d", seed)
		secret := sha256.Sum256([]byte(id))
		if _, err := c.AddNativeDevice(t.Context(), id, product, hex.EncodeToString(secret[:]), ""); err != nil {
			t.Fatal(err)
		}
		requests := throughBadNetwork(t, proxy.URL, &board.Native{Device: id, Product: product, Hardware: tortureHardware, Secret: secret, Roots: trust.Baked()}, oldImage, newImage)
		proxy.Close()
		// What came through to the device is bounded: an endless body is cut by whoever asked.
		if len(n.seen) == 0 || requests > 600 || n.sent > 64<<20 {
			t.Errorf("seed %d: faults %v, %d requests, %d bytes", seed, n.seen, requests, n.sent)
		}
		for f, k := range n.seen {
			all[f] += k
		}
	}
	t.Logf("faults: %v", all)
	if !testing.Short() && len(all) != int(faults)-1 {
		t.Errorf("only these faults came up: %v", all)
	}
}

// throughBadNetwork updates a board until it confirmed the new image.
func throughBadNetwork(t *testing.T, url string, n *board.Native, oldImage, newImage []byte) (requests int) {
	t.Helper()
	chip, err := nor.New(nor.Config{})
	if err != nil {
		t.Fatal(err)
	}
	b := &board.Board{Chip: chip, ChipID: esp32.ChipESP32}
	if err := b.Write(board.Layout{Table: board.DefaultTable(), App: oldImage}); err != nil {
		t.Fatal(err)
	}
	http, err := devicehttp.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.Close()
	http.Timeout = 100 * time.Millisecond // of a body that drips
	clock := &jumpClock{}
	var running board.Boot
	done, steps := false, 0
	var last []string
	app := board.App{Transport: counted{http, &requests}, Clock: clock, Native: n, ReportEvery: 8, // many requests
		OnStart: func(_ *device.Updater, at board.Boot) { running = at },
		OnEvent: func(e device.Event) {
			done = done || e.Kind == device.EventConfirmed
			if last = append(last, fmt.Sprint(e.Kind, " ", e.Reason)); len(last) > 20 {
				last = last[1:]
			}
		},
		Stop: func() bool {
			if steps++; steps > 3_000_000 || clock.Now > 30*24*3600*1000 {
				t.Fatalf("%s: no end after %v and %d requests: %s", n.Device, time.Duration(clock.Now)*time.Millisecond, requests, strings.Join(last, "; "))
			}
			return done
		}}
	if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil {
		t.Fatal(err)
	}
	table, err := b.Table()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(newImage))
	at := table.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(running.Running))
	if err := errors.Join(chip.ReadAt(got, at.Offset)); err != nil || !bytes.Equal(got, newImage) {
		t.Fatalf("%s: another image was confirmed (%v)", n.Device, err)
	}
	return requests
}

// counted counts what a board asks.
type counted struct {
	c *devicehttp.Client
	n *int
}

func (t counted) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	*t.n++
	a, err := t.c.Do(ctx, &r)
	if err != nil {
		return nil, err
	}
	return a, nil
}
