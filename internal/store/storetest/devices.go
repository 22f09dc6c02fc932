package storetest

import (
	"fmt"
	"math"
	"reflect"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func (s *suite) devices() {
	s.ok(s.AddDevice(ctx, fleet.Device{ID: "b", Product: "acme/pump"}, keyOf("b"), at(0.000001)))
	s.ok(s.AddDevice(ctx, fleet.Device{ID: "a"}, nil, at(1)))
	want := fleet.Device{ID: "b", Product: "acme/pump", Assurance: fleet.AssuranceOwn, AddedAt: at(0.000001)}
	if got := s.device("b"); !reflect.DeepEqual(got, want) {
		s.Errorf("%+v, not %+v", got, want)
	}
	s.code(s.AddDevice(ctx, fleet.Device{ID: "b"}, keyOf("x"), at(2)), fleet.CodeConflict)
	if k, _, err := s.DeviceKey(ctx, "b"); err != nil || k != *keyOf("b") {
		s.Error("a conflict changed the key")
	}
	for _, d := range []fleet.Device{{}, {ID: "all"}, {ID: "x y"}, {ID: "x", Product: "/"}} {
		s.code(s.AddDevice(ctx, d, nil, at(2)), fleet.CodeInvalid)
	}
	_, err := s.Device(ctx, "c")
	s.code(err, fleet.CodeNotFound)
	_, err = s.Device(ctx, "'; DROP TABLE devices; --")
	s.code(err, fleet.CodeNotFound)

	s.reopen()
	list, err := s.ListDevices(ctx)
	s.ok(err)
	if len(list) != 2 || list[0].ID != "a" || list[0].Assurance != fleet.AssuranceNone || !reflect.DeepEqual(list[1], want) {
		s.Errorf("%+v", list)
	}
	s.wantNames("b", fleet.EventDeviceAdded)
}

func (s *suite) keys() {
	s.addDevice("own", at(0))
	s.ok(s.AddDevice(ctx, fleet.Device{ID: "shared", Product: "p"}, nil, at(0)))
	s.ok(s.AddDevice(ctx, fleet.Device{ID: "free"}, nil, at(0)))
	expect := func(id string, key *fleet.Key, a fleet.Assurance) {
		s.Helper()
		got, how, err := s.DeviceKey(ctx, id)
		if key == nil {
			s.code(err, fleet.CodeNotFound)
			if got != (fleet.Key{}) {
				s.Error("a key came with the error")
			}
		} else if err != nil || got != *key || how != a {
			s.Errorf("%s: right key %v, %s, %v", id, got == *key, how, err)
		}
		if d, err := s.Device(ctx, id); err == nil && d.Assurance != a {
			s.Errorf("%s: assurance %s, not %s", id, d.Assurance, a)
		}
	}
	expect("own", keyOf("own"), fleet.AssuranceOwn)
	expect("shared", nil, fleet.AssuranceNone)
	expect("nobody", nil, fleet.AssuranceNone)

	s.ok(s.SetProductKey(ctx, "p", *keyOf("p"), at(1)))
	expect("shared", keyOf("p"), fleet.AssuranceShared)
	expect("own", keyOf("own"), fleet.AssuranceOwn)
	expect("free", nil, fleet.AssuranceNone)
	s.mustPublish("p", "1.0", at(2)) // the only product there is
	expect("free", keyOf("p"), fleet.AssuranceShared)
	s.mustPublish("q", "1.0", at(3)) // no longer
	expect("free", nil, fleet.AssuranceNone)
	s.ok(s.SetProductKey(ctx, fleet.DefaultProduct, *keyOf("default"), at(4)))
	expect("free", keyOf("default"), fleet.AssuranceShared)

	s.ok(s.SetProductKey(ctx, "p", *keyOf("p2"), at(5)))
	expect("shared", keyOf("p2"), fleet.AssuranceShared)
	s.reopen()
	expect("shared", keyOf("p2"), fleet.AssuranceShared)
	expect("own", keyOf("own"), fleet.AssuranceOwn)
	s.code(s.SetProductKey(ctx, "a b", *keyOf("p"), at(6)), fleet.CodeInvalid)
}

func (s *suite) saveSeen() {
	s.addDevice("a", at(0))
	s.addDevice("b", at(0))
	s.ok(s.SaveSeen(ctx, nil))
	s.ok(s.SaveSeen(ctx, []fleet.Seen{
		{Device: "a", Nonce: 10, Clocked: true, At: at(10)},
		{Device: "gone", Nonce: 10, At: at(10)},
		{Device: "b", At: at(9)},
	}))
	if d := s.device("a"); d.Nonce != 10 || !d.Clocked || !d.Signed || !d.LastSeen.Equal(at(10)) {
		s.Errorf("%+v", d)
	}
	if d := s.device("b"); d.Nonce != 0 || d.Clocked || d.Signed || !d.LastSeen.Equal(at(9)) {
		s.Errorf("%+v", d)
	}
	// Values never go back.
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 9, At: at(8)}, {Device: "b", Nonce: math.MaxInt64, At: at(1)}}))
	s.reopen()
	if d := s.device("a"); d.Nonce != 10 || !d.Clocked || !d.Signed || !d.LastSeen.Equal(at(10)) {
		s.Errorf("%+v", d)
	}
	if d := s.device("b"); d.Nonce != math.MaxInt64 || !d.LastSeen.Equal(at(9)) {
		s.Errorf("%+v", d)
	}
	s.code(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 50, At: at(20)}, {Device: "b", Nonce: math.MaxInt64 + 1, At: at(20)}}), fleet.CodeInvalid)
	if d := s.device("a"); d.Nonce != 10 {
		s.Errorf("half of a refused batch was written: %+v", d)
	}
}

func (s *suite) resetNonce() {
	s.addDevice("a", at(0))
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 1000, Clocked: true, At: at(1)}}))
	s.ok(s.ResetNonce(ctx, "a", at(5)))
	if d := s.device("a"); d.Nonce != 0 || d.Clocked || !d.Signed {
		s.Errorf("%+v", d)
	}
	// What is written behind and was seen before the reset must not undo it.
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 1001, Clocked: true, At: at(4)}}))
	s.reopen()
	if d := s.device("a"); d.Nonce != 0 || d.Clocked || !d.LastSeen.Equal(at(4)) {
		s.Errorf("%+v", d)
	}
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 3, Clocked: true, At: at(6)}}))
	if d := s.device("a"); d.Nonce != 3 || !d.Clocked {
		s.Errorf("%+v", d)
	}
	s.code(s.ResetNonce(ctx, "b", at(5)), fleet.CodeNotFound)
	s.wantNames("a", fleet.EventDeviceAdded, fleet.EventNonceReset)
}

func (s *suite) rollback() {
	r := s.mustPublish("p", "2.0", at(0))
	s.addDevice("a", at(0))
	n, err := s.OrderRollback(ctx, "a", "recall\x1b[31m of\n2.0", at(10))
	s.ok(err)
	d := s.device("a")
	if n != 1 || !d.RollbackWanted || d.RollbackReason != "recall [31m of 2.0" || !d.RollbackSentAt.IsZero() || !fleet.RollbackDue(d, at(10)) {
		s.Errorf("%d %+v", n, d)
	}
	s.ok(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(1)}, true, 1, at(11))) // no answer
	s.ok(s.RollbackSent(ctx, "a", at(12)))
	s.reopen()
	d = s.device("a")
	if !d.RollbackSentAt.Equal(at(12)) || fleet.RollbackDue(d, at(13)) || !fleet.RollbackDue(d, at(12+600)) {
		s.Errorf("%+v", d)
	}
	// Ordered again: told again.
	_, err = s.OrderRollback(ctx, "a", "", at(20))
	s.ok(err)
	if d = s.device("a"); !fleet.RollbackDue(d, at(20)) || d.RollbackReason != "" {
		s.Errorf("%+v", d)
	}
	s.ok(s.RollbackSent(ctx, "a", at(21)))
	s.ok(s.Report(ctx, "a", &r, fleet.Report{Rollback: ptr(true)}, true, 2, at(30)))
	if d = s.device("a"); d.RollbackWanted || d.RollbackReason != "" || !d.RollbackSentAt.IsZero() {
		s.Errorf("%+v", d)
	}
	s.ok(s.RollbackSent(ctx, "a", at(31))) // late, and without meaning
	if d = s.device("a"); d.RollbackWanted || !d.RollbackSentAt.IsZero() {
		s.Errorf("%+v", d)
	}
	_, err = s.OrderRollback(ctx, "b", "", at(20))
	s.code(err, fleet.CodeNotFound)
	s.code(s.RollbackSent(ctx, "b", at(20)), fleet.CodeNotFound)
}

func (s *suite) rollbackAll() {
	n, err := s.OrderRollback(ctx, "all", "recall", at(0))
	if n != 0 || err != nil {
		s.Errorf("of nobody: %d %v", n, err)
	}
	for i := range 5 {
		s.addDevice(fmt.Sprint("d", i), at(0))
	}
	n, err = s.OrderRollback(ctx, "all", "recall", at(1))
	if n != 5 || err != nil {
		s.Errorf("%d %v", n, err)
	}
	s.reopen()
	for i := range 5 {
		id := fmt.Sprint("d", i)
		if d := s.device(id); !d.RollbackWanted || d.RollbackReason != "recall" {
			s.Errorf("%+v", d)
		}
		s.wantNames(id, fleet.EventDeviceAdded, fleet.EventRollback)
	}
}

func (s *suite) retry() {
	s.addDevice("a", at(0))
	r := s.mustPublish("p", "2.0", at(0))
	offer := func(now float64) fleet.Decision {
		s.Helper()
		p, err := s.DeploymentOf(ctx, "a", r.ID)
		if fleet.CodeOf(err) == fleet.CodeNotFound {
			return fleet.OfferFor(s.device("a"), &r, nil, at(now))
		}
		s.ok(err)
		return fleet.OfferFor(s.device("a"), &r, &p, at(now))
	}
	if o := offer(1); o.Verdict != fleet.VerdictNewest || !o.PublishedAt.Equal(r.PublishedAt) {
		s.Errorf("%+v", o)
	}
	nonce := uint64(0)
	report := func(now float64, rep fleet.Report) {
		s.Helper()
		nonce++
		s.ok(s.Report(ctx, "a", &r, rep, true, nonce, at(now)))
	}
	// All within one second: the stamps still rise and each order counts once.
	report(2, fleet.Report{Rollback: ptr(true), Error: ptr("crashed")})
	if o := offer(2); o.Verdict != fleet.VerdictFoundBad {
		s.Errorf("%+v", o)
	}
	s.ok(s.OrderRetry(ctx, "a", at(2)))
	s.reopen()
	first := offer(2)
	if first.Verdict != fleet.VerdictRetry || !first.PublishedAt.After(r.PublishedAt) {
		s.Errorf("%+v", first)
	}
	report(2, fleet.Report{ChunkReceived: ptr(1)})
	if o := offer(2); o.Verdict != fleet.VerdictNewest || !o.PublishedAt.Equal(first.PublishedAt) {
		s.Errorf("%+v", o)
	}
	report(2, fleet.Report{Rollback: ptr(true), Error: ptr("crashed again")})
	if o := offer(2); o.Verdict != fleet.VerdictFoundBad {
		s.Errorf("%+v", o)
	}
	s.ok(s.OrderRetry(ctx, "a", at(2)))
	second := offer(2)
	if second.Verdict != fleet.VerdictRetry || !second.PublishedAt.After(first.PublishedAt) {
		s.Errorf("%+v after %+v", second, first)
	}
	// What is published then is newer than all that the device was shown.
	if next := s.mustPublish("p", "3.0", at(2)); !next.PublishedAt.After(second.PublishedAt) {
		s.Errorf("published at %v, the device was shown %v", next.PublishedAt, second.PublishedAt)
	}
	s.code(s.OrderRetry(ctx, "b", at(3)), fleet.CodeNotFound)
}
