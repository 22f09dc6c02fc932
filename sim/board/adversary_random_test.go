package board

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Any attack on any answer, a new one for each, with power cuts between, for up to a
// day: whatever comes of it, the board has the right image once the network heals.
func TestRandomAttacks(t *testing.T) {
	all := attacks()
	rapid.Check(t, func(rt *rapid.T) {
		seed := rapid.Uint64().Draw(rt, "seed")
		often := rapid.IntRange(1, 10).Draw(rt, "attacked of ten")
		hours := rapid.IntRange(1, 24).Draw(rt, "hours")
		cuts := rapid.SliceOfN(rapid.IntRange(1, 400), 0, 3).Draw(rt, "operations before each power cut")
		randomAttacks(t, rt, all, seed, often, float64(hours), cuts)
	})
}

func randomAttacks(t *testing.T, rt *rapid.T, all []attack, seed uint64, often int, hours float64, cuts []int) {
	rng := rand.New(rand.NewPCG(seed, 1))
	w, g, b, c := adversaryWorld(failing{t, rt})
	o := w.watch(g, b)
	e := &env{s: w.s, other: c, first: map[part][]byte{}}
	var log []string
	w.s.mangle = func(r device.Request, a *nativeAnswer) {
		if rng.IntN(10) >= often {
			return
		}
		k := all[rng.IntN(len(all))]
		if p := partOf(r); len(a.body) > 0 && (k.on == nil || k.on[0] == p) && k.name != "slow" {
			log = append(log, fmt.Sprintf("%s on %s", k.name, p))
			k.do(e, r, a)
		}
	}
	confirmed := at(device.EventConfirmed)
	for _, n := range cuts {
		w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
			if n--; n >= 0 {
				return nor.Cut{}
			}
			o.some = false // what a cut operation left is nobody's word
			return nor.Cut{When: nor.CutInside, Done: op.Len / 2}
		})
		cut := w.hoursOrCut(hours/8, o, confirmed)
		w.b.Chip.SetCut(nil)
		if cut {
			w.b.Chip.PowerOn()
		}
	}
	w.hours(hours/2, boot.ResetPowerOn, o, confirmed)
	w.s.mangle = nil
	orderRetry := func() {
		// A trial that nobody could answer is given up after four times: an operator's
		// word is needed then, as the reason says.
		if w.s.said(native.StateFailed, device.ReasonGaveUp) {
			w.s.retry = b.m.Image.Digest[:]
		}
	}
	for range 4 {
		if w.up.State().Confirmed.Digest == b.m.Image.Digest {
			break
		}
		orderRetry()
		w.hours(healHours, boot.ResetPowerOn, o, confirmed)
	}
	if w.up.State().Confirmed.Digest != b.m.Image.Digest {
		reasons, _ := w.reasons()
		rt.Fatalf("seed %d: not updated; it said %v; attacks %v", seed, reasons, log)
	}
	w.targetIs(b.image)
	// A cut costs an erase, and so may each hour of attacks.
	if limit := uint32(24 + 12 + int(hours) + 4*len(cuts)); o.worn() > limit {
		rt.Fatalf("seed %d: a sector was erased %d times, at most %d", seed, o.worn(), limit)
	}
}

// failing has what goes wrong inside a property fail that property, with its seed.
type failing struct {
	testing.TB
	rt *rapid.T
}

func (f failing) Fatal(args ...any)            { f.rt.Fatal(args...) }
func (f failing) Fatalf(s string, args ...any) { f.rt.Fatalf(s, args...) }
func (f failing) Errorf(s string, args ...any) { f.rt.Errorf(s, args...) }
func (f failing) Helper()                      {}
