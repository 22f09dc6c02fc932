package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/sim/nor"
)

func deviceIdentity() v1.Identity { return v1.Identity{ID: "d", Signed: true, Key: testKey} }

var testKey = bytes.Repeat([]byte{0x42}, 32)

// scratchBytes are enough for two snapshots of the large profile.
const scratchBytes = 0x6000

// small is a board of 1 MiB with two slots of 128 KiB, so that a sweep is quick.
type geometry struct {
	name              string
	cfg               nor.Config
	noState, noJrnl   bool
	factory           bool
	slotSize, imgSize int
	chunk             int
}

func smallTable(g geometry) esp32.Table {
	t := esp32.Table{HasMD5: true}
	add := func(name string, typ, sub uint8, off, size uint32) {
		p := esp32.Partition{Type: typ, Subtype: sub, Offset: off, Size: size}
		copy(p.Label[:], name)
		t.P[t.N] = p
		t.N++
	}
	add("otadata", esp32.TypeData, esp32.SubtypeOTA, 0xC000, 0x2000)
	if !g.noState {
		add("rnl_state", esp32.TypeRunnel, esp32.SubtypeState, 0xE000, 0x2000)
	}
	size := uint32(g.slotSize)
	at := uint32(0x10000)
	if g.factory {
		add("factory", esp32.TypeApp, esp32.SubtypeFactory, at, size)
		at += size
	}
	add("app0", esp32.TypeApp, esp32.SubtypeOTA0, at, size)
	add("app1", esp32.TypeApp, esp32.SubtypeOTA0+1, at+size, size)
	if !g.noJrnl {
		add("rnl_journal", esp32.TypeRunnel, esp32.SubtypeJournal, at+2*size, 0x2000)
	}
	add("rnl_scratch", esp32.TypeRunnel, esp32.SubtypeScratch, at+2*size+0x2000, scratchBytes)
	return t
}

func image(t testing.TB, size int, version string, b Behaviour) []byte {
	t.Helper()
	img, err := BuildImage(ImageSpec{Size: size, Project: "test", Version: version, Behave: b, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func standard() geometry {
	return geometry{name: "standard", cfg: nor.Config{Size: 1 << 20}, slotSize: 128 << 10, imgSize: 64000, chunk: 1024}
}

func newBoard(t testing.TB, g geometry, app []byte) *Board {
	t.Helper()
	chip, err := nor.New(g.cfg)
	if err != nil {
		t.Fatal(err)
	}
	b := &Board{Chip: chip}
	if err := b.Write(Layout{Table: smallTable(g), App: app}); err != nil {
		t.Fatal(err)
	}
	return b
}

// world is a board, its server and how it went.
type world struct {
	t       testing.TB
	b       *Board
	s       *fakeServer
	clock   VirtualClock
	up      *device.Updater
	run     boot.Slot
	events  []device.Event
	chunks  int
	id      string // of the case, for a failure
	allowed int    // idle polls before Run stops
}

func newWorld(t testing.TB, b *Board, chunk int) *world {
	w := &world{t: t, b: b, s: &fakeServer{key: testKey, chunk: chunk}, allowed: 3}
	w.s.clock = &w.clock
	return w
}

func (w *world) offer(img []byte, version string, stamp int64) {
	w.s.image, w.s.version, w.s.stamp = img, version, stamp
}

// power runs the board until it has nothing more to do or the power is cut.
func (w *world) power(reason boot.ResetReason) error {
	idle, away, steps := 0, 0, 0
	return w.b.Run(context.Background(), reason, App{
		Transport: w.s, Clock: &w.clock, PollMillis: 10_000, TrialMillis: 60_000,
		Identity: v1.Identity{ID: "d", Signed: true, Key: testKey}, ChunkSize: max(1024, w.s.chunk),
		OnStart: func(u *device.Updater, bt Boot) { w.up, w.run = u, bt.Running },
		OnEvent: func(e device.Event) {
			w.events = append(w.events, e)
			switch e.Kind {
			case device.EventUpToDate:
				idle++
			case device.EventUnreachable:
				// A board without a store starts its nonces at the clock's second: a reset
				// within it is refused until the next one.
				if away++; away > 20 {
					idle = w.allowed
				}
			case device.EventChunk:
				w.chunks++
			}
		},
		Stop: func() bool {
			if steps++; steps > 2_000_000 {
				w.t.Fatalf("%s: no end; last events %v", w.id, w.events[max(0, len(w.events)-12):])
			}
			return idle >= w.allowed
		},
	})
}

func (w *world) mustRun(reason boot.ResetReason) {
	w.t.Helper()
	if err := w.power(reason); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) slot(i int) []byte {
	t, err := w.b.Table()
	if err != nil {
		w.t.Fatal(err)
	}
	p := t.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(i))
	out := make([]byte, p.Size)
	if err := w.b.Chip.ReadAt(out, p.Offset); err != nil {
		w.t.Fatal(err)
	}
	return out
}

func TestUpdateConfirm(t *testing.T) {
	g := standard()
	a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize+16, "B", BehaveOK)
	w := newWorld(t, newBoard(t, g, a), g.chunk)
	w.offer(b, "B", 100)
	w.mustRun(boot.ResetPowerOn)
	if w.run != 1 || !bytes.HasPrefix(w.slot(1), b) {
		t.Fatalf("slot %d runs", w.run)
	}
	if w.up.State().Confirmed.Digest == [32]byte{} || w.up.State().Trial.Open {
		t.Error("not confirmed in the state")
	}
	if w.s.fetched != len(b) {
		t.Errorf("%d bytes fetched for %d", w.s.fetched, len(b))
	}
	if !w.s.said("boot_status", "success") || !w.s.said("new_version", "B") || !w.s.said("verified", true) {
		t.Errorf("reports %v", w.s.reports)
	}
	// And back into the first slot with the next release.
	c := image(t, g.imgSize, "C", BehaveOK)
	w.offer(c, "C", 200)
	w.mustRun(boot.ResetPowerOn)
	if w.run != 0 || !bytes.HasPrefix(w.slot(0), c) {
		t.Fatalf("slot %d runs", w.run)
	}
}

// A release that fails its trial goes back, is reported with the reason, and is
// not tried again until the operator gives it a newer stamp.
func TestBadReleases(t *testing.T) {
	for _, c := range []struct {
		behave Behaviour
		reason device.Reason
		bad    bool
	}{
		{BehavePanic, device.ReasonCrashed, true},
		{BehaveHang, device.ReasonCrashed, true},
		{BehaveSelfTest, device.ReasonSelfTest, true},
	} {
		t.Run(string(c.behave), func(t *testing.T) {
			g := standard()
			a, bad := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "X", c.behave)
			w := newWorld(t, newBoard(t, g, a), g.chunk)
			w.offer(bad, "X", 100)
			w.allowed = 1
			idle := 0
			for idle < 3 { // polls after the refusal end without an idle event
				idle++
				err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(40))
				if err != nil {
					t.Fatal(err)
				}
			}
			if w.run != 0 {
				t.Fatalf("slot %d runs", w.run)
			}
			if !w.s.said("error", c.reason.String()) {
				t.Errorf("%q was not reported: %v", c.reason, w.s.reports)
			}
			if w.s.fetched != len(bad) {
				t.Errorf("%d bytes fetched: a bad release was tried again", w.s.fetched)
			}
			w.s.stamp = 101
			if err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(40)); err != nil {
				t.Fatal(err)
			}
			if w.s.fetched < 2*len(bad) {
				t.Error("a retry with a newer stamp was not taken")
			}
		})
	}
}

// until is an App that ends after so many waits.
func (w *world) until(waits int) App {
	c := &countingClock{VirtualClock: &w.clock, left: waits}
	return App{
		Transport: w.s, Clock: c, PollMillis: 10_000, TrialMillis: 60_000,
		Identity: v1.Identity{ID: "d", Signed: true, Key: testKey}, ChunkSize: max(1024, w.s.chunk),
		OnStart: func(u *device.Updater, bt Boot) { w.up, w.run = u, bt.Running },
		OnEvent: func(e device.Event) { w.events = append(w.events, e) },
		Stop:    func() bool { return c.left <= 0 },
	}
}

type countingClock struct {
	*VirtualClock
	left int
}

func (c *countingClock) Wait(ctx context.Context, ms uint64) error {
	c.left--
	return c.VirtualClock.Wait(ctx, ms)
}

// A new image that reaches no server goes back and is staged again, three times,
// and never called bad.
func TestUnproven(t *testing.T) {
	g := standard()
	a, mute := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "M", BehaveMute)
	w := newWorld(t, newBoard(t, g, a), g.chunk)
	w.offer(mute, "M", 100)
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(3000)); err != nil {
		t.Fatal(err)
	}
	if w.run != 0 {
		t.Fatalf("slot %d runs", w.run)
	}
	staged := 0
	for _, e := range w.events {
		if e.Kind == device.EventStaged {
			staged++
		}
	}
	if staged != 4 || w.s.fetched != len(mute) {
		t.Errorf("staged %d times, %d bytes fetched", staged, w.s.fetched)
	}
	if !w.s.said("error", device.ReasonGaveUp.String()) {
		t.Errorf("reports %v", w.s.reports)
	}
	for _, b := range w.up.State().Bad {
		if b.Stamp != 0 {
			t.Error("an unproven image was called bad")
		}
	}
}

// TestCutEverywhere cuts the power at every flash operation of an update, before,
// inside and after it, and lets the board run to the end. The boards differ in
// what they have; the promises do not.
func TestCutEverywhere(t *testing.T) {
	base := standard()
	noBlocks, enc, unit, tail, stateless, big, fact := base, base, base, base, base, base, base
	noBlocks.name, noBlocks.cfg.BlockEraseSize = "no blocks", nor.NoBlocks
	enc.name, enc.cfg.Encrypt = "encrypted", true
	unit.name, unit.cfg.ProgramSize = "unit 16", 16
	tail.name, tail.noJrnl = "journal in the tail", true
	stateless.name, stateless.noState = "no state", true
	big.name, big.chunk = "chunks of 8 KiB", 8192
	fact.name, fact.factory = "factory", true
	for _, g := range []geometry{base, noBlocks, enc, unit, tail, stateless, big, fact} {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			sweep(t, g)
		})
	}
}

func sweep(t *testing.T, g geometry) {
	a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "B", BehaveOK)
	dry := newWorld(t, newBoard(t, g, a), g.chunk)
	ops := 0
	dry.b.Chip.SetLog(func(nor.Op) { ops++ })
	dry.offer(b, "B", 100)
	dry.mustRun(boot.ResetPowerOn)
	if ops < 100 {
		t.Fatalf("only %d flash operations: nothing is swept", ops)
	}
	worst := 0
	// Some of the operations, by a step that shares no factor with the update's
	// rhythm, on all boards; every one on the standard board unless -short.
	step := 13
	if testing.Short() {
		step = 37
	}
	if g.name == "standard" && !testing.Short() || os.Getenv("RUNNEL_SWEEP") == "full" {
		step = 1
	}
	cuts := 0
	for k := 0; k < ops; k += step {
		for tear := range 6 {
			cuts++
			if refetched := cutOnce(t, g, a, b, k, tear); refetched > worst {
				worst = refetched
			}
		}
	}
	t.Logf("%d operations, %d cuts, at most %d bytes fetched again", ops, cuts, worst)
	if limit := max(4096, g.chunk); worst > limit {
		t.Errorf("%d bytes fetched again after a cut, at most %d promised", worst, limit)
	}
}

func cutOnce(t *testing.T, g geometry, a, b []byte, k, tear int) int {
	t.Helper()
	id := fmt.Sprintf("%s: operation %d, tear %d", g.name, k, tear)
	w := newWorld(t, newBoard(t, g, a), g.chunk)
	w.id = id
	w.offer(b, "B", 100)
	n := 0
	w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
		n++
		if n-1 != k {
			return nor.Cut{}
		}
		return tearOf(op, tear, g)
	})
	err := w.power(boot.ResetPowerOn)
	if !errors.Is(err, ErrPowerCut) {
		t.Fatalf("%s: no cut, %v", id, err)
	}
	w.b.Chip.PowerOn()
	if _, err := w.b.Clone().Boot(); err != nil {
		t.Fatalf("%s: the board does not boot: %v", id, err)
	}
	w.mustRun(boot.ResetPowerOn)
	want := 1
	if g.factory {
		want = 0
	}
	if int(w.run) != want || !bytes.HasPrefix(w.slot(want), b) {
		t.Fatalf("%s: slot %d runs; failing %v", id, w.run, w.up.Status().Reason)
	}
	if !g.factory && !bytes.HasPrefix(w.slot(0), a) {
		t.Fatalf("%s: the old slot was touched", id)
	}
	return w.s.fetched - len(b)
}

// tearOf is one of six ways in which the power goes at an operation.
func tearOf(op nor.Op, tear int, g geometry) nor.Cut {
	switch tear {
	case 0:
		return nor.Cut{When: nor.CutBefore}
	case 1:
		return nor.Cut{When: nor.CutAfter}
	case 2:
		return nor.Cut{When: nor.CutInside}
	case 3:
		return nor.Cut{When: nor.CutInside, Done: op.Len / 2}
	case 4:
		return nor.Cut{When: nor.CutInside, Done: op.Len - 1}
	}
	return nor.Cut{When: nor.CutInside, Done: op.Len / 2, Disturb: op.Kind == nor.Program && !g.inTable(op.Off)}
}

// inTable: otadata, where a disturbed neighbour can't be told from a record.
func (g geometry) inTable(off uint32) bool { return off < 0x10000 }

// Clone is the board as a copy in memory.
func (b *Board) Clone() *Board {
	c := *b
	c.Chip = b.Chip.Clone()
	return &c
}
