package storetest

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// signedOf is a signed release with what belongs to it. A store reads no envelope.
func signedOf(product, version string, sequence uint32) (fleet.Release, []byte, []fleet.Stream) {
	r := release(product, version, 10)
	r.Epoch, r.Sequence, r.SecurityVersion, r.Hardware = 1, sequence, 2, "pump-r2"
	file := func(chunk uint32) fleet.Stream {
		name := fmt.Sprint(product, version, chunk)
		return fleet.Stream{Digest: sha256.Sum256([]byte(name)), Kind: fleet.StreamRaw, Chunk: chunk, Length: 10528, Root: sha256.Sum256([]byte("root " + name))}
	}
	return r, fmt.Appendf(nil, "manifest of %s %s, sequence %d", product, version, sequence), []fleet.Stream{file(4096), file(1024)}
}

func (s *suite) mustPublishSigned(product, version string, sequence uint32, now float64) fleet.Release {
	s.Helper()
	in, envelope, streams := signedOf(product, version, sequence)
	r, created, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(now))
	s.ok(err)
	if !created {
		s.Fatalf("%s %s was there", product, version)
	}
	return r
}

func (s *suite) generation() int64 {
	s.Helper()
	g, err := s.Generation(ctx)
	s.ok(err)
	return g
}

func (s *suite) signedReleases() {
	g := s.generation()
	in, envelope, streams := signedOf("acme/pump", "1.0", 7)
	r, created, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(0.5))
	s.ok(err)
	want := in
	want.ID, want.State, want.PublishedAt, want.ManifestDigest = r.ID, fleet.ReleasePublished, at(0), sha256.Sum256(envelope)
	if !created || r != want || !r.Signed() {
		s.Fatalf("%+v, not %+v", r, want)
	}
	if s.generation() <= g {
		s.Error("the generation did not rise")
	}
	s.wantNames("", fleet.EventPublished)
	g = s.generation()
	again, created, err := s.PublishSigned(ctx, in, envelope, streams, 0, at(9))
	if err != nil || created || again != want || s.generation() != g {
		s.Errorf("again: %+v %v %v", again, created, err)
	}
	s.reopen()
	if got, err := s.Release(ctx, r.ID); err != nil || got != want {
		s.Errorf("%+v %v", got, err)
	}
	if got, err := s.ReleaseByVersion(ctx, "acme/pump", "1.0"); err != nil || got != want {
		s.Errorf("%+v %v", got, err)
	}
	if m, err := s.Manifest(ctx, r.ManifestDigest); err != nil || !bytes.Equal(m.Envelope, envelope) || !m.AddedAt.Equal(at(0.5)) {
		s.Errorf("%+v %v", m, err)
	}
	_, err = s.Manifest(ctx, fleet.Digest{1})
	s.code(err, fleet.CodeNotFound)
	list, err := s.Streams(ctx, r.ID)
	if err != nil || len(list) != 2 || list[0].Chunk != 1024 || list[0].ReleaseID != r.ID || list[1].Digest != streams[0].Digest {
		s.Errorf("%+v %v", list, err)
	}
	if m, err := s.Stream(ctx, streams[1].Digest); err != nil || m.Root != streams[1].Root || m.Length != 10528 || m.Kind != fleet.StreamRaw {
		s.Errorf("%+v %v", m, err)
	}
	_, err = s.Stream(ctx, fleet.Digest{1})
	s.code(err, fleet.CodeNotFound)
	if all, err := s.AllStreams(ctx); err != nil || len(all) != 2 {
		s.Errorf("%+v %v", all, err)
	}

	_, _, err = s.PublishSigned(ctx, in, []byte("another manifest"), streams, 0, at(10))
	s.code(err, fleet.CodeConflict)
	unsigned := in
	unsigned.Sequence = 0
	_, _, err = s.PublishSigned(ctx, unsigned, envelope, streams, 0, at(10))
	s.code(err, fleet.CodeInvalid)
	_, _, err = s.PublishSigned(ctx, in, nil, streams, 0, at(10))
	s.code(err, fleet.CodeInvalid)
	_, _, err = s.PublishSigned(ctx, in, make([]byte, 4096), streams, 0, at(10))
	s.code(err, fleet.CodeInvalid)
	_, _, err = s.PublishSigned(ctx, in, envelope, nil, 0, at(10))
	s.code(err, fleet.CodeInvalid)
	_, _, err = s.Publish(ctx, in, at(10))
	s.code(err, fleet.CodeInvalid)
}

// signedAnew: an old image under a higher sequence keeps its version and its files.
func (s *suite) signedAnew() {
	first := s.mustPublishSigned("p", "1.0", 1, 0)
	s.mustPublishSigned("p", "2.0", 2, 1)
	in, _, streams := signedOf("p", "1.0", 3)
	r, created, err := s.PublishSigned(ctx, in, []byte("issued anew"), streams, 0, at(2))
	s.ok(err)
	if !created || r.ID == first.ID {
		s.Fatalf("%+v", r)
	}
	if got, err := s.ReleaseByVersion(ctx, "p", "1.0"); err != nil || got.ID != r.ID {
		s.Errorf("%+v %v", got, err)
	}
	if list, err := s.Streams(ctx, r.ID); err != nil || len(list) != 2 || list[0].ReleaseID != r.ID {
		s.Errorf("%+v %v", list, err)
	}
	_, err = s.Withdraw(ctx, first.ID, at(3))
	s.ok(err)
	snapshot, err := s.NativeSnapshot(ctx)
	s.ok(err)
	if snapshot.Generation != s.generation() || len(snapshot.Releases) != 3 || snapshot.List != nil || fmt.Sprint(snapshot.Products) != "[p]" {
		s.Errorf("%+v", snapshot)
	}
	for _, sr := range snapshot.Releases {
		if len(sr.Streams) != 2 || len(sr.Envelope) == 0 || sr.ID == first.ID && sr.State != fleet.ReleaseWithdrawn {
			s.Errorf("%+v", sr)
		}
	}
	if all, err := s.AllStreams(ctx); err != nil || len(all) != 4 {
		s.Errorf("%d streams, %v", len(all), err)
	}
}

func (s *suite) policies() {
	if p, err := s.Policy(ctx, "p"); err != nil || p.SignedOnly || p.Name != "p" {
		s.Errorf("%+v %v", p, err)
	}
	s.mustPublish("p", "0.9", at(0))
	s.mustPublishSigned("p", "1.0", 1, 1)
	p, err := s.Policy(ctx, "p")
	if err != nil || !p.SignedOnly || p.ByOperator || !p.AddedAt.Equal(at(1)) {
		s.Errorf("%+v %v", p, err)
	}
	refused := func(version string) {
		s.Helper()
		_, _, err := s.Publish(ctx, release("p", version, 3), at(2))
		s.code(err, fleet.CodeForbidden)
	}
	refused("2.0")
	// The same as before is no publishing.
	if _, created, err := s.Publish(ctx, release("p", "0.9", 10), at(2)); err != nil || created {
		s.Errorf("%v %v", created, err)
	}
	s.mustPublish("q", "1.0", at(3))
	g := s.generation()
	s.ok(s.SetPolicy(ctx, "p", false, at(4)))
	if s.generation() <= g {
		s.Error("the generation did not rise")
	}
	s.mustPublish("p", "2.0", at(5))
	// An operator's word stands.
	s.mustPublishSigned("p", "3.0", 2, 6)
	s.mustPublish("p", "4.0", at(7))
	s.ok(s.SetPolicy(ctx, "p", true, at(8)))
	s.reopen()
	refused("5.0")
	s.ok(s.SetPolicy(ctx, "new", true, at(9)))
	_, _, err = s.Publish(ctx, release("new", "1.0", 3), at(10))
	s.code(err, fleet.CodeForbidden)
	s.code(s.SetPolicy(ctx, "a b", true, at(9)), fleet.CodeInvalid)
	list, err := s.ListPolicies(ctx)
	if err != nil || len(list) != 2 || list[0].Name != "new" || !list[1].ByOperator || !list[1].ChangedAt.Equal(at(8)) || !list[1].AddedAt.Equal(at(1)) {
		s.Errorf("%+v %v", list, err)
	}
}

func keyList(version, generation uint32) fleet.KeyList {
	return fleet.KeyList{Version: version, Generation: generation, Envelope: fmt.Appendf(nil, "list %d of %d", version, generation)}
}

func (s *suite) keyLists() {
	_, err := s.NewestKeyList(ctx)
	s.code(err, fleet.CodeNotFound)
	_, err = s.KeyListOf(ctx, 1)
	s.code(err, fleet.CodeNotFound)
	g := s.generation()
	var want []fleet.KeyList
	for i, c := range []struct {
		version, generation, after uint32
		first                      bool
	}{{3, 2, 0, true}, {4, 2, 3, false}, {5, 3, 4, true}, {9, 3, 5, false}} {
		l, err := s.AddKeyList(ctx, keyList(c.version, c.generation), c.after, []string{"p"}, at(float64(i)))
		s.ok(err)
		w := keyList(c.version, c.generation)
		w.First, w.Digest, w.AddedAt = c.first, sha256.Sum256(w.Envelope), at(float64(i))
		if fmt.Sprint(l) != fmt.Sprint(w) {
			s.Errorf("%+v, not %+v", l, w)
		}
		want = append([]fleet.KeyList{w}, want...)
		if s.generation() <= g {
			s.Error("the generation did not rise")
		}
		g = s.generation()
	}
	for _, c := range []struct{ version, after uint32 }{{10, 5}, {10, 0}, {9, 9}, {8, 9}} {
		_, err := s.AddKeyList(ctx, keyList(c.version, 3), c.after, nil, at(9))
		s.code(err, fleet.CodeConflict)
	}
	_, err = s.AddKeyList(ctx, fleet.KeyList{Version: 10, Generation: 3}, 9, nil, at(9))
	s.code(err, fleet.CodeInvalid)
	_, err = s.AddKeyList(ctx, keyList(10, 3), 9, []string{"a b"}, at(9))
	s.code(err, fleet.CodeInvalid)
	if s.generation() != g {
		s.Error("a refused list changed the generation")
	}
	s.reopen()
	if list, err := s.ListKeyLists(ctx); err != nil || fmt.Sprint(list) != fmt.Sprint(want) {
		s.Errorf("%+v %v", list, err)
	}
	if l, err := s.NewestKeyList(ctx); err != nil || l.Version != 9 {
		s.Errorf("%+v %v", l, err)
	}
	if l, err := s.KeyListOf(ctx, 3); err != nil || l.Version != 5 {
		s.Errorf("%+v %v", l, err)
	}
	if snapshot, err := s.NativeSnapshot(ctx); err != nil || snapshot.List == nil || snapshot.List.Version != 9 {
		s.Errorf("%+v %v", snapshot, err)
	}
	// A list that names a product has it take signed images only. A key list is no manifest.
	_, _, err = s.Publish(ctx, release("p", "1.0", 3), at(10))
	s.code(err, fleet.CodeForbidden)
	_, err = s.Manifest(ctx, want[0].Digest)
	s.code(err, fleet.CodeNotFound)
}

func (s *suite) publishWithList() {
	in, envelope, streams := signedOf("p", "1.0", 1)
	_, _, err := s.PublishWithList(ctx, in, envelope, streams, keyList(1, 1), 5, []string{"p"}, at(0))
	s.code(err, fleet.CodeConflict)
	if list, err := s.ListReleases(ctx, ""); err != nil || len(list) != 0 {
		s.Errorf("%+v %v", list, err)
	}
	_, created, err := s.PublishWithList(ctx, in, envelope, streams, keyList(1, 1), 0, []string{"p", "q"}, at(1))
	s.ok(err)
	if l, err := s.NewestKeyList(ctx); err != nil || l.Version != 1 || !created {
		s.Errorf("%+v %v", l, err)
	}
	// A list goes with the release that it came with: neither without the other.
	_, _, err = s.PublishWithList(ctx, in, []byte("other"), streams, keyList(2, 1), 1, nil, at(2))
	s.code(err, fleet.CodeConflict)
	if l, err := s.NewestKeyList(ctx); err != nil || l.Version != 1 {
		s.Errorf("%+v %v", l, err)
	}
	if p, err := s.Policy(ctx, "q"); err != nil || !p.SignedOnly {
		s.Errorf("%+v %v", p, err)
	}
}

// listMoved: what was judged by another key list than the newest is not published.
func (s *suite) listMoved() {
	in, envelope, streams := signedOf("p", "1.0", 1)
	_, err := s.AddKeyList(ctx, fleet.KeyList{Version: 1, Generation: 1, Envelope: []byte("list 1")}, 0, nil, at(0))
	s.ok(err)
	for _, judged := range []uint32{0, 2} {
		if _, _, err := s.PublishSigned(ctx, in, envelope, streams, judged, at(1)); !errors.Is(err, fleet.ErrListMoved) {
			s.Errorf("judged by list %d: %v", judged, err)
		}
	}
	_, _, err = s.PublishWithList(ctx, in, envelope, streams, fleet.KeyList{Version: 3, Generation: 1, Envelope: []byte("list 3")}, 2, nil, at(1))
	if !errors.Is(err, fleet.ErrListMoved) {
		s.Error(err)
	}
	if list, err := s.ListReleases(ctx, ""); err != nil || len(list) != 0 {
		s.Errorf("%v %v", list, err)
	}
	_, created, err := s.PublishSigned(ctx, in, envelope, streams, 1, at(2))
	s.ok(err)
	if !created {
		s.Error("not published")
	}
}
