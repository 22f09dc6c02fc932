package native

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	reasons "github.com/runnel-fota/runnel/core/device"
	core "github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/internal/fleet"
	v1 "github.com/runnel-fota/runnel/internal/wire/v1"
)

// An update as a device tells it, with a kill of the server after every acknowledgement.
func TestReports(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	for _, c := range []struct {
		say    core.State
		state  fleet.DeploymentState
		chunks int
	}{
		{core.StateDownloading, fleet.StateDownloading, 2},
		{core.StateVerifying, fleet.StateVerifying, 5},
		{core.StateRebooting, fleet.StateRebooting, 5},
		{core.StateTrial, fleet.StateTrial, 5},
		{core.StateConfirmed, fleet.StateConfirmed, 5},
	} {
		w.advance(time.Minute)
		b.report(r, c.say, 0)
		w.restart()
		p := w.deployment("pump-1")
		if p.State != c.state || p.ChunksReceived != c.chunks || p.ChunksTotal != 5 || !p.Proven || !p.UpdatedAt.Equal(w.now()) {
			t.Errorf("%+v", p)
		}
	}
	d := w.fleetDevice("pump-1")
	if d.RunningVersion != "1.0" || d.NativeNonce != b.poll.Nonce {
		t.Errorf("%+v", d)
	}
	events, _, err := w.store.Events(t.Context(), "pump-1", 100)
	w.ok(nil, err)
	for _, e := range events {
		if !e.Proven {
			t.Errorf("%+v", e)
		}
	}
}

// A report again is acknowledged again and changes nothing: the same bytes, and the
// same name with a nonce of its own, which a device sends that lost the answer.
func TestReportAgain(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	first := b.report(r, core.StateDownloading, 0)
	m := b.report(r, core.StateFailed, 2)
	w.flush()
	before := w.state("pump-1")
	for range 2 {
		w.advance(time.Minute)
		b.acked(m, b.send(m))
		b.acked(first, b.send(first))
		w.restart()
	}
	if got := w.state("pump-1"); got != before {
		t.Errorf("%s\nbecame\n%s", before, got)
	}
	b.poll.Nonce++
	again := m
	again.Nonce = b.poll.Nonce
	rec := b.send(again)
	b.acked(again, rec)
	if got := w.state("pump-1"); got != before {
		t.Errorf("%s\nbecame\n%s", before, got)
	}
	// An acknowledgement is of one nonce: a recorded one is none for the report sent again.
	var a core.Ack
	if e := a.Decode(rec.Body.Bytes(), b.mac(), b.poll.Device, m.Nonce, m.Boot, m.Number); e != core.ErrOther {
		t.Error(e)
	}
	// A report that says something new under an old nonce, here and where the store does not know it yet.
	b.ask()
	b.poll.Nonce += 10
	b.ask() // idle: the store has not heard of this nonce
	old := b.says(r, core.StateConfirmed, 0)
	old.Nonce = b.poll.Nonce - 2
	if rec := b.send(old); rec.Code != http.StatusConflict {
		t.Errorf("%d", rec.Code)
	}
	w.flush()
	w.restart()
	if rec := b.send(old); rec.Code != http.StatusConflict {
		t.Errorf("%d", rec.Code)
	}
	if p := w.deployment("pump-1"); p.State != fleet.StateFailed {
		t.Errorf("%+v", p)
	}
}

// A poll whose nonce is written behind does not shut out a report that is on its way.
func TestReportBesidePolls(t *testing.T) {
	w := newRig(t, nil)
	w.keyList(1, 0)
	r := w.publish("1.0", 7, nil)
	b := w.board("pump-1")
	b.offered(r)
	b.offered(r) // idle: there is something to write behind
	m := b.says(r, core.StateDownloading, 0)
	dev, err := w.server.devices.get(t.Context(), "pump-1")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := dev.take(m.Nonce, 0); err != nil || !got.fresh {
		t.Fatal(got, err)
	}
	w.flush() // while the report is on its way to the store
	if err := w.store.TakeReport(t.Context(), reportOf(&m), w.now()); err != nil {
		t.Error(err)
	}
	dev.done(true, w.now())
	w.flush()
	if d := w.fleetDevice("pump-1"); d.NativeNonce != m.Nonce {
		t.Errorf("%+v", d)
	}
}

// noBlobs: images are not what is tested.
type noBlobs struct{}

func (noBlobs) OpenBlob(context.Context, fleet.Digest) (io.ReadCloser, error) {
	return nil, errors.New("no blobs")
}

// What lies on the way may spoil a try, and does not take the release away: a
// device that failed for a route is offered it still, one that failed for the
// release is not.
func TestFailedOnTheWay(t *testing.T) {
	for _, c := range []struct {
		reason reasons.Reason
		still  bool
	}{
		{reasons.ReasonRecord, true}, {reasons.ReasonStream, true}, {reasons.ReasonDigest, false}, {reasons.ReasonNone, false},
	} {
		w := newRig(t, nil)
		w.keyList(1, 0)
		r := w.publish("1.0", 7, nil)
		b := w.board("pump-1")
		b.offered(r)
		b.report(r, core.StateFailed, uint16(c.reason))
		want, ask := fleet.StateDownloading, func() { b.offered(r) }
		if !c.still {
			want, ask = fleet.StateFailed, func() { b.nothing() }
		}
		if p := w.deployment("pump-1"); p.State != want || p.Reason != reasonText(uint16(c.reason)) {
			t.Errorf("reason %d: %+v", c.reason, p)
		}
		ask()
	}
}

func TestReasonText(t *testing.T) {
	for n, want := range map[uint16]string{0: "", 1: "image larger than the target slot (reason 1)", 255: "reason 255", 256 + 1: "reason 257", 65535: "reason 65535"} {
		if got := reasonText(n); got != want {
			t.Errorf("%d: %q", n, got)
		}
	}
}

// A device that spoke signed is not heard over v1 any more, though its v1 key is
// right and it is in v1's memory; until an operator resets that.
func TestStrongestWireOverV1(t *testing.T) {
	w := newRig(t, nil)
	config := v1.Config{Devices: w.store, Orders: w.store, Deployments: w.store, Catalogue: w.store, Events: w.store, Tokens: w.store, Now: w.now, Window: v1.DefaultWindow, Blobs: noBlobs{}}
	wire, old := v1.New(config), v1.New(config)
	r, _, err := w.store.Publish(t.Context(), fleet.Release{Product: product, Version: "0.9", ChunkSize: 1024, Image: fleet.Image{Size: 5000}}, w.now())
	w.ok(nil, err)
	w.change = func(c *Config) { c.WireRaised = wire.WireRaised }
	w.server, w.mux = w.replica()
	wire.Register(w.mux)
	elsewhere := http.NewServeMux() // of another replica: nobody tells it
	old.Register(elsewhere)
	v1Key := fleet.Key{1, 2, 3}
	w.ok(nil, w.store.AddNativeDevice(t.Context(), fleet.Device{ID: "pump-1", Product: product}, fleet.Key(secretOf("pump-1")), &v1Key, w.now()))
	b := w.device("pump-1", secretOf("pump-1"), 0)
	nonce := 0
	get := func(mux *http.ServeMux, path string) (int, string) {
		nonce++
		return v1Get(mux, "pump-1", v1Key, path, nonce, w.now())
	}
	stranger, _ := v1Get(w.mux, "nobody", v1Key, v1.PathManifest, 1, w.now())
	for _, mux := range []*http.ServeMux{w.mux, elsewhere} {
		if code, body := get(mux, v1.PathManifest); code != 200 {
			t.Fatal(code, body)
		}
	}
	// It is downloading over v1, so that chunks cost no look at what is on offer.
	one := 1
	w.ok(nil, w.store.Report(t.Context(), "pump-1", &r, fleet.Report{ChunkReceived: &one}, true, 0, w.now()))
	const chunk = v1.PathChunk + "?chunk_number=1"
	for _, mux := range []*http.ServeMux{w.mux, elsewhere} {
		if code, body := get(mux, chunk); code != 500 {
			t.Fatal(code, body)
		}
	}
	b.ask()
	for i, paths := range [][]string{{chunk, v1.PathManifest, v1.PathRollback, chunk}, {v1.PathRollback, chunk, v1.PathManifest, chunk}} {
		mux := []*http.ServeMux{w.mux, elsewhere}[i]
		for _, path := range paths {
			if code, body := get(mux, path); code != stranger || !strings.Contains(body, "not authenticated") {
				t.Errorf("replica %d, %s: %d %s", i, path, code, body)
			}
		}
	}
	w.ok(nil, wire.Keyring(w.store).ResetWire(t.Context(), "pump-1", w.now()))
	if code, body := get(w.mux, v1.PathManifest); code != 200 {
		t.Error(code, body)
	}
	b.ask()
	if code, _ := get(w.mux, v1.PathManifest); code != stranger {
		t.Error(code)
	}
	if n := strings.Count(fmt.Sprint(w.timeline("pump-1")), fleet.EventWireRaised); n != 2 {
		t.Errorf("%v", w.timeline("pump-1"))
	}
}
