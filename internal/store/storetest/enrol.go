package storetest

import (
	"fmt"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

func (s *suite) addToken(t fleet.EnrolToken) fleet.EnrolToken {
	s.Helper()
	if t.Count == 0 {
		t.Count = 1
	}
	t.Product = "acme/pump"
	out, err := s.AddEnrolToken(ctx, t, *keyOf("token " + t.ID), at(0))
	s.ok(err)
	return out
}

func enrolment(token, device string, nonce byte) fleet.Enrolment {
	return fleet.Enrolment{Token: token, Device: device, Hardware: "r2", DeviceNonce: [16]byte{nonce}, ServerNonce: [16]byte{nonce, 1}}
}

func (s *suite) enrolTokens() {
	a := s.addToken(fleet.EnrolToken{ID: "a", Pattern: "pump-*", Count: 3, Approval: true, ExpiresAt: at(1000)})
	want := fleet.EnrolToken{ID: "a", Product: "acme/pump", Pattern: "pump-*", Count: 3, Approval: true, CreatedAt: at(0), ExpiresAt: at(1000)}
	if a != want {
		s.Errorf("%+v", a)
	}
	s.addToken(fleet.EnrolToken{ID: "b"})
	_, err := s.AddEnrolToken(ctx, want, *keyOf("x"), at(1))
	s.code(err, fleet.CodeConflict)
	for _, bad := range []func(*fleet.EnrolToken){
		func(t *fleet.EnrolToken) { t.ID = "" },
		func(t *fleet.EnrolToken) { t.ID = "a:b" },
		func(t *fleet.EnrolToken) { t.ID = "123456789012345678901234567890123" },
		func(t *fleet.EnrolToken) { t.Product = "" },
		func(t *fleet.EnrolToken) { t.Pattern = "a b" },
		func(t *fleet.EnrolToken) { t.Count = 0 },
		func(t *fleet.EnrolToken) { t.ExpiresAt = at(-1) },
	} {
		t := want
		t.ID = "c"
		bad(&t)
		_, err := s.AddEnrolToken(ctx, t, *keyOf("x"), at(1))
		s.code(err, fleet.CodeInvalid)
	}
	s.reopen()
	got, secret, err := s.EnrolToken(ctx, "a")
	if err != nil || got != want || secret != *keyOf("token a") {
		s.Errorf("%+v %v", got, err)
	}
	_, _, err = s.EnrolToken(ctx, "c")
	s.code(err, fleet.CodeNotFound)
	s.ok(s.RevokeEnrolToken(ctx, "a", at(5)))
	_, secret, err = s.EnrolToken(ctx, "a")
	s.code(err, fleet.CodeNotFound)
	if secret != (fleet.Key{}) {
		s.Error("a secret came with the error")
	}
	s.code(s.RevokeEnrolToken(ctx, "a", at(6)), fleet.CodeNotFound)
	s.code(s.RevokeEnrolToken(ctx, "c", at(6)), fleet.CodeNotFound)
	list, err := s.ListEnrolTokens(ctx)
	if err != nil || len(list) != 2 || list[0].ID != "a" || !list[0].RevokedAt.Equal(at(5)) || list[1].ID != "b" {
		s.Errorf("%+v %v", list, err)
	}
	s.wantNames("", fleet.EventEnrolToken, fleet.EventEnrolToken, fleet.EventEnrolToken)
}

// tryEnrol wants a status, and the server's nonce of the first time.
func (s *suite) tryEnrol(e fleet.Enrolment, now float64, want fleet.EnrolStatus) fleet.Enrolment {
	s.Helper()
	out, err := s.Enrol(ctx, e, *keyOf("enrolled " + e.Device), at(now))
	s.ok(err)
	if out.Status != want || want == fleet.EnrolRefused && out.Why == "" {
		s.Errorf("%s with nonce %x: %s (%s), not %s", e.Device, e.DeviceNonce[:1], out.Status, out.Why, want)
	}
	return out
}

func (s *suite) enrol() {
	s.addToken(fleet.EnrolToken{ID: "t", Pattern: "pump-*", Count: 2, ExpiresAt: at(1000)})
	s.addDevice("pump-known", at(0))
	first := enrolment("t", "pump-1", 1)
	if _, found, err := s.ServerNonce(ctx, "t", "pump-1", first.DeviceNonce); err != nil || found {
		s.Errorf("%v %v", found, err)
	}
	s.tryEnrol(first, 1, fleet.EnrolTaken)
	s.reopen()
	if n, found, err := s.ServerNonce(ctx, "t", "pump-1", first.DeviceNonce); err != nil || !found || n != first.ServerNonce {
		s.Errorf("%x %v %v", n, found, err)
	}
	s.wantKeys("pump-1", fleet.NativeKey{Number: 0, Secret: *keyOf("enrolled pump-1")})
	if d := s.device("pump-1"); d.Product != "acme/pump" || d.Assurance != fleet.AssuranceOwn {
		s.Errorf("%+v", d)
	}
	s.wantNames("pump-1", fleet.EventEnrolled)

	// The same again: the same, and nothing changes.
	if out := s.tryEnrol(first, 2, fleet.EnrolTaken); out.ServerNonce != first.ServerNonce {
		s.Errorf("%+v", out)
	}
	s.wantNames("pump-1", fleet.EventEnrolled)
	// Another request under a known id, and other ids.
	s.tryEnrol(enrolment("t", "pump-1", 2), 3, fleet.EnrolRefused)
	s.tryEnrol(enrolment("t", "pump-known", 1), 3, fleet.EnrolRefused)
	s.tryEnrol(enrolment("t", "valve-1", 1), 3, fleet.EnrolRefused)
	s.tryEnrol(enrolment("t", "pump-2", 1), 1000, fleet.EnrolRefused) // expired
	s.tryEnrol(enrolment("t", "pump-2", 1), 4, fleet.EnrolTaken)
	s.tryEnrol(enrolment("t", "pump-3", 1), 5, fleet.EnrolRefused) // spent
	s.tryEnrol(first, 6, fleet.EnrolTaken)
	// Once it has polled, its key is not told again.
	s.taken(fleet.NativeChange{Device: "pump-1", Nonce: 1, Now: at(7)}, true)
	s.tryEnrol(first, 8, fleet.EnrolRefused)
	if _, err := s.Device(ctx, "pump-3"); fleet.CodeOf(err) != fleet.CodeNotFound {
		s.Error(err)
	}
	if list, err := s.ListEnrolTokens(ctx); err != nil || list[0].Used != 2 {
		s.Errorf("%+v %v", list, err)
	}
	_, err := s.Enrol(ctx, enrolment("none", "x", 1), fleet.Key{1}, at(9))
	s.code(err, fleet.CodeNotFound)
	_, err = s.Enrol(ctx, enrolment("t", "all", 1), fleet.Key{1}, at(9))
	s.code(err, fleet.CodeInvalid)
}

func (s *suite) enrolApproval() {
	s.addToken(fleet.EnrolToken{ID: "t", Count: 2, Approval: true})
	s.addToken(fleet.EnrolToken{ID: "u", Approval: true})
	s.tryEnrol(enrolment("t", "a", 1), 1, fleet.EnrolWaiting)
	s.tryEnrol(enrolment("t", "a", 1), 2, fleet.EnrolWaiting)
	s.wantNames("a", fleet.EventEnrolWaits)
	_, err := s.NativeKeys(ctx, "a")
	s.code(err, fleet.CodeNotFound)
	s.tryEnrol(enrolment("t", "b", 1), 3, fleet.EnrolWaiting)
	s.tryEnrol(enrolment("t", "c", 1), 4, fleet.EnrolRefused) // two wait: no place
	s.tryEnrol(enrolment("u", "a", 9), 5, fleet.EnrolWaiting) // somebody else with the same id
	s.reopen()
	list, err := s.WaitingEnrolments(ctx)
	if err != nil || len(list) != 3 || list[0].Device != "a" || list[0].Token != "t" || list[0].Hardware != "r2" || !list[0].Time.Equal(at(1)) {
		s.Errorf("%+v %v", list, err)
	}
	_, err = s.ApproveEnrolment(ctx, "a", "", at(6))
	s.code(err, fleet.CodeConflict)
	_, err = s.ApproveEnrolment(ctx, "x", "", at(6))
	s.code(err, fleet.CodeNotFound)
	e, err := s.ApproveEnrolment(ctx, "a", "t", at(6))
	if err != nil || e.Status != fleet.EnrolApproved || e.Device != "a" {
		s.Errorf("%+v %v", e, err)
	}
	// Approved was that request, and no other one of that name.
	s.tryEnrol(enrolment("t", "a", 2), 7, fleet.EnrolWaiting)
	s.tryEnrol(enrolment("u", "a", 9), 7, fleet.EnrolWaiting)
	_, err = s.ApproveEnrolment(ctx, "a", "t", at(8))
	s.ok(err)
	// The nonce that is stored counts.
	other := enrolment("t", "a", 2)
	other.ServerNonce = [16]byte{77}
	if out, err := s.Enrol(ctx, other, *keyOf("x"), at(9)); fleet.CodeOf(err) != fleet.CodeConflict {
		s.Errorf("%+v %v", out, err)
	}
	s.tryEnrol(enrolment("t", "a", 2), 9, fleet.EnrolTaken)
	s.wantKeys("a", fleet.NativeKey{Number: 0, Secret: *keyOf("enrolled a")})
	s.tryEnrol(enrolment("u", "a", 9), 10, fleet.EnrolRefused)
	// b's token is revoked before anybody said yes.
	s.ok(s.RevokeEnrolToken(ctx, "t", at(11)))
	_, err = s.ApproveEnrolment(ctx, "b", "t", at(12))
	s.ok(err)
	s.tryEnrol(enrolment("t", "b", 1), 13, fleet.EnrolRefused)
	s.wantNames("b", fleet.EventEnrolWaits, fleet.EventEnrolApproved)
}

// enrolConcurrent: a token takes as many as it says, whoever comes at once, and each
// device once.
func (s *suite) enrolConcurrent() {
	const count = 5
	s.addToken(fleet.EnrolToken{ID: "t", Count: count, ExpiresAt: at(float64(time.Hour / time.Second))})
	var wg sync.WaitGroup
	var mu sync.Mutex
	taken := map[string]int{}
	for i := range 40 {
		wg.Go(func() {
			id := fmt.Sprint("d", i%10)
			out, err := s.Enrol(ctx, enrolment("t", id, byte(i/10)), *keyOf(id), at(1))
			if err != nil {
				s.Error(err)
			}
			if out.Status == fleet.EnrolTaken {
				mu.Lock()
				taken[id]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(taken) != count {
		s.Errorf("%v", taken)
	}
	for id, n := range taken {
		if n != 1 {
			s.Errorf("%s was taken %d times", id, n)
		}
	}
}
