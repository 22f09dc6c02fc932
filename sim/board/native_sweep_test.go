package board

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/sim/nor"
)

// TestNativeCutEverywhere is TestCutEverywhere on the native wire, with a journal
// and with none: then the slot is its own journal.
func TestNativeCutEverywhere(t *testing.T) {
	base := standard()
	noJournal, enc, encBare, unit, unit32, small, big, fact, full, one := base, base, base, base, base, base, base, base, base, base
	noJournal.name, noJournal.noJrnl, noJournal.imgSize = "no journal", true, base.slotSize-4096
	enc.name, enc.cfg.Encrypt = "encrypted", true
	encBare.name, encBare.cfg.Encrypt, encBare.noJrnl, encBare.imgSize = "encrypted, no journal", true, true, base.slotSize-4096
	unit.name, unit.cfg.ProgramSize, unit.cfg.BlockEraseSize = "unit 16, no blocks", 16, nor.NoBlocks
	unit32.name, unit32.cfg.ProgramSize = "unit 32", 32
	small.name, small.chunk = "chunks of 256", 256
	big.name, big.chunk = "chunks of 16 KiB", 16384
	fact.name, fact.factory = "factory", true
	full.name, full.imgSize = "slot exactly full", base.slotSize
	one.name, one.imgSize, one.chunk = "one chunk", 4080, 4096
	for _, g := range []geometry{base, noJournal, enc, encBare, unit, unit32, small, big, fact, full, one} {
		t.Run(g.name, func(t *testing.T) {
			t.Parallel()
			nativeSweep(t, g)
		})
	}
}

func nativeSweep(t *testing.T, g geometry) {
	a, b := image(t, 4096, "A", BehaveOK), image(t, g.imgSize, "B", BehaveOK)
	dry := newNativeWorld(t, g, a)
	ops := 0
	dry.b.Chip.SetLog(func(nor.Op) { ops++ })
	rel := dry.p.release(t, b, "B", 1, g.chunk)
	dry.s.put(rel)
	dry.runTo(boot.ResetPowerOn, 400, at(device.EventConfirmed))
	if ops < 20 {
		t.Fatalf("only %d flash operations: nothing is swept", ops)
	}
	step := 17
	if testing.Short() {
		step = 53
	}
	if g.name == "standard" && !testing.Short() || os.Getenv("RUNNEL_SWEEP") == "full" || ops < 100 {
		step = 1
	}
	worst, cuts := 0, 0
	for k := 0; k < ops; k += step {
		for tear := range 6 {
			cuts++
			worst = max(worst, nativeCutOnce(t, g, a, rel, k, tear))
		}
	}
	t.Logf("%d operations, %d cuts, at most %d bytes fetched again", ops, cuts, worst)
	// A record is a chunk and a hash; what resumes begins with a hash.
	limit := max(4096, g.chunk) / g.chunk * (g.chunk + 32)
	if g.noJrnl && g.cfg.Encrypt {
		limit = len(rel.stream) // blank can't be told there, and nothing else says how far it was
	} else if g.noJrnl {
		limit += max(4096, g.chunk) / g.chunk * (g.chunk + 32) // a guess, a sector early
	}
	if worst > limit+32*4 {
		t.Errorf("%d bytes fetched again after a cut, at most %d promised", worst, limit)
	}
}

func nativeCutOnce(t *testing.T, g geometry, a []byte, rel *nativeRelease, k, tear int) int {
	t.Helper()
	id := fmt.Sprintf("%s: operation %d, tear %d", g.name, k, tear)
	w := newNativeWorld(t, g, a)
	w.s.put(rel)
	n := 0
	w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
		n++
		if n-1 != k {
			return nor.Cut{}
		}
		return tearOf(op, tear, g)
	})
	app := w.app(400)
	err := w.b.Run(t.Context(), boot.ResetPowerOn, app)
	if !errors.Is(err, ErrPowerCut) {
		t.Fatalf("%s: no cut, %v", id, err)
	}
	w.b.Chip.PowerOn()
	bt, err := w.b.Clone().Boot()
	if err != nil {
		t.Fatalf("%s: the board does not boot: %v", id, err)
	}
	want := boot.Slot(1)
	if g.factory {
		want = 0
	}
	if bt.Running == want && !bytes.HasPrefix(w.slot(int(want)), rel.image) {
		t.Fatalf("%s: half an image starts", id)
	}
	// While an image waits to be staged again, two minutes, polls have nothing new.
	up := 0
	w.runTo(boot.ResetPowerOn, 600, func(e device.Event) bool {
		if e.Kind == device.EventUpToDate {
			up++
		}
		return up > 4
	})
	if w.run != want || !bytes.HasPrefix(w.slot(int(want)), rel.image) {
		t.Fatalf("%s: slot %d runs; failing %v; last events %v", id, w.run, w.up.Status().Reason, w.events[max(0, len(w.events)-10):])
	}
	if f := w.up.State().Floors; f.Stamp != 1 {
		t.Fatalf("%s: floors %+v after the confirm", id, f)
	}
	if !g.factory && !bytes.HasPrefix(w.slot(0), a) {
		t.Fatalf("%s: the old slot was touched", id)
	}
	return w.s.fetched - len(rel.stream)
}
