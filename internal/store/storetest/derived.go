package storetest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func patchOf(name string) fleet.Stream {
	m := stream(fleet.StreamPatch, name)
	m.Sheet = []byte("sheet of " + name)
	return m
}

// derived: sheets are found by their digests, and of two sheets of one stream the newer one counts.
func (s *suite) derived() {
	r, envelope, streams := signed("p", "1.0", 1)
	m := patchOf("patch")
	first, _, err := s.PublishSigned(ctx, r, envelope, append(streams, m), 0, at(0))
	s.ok(err)
	want := m
	want.ReleaseID = first.ID
	find := func(sheet string) fleet.Stream {
		s.Helper()
		got, err := s.Sheet(ctx, sha256.Sum256([]byte(sheet)))
		s.ok(err)
		return got
	}
	if got := find("sheet of patch"); fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%+v", got)
	}
	// A raw stream has none, and it is none itself.
	_, err = s.Sheet(ctx, sha256.Sum256(nil))
	s.code(err, fleet.CodeNotFound)
	_, err = s.Sheet(ctx, m.Digest)
	s.code(err, fleet.CodeNotFound)

	for i, c := range []struct {
		sheet            string
		proven, provenIs bool
		changes          bool
	}{{"sheet of patch", false, false, false}, {"another sheet", true, true, true}, {"another sheet", false, true, false}, {"a third", false, true, true}} {
		before, err := s.Generation(ctx)
		s.ok(err)
		m.Sheet, m.Proven = []byte(c.sheet), c.proven
		if _, created, err := s.PublishSigned(ctx, r, envelope, append(streams, m), 0, at(1)); created || err != nil {
			s.Errorf("%d: %v %v", i, created, err)
		}
		after, err := s.Generation(ctx)
		s.ok(err)
		if got := find(c.sheet); got.Proven != c.provenIs || (after != before) != c.changes {
			s.Errorf("%d: %+v, generation %d to %d", i, got, before, after)
		}
	}
	_, err = s.Sheet(ctx, sha256.Sum256([]byte("sheet of patch")))
	s.code(err, fleet.CodeNotFound)
	if got, err := s.Stream(ctx, streams[0].Digest); err != nil || len(got.Sheet) != 0 || got.Proven {
		s.Errorf("%+v %v", got, err)
	}
}

// rawOnly: what a device said of derived streams outlives other reports, and is read by a poll.
func (s *suite) rawOnly() {
	s.addNative("a", "p")
	r := s.mustPublishSigned("p", "1.0", 1, 0)
	for i, c := range []struct{ failed, want bool }{{false, false}, {true, true}, {false, true}} {
		rep := nativeReport(r, uint64(i+1), 1, uint32(i), fleet.StateDownloading)
		rep.DerivedFailed = c.failed
		rep.Content[0] = byte(i)
		s.ok(s.TakeReport(ctx, rep, at(float64(i))))
		s.reopen()
		if p := s.poll("a", r.ID); s.deployment("a").RawOnly != c.want || p.Deployment == nil || p.Deployment.RawOnly != c.want {
			s.Errorf("%d: %+v", i, p.Deployment)
		}
	}
}

func (s *suite) begin(d fleet.Derivation, maker string, now float64, want bool) {
	s.Helper()
	begun, err := s.BeginDerivation(ctx, d, maker, at(now))
	s.ok(err)
	if begun != want {
		s.Errorf("%s began at %v: %v", maker, now, begun)
	}
}

func (s *suite) save(d fleet.Derivation, maker string, now float64, want bool) {
	s.Helper()
	saved, err := s.SaveDerivation(ctx, d, maker, at(now))
	s.ok(err)
	if saved != want {
		s.Errorf("%s saved at %v: %v", maker, now, saved)
	}
}

func (s *suite) derivation(release int64) fleet.Derivation {
	s.Helper()
	list, err := s.ListDerivations(ctx, release)
	s.ok(err)
	if len(list) != 1 {
		s.Fatalf("%d derivations", len(list))
	}
	return list[0]
}

func (s *suite) derivations() {
	r := s.mustPublishSigned("p", "1.0", 1, 0)
	s.mustPublishSigned("p", "2.0", 2, 1)
	d := fleet.Derivation{DerivationName: fleet.DerivationName{Release: r.ID, Base: fleet.Digest{7}, Profile: 1}, Devices: 12, Lease: at(60)}
	s.begin(d, "x", 0, true)
	s.begin(d, "y", 59, false)
	s.begin(d, "x", 59, false)
	s.save(d, "y", 1, false)
	want := d
	want.State, want.ChangedAt = fleet.DerivationMaking, at(0)
	if got := s.derivation(r.ID); got != want {
		s.Errorf("%+v", got)
	}
	d.State, d.Percent, d.Lease = fleet.DerivationMaking, 40, at(100)
	s.save(d, "x", 50, true)
	s.begin(d, "y", 99, false)
	s.reopen()
	// The lease ended: whoever was first finds that it is not its own.
	d.Lease, d.Percent = at(200), 0
	s.begin(d, "y", 100, true)
	s.save(d, "x", 101, false)
	if done, err := s.PublishDerived(ctx, d, "x", patchOf("late"), 0, at(102)); done || err != nil {
		s.Error(done, err)
	}
	_, err := s.Stream(ctx, patchOf("late").Digest)
	s.code(err, fleet.CodeNotFound)

	d.State, d.Tries, d.Reason, d.Lease = fleet.DerivationFailed, 1, "no room", time.Time{}
	s.save(d, "y", 110, true)
	if got := s.derivation(0); got.Tries != 1 || got.Reason != "no room" || got.State != fleet.DerivationFailed || !got.Lease.IsZero() {
		s.Errorf("%+v", got)
	}
	d.Lease = at(300)
	s.begin(d, "x", 120, true)
	if got := s.derivation(r.ID); got.Tries != 1 || got.Reason != "" || got.State != fleet.DerivationMaking {
		s.Errorf("%+v", got)
	}

	// The stream, the end, and the generation are one.
	before, err := s.Generation(ctx)
	s.ok(err)
	m := patchOf("made")
	m.Proven = true
	_, err = s.PublishDerived(ctx, d, "x", m, 9, at(130))
	if !errors.Is(err, fleet.ErrListMoved) {
		s.Error(err)
	}
	if done, err := s.PublishDerived(ctx, d, "x", m, 0, at(130)); !done || err != nil {
		s.Error(done, err)
	}
	got, after := s.derivation(r.ID), int64(0)
	if after, err = s.Generation(ctx); err != nil || after <= before || got.State != fleet.DerivationMade || got.Stream != m.Digest || got.Sent != m.Sent() || got.Percent != 100 {
		s.Errorf("%+v, generation %d, was %d, %v", got, after, before, err)
	}
	streams, err := s.Streams(ctx, r.ID)
	s.ok(err)
	if len(streams) != 3 || !streams[1].Proven {
		s.Errorf("%+v", streams)
	}
	// It is made: no more to save, but it may be begun anew, where its sheet counts no more.
	s.save(d, "x", 131, false)
	s.begin(d, "z", 140, true)
	if _, err := s.PublishDerived(ctx, fleet.Derivation{DerivationName: fleet.DerivationName{Release: 999}}, "z", m, 0, at(150)); err != nil {
		s.Error(err)
	}
	if list, err := s.ListDerivations(ctx, r.ID+1); err != nil || list == nil || len(list) != 0 {
		s.Errorf("%v %v", list, err)
	}
}

func (s *suite) derivationRace() {
	r := s.mustPublishSigned("p", "1.0", 1, 0)
	d := fleet.Derivation{DerivationName: fleet.DerivationName{Release: r.ID, Profile: 1}, Lease: at(60)}
	var wg sync.WaitGroup
	var n atomic.Int32
	for i := range 8 {
		wg.Go(func() {
			begun, err := s.BeginDerivation(ctx, d, fmt.Sprint("server ", i), at(0))
			if err != nil {
				s.Error(err)
			}
			if begun {
				n.Add(1)
			}
		})
	}
	wg.Wait()
	if n.Load() != 1 {
		s.Errorf("begun %d times", n.Load())
	}
}

func (s *suite) streamKey() {
	_, err := s.StreamKey(ctx)
	s.code(err, fleet.CodeNotFound)
	for _, c := range []struct {
		add   string
		renew bool
		want  string
	}{{"a", false, "a"}, {"b", false, "a"}, {"c", true, "c"}, {"c", false, "c"}} {
		if got, err := s.AddStreamKey(ctx, *keyOf(c.add), c.renew, at(0)); err != nil || got != *keyOf(c.want) {
			s.Errorf("adding %s: %v", c.add, err)
		}
		s.reopen()
		if got, err := s.StreamKey(ctx); err != nil || got != *keyOf(c.want) {
			s.Errorf("after adding %s: %v", c.add, err)
		}
	}
	s.wantNames("", fleet.EventStreamKey, fleet.EventStreamKey)
}

func (s *suite) countAsks() {
	for i, c := range []struct{ product, ask string }{{"p", `{"a":1}`}, {"p", `{"a":1}`}, {"p", `{"a":2}`}, {"", `{"a":1}`}, {"p", ""}} {
		id := fmt.Sprint("d", i)
		s.addNative(id, c.product)
		s.taken(fleet.NativeChange{Device: id, Nonce: 1, Now: at(float64(i)), Facts: fleet.NativeFacts{Ask: c.ask}}, true)
	}
	want := []fleet.AskCount{{Product: "", Ask: `{"a":1}`, Devices: 1}, {Product: "p", Ask: `{"a":1}`, Devices: 1}, {Product: "p", Ask: `{"a":2}`, Devices: 1}}
	if got, err := s.CountAsks(ctx, at(1)); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%v, %v", got, err)
	}
	want[1].Devices = 2
	if got, err := s.CountAsks(ctx, time.Time{}); err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("%v, %v", got, err)
	}
}
