// Package agent runs an updater on a chip whose way to the server is a serial line
// (docs/format/serial.md): it does what Step says is needed.
package agent

import (
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/serial"
)

// Chip is what the agent needs of the chip, beside what the updater needs.
type Chip interface {
	// Feed tells the watchdog that the program gets on.
	Feed()
	// Nap sleeps at most so many milliseconds.
	Nap(ms uint32)
	// Reset starts the chip anew, and does not return.
	Reset()
}

// Agent is an updater with its line.
type Agent struct {
	Updater *device.Updater
	Line    *serial.Client
	Chip    Chip
	// SelfTest is the image's word on itself, asked while it is on trial.
	SelfTest func() bool

	request serial.Request
	head    serial.Head
}

// maxNap, ms, is shorter than any watchdog's period.
const maxNap = 1000

// Step does one step of the updater and what it needs. Call it in a loop, between
// whatever else the firmware does.
func (a *Agent) Step() {
	a.Chip.Feed()
	u := a.Updater
	switch need := a.measured(); need.Kind {
	case device.NeedSend:
		a.send()
	case device.NeedBytes:
		n, end, ok := a.Line.Read(u.Space())
		u.Fed(n)
		switch {
		case !ok:
			u.Broken()
		case end:
			u.EndOfBody()
		}
	case device.NeedClose:
		a.Line.Close()
	case device.NeedTime:
		ms := uint32(maxNap)
		if need.Wait < maxNap {
			ms = need.Wait
		}
		a.Chip.Nap(ms)
	case device.NeedSelfTest:
		u.SelfTest(a.SelfTest == nil || a.SelfTest())
	case device.NeedReset:
		a.Chip.Reset()
	}
}

func (a *Agent) send() {
	r, q := a.Updater.Request(), &a.request
	q.Target, q.Body, q.Ranged, q.From, q.To = r.Target, r.Body, r.Ranged, r.From, r.To
	h := &a.head
	if !a.Line.Send(q, h) {
		a.Updater.Broken()
		return
	}
	a.Updater.Response(device.Head{Status: h.Status, RetryAfter: h.RetryAfter, From: h.From, To: h.To, Total: h.Total, Coded: h.Coded})
}

// Teller is the updater's Observer: what happens, but for what happens once a chunk, is
// said to the other end of the line, for people. (It is apart from Agent: TinyGo links
// a description of everything that an interface can hold, and an Agent holds it all.)
type Teller struct{ Line *serial.Client }

// Event is device.Observer's.
func (t *Teller) Event(e device.Event) {
	if e.Kind != device.EventChunk && e.Kind != device.EventErase && !measuring {
		t.Line.Say(uint8(e.Kind), uint8(e.Reason), uint8(e.Slot), e.Bytes)
	}
}
