package board

import (
	"bytes"
	"context"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/nor"
)

// I1: a chunk whose MAC, number or length is wrong never reaches flash, and too
// many fail the deployment with a reason that is reported.
func TestWrongChunksNeverReachFlash(t *testing.T) {
	for _, c := range []struct {
		name   string
		mangle func(n int, a map[string]any)
		reason device.Reason
	}{
		{"mac", func(_ int, a map[string]any) {
			a["mac"] = strings.Repeat("00", 32)
			a["hmac"] = a["mac"]
		}, device.ReasonChunkMAC},
		{"data", func(_ int, a map[string]any) { a["data"] = "QUFB" + a["data"].(string)[4:] }, device.ReasonChunkMAC},
		{"number", func(n int, a map[string]any) { a["chunk_number"] = n + 1 }, device.ReasonChunkNumber},
		{"size", func(_ int, a map[string]any) { a["size"] = 7 }, device.ReasonChunkLength},
		{"short", func(_ int, a map[string]any) { a["data"] = "AAAA" }, device.ReasonChunkLength},
		{"no mac", func(_ int, a map[string]any) { delete(a, "mac"); delete(a, "hmac") }, device.ReasonChunkAnswer},
		{"no base64", func(_ int, a map[string]any) { a["data"] = "*" }, device.ReasonChunkAnswer},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := standard()
			w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
			b := image(t, g.imgSize, "B", BehaveOK)
			w.offer(b, "B", 100)
			w.s.mangle = func(n int, a map[string]any) {
				if n == 5 {
					c.mangle(n, a)
				}
			}
			if err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(60)); err != nil {
				t.Fatal(err)
			}
			slot := w.slot(1)
			if !bytes.Equal(slot[:5*1024], b[:5*1024]) {
				t.Error("the right chunks are not in flash")
			}
			for _, x := range slot[5*1024:] {
				if x != 0xFF {
					t.Fatal("a wrong chunk reached flash")
				}
			}
			if w.run != 0 || !w.s.said("error", c.reason.String()) {
				t.Errorf("slot %d runs; reports %v", w.run, w.s.reports)
			}
		})
	}
}

// A chunk that is wrong a few times is fetched again.
func TestWrongChunkIsFetchedAgain(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	wrong := 0
	w.s.mangle = func(n int, a map[string]any) {
		if n == 7 && wrong < 3 {
			wrong++
			a["data"] = "AAAA"
		}
	}
	w.mustRun(boot.ResetPowerOn)
	if w.run != 1 || wrong != 3 {
		t.Errorf("slot %d runs after %d wrong chunks", w.run, wrong)
	}
}

// The image in flash is proven before the boot record changes (I5): a manifest
// that announces another digest fails, and the release is not tried again.
func TestDigestIsChecked(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	b := image(t, g.imgSize, "B", BehaveOK)
	w.offer(b, "B", 100)
	other := image(t, g.imgSize, "other", BehaveOK)
	swapped := 0
	w.s.mangle = func(n int, a map[string]any) {
		if n == 3 { // a chunk of another release with a right MAC: v1 can't tell
			swapped++
			for k, v := range w.s.answer(3, other) {
				a[k] = v
			}
		}
	}
	for range 2 {
		if err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(40)); err != nil {
			t.Fatal(err)
		}
	}
	if w.run != 0 || swapped != 1 || !w.s.said("error", device.ReasonDigest.String()) {
		t.Errorf("slot %d runs, %d swapped, reports %v", w.run, swapped, w.s.reports)
	}
}

// A release that does not fit is refused before the first erase.
func TestTooLarge(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(make([]byte, g.slotSize+16), "big", 100)
	slot0 := w.slot(0)
	erased := false
	w.b.Chip.SetLog(func(o nor.Op) { erased = erased || o.Kind == nor.Erase && o.Off >= 0x10000 && o.Off < 0x50000 })
	if err := w.b.Run(context.Background(), boot.ResetPowerOn, w.until(20)); err != nil {
		t.Fatal(err)
	}
	if erased || !bytes.Equal(slot0, w.slot(0)) || !w.s.said("error", device.ReasonTooLarge.String()) {
		t.Errorf("erased %v, reports %v", erased, w.s.reports)
	}
}

// The worked sequence of ESP-IDF's boot records, both sides: boot_app0, update,
// trial, confirm, update, trial, reset without a confirm.
func TestWorkedSequence(t *testing.T) {
	g := standard()
	b := newBoard(t, g, image(t, g.imgSize, "A", BehaveOK))
	const base = 0xC000
	seq0 := esp32.NewEntry(0, esp32.StateUndefined)
	if err := b.Chip.Load(base+esp32.SectorSize, seq0[:]); err != nil {
		t.Fatal(err)
	}
	want := func(when string, s0, st0, s1, st1 uint32) {
		t.Helper()
		var e [2]esp32.Entry
		for i := range e {
			if err := b.Chip.ReadAt(e[i][:], base+uint32(i)*esp32.SectorSize); err != nil {
				t.Fatal(err)
			}
		}
		if e[0].Seq() != s0 || e[0].State() != st0 || e[1].Seq() != s1 || e[1].State() != st1 {
			t.Fatalf("%s: %d/%d %d/%d, want %d/%d %d/%d", when, e[0].Seq(), e[0].State(), e[1].Seq(), e[1].State(), s0, st0, s1, st1)
		}
	}
	w := newWorld(t, b, g.chunk)
	const undef = esp32.StateUndefined
	want("boot_app0", 1, undef, 0, undef)
	staged := 0
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	run := func(stopAt device.EventKind) {
		t.Helper()
		done := false
		app := w.until(100)
		app.OnEvent = func(e device.Event) {
			if e.Kind == device.EventStaged {
				staged++
			}
			done = done || e.Kind == stopAt
		}
		app.Stop = func() bool { return done }
		if err := b.Run(context.Background(), boot.ResetSoftware, app); err != nil {
			t.Fatal(err)
		}
	}
	run(device.EventStaged)
	want("update of ota_1", 1, undef, 2, esp32.StateNew)
	run(device.EventTrial)
	want("reset", 1, undef, 2, esp32.StatePending)
	// Stopping there and starting again is a reset without a confirm.
	run(device.EventVerdict)
	want("reset unconfirmed", 1, undef, 2, esp32.StateAborted)
	w.offer(image(t, g.imgSize, "C", BehaveOK), "C", 200)
	run(device.EventConfirmed)
	// The rejected record is overwritten, so its sequence is free again, as in ESP-IDF.
	want("the next update, confirmed", 1, undef, 2, esp32.StateValid)
	w.offer(image(t, g.imgSize, "D", BehaveOK), "D", 300)
	run(device.EventStaged)
	want("update of ota_0", 3, esp32.StateNew, 2, esp32.StateValid)
	run(device.EventConfirmed)
	want("confirmed", 3, esp32.StateValid, 2, esp32.StateValid)
	if staged != 3 {
		t.Errorf("staged %d times", staged)
	}
}
