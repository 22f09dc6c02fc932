package main

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/bridge"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/sim/board"
)

// liar is somebody on the line, or a bridge that was taken over: frames and their CRCs
// are right, and what is in them is not.
type liar struct {
	rnd  *rand.Rand
	left int // lies
	do   bridge.Fetch
	old  []byte // the last body that was told
	told map[string]int
}

// lie is an answer made up.
type lie struct {
	head device.Head
	body io.Reader
}

func (a *lie) Head() device.Head { return a.head }
func (a *lie) Close() error      { return nil }
func (a *lie) Read(p []byte) (n int, eof bool, err error) {
	n, err = a.body.Read(p)
	return n, err == io.EOF, nil
}

func (f *liar) fetch(ctx context.Context, r *device.Request) (bridge.Answer, error) {
	a, err := f.do(ctx, r)
	if err != nil {
		return nil, err
	}
	defer a.Close()
	var body []byte
	buf := make([]byte, 4096)
	for {
		n, eof, err := a.Read(buf)
		if body = append(body, buf[:n]...); err != nil {
			return nil, err
		}
		if eof {
			break
		}
	}
	head, before := a.Head(), f.old
	f.old = bytes.Clone(body)
	if f.left == 0 || f.rnd.IntN(2) == 0 {
		return &lie{head, bytes.NewReader(body)}, nil
	}
	f.left--
	kinds := []string{"flip", "zeros", "stale", "longer", "status", "range", "coded", "portal"}
	kind := kinds[f.rnd.IntN(len(kinds))]
	f.told[kind]++
	switch kind {
	case "flip":
		if len(body) > 0 {
			body[f.rnd.IntN(len(body))] ^= 1 << f.rnd.IntN(8)
		}
	case "zeros":
		clear(body)
	case "stale":
		body = before
	case "longer":
		body = append(body, body...)
	case "status":
		head.Status = []uint16{0, 200, 206, 404, 503, 65535}[f.rnd.IntN(6)]
	case "range":
		head.From, head.To, head.Total = f.rnd.Uint32(), f.rnd.Uint32(), f.rnd.Uint32()
	case "coded":
		head.Coded = true
	case "portal":
		head, body = device.Head{Status: 200}, []byte("<html>Please log in</html>")
	}
	return &lie{head, bytes.NewReader(body)}, nil
}

// TestLyingBridge: a line is believed as little as a network. Whoever speaks on it with
// right frames gets nothing into flash that was not signed, and once he is gone the
// board has its update.
func TestLyingBridge(t *testing.T) {
	url, token, stop := inProcess(t, "--data", t.TempDir())
	defer stop()
	f := newLineFleet(t, url, token)
	all := map[string]int{}
	for seed := range uint64(6) {
		t.Logf("seed %d", seed)
		b, n := f.board(t, "board-"+string(rune('a'+seed)))
		http, err := devicehttp.New(url)
		if err != nil {
			t.Fatal(err)
		}
		lies := &liar{rnd: rand.New(rand.NewPCG(seed, 3)), left: 20, do: bridge.Over(http.Do), told: all}
		l := newBadLine(seed, b.Chip, lies.fetch, 0, 1)
		l.newBoard()
		var running board.Boot
		done, steps := false, 0
		app := board.App{Transport: l, Clock: l, Native: n, ReportEvery: 8, Seed: seed,
			OnStart: func(u *device.Updater, at board.Boot) { running = at; l.newBoard() },
			OnEvent: func(e device.Event) {
				done = done || e.Kind == device.EventConfirmed
				if e.Kind != device.EventChunk {
					return
				}
				table, err := b.Table()
				if err != nil {
					t.Fatal(err)
				}
				slots, err := b.Slots(&table)
				if err != nil {
					t.Fatal(err)
				}
				got := make([]byte, e.Bytes)
				if err := slots[1].ReadAt(got, 0); err != nil || !bytes.Equal(got, f.newImage[:len(got)]) {
					t.Fatalf("seed %d: what is in flash is not what was signed", seed)
				}
			},
			Stop: func() bool {
				if steps++; steps > 1_000_000 || l.calls > 2000 {
					t.Fatalf("seed %d: no end after %d calls, %v", seed, l.calls, all)
				}
				return done
			}}
		if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil {
			t.Fatal(err)
		}
		if running.Running != 1 || !holds(t, b, running, f.newImage) {
			t.Fatalf("seed %d: another image was confirmed", seed)
		}
		http.Close()
	}
	if len(all) != 8 {
		t.Errorf("only these lies were told: %v", all)
	}
	t.Log(all)
}
