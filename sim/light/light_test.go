package light

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sync/errgroup"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/flash/flashtest"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// The flash keeps the contract of a real chip's driver, put back or not. (Stricter than
// that, it refuses what is programmed twice, unless erased bytes alone were.)
func TestFlash(t *testing.T) {
	flashtest.RunDriver(t, func(testing.TB) flash.Device {
		c := newChip(NewLibrary())
		c.load(&kept{})
		return c
	})
	t.Run("put back each time", func(t *testing.T) {
		flashtest.RunDriver(t, func(testing.TB) flash.Device {
			l := NewLibrary()
			return &forgetful{newChip(l), newChip(l), &kept{}}
		})
	})
}

// forgetful is a chip that is put back after each operation, with another board's
// work in between.
type forgetful struct {
	*chip
	other *chip
	k     *kept
}

func (f *forgetful) with(do func() error) error {
	f.load(f.k)
	err := do()
	f.settle()
	f.load(&kept{})
	return err
}

func (f *forgetful) ReadAt(p []byte, off uint32) error {
	return f.with(func() error { return f.chip.ReadAt(p, off) })
}

func (f *forgetful) Program(p []byte, off uint32) error {
	return f.with(func() error { return f.chip.Program(p, off) })
}

func (f *forgetful) Erase(off, n uint32) error {
	return f.with(func() error { return f.chip.Erase(off, n) })
}

// world is a bench of boards on a virtual clock, each with a server of its own.
type world struct {
	t       *testing.T
	book    *labserver.Book
	bench   *Bench
	boards  []Board
	servers []labserver.Server
	meter   Meter
	lib     *Library
	clock   board.VirtualClock
	fate    func(i int, version string) Fate
	rng     *rand.Rand
	drop    float64 // the share of answers that break off
	images  [][]byte
}

const testSeed = 7

func newWorld(t *testing.T, n int, behave ...board.Behaviour) *world {
	t.Helper()
	return newWorldWith(t, NewLibrary(), n, behave...)
}

func newWorldWith(t *testing.T, l *Library, n int, behave ...board.Behaviour) *world {
	t.Helper()
	w := &world{t: t, lib: l, rng: rand.New(rand.NewPCG(testSeed, 1))}
	t.Logf("seed %d", testSeed)
	var err error
	if w.book, err = labserver.NewBook(); err != nil {
		t.Fatal(err)
	}
	for i, b := range append([]board.Behaviour{board.BehaveOK}, behave...) {
		img, err := board.BuildImage(board.ImageSpec{Size: 48<<10 + 16*i, Project: "light", Version: fmt.Sprint(i), Behave: b, Seed: 3})
		if err != nil {
			t.Fatal(err)
		}
		w.images = append(w.images, img)
		if i > 0 {
			if _, err := w.book.Add(fmt.Sprint(i), img, uint32(i), 0, 1024); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.boards, w.servers = make([]Board, n), make([]labserver.Server, n)
	at := make([]uint64, n)
	for i := range w.boards {
		w.boards[i].ID, w.boards[i].Hardware, w.boards[i].Secret = labserver.Device, labserver.Hardware, w.book.Secret
		w.servers[i] = labserver.New(w.book)
		at[i] = uint64(i * 100)
	}
	w.bench, err = NewBench(Config{Library: w.lib, Meter: &w.meter, Transport: w, Product: labserver.Product, Roots: w.book.Baked(), Chunk: 1024, Seed: testSeed,
		Millis: w.clock.Millis, Wait: w.clock.Wait,
		Fate: func(_, _, version string) Fate {
			if w.fate == nil {
				return FateRun
			}
			return w.fate(w.running(), version)
		}}, w.boards, w.images[0], at)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// running is the number of the board that runs.
func (w *world) running() int {
	for i := range w.boards {
		if &w.boards[i] == w.bench.now {
			return i
		}
	}
	w.t.Fatal("a request, and no board runs")
	return 0
}

// Do is board.Transport's.
func (w *world) Do(_ context.Context, r device.Request) (board.Answer, error) {
	if w.rng.Float64() < w.drop/2 {
		return nil, errors.New("no answer")
	}
	a := w.servers[w.running()].Do(r)
	if w.rng.Float64() < w.drop {
		return &breaking{Answer: a, left: w.rng.IntN(20 << 10)}, nil
	}
	return a, nil
}

// breaking is an answer that breaks off.
type breaking struct {
	*labserver.Answer
	left int
}

func (b *breaking) Read(p []byte) (int, bool, error) {
	if b.left <= 0 {
		return 0, false, errors.New("broken off")
	}
	n, eof, err := b.Answer.Read(p[:min(len(p), b.left)])
	b.left -= n
	return n, eof, err
}

// pass lets time pass on the boards' clock.
func (w *world) pass(d time.Duration) {
	w.t.Helper()
	end := w.clock.Now + uint64(d.Milliseconds())
	ctx, cancel := context.WithCancel(w.t.Context())
	defer cancel()
	w.bench.c.Wait = func(ctx context.Context, ms uint64) error {
		w.clock.Now += ms
		if w.clock.Now >= end {
			cancel()
		}
		return ctx.Err()
	}
	if err := w.bench.Run(ctx); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) offer(n int) {
	for i := range w.servers {
		w.servers[i].Offer = n
	}
}

// holds says how many boards run an image, out of their own flash.
func (w *world) holds(image int) (n int) {
	w.t.Helper()
	c := newChip(w.lib)
	got := make([]byte, len(w.images[image]))
	for i := range w.boards {
		b := &w.boards[i]
		if b.ran == boot.NoSlot {
			continue
		}
		c.load(&b.flash)
		if err := c.ReadAt(got, slot0At+uint32(b.ran)*slotBytes); err != nil {
			w.t.Fatal(err)
		}
		if bytes.Equal(got, w.images[image]) {
			n++
		}
	}
	return n
}

func (w *world) confirmed(release int) (n int) {
	for i := range w.servers {
		if w.servers[i].Heard[release].Confirmed {
			n++
		}
	}
	return n
}

// Boards that share a bench update and go back as boards of their own do, over a
// network that breaks off, and each runs what its own flash holds.
func TestBoardsShareABench(t *testing.T) {
	const n = 30
	w := newWorld(t, n, board.BehaveOK, board.BehaveOK)
	w.drop = 0.3
	w.offer(0)
	w.pass(2 * time.Hour)
	if got := w.confirmed(0); got != n || w.holds(1) != n {
		t.Fatalf("%d of %d confirmed, %d hold the image; failed: %v", got, n, w.holds(1), w.meter.Reasons())
	}
	if w.meter.Unanswered.Load() == 0 || w.meter.Statuses()[0] != int(w.meter.Unanswered.Load()) || w.meter.Latency.Percentile(0.5) == 0 {
		t.Error("nothing broke off, or no poll was timed: this shows little")
	}
	if got := w.lib.Bytes(); got > 4*len(w.images[1]) {
		t.Errorf("%d boards that hold the same two images of %d bytes keep %d", n, len(w.images[1]), got)
	}
	// The next release: each fate once in five.
	w.drop = 0
	w.fate = func(i int, version string) Fate {
		if version != "2" {
			t.Errorf("board %d starts %q on trial", i, version)
		}
		return Fate(i % 5)
	}
	w.offer(1)
	w.pass(2 * time.Hour)
	for i := range w.servers {
		h := &w.servers[i].Heard[1]
		if fate := Fate(i % 5); h.Confirmed != (fate == FateRun) || h.Said(device.ReasonCrashed) != (fate == FateCrash) ||
			h.Said(device.ReasonSelfTest) != (fate == FateSelfTest) || h.Said(device.ReasonUnproven) != (fate == FateMute) {
			t.Errorf("board %d, fate %d: %+v", i, fate, h)
		}
	}
	m := &w.meter
	if m.Silent.Load() != n/5 || m.Confirmed.Load() != n+n/5 || m.Unproven.Load() < n/5 || m.RolledBack.Load() < 3*n/5 {
		t.Errorf("%d silent, %d confirmed, %d unproven, %d rolled back", m.Silent.Load(), m.Confirmed.Load(), m.Unproven.Load(), m.RolledBack.Load())
	}
	if got := m.Reasons(); got[device.ReasonCrashed.String()] != n/5 {
		t.Errorf("reasons %v", got)
	}
	// Who runs it is ordered back.
	w.offer(-1)
	for i := range w.servers {
		w.servers[i].Revert = i%5 == 0
	}
	before := m.RolledBack.Load()
	w.pass(10 * time.Minute)
	if got := m.RolledBack.Load() - before; got != n/5 || w.holds(2) > n/5 {
		t.Errorf("%d went back, %d run release 2", got, w.holds(2))
	}
}

// Benches that run side by side share a library, and each board has what is its own.
func TestBenchesShareALibrary(t *testing.T) {
	const n, each = 4, 5
	l := NewLibrary()
	worlds := make([]*world, n)
	for i := range worlds {
		worlds[i] = newWorldWith(t, l, each, board.BehaveOK)
		worlds[i].drop = 0.2
		worlds[i].offer(0)
	}
	var g errgroup.Group
	for _, w := range worlds {
		g.Go(func() error {
			w.pass(2 * time.Hour)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	for i, w := range worlds {
		if w.confirmed(0) != each || w.holds(1) != each {
			t.Errorf("bench %d: %d of %d confirmed, %d hold the image", i, w.confirmed(0), each, w.holds(1))
		}
	}
}

// What an image says of itself counts as on sim/board.
func TestImagesBehave(t *testing.T) {
	for behave, want := range map[board.Behaviour]device.Reason{
		board.BehavePanic: device.ReasonCrashed, board.BehaveHang: device.ReasonCrashed, board.BehaveSelfTest: device.ReasonSelfTest,
		board.BehaveNoBoot: device.ReasonNotVerified, board.BehavePanicR2: device.ReasonNone,
	} {
		w := newWorld(t, 2, behave)
		w.offer(0)
		w.pass(time.Hour)
		for i := range w.servers {
			if h := &w.servers[i].Heard[0]; h.Confirmed != (want == device.ReasonNone) || !h.Confirmed && !h.Said(want) {
				t.Errorf("%s: board %d: %+v", behave, i, h)
			}
		}
	}
}

// A board that can't start ends the run with an error, and names itself.
func TestNoImage(t *testing.T) {
	w := newWorld(t, 1, board.BehaveOK)
	w.boards[0].flash = kept{}
	if err := w.bench.Run(t.Context()); !errors.Is(err, ErrNoImage) {
		t.Errorf("%v", err)
	}
}

func TestLatency(t *testing.T) {
	var l Latency
	if l.Percentile(0.5) != 0 {
		t.Error("of nothing")
	}
	for _, d := range []time.Duration{-1, 0, time.Microsecond, 15 * time.Microsecond, 16 * time.Microsecond, 17 * time.Microsecond, 31 * time.Microsecond, 33 * time.Microsecond,
		time.Millisecond, 77 * time.Millisecond, time.Second, time.Hour, 100 * time.Hour} {
		l = Latency{}
		l.Add(d)
		got := l.Percentile(0.99)
		if least, most := d, max(d+d/16, 17*time.Microsecond)+2*time.Microsecond; d < 10*time.Hour && (got < least || got > most) {
			t.Errorf("%v reads as %v", d, got)
		}
	}
	for i := range 1000 {
		l.Add(time.Duration(i) * time.Millisecond)
	}
	if got := l.Percentile(0.5); got < 480*time.Millisecond || got > 560*time.Millisecond {
		t.Errorf("the median of 0 to 1 s is %v", got)
	}
}

// A board that waits is a few kilobytes; its struct is most of it.
func TestBoardIsLight(t *testing.T) {
	n := unsafe.Sizeof(Board{})
	t.Logf("%d bytes", n)
	if n > 3<<10 {
		t.Errorf("a board is %d bytes", n)
	}
}
