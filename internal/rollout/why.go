package rollout

import (
	"context"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// VerdictSilent is of a device that has not called yet. Frozen: in the API.
const VerdictSilent fleet.Verdict = "not_called"

// Why is what a device would get if it polled now, and each rule that says so.
type Why struct {
	Device  fleet.Device
	Product string
	Verdict fleet.Verdict
	Why     string
	Rollout int64          // that decided; 0: none
	Release *fleet.Release // nil: nothing
	Derived *fleet.Stream  // that it would get of it, in place of the raw stream; nil: none
	Rules   []fleet.Rule
	Last    []fleet.KeptDecision // newest first
}

// AskStore is what Asker needs.
type AskStore interface {
	Device(ctx context.Context, id string) (fleet.Device, error)
	Release(ctx context.Context, id int64) (fleet.Release, error)
	Generation(ctx context.Context) (int64, error)
	fleet.RolloutDevices
	fleet.NativeCatalogue
	fleet.Decisions
}

// V1Releases are the releases as v1 devices have them.
type V1Releases interface {
	Snapshot(ctx context.Context) (generation int64, releases []fleet.Release, err error)
}

// Asker answers why, by the functions that polls are decided by.
type Asker struct {
	Store AskStore
	V1    V1Releases
	Now   func() time.Time

	mu     sync.Mutex
	offers *fleet.NativeOffers // of a generation, as polls have them
}

// Why answers for any device that is known.
func (a *Asker) Why(ctx context.Context, id string) (*Why, error) {
	d, err := a.Store.Device(ctx, id)
	if err != nil {
		return nil, err
	}
	out := &Why{Device: d}
	var t fleet.Trace
	switch ask := fleet.ParseAsk(d.Ask); {
	case ask != nil:
		err = a.native(ctx, out, ask, &t)
	case d.NativeKeys > 0 && d.LastSeen.IsZero():
		out.Product, out.Verdict, out.Why = d.Product, VerdictSilent, "the device has not called yet: what it is and has is not known"
		t.Rules = []fleet.Rule{{Name: "call", Result: fleet.RuleStop, Text: out.Why}}
	default:
		err = a.v1(ctx, out, &t)
	}
	if err != nil {
		return nil, err
	}
	out.Rules = t.Rules
	out.Last, err = a.Store.LastDecisions(ctx, id)
	return out, err
}

// tries of a decision whose catalogue moved under it.
const askTries = 4

func (a *Asker) native(ctx context.Context, out *Why, ask *fleet.NativeAsk, t *fleet.Trace) error {
	for range askTries {
		offers, err := a.catalogue(ctx)
		if err != nil {
			return err
		}
		n, err := a.Store.NativePoll(ctx, out.Device.ID, offers.Wanted(out.Device.Product, *ask))
		if err != nil {
			return err
		}
		if n.Generation != offers.Generation {
			continue
		}
		// What is in progress is not kept with the ask: the device's reports say it.
		for _, p := range n.Deployments {
			if p.State != fleet.StateDownloading && p.State != fleet.StateVerifying {
				continue
			}
			r, err := a.Store.Release(ctx, p.ReleaseID)
			if err != nil {
				return err
			}
			ask.InProgress = r.Sequence
		}
		got := offers.Decide(&n, *ask, a.Now(), t)
		out.Product = fleet.ProductOf(n.Device, offers.Products())
		out.Verdict, out.Why, out.Rollout = got.Verdict, got.Why, got.Rollout
		if got.Release != nil {
			out.Release, out.Derived = &got.Release.Release, got.Derived
		}
		return nil
	}
	return fleet.Errorf(fleet.CodeBusy, "releases change too fast")
}

// catalogue is that of the generation in force. Whoever asks at once waits for one reading.
func (a *Asker) catalogue(ctx context.Context) (*fleet.NativeOffers, error) {
	generation, err := a.Store.Generation(ctx)
	if err != nil {
		return nil, err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.offers == nil || a.offers.Generation < generation {
		s, err := a.Store.NativeSnapshot(ctx)
		if err != nil {
			return nil, err
		}
		a.offers = fleet.NewNativeOffers(s)
	}
	return a.offers, nil
}

func (a *Asker) v1(ctx context.Context, out *Why, t *fleet.Trace) error {
	_, releases, err := a.V1.Snapshot(ctx)
	if err != nil {
		return err
	}
	s, err := a.Store.NativeSnapshot(ctx)
	if err != nil {
		return err
	}
	c := fleet.NewV1Catalogue(releases, fleet.RolloutSnapshot{Rollouts: s.Rollouts, Groups: s.Groups, Only: s.Only})
	n, err := a.Store.NativePoll(ctx, out.Device.ID, c.Wanted(out.Device))
	if err != nil {
		return err
	}
	n.Device = out.Device
	got := c.Decide(&n, a.Now(), t)
	out.Product = fleet.ProductOf(out.Device, c.Products)
	out.Verdict, out.Why, out.Rollout, out.Release = got.Verdict, got.Why, got.Rollout, got.Release
	return nil
}
