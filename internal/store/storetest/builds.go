package storetest

import (
	"crypto/sha256"
	"fmt"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// buildOf is the build for a slot of a release, with an image, a manifest and streams of its own.
func buildOf(product, version string, sequence uint32, slot uint8) (fleet.Release, []byte, []fleet.Stream) {
	name := fmt.Sprintf("%s in slot %d", version, slot)
	r, _, streams := signedOf(product, name, sequence)
	r.Version, r.HasSlot, r.Slot = version, true, slot
	r.Image.Digest = sha256.Sum256([]byte(name))
	return r, fmt.Appendf(nil, "manifest of %s %s, sequence %d", product, name, sequence), streams
}

func (s *suite) mustPublishBuild(product, version string, sequence uint32, slot uint8, now float64) fleet.Release {
	s.Helper()
	in, envelope, streams := buildOf(product, version, sequence, slot)
	r, created, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(now))
	s.ok(err)
	want := in
	want.ID, want.State, want.PublishedAt, want.ManifestDigest = r.ID, fleet.ReleasePublished, r.PublishedAt, sha256.Sum256(envelope)
	if !created || r != want {
		s.Fatalf("%+v, not %+v", r, want)
	}
	return r
}

// builds: a release is published once a slot, each build a row of its own.
func (s *suite) builds() {
	zero := s.mustPublishBuild("p", "1.0", 7, 0, 0)
	one := s.mustPublishBuild("p", "1.0", 7, 1, 1)
	if zero.ID == one.ID || !one.PublishedAt.After(zero.PublishedAt) {
		s.Errorf("%+v %+v", zero, one)
	}
	s.reopen()
	g := s.generation()
	for _, r := range []fleet.Release{zero, one} {
		if got, err := s.Release(ctx, r.ID); err != nil || got != r {
			s.Errorf("%+v, not %+v; %v", got, r, err)
		}
		if list, err := s.Streams(ctx, r.ID); err != nil || len(list) != 2 || list[0].ReleaseID != r.ID {
			s.Errorf("%+v %v", list, err)
		}
		in, envelope, streams := buildOf("p", "1.0", 7, r.Slot)
		if again, created, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(2)); err != nil || created || again != r {
			s.Errorf("again: %+v %v %v", again, created, err)
		}
	}
	if list, err := s.ListReleases(ctx, "p"); err != nil || len(list) != 2 || list[0] != one || list[1] != zero {
		s.Errorf("%+v %v", list, err)
	}
	if snapshot, err := s.NativeSnapshot(ctx); err != nil || len(snapshot.Releases) != 2 || snapshot.Releases[0].Release != one || len(snapshot.Releases[1].Streams) != 2 {
		s.Errorf("%+v %v", snapshot.Releases, err)
	}

	// What is no build of it is refused; the rules are fleet's.
	for name, change := range map[string]func(r *fleet.Release){
		"the same slot":   func(r *fleet.Release) { r.Slot = 1 },
		"any slot":        func(r *fleet.Release) { r.HasSlot, r.Slot = false, 0 },
		"another version": func(r *fleet.Release) { r.Version = "1.1" },
		"other hardware":  func(r *fleet.Release) { r.Hardware = "r3" },
		"the same image":  func(r *fleet.Release) { r.Image.Digest = one.Image.Digest },
	} {
		in, _, streams := buildOf("p", "1.0", 7, 2)
		change(&in)
		if _, _, err := s.PublishSigned(ctx, in, []byte(name), streams, 0, at(3)); fleet.CodeOf(err) != fleet.CodeConflict {
			s.Errorf("%s: %v", name, err)
		}
	}
	if s.generation() != g {
		s.Error("a refused build changed the generation")
	}

	// A version stands for one image in each slot, and issued anew for the same ones.
	in, envelope, streams := buildOf("p", "1.0", 8, 1)
	in.Image.Digest[0]++
	_, _, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(4))
	s.code(err, fleet.CodeConflict)
	in.HasSlot, in.Slot = false, 0
	_, _, err = s.PublishSigned(ctx, in, envelope, streams, 0, at(4))
	s.code(err, fleet.CodeConflict)
	s.mustPublishBuild("p", "1.0", 8, 0, 5)
	s.mustPublishBuild("p", "1.0", 8, 1, 6)
	s.mustPublishBuild("q", "1.0", 7, 0, 7) // of another product, with the same numbers

	// Withdrawn are both, and those before and of others stay.
	w, err := s.Withdraw(ctx, one.ID, at(8))
	s.ok(err)
	if one.State = fleet.ReleaseWithdrawn; w != one {
		s.Errorf("%+v", w)
	}
	s.reopen()
	list, err := s.ListReleases(ctx, "")
	s.ok(err)
	withdrawn := 0
	for _, r := range list {
		if r.State == fleet.ReleaseWithdrawn {
			withdrawn++
		}
		if (r.State == fleet.ReleaseWithdrawn) != (r.ID == zero.ID || r.ID == one.ID) {
			s.Errorf("%+v", r)
		}
	}
	if len(list) != 5 || withdrawn != 2 {
		s.Errorf("%d of %d withdrawn", withdrawn, len(list))
	}
	events, _, err := s.Events(ctx, "", 2)
	if err != nil || events[1].Name != fleet.EventWithdrawn || events[1].Detail != "p 1.0 for slot 0" || events[0].Detail != "p 1.0 for slot 1" {
		s.Errorf("%+v %v", events, err)
	}
	g = s.generation()
	if again, err := s.Withdraw(ctx, zero.ID, at(9)); err != nil || again.State != fleet.ReleaseWithdrawn || s.generation() != g {
		s.Errorf("%+v %v", again, err)
	}
	for slot := range uint8(3) {
		in, envelope, streams := buildOf("p", "1.0", 7, slot)
		_, _, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(10))
		s.code(err, fleet.CodeConflict)
	}
}

// buildDeployments: a report names the build by its image, and a poll reads what the
// device said last of whichever build.
func (s *suite) buildDeployments() {
	s.addNative("a", "p")
	s.addNative("b", "p")
	zero, one := s.mustPublishBuild("p", "1.0", 7, 0, 0), s.mustPublishBuild("p", "1.0", 7, 1, 1)
	next := s.mustPublishBuild("p", "2.0", 8, 0, 2)
	for _, r := range []fleet.Release{zero, one} {
		if p := s.poll("a", r.ID).Deployment; p != nil {
			s.Errorf("%+v", p)
		}
	}
	s.ok(s.TakeReport(ctx, nativeReport(one, 1, 1, 1, fleet.StateTrial), at(3)))
	want := func(r fleet.Release, state fleet.DeploymentState) {
		s.Helper()
		for _, asked := range []fleet.Release{zero, one} {
			if p := s.poll("a", asked.ID).Deployment; p == nil || p.ReleaseID != r.ID || p.State != state || p.Version != "1.0" {
				s.Errorf("asked for %d: %+v, want %s of %d", asked.ID, p, state, r.ID)
			}
		}
	}
	want(one, fleet.StateTrial)
	s.ok(s.TakeReport(ctx, nativeReport(zero, 2, 1, 2, fleet.StateDownloading), at(4)))
	want(zero, fleet.StateDownloading)
	s.ok(s.TakeReport(ctx, nativeReport(one, 3, 1, 3, fleet.StateConfirmed), at(5)))
	s.reopen()
	want(one, fleet.StateConfirmed)
	if s.poll("a", next.ID).Deployment != nil || s.poll("b", zero.ID).Deployment != nil {
		s.Error("another release's, or another device's")
	}
}

// runningSlot: where a device runs from is known from its polls.
func (s *suite) runningSlot() {
	s.addNative("a", "p")
	if d := s.device("a"); d.Slots != 0 || d.RunningSlot != 0 {
		s.Errorf("%+v", d)
	}
	for i, c := range []struct{ slots, running int }{{2, 0}, {2, 1}, {2, fleet.FactoryImage}} {
		s.taken(fleet.NativeChange{Device: "a", Nonce: uint64(i + 1), Now: at(float64(i)), Facts: fleet.NativeFacts{Slots: c.slots, RunningSlot: c.running}}, true)
		s.reopen()
		if d := s.device("a"); d.Slots != c.slots || d.RunningSlot != c.running {
			s.Errorf("%+v: %+v", c, d)
		}
	}
}
