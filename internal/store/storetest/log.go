package storetest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func (s *suite) events() {
	for i := range 7 {
		device := []string{"a", "b", ""}[i%3]
		s.ok(s.Append(ctx, fleet.Event{Time: at(float64(i)), Device: device, Version: "1.0", Name: fmt.Sprint("e", i), Detail: "x\x00y\n" + strings.Repeat("z", 400), Proven: i%2 == 0}))
	}
	s.reopen()
	events, total, err := s.Events(ctx, "", 3)
	s.ok(err)
	if total != 7 || len(events) != 3 || events[0].Name != "e6" || events[2].Name != "e4" || events[0].ID <= events[1].ID {
		s.Errorf("%d %+v", total, events)
	}
	e := events[1]
	if e.Device != "" || !e.Time.Equal(at(5)) || e.Version != "1.0" || e.Proven || len(e.Detail) != fleet.MaxText || !strings.HasPrefix(e.Detail, "x y z") {
		s.Errorf("%+v", e)
	}
	if events, total, err = s.Events(ctx, "a", 1000); err != nil || total != 3 || len(events) != 3 || events[0].Name != "e6" || events[2].Name != "e0" {
		s.Errorf("%d %+v %v", total, events, err)
	}
	if events, total, err = s.Events(ctx, "nobody", 1); err != nil || total != 0 || events == nil || len(events) != 0 {
		s.Errorf("%d %+v %v", total, events, err)
	}
	for _, limit := range []int{-1, 0, 1001} {
		_, _, err := s.Events(ctx, "", limit)
		s.code(err, fleet.CodeInvalid)
	}
	s.code(s.Append(ctx, fleet.Event{Time: at(0)}), fleet.CodeInvalid)
	s.code(s.Append(ctx, fleet.Event{Name: "x"}), fleet.CodeInvalid)
}

// eventsAreBounded: whoever forges reports of a silent device fills no disk and
// pushes out nothing that is proven.
func (s *suite) eventsAreBounded() {
	const forged, keep = 2400, 1200
	s.addDevice("a", at(0))
	s.addDevice("b", at(0))
	s.ok(s.Append(ctx, fleet.Event{Time: at(0), Device: "b", Name: "b's own"}))
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for g := range 8 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for range forged / 8 {
				if err := s.Report(ctx, "a", nil, fleet.Report{Error: ptr(fmt.Sprint("forged by ", g))}, false, 0, at(1)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		s.Error(err)
	}
	_, total, err := s.Events(ctx, "a", 1)
	s.ok(err)
	if total > keep || total < keep/2 {
		s.Errorf("%d events are kept of %d", total, forged)
	}
	s.ok(s.Append(ctx, fleet.Event{Time: at(2), Device: "a", Name: "proven", Proven: true}))
	found := 0
	for offset := range 2 {
		events, _, err := s.Events(ctx, []string{"a", ""}[offset], 1000)
		s.ok(err)
		for _, e := range events {
			if e.Name == "proven" {
				found++
			}
		}
	}
	if found != 2 {
		s.Errorf("found %d times", found)
	}
	s.wantNames("b", fleet.EventDeviceAdded, "b's own")
}

func (s *suite) tokens() {
	newToken := func() string {
		t, err := fleet.NewToken(rand.Reader)
		s.ok(err)
		return t
	}
	a, b := newToken(), newToken()
	if list, err := s.ListTokens(ctx); err != nil || len(list) != 0 {
		s.Errorf("%v %v", list, err)
	}
	ta, err := s.AddToken(ctx, "admin", a, at(0))
	s.ok(err)
	tb, err := s.AddToken(ctx, "build \x07machine", b, at(1))
	s.ok(err)
	if ta.Name != "admin" || !ta.CreatedAt.Equal(at(0)) || !ta.RevokedAt.IsZero() || ta.ID == tb.ID || tb.Name != "build machine" {
		s.Errorf("%+v %+v", ta, tb)
	}
	s.reopen()
	for token, want := range map[string]fleet.Token{a: ta, b: tb} {
		if got, err := s.CheckToken(ctx, token); err != nil || got != want {
			s.Errorf("%+v %v", got, err)
		}
	}
	for _, bad := range []string{"", "admin", newToken(), a[:len(a)-1], a + "x", strings.ToUpper(a)} {
		got, err := s.CheckToken(ctx, bad)
		s.code(err, fleet.CodeUnauthenticated)
		if got != (fleet.Token{}) {
			s.Errorf("%+v", got)
		}
	}
	_, err = s.AddToken(ctx, "twice", a, at(2))
	s.code(err, fleet.CodeConflict)
	_, err = s.AddToken(ctx, "home-made", "correct horse battery staple", at(2))
	s.code(err, fleet.CodeInvalid)
	_, err = s.AddToken(ctx, "", newToken(), at(2))
	s.code(err, fleet.CodeInvalid)

	s.ok(s.RevokeToken(ctx, ta.ID, at(3)))
	s.code(s.RevokeToken(ctx, ta.ID, at(4)), fleet.CodeNotFound)
	s.reopen()
	_, err = s.CheckToken(ctx, a)
	s.code(err, fleet.CodeUnauthenticated)
	if got, err := s.CheckToken(ctx, b); err != nil || got != tb {
		s.Errorf("%+v %v", got, err)
	}
	list, err := s.ListTokens(ctx)
	s.ok(err)
	if len(list) != 2 || list[0].ID != ta.ID || !list[0].RevokedAt.Equal(at(3)) || list[1] != tb {
		s.Errorf("%+v", list)
	}
}

// cancelled: a call whose context has ended changes nothing and says so.
func (s *suite) cancelled() {
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if _, _, err := s.Publish(ended, release("p", "1.0", 1), at(0)); !errors.Is(err, context.Canceled) {
		s.Errorf("publish: %v", err)
	}
	if _, err := s.ListReleases(ended, ""); !errors.Is(err, context.Canceled) {
		s.Errorf("list: %v", err)
	}
	if list, err := s.ListReleases(ctx, ""); err != nil || len(list) != 0 {
		s.Errorf("%v %v", list, err)
	}
}

// concurrent: writers of all kinds at once. Each nonce of a device counts once,
// and one that is refused does not harm the others.
func (s *suite) concurrent() {
	r := s.mustPublish("p", "2.0", at(0))
	const devices, nonces = 4, 25
	for d := range devices {
		s.addDevice(fmt.Sprint("d", d), at(0))
	}
	var wg sync.WaitGroup
	type result struct {
		device int
		code   fleet.Code
	}
	results := make(chan result, devices*nonces*2)
	for d := range devices {
		for n := range nonces {
			for range 2 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					err := s.Report(ctx, fmt.Sprint("d", d), &r, fleet.Report{ChunkReceived: ptr(n % 10)}, true, uint64(n+1), at(1))
					results <- result{d, fleet.CodeOf(err)}
				}()
			}
		}
	}
	created := make(chan bool, 10)
	for range 10 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			_, made, err := s.Publish(ctx, release("p", "3.0", 10), at(5))
			if err != nil {
				s.Errorf("publish: %v", err)
			}
			created <- made
		}()
	}
	wg.Wait()
	close(results)
	close(created)
	done := map[int]int{}
	for r := range results {
		switch r.code {
		case "":
			done[r.device]++
		case fleet.CodeReplay:
		default:
			s.Errorf("d%d: %s", r.device, r.code)
		}
	}
	for d := range devices {
		if done[d] < 1 || done[d] > nonces {
			s.Errorf("d%d: %d reports of %d nonces were taken", d, done[d], nonces)
		}
		if got := s.device(fmt.Sprint("d", d)); got.Nonce != nonces {
			s.Errorf("%+v", got)
		}
	}
	made := 0
	for c := range created {
		if c {
			made++
		}
	}
	if made != 1 {
		s.Errorf("created %d times", made)
	}
}
