package fleet

import (
	"path"
	"strings"
	"testing"
)

func TestTakeEnrolment(t *testing.T) {
	token := EnrolToken{ID: "t", Count: 2, Pattern: "d*"}
	before := func(s EnrolStatus, nonce byte) *Enrolment {
		return &Enrolment{Token: "t", Device: "d1", DeviceNonce: [16]byte{nonce}, ServerNonce: [16]byte{77}, Status: s, Time: at(1)}
	}
	with := func(change func(*EnrolToken)) EnrolToken { t := token; change(&t); return t }
	approval := with(func(t *EnrolToken) { t.Approval = true })
	for _, c := range []struct {
		name string
		c    EnrolCase
		want EnrolStatus
		why  string
	}{
		{"first", EnrolCase{Token: token}, EnrolTaken, ""},
		{"E1 again", EnrolCase{Token: token, Before: before(EnrolTaken, 1), Known: true}, EnrolTaken, ""},
		{"E1 again, though expired and spent", EnrolCase{Token: with(func(t *EnrolToken) { t.ExpiresAt, t.Used = at(5), 2 }), Before: before(EnrolTaken, 1), Known: true}, EnrolTaken, ""},
		{"E1 again, but it has polled", EnrolCase{Token: token, Before: before(EnrolTaken, 1), Known: true, Polled: true}, EnrolRefused, "has its key"},
		{"E2 another nonce", EnrolCase{Token: token, Before: before(EnrolTaken, 2), Known: true}, EnrolRefused, "known already"},
		{"E2 known otherwise", EnrolCase{Token: token, Known: true}, EnrolRefused, "known already"},
		{"E2 known since it waited", EnrolCase{Token: approval, Before: before(EnrolApproved, 1), Known: true}, EnrolRefused, "known already"},
		{"E3 revoked", EnrolCase{Token: with(func(t *EnrolToken) { t.RevokedAt = at(1) })}, EnrolRefused, "revoked"},
		{"E3 expired", EnrolCase{Token: with(func(t *EnrolToken) { t.ExpiresAt = at(10) })}, EnrolRefused, "expired"},
		{"E3 not yet expired", EnrolCase{Token: with(func(t *EnrolToken) { t.ExpiresAt = at(10.1) })}, EnrolTaken, ""},
		{"E3 spent", EnrolCase{Token: with(func(t *EnrolToken) { t.Used = 2 })}, EnrolRefused, "spent"},
		{"E3 not for this id", EnrolCase{Token: with(func(t *EnrolToken) { t.Pattern = "e*" })}, EnrolRefused, "not for this id"},
		{"E3 revoked while it waited", EnrolCase{Token: with(func(t *EnrolToken) { t.Approval, t.RevokedAt = true, at(1) }), Before: before(EnrolApproved, 1)}, EnrolRefused, "revoked"},
		{"E4 who waits takes a place", EnrolCase{Token: with(func(t *EnrolToken) { t.Used = 1 }), Open: 1}, EnrolRefused, "spent"},
		{"E4 but not its own twice", EnrolCase{Token: with(func(t *EnrolToken) { t.Approval, t.Used = true, 1 }), Open: 1, Before: before(EnrolWaiting, 1)}, EnrolWaiting, ""},
		{"E5 waits", EnrolCase{Token: approval}, EnrolWaiting, ""},
		{"E5 still", EnrolCase{Token: approval, Before: before(EnrolWaiting, 1)}, EnrolWaiting, ""},
		{"E5 approved", EnrolCase{Token: approval, Before: before(EnrolApproved, 1)}, EnrolTaken, ""},
		{"E5 approved was another request", EnrolCase{Token: approval, Before: before(EnrolApproved, 2)}, EnrolWaiting, ""},
	} {
		in := Enrolment{Device: "d1", DeviceNonce: [16]byte{1}, ServerNonce: [16]byte{5}}
		got := TakeEnrolment(c.c, in, at(10))
		if got.Status != c.want || !strings.Contains(got.Why, c.why) || (got.Why != "") != (c.want == EnrolRefused) || got.Token != "t" {
			t.Errorf("%s: %+v", c.name, got)
		}
		same := c.c.Before != nil && c.c.Before.DeviceNonce == in.DeviceNonce
		if same != (got.ServerNonce[0] == 77) {
			t.Errorf("%s: the server's nonce is %x", c.name, got.ServerNonce[:1])
		}
	}
}

func TestMatchID(t *testing.T) {
	for _, c := range []struct {
		pattern, id string
		want        bool
	}{
		{"", "x", true}, {"*", "x", true}, {"a*", "abc", true}, {"a*", "bac", false}, {"*c", "abc", true}, {"a?c", "abc", true}, {"a?c", "ac", false},
		{"a*b*c", "aXbYbZc", true}, {"a*b*c", "aXc", false}, {"abc", "abc", true}, {"abc", "abcd", false}, {"abc", "ab", false}, {"?", "", false}, {"**", "", true},
		{"24:6f:*", "24:6f:28", true}, {"*/pump", "acme/pump", true}, {"[a]", "a", false},
	} {
		if got := MatchID(c.pattern, c.id); got != c.want {
			t.Errorf("%q of %q: %v", c.pattern, c.id, got)
		}
	}
	// The worst that a pattern can cost: more would be a test that does not end.
	if MatchID(strings.Repeat("a*", 31)+"c", strings.Repeat("a", 63)) {
		t.Error("it fits")
	}
}

// What path.Match says of the same words, where no slash and no class is in them.
func FuzzMatchID(f *testing.F) {
	f.Add("a*b?", "aXbY")
	f.Add("*", "")
	f.Fuzz(func(t *testing.T, pattern, id string) {
		if pattern == "" || len(pattern) > MaxDeviceID || len(id) > MaxDeviceID || strings.ContainsAny(pattern+id, "/[]\\") {
			return
		}
		for _, c := range []byte(pattern + id) {
			if c >= 0x80 {
				return // path.Match counts runes
			}
		}
		want, err := path.Match(pattern, id)
		if got := MatchID(pattern, id); err == nil && got != want {
			t.Errorf("%q of %q: %v", pattern, id, got)
		}
	})
}
