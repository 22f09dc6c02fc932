package board

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/wire/native"
)

// nativeWorld is a board on the native wire, its server, the people with keys.
type nativeWorld struct {
	t      testing.TB
	b      *Board
	built  *Native
	p      *trustees
	s      *nativeServer
	via    Transport // nil: s, without a network
	clock  VirtualClock
	chunk  int
	up     *device.Updater
	run    boot.Slot
	events []device.Event
}

func newNativeWorld(t testing.TB, g geometry, app []byte) *nativeWorld {
	t.Helper()
	w := &nativeWorld{t: t, b: newBoard(t, g, app), p: newTrustees(t, 1, 1), chunk: g.chunk}
	w.built = &Native{Device: "board-1", Product: testProduct, Hardware: "esp32", Roots: w.p.trust.Baked(), Verifier: Ed25519{}}
	copy(w.built.Secret[:], bytes.Repeat([]byte{0x77}, 32))
	w.s = newNativeServer(t, w.built)
	w.s.clock = &w.clock
	w.list(w.p.roots...)
	return w
}

// list publishes the trustees' key list.
func (w *nativeWorld) list(signers ...ed25519.PrivateKey) {
	w.t.Helper()
	env := w.p.publish(w.t, signers...)
	w.s.latest, w.s.trust = env, w.p.trust
	if w.s.first[w.p.trust.Generation] == nil {
		w.s.first[w.p.trust.Generation] = env
	}
}

func (w *nativeWorld) app(waits int) App {
	c := &countingClock{VirtualClock: &w.clock, left: waits}
	via := w.via
	if via == nil {
		via = w.s
	}
	return App{
		Transport: via, Clock: c, ChunkSize: w.chunk, Native: w.built,
		OnStart: func(u *device.Updater, bt Boot) { w.up, w.run = u, bt.Running },
		OnEvent: func(e device.Event) { w.events = append(w.events, e) },
		Stop:    func() bool { return c.left <= 0 },
	}
}

func (w *nativeWorld) runTo(reason boot.ResetReason, waits int, stop func(device.Event) bool) {
	w.t.Helper()
	app := w.app(waits)
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

func never(device.Event) bool { return false }

func (w *nativeWorld) slot(i int) []byte { return (&world{t: w.t, b: w.b}).slot(i) }

func TestNativeUpdate(t *testing.T) {
	for _, chunk := range []int{256, 1024, 4096, 16384} {
		g := standard()
		g.chunk = chunk
		a, b := image(t, g.imgSize, "A", BehaveOK), image(t, g.imgSize+16, "B", BehaveOK)
		w := newNativeWorld(t, g, a)
		w.built.Verifier = nil // the chip's
		w.s.put(w.p.release(t, b, "B", 1, chunk))
		w.runTo(boot.ResetPowerOn, 200, at(device.EventConfirmed))
		w.runTo(boot.ResetPowerOn, 5, never)
		if w.run != 1 || !bytes.HasPrefix(w.slot(1), b) {
			t.Fatalf("chunks of %d: slot %d runs; events %v; requests %v", chunk, w.run, w.events, w.s.requests)
		}
		if w.s.fetched != len(w.s.offer.stream) {
			t.Errorf("chunks of %d: %d bytes fetched of %d", chunk, w.s.fetched, len(w.s.offer.stream))
			t.Log(w.s.requests)
		}
		if !w.s.said(native.StateConfirmed, 0) || w.up.State().Floors.Stamp != 1 {
			t.Errorf("chunks of %d: reports %+v", chunk, w.s.reports)
		}
	}
}
