package storetest

import (
	"math"
	"reflect"
	"strings"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// reports takes one device through an update, over a restart of the server at
// each step.
func (s *suite) reports() {
	r := s.mustPublish("p", "2.0", at(0))
	s.addDevice("a", at(0))
	_, err := s.Deployment(ctx, "a")
	s.code(err, fleet.CodeNotFound)
	_, err = s.DeploymentOf(ctx, "a", r.ID)
	s.code(err, fleet.CodeNotFound)

	want := fleet.Deployment{Device: "a", ReleaseID: r.ID, Version: "2.0", ChunksTotal: 10, Proven: true, StartedAt: at(1),
		Assurance: fleet.AssuranceOwn, Heard: 1}
	for i, c := range []struct {
		rep   fleet.Report
		state fleet.DeploymentState
		n     int
		f     func()
	}{
		{fleet.Report{ChunkReceived: ptr(1), TotalChunks: ptr(10), Progress: ptr(10.0)}, fleet.StateDownloading, 1, nil},
		{fleet.Report{ChunkReceived: ptr(10), TotalChunks: ptr(10)}, fleet.StateVerifying, 10, nil},
		{fleet.Report{Verified: ptr(true)}, fleet.StateVerifying, 10, func() { want.Verified = true }},
		{fleet.Report{BootStatus: ptr("pending_reboot")}, fleet.StateRebooting, 10, func() { want.BootStatus = "pending_reboot" }},
		{fleet.Report{BootStatus: ptr("success"), NewVersion: ptr("2.0"), BootCount: ptr(7)}, fleet.StateConfirmed, 10, func() { want.BootStatus = "success" }},
	} {
		now := at(float64(i + 1))
		s.ok(s.Report(ctx, "a", &r, c.rep, true, uint64(i+1), now))
		s.reopen()
		want.State, want.ChunksReceived, want.UpdatedAt = c.state, c.n, now
		if c.f != nil {
			c.f()
		}
		if got := s.deployment("a"); got != want {
			s.Errorf("step %d: %+v, not %+v", i, got, want)
		}
		d := s.device("a")
		if d.Nonce != uint64(i+1) || !d.LastSeen.Equal(now) || !d.Signed {
			s.Errorf("step %d: %+v", i, d)
		}
	}
	if got, err := s.DeploymentOf(ctx, "a", r.ID); err != nil || got != want {
		s.Errorf("%+v %v", got, err)
	}
	if d := s.device("a"); d.RunningVersion != "2.0" {
		s.Errorf("%+v", d)
	}
	s.wantNames("a", fleet.EventDeviceAdded, fleet.EventChunkReceived, fleet.EventChunkReceived, fleet.EventVerified,
		fleet.EventBootStatus, fleet.EventBootStatus, fleet.EventCompleted)
	s.code(s.Report(ctx, "b", &r, fleet.Report{}, true, 1, at(9)), fleet.CodeNotFound)
	gone := r
	gone.ID++
	s.code(s.Report(ctx, "a", &gone, fleet.Report{ChunkReceived: ptr(1)}, true, 99, at(9)), fleet.CodeNotFound)
	if d := s.device("a"); d.Nonce != 5 {
		s.Errorf("a refused report stored its nonce: %+v", d)
	}
}

func (s *suite) reportNonce() {
	r := s.mustPublish("p", "2.0", at(0))
	s.addDevice("a", at(0))
	s.ok(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(1)}, true, 5, at(1)))
	before, events := s.deployment("a"), s.names("a")
	for _, nonce := range []uint64{5, 4, 1} {
		s.code(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(9), Rollback: ptr(true)}, true, nonce, at(2)), fleet.CodeReplay)
	}
	s.code(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(9)}, true, math.MaxInt64+1, at(2)), fleet.CodeInvalid)
	if got := s.deployment("a"); got != before {
		s.Errorf("a replay changed %+v to %+v", before, got)
	}
	if got := s.names("a"); len(got) != len(events) {
		s.Errorf("a replay was logged: %v", got)
	}
	if d := s.device("a"); !d.LastSeen.Equal(at(1)) || d.Nonce != 5 {
		s.Errorf("%+v", d)
	}
	// None: proven otherwise. And one without proof is not believed.
	s.ok(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(2)}, true, 0, at(3)))
	s.ok(s.Report(ctx, "a", &r, fleet.Report{ChunkReceived: ptr(3)}, false, 1_000_000, at(4)))
	if d := s.device("a"); d.Nonce != 5 {
		s.Errorf("%+v", d)
	}
	// What the wire saw meanwhile counts too.
	s.ok(s.SaveSeen(ctx, []fleet.Seen{{Device: "a", Nonce: 20, At: at(5)}}))
	s.code(s.Report(ctx, "a", &r, fleet.Report{}, true, 20, at(6)), fleet.CodeReplay)
	s.ok(s.Report(ctx, "a", &r, fleet.Report{}, true, 21, at(6)))
	s.ok(s.ResetNonce(ctx, "a", at(7)))
	s.ok(s.Report(ctx, "a", &r, fleet.Report{}, true, 1, at(8)))
}

// reportsNamed: reports reach the deployment that they are about, whatever is on offer.
func (s *suite) reportsNamed() {
	s.ok(s.AddDevice(ctx, fleet.Device{ID: "a", Product: "p"}, keyOf("a"), at(0)))
	r2 := s.mustPublish("p", "2.0", at(0))
	other := s.mustPublish("q", "3.0", at(0.1)) // the same version of another product
	s.ok(s.Report(ctx, "a", &r2, fleet.Report{ChunkReceived: ptr(10), Verified: ptr(true), BootStatus: ptr("pending_reboot")}, true, 1, at(1)))
	r3 := s.mustPublish("p", "3.0", at(2))

	// Nothing named, nothing begun of 3.0.
	s.ok(s.Report(ctx, "a", &r3, fleet.Report{BootStatus: ptr("success"), NewVersion: ptr("2.0")}, true, 2, at(3)))
	if p, err := s.DeploymentOf(ctx, "a", r2.ID); err != nil || p.State != fleet.StateConfirmed {
		s.Errorf("%+v %v", p, err)
	}
	_, err := s.DeploymentOf(ctx, "a", r3.ID)
	s.code(err, fleet.CodeNotFound)

	s.ok(s.Report(ctx, "a", &r3, fleet.Report{ChunkReceived: ptr(1)}, true, 3, at(4)))
	// Nothing on offer: the latest.
	s.ok(s.Report(ctx, "a", nil, fleet.Report{ChunkReceived: ptr(2)}, true, 4, at(5)))
	if p := s.deployment("a"); p.ReleaseID != r3.ID || p.ChunksReceived != 2 {
		s.Errorf("%+v", p)
	}
	// A version that nobody published: logged, and nothing else.
	s.ok(s.Report(ctx, "a", &r3, fleet.Report{BootStatus: ptr("failed"), NewVersion: ptr("0.1")}, true, 5, at(6)))
	if p := s.deployment("a"); p.State != fleet.StateDownloading {
		s.Errorf("%+v", p)
	}
	// The version of the device's own product is meant.
	s.ok(s.Report(ctx, "a", &r2, fleet.Report{Error: ptr("too large"), NewVersion: ptr("3.0")}, true, 6, at(7)))
	if p, err := s.DeploymentOf(ctx, "a", r3.ID); err != nil || p.State != fleet.StateFailed || p.Reason != "too large" {
		s.Errorf("%+v %v", p, err)
	}
	_, err = s.DeploymentOf(ctx, "a", other.ID)
	s.code(err, fleet.CodeNotFound)
	// A device of no release at all.
	s.addDevice("new", at(8))
	s.ok(s.Report(ctx, "new", nil, fleet.Report{BootStatus: ptr("success"), NewVersion: ptr("0.9")}, true, 1, at(8)))
	if d := s.device("new"); d.RunningVersion != "0.9" {
		s.Errorf("%+v", d)
	}
}

func (s *suite) reportsUnproven() {
	r := s.mustPublish("p", "2.0", at(0))
	s.addDevice("silent", at(0))
	s.addDevice("signed", at(0))
	bad := fleet.Report{ChunkReceived: ptr(4), TotalChunks: ptr(10), Rollback: ptr(true), BootStatus: ptr("failed"), NewVersion: ptr("2.0"), Error: ptr("\x1b]0;pwned\x07" + strings.Repeat("ä", 500))}

	s.ok(s.Report(ctx, "silent", &r, bad, false, 0, at(1)))
	p := s.deployment("silent")
	if p.State != fleet.StateReverted || p.Proven || len(p.Reason) > fleet.MaxText || strings.ContainsAny(p.Reason, "\x1b\x07") {
		s.Errorf("%+v", p)
	}
	if o := fleet.OfferFor(s.device("silent"), &r, &p, at(2)); o.Release == nil {
		s.Errorf("a report without proof decided: %+v", o)
	}
	if d := s.device("silent"); d.Signed || !d.LastSeen.Equal(at(1)) {
		s.Errorf("%+v", d)
	}

	s.ok(s.Report(ctx, "signed", &r, fleet.Report{ChunkReceived: ptr(1)}, true, 1, at(1)))
	dep, dev := s.deployment("signed"), s.device("signed")
	s.ok(s.Report(ctx, "signed", &r, bad, false, 0, at(2)))
	s.reopen()
	if got := s.deployment("signed"); got != dep {
		s.Errorf("forged: %+v, was %+v", got, dep)
	}
	if got := s.device("signed"); !reflect.DeepEqual(got, dev) {
		s.Errorf("forged: %+v, was %+v", got, dev)
	}
	events, _, err := s.Events(ctx, "signed", 10)
	s.ok(err)
	if len(events) < 3 || events[0].Proven || events[len(events)-1].Name != fleet.EventDeviceAdded || !events[len(events)-1].Proven {
		s.Errorf("%+v", events)
	}
}

// latestDeployment: what is proven goes before what is not, then the latest
// begun; a list has one of each device.
func (s *suite) latestDeployment() {
	r1 := s.mustPublish("p", "1.0", at(0))
	r2 := s.mustPublish("p", "2.0", at(1))
	r3 := s.mustPublish("p", "3.0", at(2))
	for _, id := range []string{"b", "a", "none"} {
		s.addDevice(id, at(0))
	}
	one := fleet.Report{ChunkReceived: ptr(1)}
	s.ok(s.Report(ctx, "a", &r2, one, true, 1, at(3)))
	s.ok(s.Report(ctx, "a", &r1, one, true, 2, at(4)))
	s.ok(s.Report(ctx, "a", &r2, fleet.Report{ChunkReceived: ptr(2)}, true, 3, at(5))) // goes on, did not begin
	s.ok(s.Report(ctx, "a", &r3, one, false, 0, at(6)))
	s.ok(s.Report(ctx, "b", &r1, one, false, 0, at(7)))
	if p := s.deployment("a"); p.ReleaseID != r1.ID || !p.Proven {
		s.Errorf("%+v", p)
	}
	if p, err := s.DeploymentOf(ctx, "a", r3.ID); err != nil || p.Proven {
		s.Errorf("%+v %v", p, err)
	}
	list, err := s.ListDeployments(ctx)
	s.ok(err)
	if len(list) != 2 || list[0] != s.deployment("a") || list[1] != s.deployment("b") {
		s.Errorf("%+v", list)
	}
}
