package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/wire/serial"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/internal/bridge"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/release/releasetest"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// badLine is a serial line on a virtual clock, with a bridge at its other end: bytes
// take their time, some are lost, doubled, changed or made up, frames are cut, and
// what arrives while the chip's flash works is gone. A server is slow now and then,
// and the bridge is started anew.
type badLine struct {
	rnd  *rand.Rand
	left int // things that still go wrong
	rate int // one byte in so many
	skip int // bytes of a cut

	micros uint64 // the clock, without the flash's share
	chip   *nor.Chip
	heard  time.Duration // of the chip's clock, when the board last looked at the line
	back   []arriving    // to the board
	free   uint64        // when the line to the board has carried it

	host     serial.Host
	f        *bridge.Forwarder
	fetch    bridge.Fetch
	working  bool
	readyAt  uint64
	answer   []byte
	refusal  serial.Error
	stamp    uint64 // when the bridge says what it says
	client   *serial.Client
	noChance bool // the chip has no randomness: every start begins with the same nonce

	did   map[string]int
	calls int
	sent  int // bytes from the board
	said  int // and to it
}

type arriving struct {
	at uint64
	b  byte
}

// byteMicros at 115,200 bits a second, ten bits a byte.
const byteMicros = 87

func newBadLine(seed uint64, chip *nor.Chip, fetch bridge.Fetch, faults, rate int) *badLine {
	l := &badLine{rnd: rand.New(rand.NewPCG(seed, 2)), left: faults, rate: rate, chip: chip, fetch: fetch, did: map[string]int{}, noChance: seed%2 == 0}
	l.newBridge()
	return l
}

func (l *badLine) newBridge() {
	if l.f != nil {
		l.f.Reset()
	}
	l.f = bridge.NewForwarder(bridge.Options{Fetch: l.fetch, OnEvent: func(e bridge.Event) { l.did[fmt.Sprint("event ", e.Kind)]++ }})
	l.host = serial.Host{Out: bridgeSays{l}, Session: uint16(l.rnd.Uint32())}
	l.working = false
}

// newBoard is a start of the chip.
func (l *badLine) newBoard() {
	l.client = &serial.Client{Port: l}
	if !l.noChance {
		l.client.Nonce = l.rnd.Uint32()
	}
}

func (l *badLine) now() uint64                             { return l.micros + uint64(l.chip.Clock().Microseconds()) }
func (l *badLine) Millis() uint64                          { return l.now() / 1000 }
func (l *badLine) Unix() uint32                            { return 1_800_000_000 + uint32(l.Millis()/1000) }
func (l *badLine) Wait(c context.Context, ms uint64) error { l.micros += ms * 1000; return c.Err() }

func (l *badLine) wrong(one int) bool {
	if l.left == 0 || l.rnd.IntN(one) != 0 {
		return false
	}
	l.left--
	return true
}

// carry is what becomes of a byte on its way.
func (l *badLine) carry(b byte) []byte {
	if l.skip > 0 {
		l.skip--
		return nil
	}
	if !l.wrong(l.rate) {
		return []byte{b}
	}
	kind := l.rnd.IntN(5)
	l.did[[...]string{"lost", "doubled", "changed", "made up", "cut"}[kind]]++
	switch kind {
	case 0:
		return nil
	case 1:
		return []byte{b, b}
	case 2:
		return []byte{b ^ 1<<l.rnd.IntN(8)}
	case 3:
		return []byte{byte(l.rnd.Uint32()), b}
	}
	l.skip = l.rnd.IntN(600)
	return nil
}

// bridgeSays queues what the bridge puts, at the line's own pace.
type bridgeSays struct{ l *badLine }

func (s bridgeSays) Put(b byte) {
	l := s.l
	l.free = max(l.free, l.stamp) + byteMicros
	l.said++
	for _, c := range l.carry(b) {
		l.back = append(l.back, arriving{l.free, c})
	}
}

// bridgeHears feeds the bridge a byte.
func (l *badLine) bridgeHears(b byte) {
	l.stamp = l.now()
	switch l.host.Feed(b) {
	case serial.Opened:
		l.did["session"]++
		l.f.Reset()
		l.working = false
	case serial.Asked:
		l.did["asked again"]++
	case serial.Strange:
		l.did["strange"]++
	case serial.Damaged:
		l.did["damaged"]++
	case serial.Called:
		l.calls++
		if l.wrong(100) {
			l.did["bridge anew"]++
			l.newBridge()
			return
		}
		a, e := l.f.Do(context.Background(), l.host.Op(), l.host.Payload())
		l.answer, l.refusal = bytes.Clone(a), e
		wait := 2_000 + l.rnd.Uint64N(20_000)
		switch {
		case l.wrong(40):
			l.did["slow"]++
			wait = 200_000 + l.rnd.Uint64N(8_000_000)
		case l.wrong(20):
			// Ready while the board asks again: there are two answers, and the second comes
			// while the board is at its flash.
			l.did["crossed"]++
			wait = 500_000 + l.rnd.Uint64N(3_000)
		}
		l.working, l.readyAt = true, l.now()+wait
	}
}

// settle has the bridge say what is ready.
func (l *badLine) settle() {
	if !l.working || l.readyAt > l.now() {
		return
	}
	l.working, l.stamp = false, l.readyAt
	if l.refusal != 0 {
		l.host.Refuse(l.refusal)
		return
	}
	l.host.Answer(l.answer)
}

// deaf drops what came while the flash worked.
func (l *badLine) deaf() {
	l.settle()
	now, was := l.now(), l.heard
	l.heard = l.chip.Clock()
	from := now - uint64((l.heard - was).Microseconds())
	kept := l.back[:0]
	for _, a := range l.back {
		if a.at > from && a.at <= now {
			l.did["unheard"]++
			continue
		}
		kept = append(kept, a)
	}
	l.back = kept
}

// Put is the board's.
func (l *badLine) Put(b byte) {
	l.deaf()
	l.micros += byteMicros
	l.sent++
	for _, c := range l.carry(b) {
		l.bridgeHears(c)
	}
}

// Get is the board's: the clock goes on to whatever happens next.
func (l *badLine) Get(ms uint32) (byte, bool) {
	l.deaf()
	for until := l.now() + uint64(ms)*1000; ; {
		l.settle()
		next := until
		if len(l.back) > 0 {
			if next = min(next, l.back[0].at); next <= l.now() && l.back[0].at <= l.now() {
				b := l.back[0].b
				l.back = l.back[1:]
				return b, true
			}
		}
		if l.working {
			next = min(next, l.readyAt)
		}
		if l.now() >= until {
			return 0, false
		}
		l.micros += next - l.now()
	}
}

// Do carries the updater's requests over the line.
func (l *badLine) Do(_ context.Context, r device.Request) (board.Answer, error) {
	return serialDo(l.client, &r)
}

// serialDo is what firmware does with a request, with an error for the virtual board.
func serialDo(c *serial.Client, r *device.Request) (board.Answer, error) {
	a := &serialAnswer{c: c}
	var h serial.Head
	ok := c.Send(&serial.Request{Target: r.Target, Body: r.Body, Ranged: r.Ranged, From: r.From, To: r.To,
		Device: r.DeviceID, Nonce: r.Nonce, Timestamp: r.Timestamp, MAC: r.MAC}, &h)
	if !ok {
		return nil, c.Fault
	}
	a.head = device.Head{Status: h.Status, RetryAfter: h.RetryAfter, From: h.From, To: h.To, Total: h.Total, Coded: h.Coded}
	return a, nil
}

type serialAnswer struct {
	c    *serial.Client
	head device.Head
}

func (a *serialAnswer) Head() device.Head { return a.head }

func (a *serialAnswer) Read(p []byte) (n int, eof bool, err error) {
	n, eof, ok := a.c.Read(p)
	if !ok {
		return 0, false, a.c.Fault
	}
	return n, eof, nil
}

func (a *serialAnswer) Close() error {
	if !a.c.Close() {
		return a.c.Fault
	}
	return nil
}

// lineFleet is a server with a release, and boards that want it.
type lineFleet struct {
	url                string
	c                  *client.Client
	roots              []byte
	oldImage, newImage []byte
	v1                 bool // the new image is published for old boards too
}

const lineProduct = "bad/line"

func newLineFleet(t *testing.T, url, token string) *lineFleet {
	t.Helper()
	c, err := client.New(url, token)
	if err != nil {
		t.Fatal(err)
	}
	f := &lineFleet{url: url, c: c}
	for i, p := range []*[]byte{&f.oldImage, &f.newImage} {
		if *p, err = board.BuildImage(board.ImageSpec{Size: 16<<10 + i*32<<10, Chip: esp32.ChipESP32, Project: "bad", Version: fmt.Sprint("1.", i), Seed: 3}); err != nil {
			t.Fatal(err)
		}
	}
	list := releasetest.List(1, lineProduct)
	if _, _, err := c.PublishKeyList(t.Context(), releasetest.SealList(t, list)); err != nil {
		t.Fatal(err)
	}
	trust, err := release.TrustRoots(1, list.M, list.Roots...)
	if err != nil {
		t.Fatal(err)
	}
	f.roots = trust.Baked()
	file := releasetest.File(t, nil, releasetest.Manifest(t, lineProduct, "1.1", f.newImage), f.newImage, nil)
	if _, err := c.PublishRelease(t.Context(), bytes.NewReader(file), int64(len(file)), fleet.Publication{}); err != nil {
		t.Fatal(err)
	}
	return f
}

// board makes a board that the server knows, with a chip whose operations take time.
func (f *lineFleet) board(t *testing.T, id string) (*board.Board, *board.Native) {
	t.Helper()
	secret := sha256.Sum256([]byte(id))
	if _, err := f.c.AddNativeDevice(t.Context(), id, lineProduct, hex.EncodeToString(secret[:]), ""); err != nil {
		t.Fatal(err)
	}
	chip, err := nor.New(nor.Config{Timing: nor.Typical})
	if err != nil {
		t.Fatal(err)
	}
	b := &board.Board{Chip: chip, ChipID: esp32.ChipESP32}
	if err := b.Write(board.Layout{Table: board.DefaultTable(), App: f.oldImage}); err != nil {
		t.Fatal(err)
	}
	return b, &board.Native{Device: id, Product: lineProduct, Hardware: tortureHardware, Secret: secret, Roots: f.roots}
}

// oldBoard is who a board is on the v1 wire.
func (f *lineFleet) oldBoard(t *testing.T, id string) v1.Identity {
	t.Helper()
	const product = "bad/old"
	if !f.v1 {
		if _, err := f.c.Publish(t.Context(), product, "1.1", 1024, "", bytes.NewReader(f.newImage), int64(len(f.newImage)), fleet.Publication{}); err != nil {
			t.Fatal(err)
		}
		f.v1 = true
	}
	key := sha256.Sum256([]byte(id))
	if _, err := f.c.AddDevice(t.Context(), id, product, hex.EncodeToString(key[:])); err != nil {
		t.Fatal(err)
	}
	return v1.Identity{ID: id, Signed: true, Key: key[:]}
}

// holds reports whether the running slot has the image.
func holds(t *testing.T, b *board.Board, at board.Boot, image []byte) bool {
	t.Helper()
	table, err := b.Table()
	if err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(image))
	p := table.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(at.Running))
	if err := b.Chip.ReadAt(got, p.Offset); err != nil {
		t.Fatal(err)
	}
	return bytes.Equal(got, image)
}

// TestBadLine: a real server behind a serial line that does all that a line can do to
// bytes. The board confirms the right image, in bounded calls, time and bytes; on v1,
// which gives a deployment up after six answers in a row that broke off, it may say so
// instead, and goes on with what it runs.
func TestBadLine(t *testing.T) {
	url, token, stop := inProcess(t, "--data", t.TempDir(), "--v1-window", "0") // the boards' clock is their own
	defer stop()
	f := newLineFleet(t, url, token)
	rounds := 16
	if testing.Short() {
		rounds = 3
	}
	all := map[string]int{}
	for seed := range uint64(rounds) {
		t.Logf("seed %d", seed)
		id := fmt.Sprintf("board-%d", seed)
		b, n := f.board(t, id)
		http, err := devicehttp.New(url)
		if err != nil {
			t.Fatal(err)
		}
		rate := 3000
		if seed%3 == 0 {
			rate = 400 // of the longest frames hardly one gets through
		}
		l := newBadLine(seed, b.Chip, bridge.Over(http.Do), 200, rate)
		l.newBoard()
		var running board.Boot
		done, gaveUp, steps := false, false, 0
		app := board.App{Transport: l, Clock: l, Native: n, ReportEvery: 8, Seed: seed,
			OnStart: func(_ *device.Updater, at board.Boot) { running = at; l.newBoard() },
			OnEvent: func(e device.Event) {
				done = done || e.Kind == device.EventConfirmed
				if e.Kind == device.EventFailed && e.Reason == device.ReasonChunkAnswer && seed%4 == 1 {
					done, gaveUp = true, true
				}
				// A word for people in the middle of everything disturbs nothing.
				l.client.Say(uint8(e.Kind), uint8(e.Reason), uint8(e.Slot), e.Bytes)
			},
			Stop: func() bool {
				if steps++; steps > 1_000_000 || l.calls > 1500 || l.Millis() > 24*3600*1000 {
					t.Fatalf("seed %d: no end after %v, %d calls, %d bytes: %v", seed, time.Duration(l.now())*time.Microsecond, l.calls, l.sent, l.did)
				}
				return done
			}}
		if seed%4 == 1 {
			app.Native, app.Identity = nil, f.oldBoard(t, "old-"+id)
		}
		if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil {
			t.Fatal(err)
		}
		l.f.Reset()
		http.Close()
		want, slot := f.newImage, boot.Slot(1)
		if gaveUp {
			l.did["gave up"]++
			want, slot = f.oldImage, 0
		}
		if running.Running != slot || !holds(t, b, running, want) {
			t.Fatalf("seed %d: slot %d runs, with another image than it should: %v", seed, running.Running, l.did)
		}
		t.Logf("%v, %d calls, %d bytes from the board: %v", (time.Duration(l.now()) * time.Microsecond).Round(time.Millisecond), l.calls, l.sent, l.did)
		for k, v := range l.did {
			all[k] += v
		}
	}
	if all["gave up"] > 2 {
		t.Errorf("%d of 4 boards on v1 gave up", all["gave up"])
	}
	for _, k := range []string{"lost", "doubled", "changed", "made up", "cut", "unheard", "asked again", "damaged", "slow", "crossed", "bridge anew", "strange"} {
		if all[k] == 0 && !testing.Short() {
			t.Errorf("it never came to this: %s", k)
		}
	}
}

// TestGoodLine: what the line costs where nothing goes wrong.
func TestGoodLine(t *testing.T) {
	url, token, stop := inProcess(t, "--data", t.TempDir())
	defer stop()
	f := newLineFleet(t, url, token)
	b, n := f.board(t, "board")
	http, err := devicehttp.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.Close()
	l := newBadLine(1, b.Chip, bridge.Over(http.Do), 0, 1)
	l.newBoard()
	done, offered := false, uint64(0)
	var written time.Duration
	app := board.App{Transport: l, Clock: l, Native: n,
		OnStart: func(*device.Updater, board.Boot) { l.newBoard() },
		OnEvent: func(e device.Event) {
			switch e.Kind {
			case device.EventOffer:
				offered = l.now()
				l.sent, l.said = 0, 0
			case device.EventVerifying:
				written = time.Duration(l.now()-offered) * time.Microsecond
			case device.EventStaged:
				done = true
			}
		},
		Stop: func() bool { return done }}
	if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil {
		t.Fatal(err)
	}
	for _, k := range []string{"asked again", "damaged", "strange", "unheard"} {
		if l.did[k] != 0 {
			t.Errorf("%s: %d times on a good line", k, l.did[k])
		}
	}
	size := float64(len(f.newImage))
	t.Logf("%d bytes of an image: %d bytes to the board (%.3f x), %d from it (%.3f x); %d calls; %.1f s, where the bytes alone take %.1f s",
		len(f.newImage), l.said, float64(l.said)/size, l.sent, float64(l.sent)/size, l.calls, written.Seconds(), size*byteMicros/1e6)
	if float64(l.said+l.sent) > 1.15*size {
		t.Errorf("%d bytes on the line for %d", l.said+l.sent, len(f.newImage))
	}
}

// TestLineOfNoise: a line that no frame survives. The board says that nobody can be
// reached, less and less often, and goes on with what it runs.
func TestLineOfNoise(t *testing.T) {
	url, token, stop := inProcess(t, "--data", t.TempDir())
	defer stop()
	f := newLineFleet(t, url, token)
	b, n := f.board(t, "board")
	http, err := devicehttp.New(url)
	if err != nil {
		t.Fatal(err)
	}
	defer http.Close()
	t.Log("seed 1")
	l := newBadLine(1, b.Chip, bridge.Over(http.Do), 1<<30, 6)
	l.newBoard()
	var running board.Boot
	unreachable := 0
	app := board.App{Transport: l, Clock: l, Native: n,
		OnStart: func(_ *device.Updater, at board.Boot) { running = at; l.newBoard() },
		OnEvent: func(e device.Event) {
			switch e.Kind {
			case device.EventUnreachable:
				unreachable++
			case device.EventOffer, device.EventChunk, device.EventStaged:
				t.Errorf("event %d out of noise", e.Kind)
			}
		},
		Stop: func() bool { return unreachable >= 50 }}
	if err := b.Run(t.Context(), boot.ResetPowerOn, app); err != nil && !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	if running.Running != 0 || !holds(t, b, running, f.oldImage) {
		t.Error("it runs something else")
	}
	// A try is a session that can't be opened: eight frames of 15 bytes and their escapes.
	if l.sent > unreachable*serialTries*(2*13+2) {
		t.Errorf("%d bytes for %d tries", l.sent, unreachable)
	}
	if hour := uint64(3600 * 1000); l.Millis() < hour {
		t.Errorf("50 tries in %d ms", l.Millis())
	}
}

const serialTries = 8
