package fleet

import (
	"strings"
	"testing"
	"time"
)

var t0 = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(seconds float64) time.Time { return t0.Add(time.Duration(seconds * float64(time.Second))) }

func TestProductOf(t *testing.T) {
	for _, c := range []struct {
		product  string
		products []string
		want     string
	}{
		{"acme/pump", nil, "acme/pump"},
		{"acme/pump", []string{"x"}, "acme/pump"},
		{"", nil, DefaultProduct},
		{"", []string{"acme/pump"}, "acme/pump"},
		{"", []string{"acme/pump", "x"}, DefaultProduct},
	} {
		if got := ProductOf(Device{Product: c.product}, c.products); got != c.want {
			t.Errorf("%q of %v: %q, not %q", c.product, c.products, got, c.want)
		}
	}
}

func TestNewestAndProducts(t *testing.T) {
	rs := []Release{
		{ID: 4, Product: "a", State: ReleaseWithdrawn, PublishedAt: at(40)},
		{ID: 3, Product: "b", State: ReleasePublished, PublishedAt: at(30)},
		{ID: 1, Product: "a", State: ReleasePublished, PublishedAt: at(10)},
		{ID: 2, Product: "a", State: ReleasePublished, PublishedAt: at(20)},
	}
	if got := Newest(rs, "a"); got == nil || got.ID != 2 {
		t.Errorf("newest of a: %+v", got)
	}
	if got := Newest(rs, "c"); got != nil {
		t.Errorf("newest of c: %+v", got)
	}
	if got := strings.Join(Products(rs), " "); got != "a b" {
		t.Errorf("products: %s", got)
	}
}

func TestOfferFor(t *testing.T) {
	rel := &Release{ID: 7, Product: "p", Version: "2.0", State: ReleasePublished, PublishedAt: at(0)}
	withdrawn := *rel
	withdrawn.State = ReleaseWithdrawn
	dep := func(s DeploymentState) *Deployment {
		return &Deployment{ReleaseID: 7, State: s, Proven: true, StartedAt: at(10), UpdatedAt: at(20)}
	}
	with := func(d *Deployment, f func(*Deployment)) *Deployment { f(d); return d }
	for _, c := range []struct {
		name    string
		device  Device
		rel     *Release
		dep     *Deployment
		verdict Verdict
		stamp   time.Time // zero: nothing is offered
	}{
		{"nothing published", Device{}, nil, nil, VerdictNoRelease, time.Time{}},
		{"withdrawn", Device{}, &withdrawn, nil, VerdictNoRelease, time.Time{}},
		{"first time", Device{}, rel, nil, VerdictNewest, at(0)},
		{"offered", Device{}, rel, dep(StateOffered), VerdictNewest, at(0)},
		{"downloading", Device{}, rel, dep(StateDownloading), VerdictNewest, at(0)},
		{"verifying", Device{}, rel, dep(StateVerifying), VerdictNewest, at(0)},
		{"rebooting", Device{}, rel, dep(StateRebooting), VerdictNewest, at(0)},
		{"confirmed", Device{}, rel, dep(StateConfirmed), VerdictConfirmed, time.Time{}},
		{"failed", Device{}, rel, dep(StateFailed), VerdictFoundBad, time.Time{}},
		{"reverted", Device{}, rel, dep(StateReverted), VerdictFoundBad, time.Time{}},
		{"cancelled", Device{}, rel, dep(StateCancelled), VerdictCancelled, time.Time{}},
		{"another release reverted", Device{}, rel, with(dep(StateReverted), func(d *Deployment) { d.ReleaseID = 6 }), VerdictNewest, at(0)},
		{"silent: confirmed", Device{}, rel, with(dep(StateConfirmed), func(d *Deployment) { d.Proven = false }), VerdictNewest, at(0)},
		{"silent: reverted", Device{}, rel, with(dep(StateReverted), func(d *Deployment) { d.Proven = false }), VerdictNewest, at(0)},
		{"retry", Device{RetryAt: at(21)}, rel, dep(StateReverted), VerdictRetry, at(21)},
		{"retry of a failed one", Device{RetryAt: at(21)}, rel, dep(StateFailed), VerdictRetry, at(21)},
		{"retry of a confirmed one", Device{RetryAt: at(21)}, rel, dep(StateConfirmed), VerdictRetry, at(21)},
		{"retry, silent", Device{RetryAt: at(21)}, rel, with(dep(StateReverted), func(d *Deployment) { d.Proven = false }), VerdictNewest, at(21)},
		{"ordered before the end", Device{RetryAt: at(15)}, rel, dep(StateReverted), VerdictFoundBad, time.Time{}},
		{"ordered and used up", Device{RetryAt: at(21)}, rel, with(dep(StateReverted), func(d *Deployment) { d.StartedAt = at(21) }), VerdictFoundBad, time.Time{}},
		{"ordered, under way", Device{RetryAt: at(21)}, rel, with(dep(StateDownloading), func(d *Deployment) { d.StartedAt = at(21) }), VerdictNewest, at(21)},
		{"an old order", Device{RetryAt: at(-5)}, rel, nil, VerdictNewest, at(0)},
	} {
		got := OfferFor(c.device, c.rel, c.dep, at(100))
		if got.Verdict != c.verdict || !got.PublishedAt.Equal(c.stamp) || (got.Release != nil) != !c.stamp.IsZero() || got.Why == "" {
			t.Errorf("%s: %+v", c.name, got)
		}
	}
}

// The stamps that a device is shown only rise, in any order of events.
func TestStampsRise(t *testing.T) {
	last := time.Time{}
	for i, next := range []func() time.Time{
		func() time.Time { return NextPublish(at(0.2), last) },
		func() time.Time { return NextPublish(at(0.3), last) }, // within the same second
		func() time.Time { return NextRetry(at(0.4), last) },
		func() time.Time { return NextRetry(at(0.5), last) },
		func() time.Time { return NextPublish(at(0.6), last) },
		func() time.Time { return NextPublish(at(-3600), last) }, // the clock was set back
		func() time.Time { return NextPublish(at(90), last) },
	} {
		s := next()
		if !s.After(last) || s.Nanosecond() != 0 || s.Location() != time.UTC {
			t.Errorf("step %d: %v after %v", i, s, last)
		}
		last = s
	}
	if got := NextRetry(at(5.9), time.Time{}); !got.Equal(at(6)) {
		t.Errorf("an order to retry is stamped %v, before it was given", got)
	}
	if got := NextPublish(at(5.9), time.Time{}); !got.Equal(at(5)) {
		t.Errorf("published at %v", got)
	}
}

func TestRollbackDue(t *testing.T) {
	signed := func(d Device) Device { d.Signed = true; return d }
	told := Device{RollbackWanted: true, RollbackSentAt: at(0)}
	for _, c := range []struct {
		name string
		d    Device
		now  time.Time
		want bool
	}{
		{"not ordered", signed(Device{}), at(0), false},
		{"ordered", signed(Device{RollbackWanted: true}), at(0), true},
		{"told just now", signed(told), at(0), false},
		{"told nine minutes ago", signed(told), at(599), false},
		{"told ten minutes ago", signed(told), at(600), true},
		{"the clock was set back", signed(told), at(-1), true},
		{"silent, not told", Device{RollbackWanted: true}, at(0), true},
		{"silent, told", told, at(3600), false},
		{"a nonce proves a signature", Device{RollbackWanted: true, RollbackSentAt: at(0), Nonce: 1}, at(3600), true},
	} {
		if got := RollbackDue(c.d, c.now); got != c.want {
			t.Errorf("%s: %v", c.name, got)
		}
	}
}
