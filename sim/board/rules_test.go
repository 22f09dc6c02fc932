package board

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Tests of the rules for slots, resume and trial: docs/design/trial.md and
// docs/design/journal.md, a rule a test. The sweeps hold the same rules at every
// flash operation; these say which one broke.

// runTo runs the board until an event for which stop is true, or so many waits.
func (w *world) runTo(reason boot.ResetReason, waits int, stop func(device.Event) bool) {
	w.t.Helper()
	app := w.until(waits)
	done := false
	app.OnEvent = func(e device.Event) {
		w.events = append(w.events, e)
		done = done || stop(e)
	}
	limit := app.Stop
	app.Stop = func() bool { return done || limit() }
	if err := w.b.Run(context.Background(), reason, app); err != nil {
		w.t.Fatal(err)
	}
}

func at(k device.EventKind) func(device.Event) bool {
	return func(e device.Event) bool { return e.Kind == k }
}

// past is the first chunk behind so many bytes.
func past(n uint32) func(device.Event) bool {
	return func(e device.Event) bool { return e.Kind == device.EventChunk && e.Bytes >= n }
}

// saw is the first event of a kind and reason.
func (w *world) saw(k device.EventKind, r device.Reason) (device.Event, bool) {
	for _, e := range w.events {
		if e.Kind == k && e.Reason == r {
			return e, true
		}
	}
	return device.Event{}, false
}

func (w *world) forget() { w.events, w.s.fetched, w.s.reports = nil, 0, nil }

// records puts two boot records into flash.
func (w *world) records(e0, e1 esp32.Entry) {
	w.t.Helper()
	for i, e := range []esp32.Entry{e0, e1} {
		off := 0xC000 + uint32(i)*esp32.SectorSize
		if err := errors.Join(w.b.Chip.Erase(off, esp32.SectorSize), w.b.Chip.Program(e[:], off)); err != nil {
			w.t.Fatal(err)
		}
	}
}

// I2: the running slot comes from the port. After a fallback by the bootloader the
// records name the broken slot alone; the update goes into that one, and a cut in
// the middle of it starts what ran before.
func TestTargetAfterFallback(t *testing.T) {
	g := standard()
	a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "B", BehaveOK)
	for _, c := range []struct {
		name   string
		e0, e1 esp32.Entry
	}{
		{"one record", esp32.NewEntry(1, esp32.StateValid), esp32.NewEntry(2, esp32.StateValid)},
		{"both records", esp32.NewEntry(4, esp32.StateValid), esp32.NewEntry(2, esp32.StateValid)},
		{"no other record", esp32.BlankEntry(), esp32.NewEntry(2, esp32.StateValid)},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, newBoard(t, g, a), g.chunk)
			w.records(c.e0, c.e1)
			w.offer(b, "B", 100)
			w.runTo(boot.ResetPowerOn, 100, past(20000))
			if w.run != 0 {
				t.Fatalf("slot %d runs: there is no fallback", w.run)
			}
			bt, err := w.b.Clone().Boot()
			if err != nil || bt.Running != 0 {
				t.Fatalf("after a cut in the download slot %d starts, %v: %v", bt.Running, err, bt.Steps)
			}
			w.mustRun(boot.ResetPowerOn)
			if w.run != 1 || !bytes.HasPrefix(w.slot(1), b) || !bytes.HasPrefix(w.slot(0), a) {
				t.Errorf("slot %d runs", w.run)
			}
		})
	}
}

// I3: while the new image is on trial nothing of the other slot is touched, also
// where another release is on offer.
func TestTrialTouchesNoOtherSlot(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	w.runTo(boot.ResetPowerOn, 100, at(device.EventTrial))
	if w.run != 1 {
		t.Fatalf("slot %d runs", w.run)
	}
	// A board that lost its contact in the trial: the server offers C meanwhile.
	w.b.Chip.PowerOn()
	w.records(esp32.NewEntry(1, esp32.StateUndefined), esp32.NewEntry(2, esp32.StateNew))
	w.offer(image(t, g.imgSize, "C", BehaveOK), "C", 200)
	ops, touched, confirmed := 0, 0, false
	app := w.until(100)
	app.OnEvent = func(e device.Event) { confirmed = confirmed || e.Kind == device.EventConfirmed }
	app.Stop = func() bool { return confirmed }
	w.b.Chip.SetLog(func(o nor.Op) {
		ops++
		if o.Off < 0x10000+uint32(g.slotSize) && o.Off+o.Len > 0x10000 {
			touched++
		}
	})
	if err := w.b.Run(context.Background(), boot.ResetSoftware, app); err != nil {
		t.Fatal(err)
	}
	if ops == 0 || touched != 0 || !confirmed {
		t.Errorf("%d operations, %d in the other slot, confirmed %v", ops, touched, confirmed)
	}
}

// A download in progress is displaced by a newer release, or after the operator
// took it back; an older one has to wait.
func TestWhatDisplacesADownload(t *testing.T) {
	g := standard()
	const half = 30000
	b, c := image(t, g.imgSize, "B", BehaveOK), image(t, g.imgSize+32, "C", BehaveOK)
	start := func(t *testing.T) *world {
		w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
		w.offer(b, "B", 100)
		w.runTo(boot.ResetPowerOn, 100, past(half))
		w.forget()
		return w
	}
	t.Run("the same goes on", func(t *testing.T) {
		w := start(t)
		w.mustRun(boot.ResetPowerOn)
		if w.run != 1 || w.s.fetched > len(b)-half+4096 {
			t.Errorf("slot %d runs, %d bytes fetched of %d", w.run, w.s.fetched, len(b))
		}
	})
	t.Run("older waits", func(t *testing.T) {
		w := start(t)
		w.offer(c, "C", 50)
		w.runTo(boot.ResetPowerOn, 20, at(device.EventStaged))
		if _, said := w.saw(device.EventFailed, device.ReasonOlder); !said || w.s.fetched != 0 {
			t.Fatalf("%d bytes of an older release were fetched", w.s.fetched)
		}
		w.offer(b, "B", 100)
		w.mustRun(boot.ResetPowerOn)
		if w.run != 1 || w.s.fetched > len(b)-half+4096 {
			t.Errorf("the progress was lost: %d bytes fetched", w.s.fetched)
		}
	})
	t.Run("newer displaces", func(t *testing.T) {
		w := start(t)
		w.offer(c, "C", 200)
		w.mustRun(boot.ResetPowerOn)
		if w.run != 1 || !bytes.HasPrefix(w.slot(1), c) || w.s.fetched != len(c) {
			t.Errorf("slot %d runs, %d bytes fetched", w.run, w.s.fetched)
		}
	})
	t.Run("cancelled, then older", func(t *testing.T) {
		w := start(t)
		w.s.image = nil
		w.runTo(boot.ResetPowerOn, 5, func(device.Event) bool { return false })
		if _, said := w.saw(device.EventFailed, device.ReasonCancelled); !said {
			t.Fatalf("nothing was cancelled: %v", w.events)
		}
		w.offer(c, "C", 50)
		w.mustRun(boot.ResetPowerOn)
		if w.run != 1 || !bytes.HasPrefix(w.slot(1), c) {
			t.Errorf("slot %d runs", w.run)
		}
	})
}

// Where a download can't be resumed the updater says so, takes it all the same, and
// starts over after a cut.
func TestNoResumeIsSaid(t *testing.T) {
	full, odd := standard(), standard()
	full.noJrnl, full.imgSize = true, full.slotSize
	odd.chunk = 768
	for _, c := range []struct {
		name   string
		g      geometry
		reason device.Reason
	}{{"slot exactly full, no journal", full, device.ReasonNoJournal}, {"chunks of 768", odd, device.ReasonNoChain}} {
		t.Run(c.name, func(t *testing.T) {
			g := c.g
			b := image(t, g.imgSize, "B", BehaveOK)
			w := newWorld(t, newBoard(t, g, image(t, 64000, "A", BehaveOK)), g.chunk)
			w.offer(b, "B", 100)
			w.runTo(boot.ResetPowerOn, 100, past(30000))
			if _, said := w.saw(device.EventNoResume, c.reason); !said {
				t.Fatalf("not said: %v", w.events)
			}
			w.forget()
			w.mustRun(boot.ResetPowerOn)
			if w.run != 1 || !bytes.HasPrefix(w.slot(1), b) || w.s.fetched != len(b) {
				t.Errorf("slot %d runs, %d bytes fetched of %d", w.run, w.s.fetched, len(b))
			}
		})
	}
}

// What flash lost while the board was off is noticed by the walk: the download goes
// on before the damage, and the image is right in the end.
func TestDamageBetweenStarts(t *testing.T) {
	g := standard()
	b := image(t, g.imgSize, "B", BehaveOK)
	for _, at := range []uint32{0, 5000, 29000} {
		w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
		w.offer(b, "B", 100)
		w.runTo(boot.ResetPowerOn, 100, past(30000))
		w.forget()
		off := 0x10000 + uint32(g.slotSize) + at
		if err := w.b.Chip.Load(off, []byte{w.b.Chip.Raw()[off] ^ 4}); err != nil {
			t.Fatal(err)
		}
		w.mustRun(boot.ResetPowerOn)
		e, said := w.saw(device.EventResume, device.ReasonNone)
		if !said || e.Bytes > at || e.Bytes+8192 < at {
			t.Errorf("damage at %d: resumed at %d", at, e.Bytes)
		}
		if w.run != 1 || !bytes.HasPrefix(w.slot(1), b) {
			t.Errorf("damage at %d: slot %d runs", at, w.run)
		}
	}
}

// A power cut during the trial is no verdict: the old image runs for two minutes,
// proves the slot anew and stages it again, without another download.
func TestCutInTheTrialStagesAgain(t *testing.T) {
	g := standard()
	b := image(t, g.imgSize, "B", BehaveOK)
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(b, "B", 100)
	w.runTo(boot.ResetPowerOn, 100, at(device.EventTrial))
	w.forget()
	began := w.clock.Now
	w.runTo(boot.ResetPowerOn, 400, at(device.EventStaged))
	if w.run != 0 || w.up.Verdict() != boot.VerdictInconclusive {
		t.Fatalf("slot %d runs, %s", w.run, w.up.Verdict())
	}
	if ms := w.clock.Now - began; ms < 120_000 || ms > 125_000 {
		t.Errorf("staged again after %d ms", ms)
	}
	w.runTo(boot.ResetSoftware, 100, at(device.EventConfirmed))
	if w.run != 1 || w.s.fetched != 0 {
		t.Errorf("slot %d runs, %d bytes fetched again", w.run, w.s.fetched)
	}
}

// Under a bootloader without rollback the updater counts the boots and goes back
// by itself.
func TestBootloaderWithoutRollback(t *testing.T) {
	g := standard()
	a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "B", BehaveOK)
	t.Run("confirms", func(t *testing.T) {
		w := newWorld(t, newBoard(t, g, a), g.chunk)
		w.b.NoRollback = true
		w.offer(b, "B", 100)
		w.mustRun(boot.ResetPowerOn)
		if w.run != 1 || w.up.State().Trial.Open {
			t.Errorf("slot %d runs", w.run)
		}
	})
	t.Run("boots are counted", func(t *testing.T) {
		w := newWorld(t, newBoard(t, g, a), g.chunk)
		w.b.NoRollback = true
		w.offer(b, "B", 100)
		w.runTo(boot.ResetPowerOn, 100, at(device.EventStaged))
		for n := uint8(1); n <= 3; n++ {
			// It crashes as soon as the boot is counted in flash.
			app := w.until(100)
			app.Stop = func() bool { return w.up.Status().Phase == "trial" }
			if err := w.b.Run(context.Background(), boot.ResetPanic, app); err != nil {
				t.Fatal(err)
			}
			if w.run != 1 || w.up.State().Trial.Boots != n {
				t.Fatalf("boot %d: slot %d runs, %d boots counted", n, w.run, w.up.State().Trial.Boots)
			}
		}
		w.runTo(boot.ResetPanic, 100, at(device.EventReported))
		if w.run != 0 || !w.s.said("error", device.ReasonBootsSpent.String()) {
			t.Errorf("slot %d runs, reports %v", w.run, w.s.reports)
		}
	})
}

// An image that something else confirmed (the Arduino core does, before setup()) is
// reported as such.
func TestConfirmedElsewhere(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveEarly), "B", 100)
	w.runTo(boot.ResetPowerOn, 100, at(device.EventConfirmed))
	w.mustRun(boot.ResetPowerOn)
	if w.run != 1 || w.up.State().Trial.Open || !w.s.said("error", device.ReasonElsewhere.String()) {
		t.Errorf("slot %d runs, reports %v", w.run, w.s.reports)
	}
}

// An ordered way back leads to the other slot, where that holds a whole image; the
// next poll does not bring the rejected release back.
func TestOrderedWayBack(t *testing.T) {
	g := standard()
	a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize, "B", BehaveOK)
	w := newWorld(t, newBoard(t, g, a), g.chunk)
	w.s.rollback = true
	w.runTo(boot.ResetPowerOn, 5, func(device.Event) bool { return false })
	if w.run != 0 || !w.s.said("error", device.ReasonNoWayBack.String()) {
		t.Fatalf("slot %d runs with nothing in the other one, reports %v", w.run, w.s.reports)
	}
	w.offer(b, "B", 100)
	w.mustRun(boot.ResetPowerOn)
	w.forget()
	w.s.rollback = true
	w.runTo(boot.ResetPowerOn, 40, func(device.Event) bool { return false })
	if w.run != 0 || !w.s.said("rollback", true) || w.s.fetched != 0 {
		t.Errorf("slot %d runs, %d bytes fetched, reports %v", w.run, w.s.fetched, w.s.reports)
	}
}

// A wrong chunk is asked for again after a wait that doubles, with jitter.
func TestBackoffGrows(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	var asked []uint64
	w.s.mangle = func(n int, a map[string]any) {
		if n == 9 {
			asked = append(asked, w.clock.Now)
			a["size"] = 1
		}
	}
	w.runTo(boot.ResetPowerOn, 200, at(device.EventFailed))
	if len(asked) != 6 {
		t.Fatalf("asked %d times, not 6", len(asked))
	}
	jitter := false
	for i, base := 1, uint64(1000); i < len(asked); i, base = i+1, base*2 {
		ms := asked[i] - asked[i-1] - 10 // its round trip
		if ms < base/2 || ms > base {
			t.Errorf("try %d after %d ms, not between %d and %d", i+1, ms, base/2, base)
		}
		jitter = jitter || ms != base/2 && ms != base
	}
	if !jitter {
		t.Error("no jitter: a fleet would come back at once")
	}
}

// Retry-After of a busy server is kept to.
func TestRetryAfter(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	w.s.busy = 3
	w.runTo(boot.ResetPowerOn, 400, at(device.EventOffer))
	if w.s.busy != 0 || w.clock.Now < 3*busySeconds*1000 {
		t.Errorf("%d refusals left after %d ms", w.s.busy, w.clock.Now)
	}
}

// A chip that fails ends the deployment with its reason; what runs is left alone.
func TestDyingFlash(t *testing.T) {
	g := standard()
	a := image(t, g.imgSize, "A", BehaveOK)
	target := func(off uint32) bool {
		return off >= 0x10000+uint32(g.slotSize)+16384 && off < 0x10000+2*uint32(g.slotSize)
	}
	for _, c := range []struct {
		name   string
		spoil  func(*nor.Chip)
		reason device.Reason
	}{
		{"erase", func(c *nor.Chip) {
			c.SetFail(func(o nor.Op) error {
				return fails(o.Kind == nor.Erase && o.Off+o.Len > 0x10000+uint32(g.slotSize)+16384 && target(o.Off+o.Len-1))
			})
		}, device.ReasonFlashErase},
		{"program", func(c *nor.Chip) {
			c.SetFail(func(o nor.Op) error { return fails(o.Kind == nor.Program && target(o.Off)) })
		}, device.ReasonFlashProgram},
		{"read back", func(c *nor.Chip) {
			c.SetReadFlip(func(off uint32, p []byte) {
				if target(off) {
					p[0] ^= 1
				}
			})
		}, device.ReasonFlashRead},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, newBoard(t, g, a), g.chunk)
			w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
			c.spoil(w.b.Chip)
			w.runTo(boot.ResetPowerOn, 60, at(device.EventReported))
			if w.run != 0 || !bytes.HasPrefix(w.slot(0), a) || !w.s.said("error", c.reason.String()) {
				t.Errorf("slot %d runs, reports %v", w.run, w.s.reports)
			}
		})
	}
}

func fails(yes bool) error {
	if yes {
		return errDying
	}
	return nil
}

var errDying = errors.New("the sector is worn out")

// Step does one bounded thing: one erase, or one program of at most 4 KiB, or reads
// of at most 4 KiB of a slot and one sector of the journal; never two of them.
func TestStepIsBounded(t *testing.T) {
	g := standard()
	g.chunk = 8192
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	var erases, programs uint32
	next := uint32(0)
	w.b.Chip.SetLog(func(o nor.Op) {
		if o.Kind == nor.Erase {
			erases++
			return
		}
		if programs > 0 && o.Off != next {
			t.Errorf("a second program at 0x%x in one step", o.Off)
		}
		programs, next = programs+o.Len, o.Off+o.Len
	})
	read, steps, mostRead, mostProgrammed := uint64(0), 0, uint64(0), uint32(0)
	watch := func(a App) App {
		stop := a.Stop
		a.OnStart = func(u *device.Updater, bt Boot) { // what the bootloader did is no step
			w.up, w.run = u, bt.Running
			erases, programs, read = 0, 0, w.b.Chip.Stats().BytesRead
		}
		a.Stop = func() bool {
			n := w.b.Chip.Stats().BytesRead - read
			if erases > 1 || programs > 4096 || erases > 0 && programs > 0 || n > 4096+4096 {
				t.Fatalf("one step: %d erases, %d bytes programmed, %d read (%s)", erases, programs, n, w.up.Status().Phase)
			}
			mostRead, mostProgrammed = max(mostRead, n), max(mostProgrammed, programs)
			erases, programs, read = 0, 0, w.b.Chip.Stats().BytesRead
			steps++
			return stop()
		}
		return a
	}
	// A cut in the middle, so that the walk is among the steps; a way back in the end.
	half := watch(w.until(100))
	event := half.OnEvent
	cut := false
	half.OnEvent = func(e device.Event) { event(e); cut = cut || e.Kind == device.EventChunk && e.Bytes > 30000 }
	inner := half.Stop
	half.Stop = func() bool { return inner() || cut }
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, half); err != nil {
		t.Fatal(err)
	}
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, watch(w.until(40))); err != nil {
		t.Fatal(err)
	}
	w.s.rollback = true
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, watch(w.until(40))); err != nil {
		t.Fatal(err)
	}
	if w.run != 0 || steps < 500 || mostProgrammed == 0 || mostRead < 4096 {
		t.Fatalf("slot %d runs after %d steps: not all of it was seen", w.run, steps)
	}
	t.Logf("%d steps, at most %d bytes read and %d programmed in one", steps, mostRead, mostProgrammed)
}

// A crashing image never reaches its updater: what starts it is seen all the same.
func TestOnBootSeesEveryStart(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehavePanic), "B", 100)
	app := w.until(400)
	var boots []string
	app.OnBoot = func(r boot.ResetReason, b Boot) { boots = append(boots, fmt.Sprintf("%s %d", r, b.Running)) }
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, app); err != nil {
		t.Fatal(err)
	}
	want := []string{"power-on 0", "software 1", "panic 0"}
	if !slices.Equal(boots, want) {
		t.Errorf("boots: %v, not %v", boots, want)
	}
}

// Slots are numbered by the updater and counted by the bootloader: a board on which
// the two differ is refused before anything is written.
func TestGapInSlotsIsRefused(t *testing.T) {
	g := standard()
	b := newBoard(t, g, image(t, g.imgSize, "A", BehaveOK))
	table := smallTable(g)
	table.Find(esp32.TypeApp, esp32.SubtypeOTA0+1).Subtype++ // ota_0 and ota_2
	var raw [esp32.TableSize]byte
	if err := table.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	if err := b.Chip.Load(esp32.TableOffset, raw[:]); err != nil {
		t.Fatal(err)
	}
	before := b.Chip.Stats().Ops()
	err := b.Run(context.Background(), boot.ResetPowerOn, newWorld(t, b, g.chunk).until(1))
	if !errors.Is(err, ErrGap) || b.Chip.Stats().Ops() != before {
		t.Errorf("%v, %d operations", err, b.Chip.Stats().Ops()-before)
	}
}
