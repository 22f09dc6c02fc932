package storetest

import (
	"crypto/sha256"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// signedStore is what taking release files in needs of a store.
type signedStore interface {
	fleet.SignedReleases
	fleet.SignedIntake
	fleet.KeyLists
	fleet.Policies
	fleet.V1Policies
}

// signed is a signed release of so many chunks of 1,024 bytes, its manifest and its raw stream.
func signed(product, version string, sequence uint32) (fleet.Release, []byte, []fleet.Stream) {
	r := release(product, version, 10)
	r.Epoch, r.Sequence = 1, sequence
	return r, []byte("manifest of " + product + " " + version), []fleet.Stream{stream(fleet.StreamRaw, "raw "+version)}
}

func stream(kind, name string) fleet.Stream {
	return fleet.Stream{Digest: sha256.Sum256([]byte(name)), Kind: kind, Chunk: 1024, Length: 10*1024 + 9*32, Root: sha256.Sum256([]byte("root " + name))}
}

// What taking in release files rests on: a version is one image, streams that come
// later are added, and a list comes with its release or not at all.
func (s *suite) intake() {
	st, ok := s.Store.(signedStore)
	if !ok {
		s.Skip("it keeps no signed releases")
	}
	r, envelope, streams := signed("p", "1.0", 5)
	first, created, err := st.PublishSigned(ctx, r, envelope, streams, 0, at(0))
	s.ok(err)
	if !created {
		s.Error("not created")
	}
	wantStreams := func(n int) {
		s.Helper()
		own, err := st.Streams(ctx, first.ID)
		s.ok(err)
		all, err := st.AllStreams(ctx)
		s.ok(err)
		if len(own) != n || len(all) != n {
			s.Errorf("%d streams of the release, %d in all, not %d", len(own), len(all), n)
		}
	}
	wantStreams(1)

	other, envelope2, _ := signed("p", "1.0", 6)
	other.Image.Digest[0]++
	_, _, err = st.PublishSigned(ctx, other, envelope2, []fleet.Stream{stream(fleet.StreamRaw, "other")}, 0, at(1))
	s.code(err, fleet.CodeConflict)
	wantStreams(1)

	gen, err := s.Generation(ctx)
	s.ok(err)
	patch := stream(fleet.StreamPatch, "patch")
	patch.Sheet = []byte("its sheet")
	for i := range 2 {
		again, created, err := st.PublishSigned(ctx, r, envelope, append(streams, patch), 0, at(2))
		if err != nil || created || again != first {
			s.Errorf("time %d: %v %v", i, created, err)
		}
		wantStreams(2)
		if now, _ := s.Generation(ctx); now != gen+1 {
			s.Errorf("time %d: generation %d, was %d", i, now, gen)
		}
	}
	if got, err := st.Stream(ctx, patch.Digest); err != nil || got.Kind != fleet.StreamPatch || string(got.Sheet) != "its sheet" || got.ReleaseID != first.ID {
		s.Errorf("%+v, %v", got, err)
	}
	// Known by its digest as something else: nothing of it is stored.
	wrong := patch
	wrong.Root[0]++
	_, _, err = st.PublishSigned(ctx, r, envelope, []fleet.Stream{stream(fleet.StreamPatch, "more"), wrong}, 0, at(2))
	s.code(err, fleet.CodeConflict)
	wantStreams(2)

	// The list and the release are one: a conflict of the release leaves no list.
	list := fleet.KeyList{Version: 1, Generation: 1, Envelope: []byte("list 1")}
	_, _, err = st.PublishWithList(ctx, other, envelope2, streams, list, 0, []string{"q"}, at(3))
	s.code(err, fleet.CodeConflict)
	_, err = st.NewestKeyList(ctx)
	s.code(err, fleet.CodeNotFound)
	if p, err := st.Policy(ctx, "q"); err != nil || p.SignedOnly {
		s.Errorf("%+v %v", p, err)
	}
	next, envelope3, streams3 := signed("p", "2.0", 7)
	_, _, err = st.PublishWithList(ctx, next, envelope3, streams3, list, 1, nil, at(4))
	s.code(err, fleet.CodeConflict)
	if _, created, err := st.PublishWithList(ctx, next, envelope3, streams3, list, 0, []string{"q"}, at(4)); err != nil || !created {
		s.Errorf("%v %v", created, err)
	}
	s.reopen()
	st = s.Store.(signedStore)
	if l, err := st.NewestKeyList(ctx); err != nil || l.Version != 1 || string(l.Envelope) != "list 1" {
		s.Errorf("%+v %v", l, err)
	}
	// The policy holds for unsigned images of both, whatever way they came.
	for _, product := range []string{"p", "q"} {
		_, _, err := s.Publish(ctx, release(product, "9.0", 10), at(5))
		s.code(err, fleet.CodeForbidden)
	}
	s.mustPublish("r", "9.0", at(5))
}

// v1 devices get nothing of a signed product unless an operator says so, and that
// word makes no product unsigned.
func (s *suite) policyV1() {
	st, ok := s.Store.(signedStore)
	if !ok {
		s.Skip("it keeps no signed releases")
	}
	without := func(want ...string) {
		s.Helper()
		got, err := st.WithoutV1(ctx)
		s.ok(err)
		for _, p := range want {
			if !got[p] {
				s.Errorf("%s is served over v1", p)
			}
		}
		if len(got) != len(want) {
			s.Errorf("without: %v, not %v", got, want)
		}
	}
	s.mustPublish("unsigned", "1.0", at(0))
	without()
	r, envelope, streams := signed("p", "1.0", 5)
	_, _, err := st.PublishSigned(ctx, r, envelope, streams, 0, at(1))
	s.ok(err)
	without("p")
	gen, err := s.Generation(ctx)
	s.ok(err)
	s.ok(st.AllowV1(ctx, "p", true, at(2)))
	without()
	if now, _ := s.Generation(ctx); now <= gen {
		s.Error("nobody hears of it: the generation is the same")
	}
	s.reopen()
	st = s.Store.(signedStore)
	without()
	s.ok(st.AllowV1(ctx, "p", false, at(3)))
	without("p")
	// Said before the product is signed.
	s.ok(st.AllowV1(ctx, "q", true, at(4)))
	if p, err := st.Policy(ctx, "q"); err != nil || p.SignedOnly {
		s.Errorf("%+v %v", p, err)
	}
	r, envelope, streams = signed("q", "1.0", 5)
	_, _, err = st.PublishSigned(ctx, r, envelope, streams, 0, at(5))
	s.ok(err)
	if p, err := st.Policy(ctx, "q"); err != nil || !p.SignedOnly {
		s.Errorf("a signed release did not make it signed: %+v %v", p, err)
	}
	without("p")
	s.ok(st.SetPolicy(ctx, "p", false, at(6)))
	without()
	s.code(st.AllowV1(ctx, "a b", true, at(7)), fleet.CodeInvalid)
}
