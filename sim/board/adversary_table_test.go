package board

import (
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
)

// Bounds of six hours under attack, whatever it is: an answer a minute to a poll at
// most, and what belongs to it; a stream that gets nowhere is asked for less and less
// often; the most worn sector was erased once for each of those.
const (
	attackHours    = 6
	attackRequests = 800
	attackBytes    = 768 << 10
	attackWear     = 24
	healHours      = 3 // a device waits an hour at most, then comes its trial
)

// Every attack on every answer, from the first one on and in the middle of a
// download: no wrong byte, a reason that is said, bounds that hold, and the right
// image as soon as the attack ends.
func TestAttacks(t *testing.T) {
	ran := 0
	for _, a := range attacks() {
		on := a.on
		if on == nil {
			on = parts
		}
		for _, p := range on {
			for _, begun := range []bool{false, true} {
				name := a.name + " on " + string(p)
				if begun {
					name += ", with half in flash"
				}
				if begun && p == partList {
					continue // the board has it by then
				}
				ran++
				t.Run(name, func(t *testing.T) {
					t.Parallel()
					underAttack(t, a, p, begun)
				})
			}
		}
	}
	if ran < 300 {
		t.Errorf("only %d attacks", ran)
	}
}

func underAttack(t *testing.T, a attack, p part, begun bool) {
	w, g, b, c := adversaryWorld(t)
	o := w.watch(g, b)
	if begun {
		w.hours(1, boot.ResetPowerOn, o, past(8192))
		w.forget()
	}
	e := &env{s: w.s, other: c, first: map[part][]byte{}}
	tried := 0
	w.s.mangle = func(r device.Request, ans *nativeAnswer) {
		if partOf(r) == p {
			tried++
			a.do(e, r, ans)
		}
	}
	w.s.carried, w.s.requests = 0, nil
	start := w.clock.Now
	w.hours(attackHours, boot.ResetPowerOn, o, at(device.EventConfirmed))
	reasons, unreachable := w.reasons()
	gets := a.gets || p == partReport
	_, confirmed := w.saw(device.EventConfirmed, 0)
	switch {
	case tried == 0:
		t.Fatal("nothing was attacked")
	case gets && !confirmed:
		t.Fatalf("not updated; it said %v, unreachable %v", reasons, unreachable)
	case !gets && confirmed:
		t.Fatalf("updated under an attack that %d answers were changed by", tried)
	case !gets && len(reasons) == 0 && !unreachable:
		t.Error("nothing was said")
	}
	if n := len(w.s.requests); n > attackRequests || w.s.carried > attackBytes || o.worn() > attackWear {
		t.Errorf("%d requests, %d bytes, a sector erased %d times in %d s", n, w.s.carried, o.worn(), (w.clock.Now-start)/1000)
	}
	if !gets && slices.Contains(reasons, device.ReasonSpent) {
		t.Error("a network can spend the release's tries")
	}
	// The network heals.
	w.s.mangle = nil
	if !confirmed {
		w.hours(healHours, boot.ResetUnknown, o, at(device.EventConfirmed))
	}
	if _, ok := w.saw(device.EventConfirmed, 0); !ok || o.program == 0 {
		reasons, unreachable = w.reasons()
		t.Fatalf("not updated %d h after the attack; it said %v, unreachable %v", healHours, reasons, unreachable)
	}
	w.targetIs(b.image)
}
