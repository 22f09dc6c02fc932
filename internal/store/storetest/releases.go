package storetest

import (
	"fmt"
	"strings"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func (s *suite) publish() {
	in := release("acme/pump", "1.0", 1043)
	r, created, err := s.Publish(ctx, in, at(0.7))
	s.ok(err)
	want := in
	want.ID, want.State, want.PublishedAt = r.ID, fleet.ReleasePublished, at(0)
	if !created || r.ID == 0 || r != want {
		s.Fatalf("%v: %+v, not %+v", created, r, want)
	}
	s.wantNames("", fleet.EventUploaded, fleet.EventHashVerified, fleet.EventChunkingStarted)

	// The same again changes nothing.
	again, created, err := s.Publish(ctx, in, at(60))
	s.ok(err)
	if created || again != want {
		s.Errorf("the same again: %v %+v", created, again)
	}
	if n := len(s.names("")); n != 3 {
		s.Errorf("%d events", n)
	}

	s.reopen()
	for _, f := range []func() (fleet.Release, error){
		func() (fleet.Release, error) { return s.Release(ctx, r.ID) },
		func() (fleet.Release, error) { return s.ReleaseByVersion(ctx, "acme/pump", "1.0") },
	} {
		if got, err := f(); err != nil || got != want {
			s.Errorf("%+v, %v", got, err)
		}
	}
	_, err = s.Release(ctx, r.ID+1)
	s.code(err, fleet.CodeNotFound)
	_, err = s.ReleaseByVersion(ctx, "acme/pump", "2.0")
	s.code(err, fleet.CodeNotFound)
	_, err = s.ReleaseByVersion(ctx, "other", "1.0")
	s.code(err, fleet.CodeNotFound)
}

func (s *suite) publishRefuses() {
	first := release("p", "1.0", 10)
	_, _, err := s.Publish(ctx, first, at(0))
	s.ok(err)
	gen, err := s.Generation(ctx)
	s.ok(err)
	for _, c := range []struct {
		name string
		f    func(*fleet.Release)
		code fleet.Code
	}{
		{"another image", func(r *fleet.Release) { r.Image.Digest[31]++ }, fleet.CodeConflict},
		{"another chunk size", func(r *fleet.Release) { r.ChunkSize = 2048 }, fleet.CodeConflict},
		{"no product", func(r *fleet.Release) { r.Product = "" }, fleet.CodeInvalid},
		{"product with a space", func(r *fleet.Release) { r.Product = "a b" }, fleet.CodeInvalid},
		{"no version", func(r *fleet.Release) { r.Version = "" }, fleet.CodeInvalid},
		{"version of two lines", func(r *fleet.Release) { r.Version = "1\n2" }, fleet.CodeInvalid},
		{"chunks too small", func(r *fleet.Release) { r.Version, r.ChunkSize = "2", 16 }, fleet.CodeInvalid},
		{"chunks too large", func(r *fleet.Release) { r.Version, r.ChunkSize = "2", 1<<20 }, fleet.CodeInvalid},
		{"an image of no bytes", func(r *fleet.Release) { r.Version, r.Image.Size = "2", 0 }, fleet.CodeInvalid},
	} {
		r := first
		c.f(&r)
		got, created, err := s.Publish(ctx, r, at(1))
		if created || got != (fleet.Release{}) {
			s.Errorf("%s: %+v", c.name, got)
		}
		s.code(err, c.code)
	}
	if list, err := s.ListReleases(ctx, ""); err != nil || len(list) != 1 {
		s.Errorf("%v %v", list, err)
	}
	if now, err := s.Generation(ctx); err != nil || now != gen {
		s.Errorf("generation %d, was %d: %v", now, gen, err)
	}
	if n := len(s.names("")); n != 3 {
		s.Errorf("%d events", n)
	}
}

func (s *suite) publishStampsRise() {
	var want []string
	last := at(-1)
	for i, now := range []float64{0, 0.1, 0.2, 10, 5, -100} {
		v := fmt.Sprint("v", i)
		product := []string{"a", "b"}[i%2]
		r := s.mustPublish(product, v, at(now))
		if !r.PublishedAt.After(last) || r.PublishedAt.Nanosecond() != 0 {
			s.Errorf("%s at %v after %v", v, r.PublishedAt, last)
		}
		last = r.PublishedAt
		want = append([]string{v}, want...)
		if i == 3 {
			s.reopen()
		}
	}
	list, err := s.ListReleases(ctx, "")
	s.ok(err)
	var got []string
	for _, r := range list {
		got = append(got, r.Version)
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		s.Errorf("newest first: %v, not %v", got, want)
	}
	if list, err = s.ListReleases(ctx, "b"); err != nil || len(list) != 3 || list[0].Version != "v5" {
		s.Errorf("%v %v", list, err)
	}
	if list, err = s.ListReleases(ctx, "c"); err != nil || list == nil || len(list) != 0 {
		s.Errorf("%v %v", list, err)
	}
}

func (s *suite) catalogue() {
	read := func() (int64, []fleet.Release) {
		s.Helper()
		gen, err := s.Generation(ctx)
		s.ok(err)
		at, list, err := s.Snapshot(ctx)
		s.ok(err)
		if at != gen {
			s.Errorf("snapshot of generation %d, now %d", at, gen)
		}
		return gen, list
	}
	g0, list := read()
	if len(list) != 0 {
		s.Errorf("%v", list)
	}
	r := s.mustPublish("p", "1.0", at(0))
	g1, list := read()
	if g1 <= g0 || len(list) != 1 || list[0] != r {
		s.Errorf("%d %v", g1, list)
	}
	// What is not about releases leaves it.
	s.addDevice("d", at(1))
	s.ok(s.OrderRetry(ctx, "d", at(1)))
	s.ok(s.Report(ctx, "d", &r, fleet.Report{ChunkReceived: ptr(1)}, true, 1, at(2)))
	if g, _ := read(); g != g1 {
		s.Errorf("%d, was %d", g, g1)
	}
	s.reopen()
	if g, list := read(); g != g1 || len(list) != 1 {
		s.Errorf("%d, was %d: %v", g, g1, list)
	}
	_, err := s.Withdraw(ctx, r.ID, at(3))
	s.ok(err)
	if g, list := read(); g <= g1 || list[0].State != fleet.ReleaseWithdrawn {
		s.Errorf("%d, was %d: %v", g, g1, list)
	}
}

func (s *suite) withdraw() {
	r := s.mustPublish("p", "1.0", at(0))
	w, err := s.Withdraw(ctx, r.ID, at(1))
	s.ok(err)
	want := r
	want.State = fleet.ReleaseWithdrawn
	if w != want {
		s.Errorf("%+v", w)
	}
	gen, _ := s.Generation(ctx)
	if again, err := s.Withdraw(ctx, r.ID, at(2)); err != nil || again != want {
		s.Errorf("again: %+v, %v", again, err)
	}
	if g, _ := s.Generation(ctx); g != gen {
		s.Error("nothing changed, but the generation")
	}
	if n := strings.Count(fmt.Sprint(s.names("")), fleet.EventWithdrawn); n != 1 {
		s.Errorf("logged %d times", n)
	}
	s.reopen()
	if got, err := s.Release(ctx, r.ID); err != nil || got != want {
		s.Errorf("%+v, %v", got, err)
	}
	_, err = s.Withdraw(ctx, r.ID+1, at(3))
	s.code(err, fleet.CodeNotFound)
	// Publishing it again would claim what no device gets.
	_, _, err = s.Publish(ctx, release("p", "1.0", 10), at(4))
	s.code(err, fleet.CodeConflict)
}
