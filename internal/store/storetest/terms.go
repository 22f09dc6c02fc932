package storetest

import (
	"crypto/sha256"
	"errors"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// terms: an operator's word stands over a restart, is in every snapshot, and holds for
// what is pushed.
func (s *suite) terms() {
	key := "00000000000000aa"
	s.mustPublishSigned("p", "1.0", 1, 1)
	g := s.generation()
	own := fleet.AssuranceOwn
	s.ok(s.SetTerms(ctx, "p", fleet.TermsChange{Signers: &[]string{key}, Assurance: &own}, at(2)))
	contact := fleet.ConfirmContact
	s.ok(s.SetTerms(ctx, "p", fleet.TermsChange{Confirm: &contact, Chunks: &[]int{1024, 4096}}, at(3)))
	if s.generation() != g+2 {
		s.Error("the generation did not rise")
	}
	if events, _, err := s.Events(ctx, "", 1); err != nil || events[0].Name != fleet.EventPolicy || events[0].Detail != "p: confirm contact, chunk sizes 1024, 4096" {
		s.Errorf("%+v %v", events, err)
	}
	s.code(s.SetTerms(ctx, "a b", fleet.TermsChange{Confirm: &contact}, at(3)), fleet.CodeInvalid)
	s.code(s.SetTerms(ctx, "p", fleet.TermsChange{Signers: &[]string{"x"}}, at(3)), fleet.CodeInvalid)
	s.reopen()
	p, err := s.Policy(ctx, "p")
	if err != nil || !p.SignedOnly || len(p.Terms.Signers) != 1 || p.Terms.Signers[0] != key || p.Terms.Assurance != own || p.Terms.Confirm != contact || p.Terms.DefaultChunk() != 1024 || !p.ChangedAt.Equal(at(3)) {
		s.Errorf("%+v %v", p, err)
	}
	native, err := s.NativeSnapshot(ctx)
	s.ok(err)
	rollouts, err := s.RolloutSnapshot(ctx)
	s.ok(err)
	if len(native.Terms) != 1 || native.Terms["p"].Confirm != contact || len(rollouts.Terms) != 1 || rollouts.Terms["p"].Confirm != contact {
		s.Errorf("%+v %+v", native.Terms, rollouts.Terms)
	}

	// Two operators at once: what each of them names holds.
	for i := range 10 {
		assurance, wire := []fleet.Assurance{fleet.AssuranceOwn, fleet.AssuranceShared}[i%2], []fleet.Wire{fleet.WireMACOnly, fleet.WireSigned}[i%2]
		both := make(chan error, 2)
		go func() { both <- s.SetTerms(ctx, "pair", fleet.TermsChange{Assurance: &assurance}, at(4)) }()
		go func() { both <- s.SetTerms(ctx, "pair", fleet.TermsChange{Wire: &wire}, at(4)) }()
		s.ok(errors.Join(<-both, <-both))
		if p, err := s.Policy(ctx, "pair"); err != nil || p.Terms.Assurance != assurance || p.Terms.Wire != wire {
			s.Fatalf("try %d: %+v %v", i, p, err)
		}
	}

	// What is pushed.
	in, envelope, streams := signedOf("p", "2.0", 2)
	publish := func() (fleet.Release, bool, error) { return s.PublishSigned(ctx, in, envelope, streams, 0, at(4)) }
	g = s.generation()
	for _, c := range []fleet.Checked{{}, {Signers: "00000000000000bb", Threshold: 1, Contact: true}, {Signers: key, Threshold: 1}} {
		in.Checked = c
		_, _, err := publish()
		s.code(err, fleet.CodeForbidden)
	}
	in.Checked.Contact = true
	streams[0].Chunk = 2048
	_, _, err = publish()
	s.code(err, fleet.CodeForbidden)
	if s.generation() != g {
		s.Error("a refused push changed something")
	}
	streams[0].Chunk = 4096
	r, created, err := publish()
	if err != nil || !created || r.Checked != in.Checked {
		s.Errorf("%+v %v %v", r, created, err)
	}
	s.reopen()
	if got, err := s.Release(ctx, r.ID); err != nil || got != r {
		s.Errorf("%+v, not\n%+v %v", got, r, err)
	}

	// Who signed what was taken in before this was noted is filled in by the same push.
	in, envelope, streams = signedOf("q", "1.0", 1)
	old, _, err := publish()
	s.ok(err)
	in.Checked = fleet.Checked{Signers: key, Threshold: 1, Contact: true}
	again, created, err := publish()
	if err != nil || created || again.ID != old.ID || again.Checked != in.Checked {
		s.Errorf("%+v %v %v", again, created, err)
	}
	if got, err := s.Release(ctx, old.ID); err != nil || got.Checked != in.Checked {
		s.Errorf("%+v %v", got, err)
	}

	// An unsigned image has chunks too.
	s.ok(s.SetTerms(ctx, "u", fleet.TermsChange{Chunks: &[]int{4096}}, at(5)))
	_, _, err = s.Publish(ctx, release("u", "1.0", 3), at(6))
	s.code(err, fleet.CodeForbidden)
	s.ok(s.SetTerms(ctx, "u", fleet.TermsChange{Chunks: &[]int{}}, at(7)))
	s.mustPublish("u", "1.0", at(8))
	native, err = s.NativeSnapshot(ctx)
	if _, there := native.Terms["u"]; err != nil || there {
		s.Errorf("terms that ask nothing: %+v %v", native.Terms, err)
	}
}

// drafts: a draft is published later, as new as what is pushed then, with all builds.
func (s *suite) drafts() {
	draft := release("p", "1.0", 3)
	draft = fleet.Publication{Draft: true, Notes: "first\nsecond", Channel: "beta"}.Of(draft)
	one, created, err := s.Publish(ctx, draft, at(0))
	if err != nil || !created || one.State != fleet.ReleaseDraft || one.Notes != "first\nsecond" || one.Channel != "beta" {
		s.Fatalf("%+v %v %v", one, created, err)
	}
	again := draft
	again.State = ""
	if r, created, err := s.Publish(ctx, again, at(1)); err != nil || created || r != one {
		s.Errorf("a push is not what publishes a draft: %+v %v %v", r, created, err)
	}
	two := s.mustPublish("p", "2.0", at(2))
	_, err = s.CreateRollout(ctx, fleet.Rollout{Product: "p", ReleaseID: one.ID, Course: course("100%", nil)}, at(3))
	s.code(err, fleet.CodeConflict)
	g := s.generation()
	r, err := s.PublishDraft(ctx, one.ID, at(4))
	if err != nil || r.State != fleet.ReleasePublished || !r.PublishedAt.After(two.PublishedAt) || s.generation() != g+1 {
		s.Errorf("%+v %v", r, err)
	}
	s.reopen()
	if got, err := s.Release(ctx, one.ID); err != nil || got != r {
		s.Errorf("%+v %v", got, err)
	}
	if r2, err := s.PublishDraft(ctx, one.ID, at(5)); err != nil || r2 != r || s.generation() != g+1 {
		s.Errorf("published twice: %+v %v", r2, err)
	}
	_, err = s.PublishDraft(ctx, 99, at(5))
	s.code(err, fleet.CodeNotFound)
	_, err = s.Withdraw(ctx, one.ID, at(6))
	s.ok(err)
	_, err = s.PublishDraft(ctx, one.ID, at(7))
	s.code(err, fleet.CodeConflict)

	// Builds are published together, and one that comes to a draft is a draft.
	in, envelope, streams := signedOf("s", "1.0", 1)
	in.HasSlot, in.Slot, in.State = true, 0, fleet.ReleaseDraft
	zero, _, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(8))
	s.ok(err)
	in.Slot, in.State, in.Image.Digest = 1, "", sha256.Sum256([]byte("for slot 1"))
	other := streams[0]
	other.Digest, other.Root = sha256.Sum256([]byte("other")), sha256.Sum256([]byte("other root"))
	first, _, err := s.PublishSigned(ctx, in, []byte("another manifest"), []fleet.Stream{other}, 0, at(9))
	if err != nil || first.State != fleet.ReleaseDraft {
		s.Fatalf("%+v %v", first, err)
	}
	notes, none := "new", ""
	if r, err := s.SetWords(ctx, first.ID, fleet.Words{Notes: &notes, Channel: &none}, at(10)); err != nil || r.Notes != "new" || r.Channel != "" || r.ID != first.ID {
		s.Errorf("%+v %v", r, err)
	}
	bad := "a b"
	_, err = s.SetWords(ctx, first.ID, fleet.Words{Channel: &bad}, at(10))
	s.code(err, fleet.CodeInvalid)
	_, err = s.PublishDraft(ctx, first.ID, at(11))
	s.ok(err)
	for _, id := range []int64{zero.ID, first.ID} {
		if r, err := s.Release(ctx, id); err != nil || r.State != fleet.ReleasePublished || r.Notes != "new" {
			s.Errorf("%+v %v", r, err)
		}
	}
}

// health is written with a poll that changes something, and behind with one that does
// not; a poll that says nothing of it leaves what is stored.
func (s *suite) health() {
	s.ok(s.AddNativeDevice(ctx, fleet.Device{ID: "pump-1"}, fleet.Key{1}, nil, at(0)))
	want := func(h fleet.Health) {
		s.Helper()
		if d := s.device("pump-1"); d.Health != h {
			s.Errorf("%+v, not %+v", d.Health, h)
		}
	}
	want(fleet.Health{})
	one := fleet.Health{FreeRAM: 120_000, BootReason: "brown-out", Battery: 80, Signal: -67}
	_, err := s.TakePoll(ctx, fleet.NativeChange{Device: "pump-1", Nonce: 1, Now: at(1), Health: one})
	s.ok(err)
	want(one)
	two := fleet.Health{Battery: 79}
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "pump-1", Nonce: 2, At: at(2), Health: two}}))
	s.reopen()
	want(two)
	s.ok(s.SaveNativeSeen(ctx, []fleet.NativeSeen{{Device: "pump-1", Nonce: 3, At: at(3)}}))
	_, err = s.TakePoll(ctx, fleet.NativeChange{Device: "pump-1", Nonce: 4, Now: at(4)})
	s.ok(err)
	want(two)
	if n, err := s.NativePoll(ctx, "pump-1", fleet.Wanted{}); err != nil || n.Health != two {
		s.Errorf("%+v %v", n.Health, err)
	}
}
