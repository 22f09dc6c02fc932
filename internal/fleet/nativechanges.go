package fleet

import (
	"fmt"
	"time"
)

// NativeChanges is what a poll changes at once; needed=false: nothing but what is
// written behind. keys are the numbers of the device's that live, the oldest first.
func NativeChanges(d *NativeDevice, f NativeFacts, wire Wire, out NativeDecision, boot uint32, key uint8, keys []uint8, now time.Time) (c NativeChange, needed bool) {
	if f.RunningVersion == "" {
		f.RunningVersion = d.RunningVersion
	}
	c = NativeChange{Device: d.ID, Boot: boot, Now: now, Facts: f, Wire: d.StrongestWire, Key: key, Verdict: out.Key,
		Restarted: boot < d.Boot, RevertTold: out.Revert != 0 && d.RollbackSentAt.IsZero()}
	event := func(name, version, detail string) {
		c.Events = append(c.Events, Event{Time: now, Device: d.ID, Version: version, Name: name, Detail: detail, Proven: true})
	}
	if c.Restarted {
		event(EventRestarted, "", fmt.Sprintf("its counter of boots went from %d to %d", d.Boot, boot))
	}
	if d.StrongestWire.WeakerThan(wire) {
		c.Wire = wire
		event(EventWireRaised, "", fmt.Sprintf("it speaks the native wire, %s: weaker ones are refused under its name", wire))
	}
	if out.Key != d.Verdict {
		version := ""
		if out.Release != nil {
			version = out.Release.Version
			if !out.Known {
				c.Offered = out.Release.ID
			}
		}
		event(EventOffer, version, out.Why)
		c.Decision = &KeptDecision{At: now, Verdict: out.Verdict, Rollout: out.Rollout, Version: version, Why: out.Why}
	}
	c.Admit = out.Admit
	rotated := len(keys) > 1 && keys[0] != key
	return c, len(c.Events) > 0 || c.RevertTold || rotated || c.Admit != nil || f != factsOf(d)
}

// NativeRefusal is what a poll changes that speaks a weaker wire than the device did:
// its timeline says so once.
func NativeRefusal(d *NativeDevice, wire Wire, boot uint32, now time.Time) (c NativeChange, needed bool) {
	c = NativeChange{Device: d.ID, Boot: boot, Now: now, Wire: d.StrongestWire, Verdict: string(VerdictWeaker) + "/" + string(wire), Facts: factsOf(d)}
	c.Events = []Event{{Time: now, Device: d.ID, Name: EventWireRefused, Proven: true,
		Detail: fmt.Sprintf("it spoke %s and was %s before: refused until an operator resets its wire", wire, d.StrongestWire)}}
	return c, c.Verdict != d.Verdict
}

// factsOf are those that are stored.
func factsOf(d *NativeDevice) NativeFacts {
	return NativeFacts{RunningVersion: d.RunningVersion, Hardware: d.Hardware, Epoch: d.Epoch, Sequence: d.Sequence, SecurityVersion: d.SecurityVersion,
		ListVersion: d.ListVersion, Slots: d.Slots, RunningSlot: d.RunningSlot, Ask: d.Ask}
}
