package rollout

import (
	"context"
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// The simulation runs the engine and the decision as a server does, over a store in
// memory, with devices that poll by a virtual clock.

const (
	simDevices = 10_000
	simPoll    = 30 * time.Minute
)

// simDevice is a board that polls, takes what it is offered, and reports.
type simDevice struct {
	fleet.NativeDevice
	ask   fleet.NativeAsk
	next  time.Time // poll
	away  bool      // never heard of
	ended time.Time // when what it took comes to an end; zero: it took nothing
}

// sim is a fleet, and the store that the engine and the polls see.
type sim struct {
	t       *testing.T
	rnd     *rand.Rand
	devices []*simDevice
	rollout fleet.Rollout
	release fleet.SignedRelease
	list    fleet.KeyList

	generation int64
	clock      fleet.Clock
	wall       time.Time // of the clock
	now        time.Time // true time, which devices go by
	skew       time.Duration
	offers     *fleet.NativeOffers
	engine     *Engine
	// outcome is what becomes of a device that took the release; "": it falls silent.
	outcome func(*simDevice) fleet.DeploymentState
	offered int
	active  int          // on their way, and not silent
	most    int          // of them at once
	moved   []*simDevice // that have a deployment
}

func newSim(t *testing.T, seed uint64, phases string, change func(*fleet.Course)) *sim {
	t.Logf("seed %d", seed)
	s := &sim{t: t, rnd: rand.New(rand.NewPCG(seed, 0)), generation: 1, clock: 1, now: t0}
	key := func(name string) ed25519.PrivateKey {
		h := sha256.Sum256([]byte("runnel test key, known to everybody: " + name))
		return ed25519.NewKeyFromSeed(h[:])
	}
	seal := func(kind manifest.Kind, e interface{ Encode() ([]byte, error) }) []byte {
		p, err := e.Encode()
		if err != nil {
			t.Fatal(err)
		}
		b, err := release.Sign(t.Context(), kind, p, release.NewKeySigner(key("release")))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	public := func(name string) ed25519.PublicKey { return key(name).Public().(ed25519.PublicKey) }
	m := &release.Manifest{Product: "p", Hardware: [][]byte{[]byte("r1"), []byte("r2")}, Version: "2.0", Epoch: 1, Sequence: 2, Confirm: release.Confirm{Contact: true, Seconds: 60},
		Image: release.Image{Component: "app", Format: manifest.FormatRaw, Digest: release.Hash{2}, Size: 5000, Streams: []release.Raw{{Chunk: 1024, Root: release.Hash{1}}}}}
	s.release = fleet.SignedRelease{Envelope: seal(manifest.KindManifest, m), Release: fleet.Release{ID: 2, Product: "p", Version: "2.0", State: fleet.ReleasePublished, ChunkSize: 1024, Epoch: 1, Sequence: 2,
		Image: fleet.Image{Digest: fleet.Digest{2}, Size: 5000}}, Streams: []fleet.Stream{{Digest: fleet.Digest{1}, Kind: fleet.StreamRaw, Chunk: 1024, Length: 5128, Root: fleet.Digest{1}}}}
	s.list = fleet.KeyList{Version: 1, Generation: 1, Envelope: seal(manifest.KindKeys, &release.KeyList{Version: 1, Generation: 1, M: 1, Roots: []ed25519.PublicKey{public("root")},
		Keys: []release.Key{{Public: public("release"), Roles: manifest.RoleRelease}}, Products: []release.Product{{Name: "p", Threshold: 1, Epoch: 1}}})}
	list, err := fleet.ParsePhases(phases, fleet.Phase{Success: fleet.DefaultSuccess, Fail: fleet.DefaultFail, Soak: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	s.rollout = fleet.Rollout{ID: 1, Product: "p", ReleaseID: 2, ReleaseVersion: "2.0", Version: 1, State: fleet.RolloutScheduled, Expected: -1, Course: fleet.Course{Phases: list}}
	s.rollout.Course.Fill()
	if change != nil {
		change(&s.rollout.Course)
	}
	if err := s.rollout.Course.Validate(func(string) bool { return false }); err != nil {
		t.Fatal(err)
	}
	for i := range simDevices {
		hardware := "r1"
		if i%5 == 0 {
			hardware = "r2"
		}
		d := &simDevice{ask: fleet.NativeAsk{Wire: fleet.WireSigned, Hardware: []byte(hardware), Epoch: 1, Sequence: 1, Slots: []uint32{8192, 8192}, Envelope: 1400, Chunk: 1024},
			next: t0.Add(time.Duration(s.rnd.Int64N(int64(simPoll)))), away: s.rnd.IntN(20) == 0}
		d.Device = fleet.Device{ID: fmt.Sprint("device-", i), Product: "p", Hardware: hardware, Assurance: fleet.AssuranceOwn, Ask: d.ask.Text()}
		if !d.away {
			d.Heard = 1
		}
		s.devices = append(s.devices, d)
	}
	s.outcome = func(*simDevice) fleet.DeploymentState { return fleet.StateConfirmed }
	s.engine = &Engine{Store: s, Log: slog.New(slog.DiscardHandler), Now: func() time.Time { return s.now.Add(s.skew) }}
	return s
}

func (s *sim) Alone(_ context.Context, f func(fleet.StepStore) error) (bool, error) {
	return true, f(s)
}

// run lets time pass until the rollout is in one of the states; it fails after that long.
func (s *sim) run(most time.Duration, states ...fleet.RolloutState) {
	s.t.Helper()
	for end := s.now.Add(most); s.now.Before(end); s.now = s.now.Add(time.Minute) {
		if err := s.engine.Tick(s.t.Context()); err != nil {
			s.t.Fatal(err)
		}
		for _, st := range states {
			if s.rollout.State == st {
				return
			}
		}
		for _, d := range s.devices {
			if !d.away && !d.next.After(s.now) {
				d.next = d.next.Add(simPoll)
				s.poll(d)
			}
			if !d.ended.IsZero() && !d.ended.After(s.now) {
				d.ended = time.Time{}
				s.end(d)
			}
		}
	}
	if len(states) > 0 {
		s.t.Fatalf("after %s: %s in phase %d: %s; %+v", most, s.rollout.State, s.rollout.Phase, s.rollout.Reason, s.counts())
	}
}

func (s *sim) counts() (c fleet.Counts) {
	tallies, _ := s.CountRollout(s.t.Context(), s.rollout, s.clock)
	for _, p := range Fold(&s.rollout, tallies) {
		c = c.Plus(p)
	}
	return c
}

// poll is what the native wire does.
func (s *sim) poll(d *simDevice) {
	if s.offers == nil || s.offers.Generation < s.generation {
		n, _ := s.NativeSnapshot(s.t.Context())
		s.offers = fleet.NewNativeOffers(n)
	}
	d.Heard, d.Clock = s.clock, s.clock
	d.Usage = nil
	if len(s.offers.Wanted("p", d.ask).Rollouts) > 0 {
		d.Usage = []fleet.Usage{s.usage()}
	}
	out := s.offers.Decide(&d.NativeDevice, d.ask, s.now, nil)
	switch {
	case out.Revert != 0:
		d.RollbackWanted = false
		d.dep().State, d.dep().Class, d.ask.Running = fleet.StateReverted, fleet.ClassOrdered, 0
		return
	case out.Cancel != 0 && len(d.Deployments) > 0:
		if !d.ended.IsZero() {
			s.active--
		}
		d.dep().State, d.ended = fleet.StateCancelled, time.Time{}
		d.ask.InProgress = 0
		return
	case out.Release == nil || !d.ended.IsZero():
		return
	}
	if a := out.Admit; a != nil {
		if a.Version != s.rollout.Version || a.Count > 0 && s.usage().Joined >= a.Count || a.Concurrency > 0 && s.usage().Active >= a.Concurrency {
			return
		}
		d.Deployments = []fleet.Deployment{{Device: d.ID, ReleaseID: 2, Proven: true, Rollout: 1, Phase: a.Phase, Assurance: a.Assurance}}
		s.offered++
		s.moved = append(s.moved, d)
	}
	s.active++
	d.dep().State, d.dep().Heard = fleet.StateDownloading, s.clock
	d.ask.InProgress = 2
	d.ended = s.now.Add(time.Duration(1+s.rnd.IntN(20)) * time.Minute)
	s.most = max(s.most, s.active)
}

func (d *simDevice) dep() *fleet.Deployment { return &d.Deployments[0] }

// end is what a device reports of its trial, if it does.
func (s *sim) end(d *simDevice) {
	p := d.dep()
	s.active--
	d.ask.InProgress = 0
	p.State, p.Heard = s.outcome(d), s.clock
	switch p.State {
	case "":
		p.State, d.away = fleet.StateRebooting, true
	case fleet.StateConfirmed:
		d.ask.Sequence = 2
		d.Device.Ask = d.ask.Text()
	case fleet.StateReverted, fleet.StateFailed:
		p.Class = fleet.ClassImage
		p.Tries++
	}
}

func (s *sim) usage() fleet.Usage {
	return fleet.Usage{Rollout: 1, Joined: len(s.moved), Active: s.active}
}

// What follows is the store.

func (s *sim) Generation(context.Context) (int64, error) { return s.generation, nil }

func (s *sim) NativeSnapshot(context.Context) (fleet.NativeSnapshot, error) {
	return fleet.NativeSnapshot{Generation: s.generation, Releases: []fleet.SignedRelease{s.release}, List: &s.list, Products: []string{"p"}, Rollouts: []fleet.Rollout{s.rollout}}, nil
}

func (s *sim) CreateRollout(context.Context, fleet.Rollout, time.Time) (fleet.Rollout, error) {
	panic("the engine makes no rollouts")
}

func (s *sim) ForceDevice(context.Context, int64, string, time.Time) error {
	panic("the engine forces no devices")
}

func (s *sim) Rollout(context.Context, int64) (fleet.Rollout, error) { return s.rollout, nil }
func (s *sim) ListRollouts(ctx context.Context, _ string) ([]fleet.Rollout, error) {
	return s.ActiveRollouts(ctx)
}

func (s *sim) ActiveRollouts(context.Context) ([]fleet.Rollout, error) {
	if !s.rollout.State.InForce() {
		return nil, nil
	}
	return []fleet.Rollout{s.rollout}, nil
}

func (s *sim) StepRollout(_ context.Context, r fleet.Rollout, effects []fleet.Effect, _ time.Time) (bool, error) {
	if r.Version != s.rollout.Version+1 {
		return false, nil
	}
	s.rollout = r
	s.generation++
	for _, e := range effects {
		if !e.Revert {
			continue
		}
		for _, d := range s.devices {
			if len(d.Deployments) > 0 && d.dep().State == fleet.StateConfirmed {
				d.RollbackWanted, d.RollbackNumber = true, d.RollbackNumber+1
			}
		}
	}
	return true, nil
}

func (s *sim) CountRollout(_ context.Context, r fleet.Rollout, clock fleet.Clock) (list []fleet.Tally, _ error) {
	sums := map[fleet.Tally]int{}
	for _, d := range s.moved {
		p := d.dep()
		sums[fleet.Tally{Phase: p.Phase, State: p.State, Class: p.Class, Tries: p.Tries, Assurance: p.Assurance,
			Quiet: clock.Since(max(p.Heard, d.Heard)) >= r.Course.Silence, Runs: p.State == fleet.StateConfirmed, Ordered: d.RollbackWanted}]++
	}
	for t, n := range sums {
		t.N = n
		list = append(list, t)
	}
	return list, nil
}

func (s *sim) Census(_ context.Context, _ fleet.Rollout, f func(*fleet.Device, int)) error {
	for _, d := range s.devices {
		phase := -1
		if len(d.Deployments) > 0 {
			phase = d.dep().Phase
		}
		f(&d.Device, phase)
	}
	return nil
}

func (s *sim) ReadClock(context.Context) (fleet.Clock, time.Time, error) { return s.clock, s.wall, nil }
func (s *sim) SaveClock(_ context.Context, from, to fleet.Clock, wall time.Time) (bool, error) {
	if from != s.clock {
		return false, nil
	}
	s.clock, s.wall = to, wall
	return true, nil
}

// A good release reaches everybody who is there, phase by phase.
func TestSimGood(t *testing.T) {
	s := newSim(t, 1, "1,1%,10%,100%", nil)
	s.run(96*time.Hour, fleet.RolloutComplete)
	s.run(2 * time.Hour) // those that the last phase did not wait for
	there := 0
	for _, d := range s.devices {
		if !d.away {
			there++
		}
	}
	if c := s.counts(); c.Confirmed != there || c.Offered != there || s.offered != there {
		t.Errorf("%d are there: %+v", there, c)
	}
	if got := s.now.Sub(t0); got < 4*time.Hour {
		t.Errorf("four soaks of an hour took %s", got)
	}
}

// A release that crashes on one hardware revision stops by itself in an early phase,
// is taken back from those that run it, and the rest never get it.
func TestSimCrashesOnOneRevision(t *testing.T) {
	s := newSim(t, 2, "1,1%,10%,100%", func(c *fleet.Course) { c.OnFailure = fleet.OnFailureRevert })
	s.outcome = func(d *simDevice) fleet.DeploymentState {
		if d.Hardware == "r2" && d.ID != "device-0" || s.rnd.IntN(5) == 0 {
			return fleet.StateReverted
		}
		return fleet.StateConfirmed
	}
	// Somebody is told once, also where two engines see it.
	var told []fleet.Notice
	s.engine.Notify = func(n fleet.Notice) { told = append(told, n) }
	s.run(96*time.Hour, fleet.RolloutReverting)
	second := &Engine{Store: s, Log: slog.New(slog.DiscardHandler), Now: s.engine.Now, Notify: s.engine.Notify}
	if err := second.Tick(context.Background()); err != nil {
		t.Fatal(err)
	}
	c := s.counts()
	if len(told) != 1 || told[0].Reason != s.rollout.Reason || told[0].State != string(fleet.RolloutReverting) || told[0].Phase != s.rollout.Phase+1 || told[0].Devices.Failed < 3 {
		t.Errorf("%+v", told)
	}
	if s.rollout.Phase > 2 || c.Offered > 1100 || c.Confirmed == 0 {
		t.Errorf("phase %d, %+v", s.rollout.Phase, c)
	}
	t.Logf("stopped after %s in phase %d: %s", s.now.Sub(t0), s.rollout.Phase+1, s.rollout.Reason)
	s.run(48*time.Hour, fleet.RolloutReverted)
	offered := s.offered
	s.run(6 * time.Hour)
	if s.offered != offered {
		t.Errorf("%d were offered it after its end", s.offered-offered)
	}
	for _, d := range s.devices {
		if len(d.Deployments) > 0 && (d.dep().State == fleet.StateConfirmed || !d.dep().State.Ended()) {
			t.Errorf("%s: %s", d.ID, d.dep().State)
		}
	}
}

// As many failures as are allowed don't stop it.
func TestSimTolerates(t *testing.T) {
	s := newSim(t, 3, "10,10%,100%", nil)
	s.outcome = func(*simDevice) fleet.DeploymentState {
		if s.rnd.IntN(10) == 0 {
			return fleet.StateReverted
		}
		return fleet.StateConfirmed
	}
	s.run(96*time.Hour, fleet.RolloutComplete)
	if c := s.counts(); c.Failed < simDevices/20 {
		t.Errorf("%+v", c)
	}
}

// Devices that take it and fall silent are failures, when they have been silent for
// as long as was said by the fleet's clock: one that leaps makes nobody silent.
func TestSimSilence(t *testing.T) {
	s := newSim(t, 4, "50,100%", func(c *fleet.Course) { c.Silence, c.OnFailure = 6*time.Hour, fleet.OnFailureRevert })
	s.outcome = func(*simDevice) fleet.DeploymentState {
		if s.rnd.IntN(2) == 0 {
			return ""
		}
		return fleet.StateConfirmed
	}
	s.run(3 * time.Hour)
	for _, leap := range []time.Duration{24 * 365 * time.Hour, -48 * 365 * time.Hour, 24 * 365 * time.Hour} {
		s.skew += leap
		s.run(10 * time.Minute)
		if c := s.counts(); c.Silent != 0 || s.rollout.State != fleet.RolloutRunning || s.rollout.Phase != 0 {
			t.Fatalf("the wall's clock leapt by %s: %s, %+v", leap, s.rollout.State, c)
		}
	}
	s.run(12*time.Hour, fleet.RolloutReverting)
	if got := s.now.Sub(t0); got < 6*time.Hour || s.counts().Silent < 10 {
		t.Errorf("after %s: %+v", got, s.counts())
	}
}

// An outage during trials pauses and reverts nothing.
func TestSimOutage(t *testing.T) {
	s := newSim(t, 5, "20,100%", func(c *fleet.Course) { c.OnFailure = fleet.OnFailureRevert })
	s.outcome = func(*simDevice) fleet.DeploymentState { return fleet.StateUnproven }
	s.run(12*time.Hour, fleet.RolloutPaused, fleet.RolloutReverting)
	if s.rollout.State != fleet.RolloutPaused || s.counts().Unproven == 0 {
		t.Errorf("%s: %s", s.rollout.State, s.rollout.Reason)
	}
	s.outcome = func(*simDevice) fleet.DeploymentState { return fleet.StateConfirmed }
	if _, err := s.engine.Say(t.Context(), 1, fleet.CommandResume, "the network is back"); err != nil {
		t.Fatal(err)
	}
	s.run(24*time.Hour, fleet.RolloutComplete)
}

// No more are on their way at once than may be.
func TestSimConcurrency(t *testing.T) {
	s := newSim(t, 6, "1%,3%", func(c *fleet.Course) { c.Concurrency = 7 })
	s.run(96*time.Hour, fleet.RolloutComplete)
	if s.most != 7 {
		t.Errorf("%d were on their way at once", s.most)
	}
}

// slow is a store on which each count takes a second of the machine's clock.
type slow struct {
	*sim
	machine time.Time
	counts  int
}

func (s *slow) Alone(_ context.Context, f func(fleet.StepStore) error) (bool, error) {
	return true, f(s)
}

func (s *slow) CountRollout(ctx context.Context, r fleet.Rollout, clock fleet.Clock) ([]fleet.Tally, error) {
	s.counts++
	s.machine = s.machine.Add(time.Second)
	return s.sim.CountRollout(ctx, r, clock)
}

// Steps that are slow take a twentieth of the machine's time at most.
func TestSlowSteps(t *testing.T) {
	s := &slow{sim: newSim(t, 7, "1,100%", nil), machine: t0}
	s.engine.Store, s.engine.Machine = s, func() time.Time { return s.machine }
	for s.machine.Before(t0.Add(10 * time.Minute)) {
		if err := s.engine.Tick(t.Context()); err != nil {
			t.Fatal(err)
		}
		s.machine = s.machine.Add(time.Second)
	}
	if s.counts < 20 || s.counts > 31 {
		t.Errorf("%d steps of a second each in ten minutes", s.counts)
	}
}
