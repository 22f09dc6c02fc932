package adminapi

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/rollout"
)

// Mover moves rollouts on a person's word, and counts their devices.
type Mover interface {
	Say(ctx context.Context, id int64, say fleet.Command, why string) (fleet.Rollout, error)
	// Counts are those of each phase, and the fleet's clock by which it is now.
	Counts(ctx context.Context, r fleet.Rollout) ([]fleet.Counts, fleet.Clock, error)
}

// Asker says why a device gets what it gets.
type Asker interface {
	Why(ctx context.Context, device string) (*rollout.Why, error)
}

// Phase is a phase of a rollout as the API shows it.
type Phase struct {
	Number  int          `json:"number" doc:"from 1"`
	Takes   string       `json:"takes" doc:"as it was said: 5, 10% or group:beta"`
	State   string       `json:"state" enum:"waiting,running,passed"`
	Success float64      `json:"success_threshold" doc:"share of the devices that it waits for"`
	Fail    float64      `json:"fail_threshold" doc:"for the lower bound of the failure rate"`
	Soak    string       `json:"soak,omitempty"`
	Left    string       `json:"soak_left,omitempty" doc:"of the phase that runs, once enough have confirmed"`
	Most    string       `json:"max_duration,omitempty"`
	Waits   *int         `json:"waits_for,omitempty" doc:"devices, of the phase that runs; absent: not counted yet"`
	Counts  fleet.Counts `json:"devices"`
}

// Rollout is a rollout as the API shows it.
type Rollout struct {
	ID          int64        `json:"id"`
	Product     string       `json:"product"`
	ReleaseID   int64        `json:"release_id" doc:"of one of its builds"`
	Release     string       `json:"release" doc:"its version"`
	State       string       `json:"state" enum:"scheduled,running,paused,complete,reverting,reverted,cancelled,superseded"`
	Phase       int          `json:"phase" doc:"that runs, from 1; the last one once all have passed"`
	Phases      []Phase      `json:"phases"`
	Reason      string       `json:"reason" doc:"why it is in its state"`
	To          string       `json:"to" doc:"filter; empty: every device of the product"`
	OnFailure   string       `json:"on_failure" enum:"pause,revert"`
	MinRevert   int          `json:"min_revert" doc:"failed devices with own keys before it reverts by itself"`
	Silence     string       `json:"silence"`
	Assurance   string       `json:"assurance" doc:"least, of devices that count" enum:"own,shared"`
	StartAt     *time.Time   `json:"start_at,omitempty"`
	Window      string       `json:"window,omitempty" doc:"in the time zone of each device"`
	Concurrency int          `json:"concurrency,omitempty"`
	Rate        int64        `json:"bytes_per_second,omitempty"`
	Quarantine  int          `json:"quarantine" doc:"failures in a row from which a device gets nothing; 0: any number"`
	Backoff     float64      `json:"backoff_scale" doc:"the waits between tries times this"`
	Counts      fleet.Counts `json:"devices" doc:"of all phases"`
	FailureRate float64      `json:"failure_rate_at_least" doc:"lower bound, of all phases"`
	Version     int64        `json:"version" doc:"rises with every change"`
	CreatedAt   time.Time    `json:"created_at"`
	ChangedAt   time.Time    `json:"changed_at"`
}

func (s *server) rolloutOf(ctx context.Context, r fleet.Rollout) (*rolloutOutput, error) {
	counts, clock, err := s.Mover.Counts(ctx, r)
	if err != nil {
		return nil, s.fail(ctx, err)
	}
	return &rolloutOutput{showRollout(r, counts, clock)}, nil
}

func showRollout(r fleet.Rollout, counts []fleet.Counts, clock fleet.Clock) Rollout {
	c := r.Course
	o := Rollout{ID: r.ID, Product: r.Product, ReleaseID: r.ReleaseID, Release: r.ReleaseVersion, State: string(r.State), Phase: min(r.Phase+1, len(c.Phases)), Reason: r.Reason,
		To: c.To, OnFailure: c.OnFailure, MinRevert: c.MinRevert, Silence: c.Silence.String(), Assurance: string(c.Assurance), StartAt: when(c.StartAt), Window: c.Window,
		Concurrency: c.Concurrency, Rate: c.BytesPerSec, Quarantine: c.Quarantine, Backoff: c.BackoffScale, Version: r.Version, CreatedAt: r.CreatedAt.UTC(), ChangedAt: r.ChangedAt.UTC(), Phases: []Phase{}}
	if o.Backoff == 0 {
		o.Backoff = 1
	}
	for i, p := range c.Phases {
		ph := Phase{Number: i + 1, Takes: p.String(), State: "waiting", Success: p.Success, Fail: p.Fail, Soak: duration(p.Soak), Most: duration(p.Most), Counts: counts[i]}
		switch {
		case i < r.Phase:
			ph.State = "passed"
		case i == r.Phase && r.State != fleet.RolloutScheduled:
			ph.State = "running"
			if r.Expected >= 0 {
				ph.Waits = &r.Expected
			}
			if r.State == fleet.RolloutRunning && r.Passed > 0 && p.Soak > 0 {
				ph.Left = max(p.Soak-clock.Since(r.Passed), 0).Round(time.Second).String()
			}
		}
		o.Phases = append(o.Phases, ph)
		o.Counts = o.Counts.Plus(counts[i])
	}
	o.FailureRate = fleet.LowerBound(o.Counts.Bad(), o.Counts.Bad()+o.Counts.Confirmed)
	return o
}

func duration(d time.Duration) string {
	if d == 0 {
		return ""
	}
	return d.String()
}

// Group is a group as the API shows it.
type Group struct {
	Name      string    `json:"name"`
	Product   string    `json:"product,omitempty" doc:"absent: of all"`
	Filter    string    `json:"filter"`
	ChangedAt time.Time `json:"changed_at"`
}

type rolloutInput struct {
	ID int64 `path:"id" minimum:"1"`
}

type rolloutOutput struct{ Body Rollout }

type makeRollout struct {
	Product     string     `json:"product" maxLength:"64"`
	Release     string     `json:"release,omitempty" maxLength:"64" doc:"version: the newest release of it"`
	Channel     string     `json:"channel,omitempty" maxLength:"64" doc:"in place of a version: the newest release that is published in that channel"`
	To          string     `json:"to,omitempty" maxLength:"1024" doc:"filter (docs/design/rollouts.md)"`
	Phases      string     `json:"phases" maxLength:"512" doc:"like 1,10%,group:beta,100%"`
	Success     string     `json:"success_threshold,omitempty" maxLength:"16" doc:"like 80%"`
	Fail        string     `json:"fail_threshold,omitempty" maxLength:"16" doc:"like 20%"`
	Soak        string     `json:"soak,omitempty" maxLength:"32" doc:"between a phase's success and the next, like 1h30m"`
	Most        string     `json:"max_duration,omitempty" maxLength:"32" doc:"of a phase, like 72h; 0: any"`
	OnFailure   string     `json:"on_failure,omitempty" enum:"pause,revert"`
	MinRevert   int        `json:"min_revert,omitempty"`
	Silence     string     `json:"silence,omitempty" maxLength:"32"`
	Assurance   string     `json:"assurance,omitempty" enum:"own,shared"`
	StartAt     *time.Time `json:"start_at,omitempty"`
	Window      string     `json:"window,omitempty" maxLength:"16" doc:"like 22:00-04:30"`
	Concurrency int        `json:"concurrency,omitempty"`
	Rate        int64      `json:"bytes_per_second,omitempty"`
	Quarantine  *int       `json:"quarantine,omitempty"`
	Backoff     float64    `json:"backoff_scale,omitempty" doc:"the waits between tries times this, 0.01 to 100; absent: 1"`
}

// course is what was said, with the defaults.
func (m *makeRollout) course() (c fleet.Course, err error) {
	p := fleet.Phase{Success: fleet.DefaultSuccess, Fail: fleet.DefaultFail, Most: fleet.DefaultMost}
	c = fleet.Course{To: m.To, OnFailure: m.OnFailure, MinRevert: m.MinRevert, Assurance: fleet.Assurance(m.Assurance), Window: m.Window, Concurrency: m.Concurrency, BytesPerSec: m.Rate,
		Quarantine: fleet.DefaultQuarantine, BackoffScale: m.Backoff}
	for _, f := range []struct {
		name, text string
		to         *float64
	}{{"success_threshold", m.Success, &p.Success}, {"fail_threshold", m.Fail, &p.Fail}} {
		if f.text != "" {
			if *f.to, err = fleet.ParseShare(f.text); err != nil {
				return c, err
			}
		}
	}
	for _, f := range []struct {
		name, text string
		to         *time.Duration
	}{{"soak", m.Soak, &p.Soak}, {"max_duration", m.Most, &p.Most}, {"silence", m.Silence, &c.Silence}} {
		if f.text == "" {
			continue
		}
		if *f.to, err = time.ParseDuration(f.text); err != nil {
			return c, &fleet.Error{Code: fleet.CodeInvalid, Message: f.name + " is no length of time", Hint: "write it like 1h30m"}
		}
	}
	if m.StartAt != nil {
		c.StartAt = m.StartAt.UTC()
	}
	if m.Quarantine != nil {
		c.Quarantine = *m.Quarantine
	}
	c.Fill()
	c.Phases, err = fleet.ParsePhases(m.Phases, p)
	return c, err
}

func (s *server) rollouts() {
	type makeRolloutInput struct{ Body makeRollout }
	huma.Register(s.api, op("create-rollout", "POST", "/rollouts", "Begin a rollout", status(http.StatusCreated)), func(ctx context.Context, in *makeRolloutInput) (*rolloutOutput, error) {
		r, err := s.createRollout(ctx, &in.Body)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.rolloutOf(ctx, r)
	})
	type rolloutsInput struct {
		Product string `query:"product" doc:"only its rollouts"`
	}
	type rolloutsOutput struct {
		Body struct {
			Rollouts []Rollout `json:"rollouts"`
		}
	}
	huma.Register(s.api, op("list-rollouts", "GET", "/rollouts", "All rollouts, newest first"), func(ctx context.Context, in *rolloutsInput) (*rolloutsOutput, error) {
		list, err := s.Rollouts.ListRollouts(ctx, in.Product)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &rolloutsOutput{}
		o.Body.Rollouts = []Rollout{}
		for _, r := range list {
			one, err := s.rolloutOf(ctx, r)
			if err != nil {
				return nil, err
			}
			o.Body.Rollouts = append(o.Body.Rollouts, one.Body)
		}
		return o, nil
	})
	huma.Register(s.api, op("show-rollout", "GET", "/rollouts/{id}", "One rollout, with its phases and devices"), func(ctx context.Context, in *rolloutInput) (*rolloutOutput, error) {
		r, err := s.Rollouts.Rollout(ctx, in.ID)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.rolloutOf(ctx, r)
	})
	type moveRolloutInput struct {
		ID   int64         `path:"id" minimum:"1"`
		Say  fleet.Command `path:"command" enum:"pause,resume,cancel,force,revert"`
		Body struct {
			Reason string `json:"reason,omitempty" maxLength:"256"`
		}
	}
	huma.Register(s.api, op("move-rollout", "POST", "/rollouts/{id}/{command}", "Pause, resume, cancel or revert it, or begin its next phase now (force)"), func(ctx context.Context, in *moveRolloutInput) (*rolloutOutput, error) {
		r, err := s.Mover.Say(ctx, in.ID, in.Say, fleet.CleanText(in.Body.Reason, fleet.MaxText))
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.rolloutOf(ctx, r)
	})
	type forceDeviceInput struct {
		ID     int64  `path:"id" minimum:"1"`
		Device string `path:"device" maxLength:"64"`
	}
	huma.Register(s.api, op("force-device", "POST", "/rollouts/{id}/devices/{device}/force", "Let one device have it now, whatever phase, window and budgets say"), func(ctx context.Context, in *forceDeviceInput) (*deviceOutput, error) {
		if err := s.Rollouts.ForceDevice(ctx, in.ID, in.Device, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, in.Device)
	})
}

func (s *server) createRollout(ctx context.Context, m *makeRollout) (fleet.Rollout, error) {
	var none fleet.Rollout
	if err := fleet.ValidateProduct(m.Product); err != nil {
		return none, err
	}
	c, err := m.course()
	if err != nil {
		return none, err
	}
	groups, err := s.Groups.ListGroups(ctx)
	if err != nil {
		return none, err
	}
	err = c.Validate(func(name string) bool {
		for _, g := range groups {
			if g.Name == name {
				return true
			}
		}
		return false
	})
	if err != nil {
		return none, err
	}
	rel, err := s.toRollOut(ctx, m)
	if err != nil {
		return none, err
	}
	policy, err := s.Policies.Policy(ctx, m.Product)
	if err == nil {
		err = policy.Terms.Refuse(rel) // else it would be offered to nobody
	}
	if err != nil {
		return none, err
	}
	if c.Assurance.WeakerThan(policy.Terms.Assurance) {
		return none, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("%s serves devices whose assurance is %s at least: with %s no more would count", m.Product, policy.Terms.Assurance, c.Assurance),
			Hint: "leave the rollout's assurance away"}
	}
	return s.Rollouts.CreateRollout(ctx, fleet.Rollout{Product: m.Product, ReleaseID: rel.ID, Course: c}, s.Now())
}

// toRollOut is the release that is named, by its version or as the newest of a channel.
func (s *server) toRollOut(ctx context.Context, m *makeRollout) (r fleet.Release, err error) {
	switch {
	case (m.Release == "") == (m.Channel == ""):
		return r, fleet.Errorf(fleet.CodeInvalid, "a rollout is of a release or of a channel's newest: name one of both")
	case m.Release != "":
		return s.Releases.ReleaseByVersion(ctx, m.Product, m.Release)
	}
	list, err := s.Releases.ListReleases(ctx, m.Product)
	if err != nil {
		return r, err
	}
	for _, r := range list {
		if r.Channel == m.Channel && r.State == fleet.ReleasePublished {
			return r, nil
		}
	}
	return r, &fleet.Error{Code: fleet.CodeNotFound, Message: fmt.Sprintf("channel %s of %s has no published release", fleet.CleanText(m.Channel, fleet.MaxText), m.Product), Hint: "'runnel releases --channel NAME' lists what is in it"}
}

func (s *server) groups() {
	type groupInput struct {
		Body struct {
			Name    string `json:"name" maxLength:"64"`
			Product string `json:"product,omitempty" maxLength:"64"`
			Filter  string `json:"filter" maxLength:"1024"`
		}
	}
	type groupOutput struct{ Body Group }
	huma.Register(s.api, op("set-group", "POST", "/groups", "Make a group, or change its filter"), func(ctx context.Context, in *groupInput) (*groupOutput, error) {
		g, err := s.Groups.SetGroup(ctx, fleet.Group{Name: in.Body.Name, Product: in.Body.Product, Filter: in.Body.Filter}, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return &groupOutput{Group{g.Name, g.Product, g.Filter, g.ChangedAt}}, nil
	})
	type groupsOutput struct {
		Body struct {
			Groups []Group `json:"groups"`
		}
	}
	huma.Register(s.api, op("list-groups", "GET", "/groups", "All groups"), func(ctx context.Context, _ *empty) (*groupsOutput, error) {
		list, err := s.Groups.ListGroups(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &groupsOutput{}
		o.Body.Groups = []Group{}
		for _, g := range list {
			o.Body.Groups = append(o.Body.Groups, Group{g.Name, g.Product, g.Filter, g.ChangedAt})
		}
		return o, nil
	})
	type groupNameInput struct {
		Name string `path:"name" maxLength:"64"`
	}
	type groupNameOutput struct {
		Body struct {
			Name string `json:"name"`
		}
	}
	huma.Register(s.api, op("delete-group", "DELETE", "/groups/{name}", "Delete a group that no rollout in force needs"), func(ctx context.Context, in *groupNameInput) (*groupNameOutput, error) {
		if err := s.Groups.DeleteGroup(ctx, in.Name, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &groupNameOutput{}
		o.Body.Name = in.Name
		return o, nil
	})
	type labelsInput struct {
		ID   string `path:"device" maxLength:"64"`
		Body struct {
			Tags       []string          `json:"tags"`
			Attributes map[string]string `json:"attributes"`
		}
	}
	huma.Register(s.api, op("set-labels", "POST", "/devices/{device}/labels", "Say a device's tags and attributes: they replace those before"), func(ctx context.Context, in *labelsInput) (*deviceOutput, error) {
		if err := s.Labels.SetLabels(ctx, in.ID, in.Body.Tags, in.Body.Attributes, s.Now()); err != nil {
			return nil, s.fail(ctx, err)
		}
		return s.show(ctx, in.ID)
	})
}

// KeptDecision is one of a device's last decisions.
type KeptDecision struct {
	Time    time.Time `json:"time"`
	Verdict string    `json:"verdict"`
	Rollout int64     `json:"rollout,omitempty"`
	Version string    `json:"version,omitempty" doc:"offered"`
	Why     string    `json:"why"`
}

// Why is what a device would get if it polled now.
type Why struct {
	Device    string         `json:"device"`
	Product   string         `json:"product"`
	Verdict   string         `json:"verdict" doc:"stable, for machines (docs/design/rollouts.md)"`
	Why       string         `json:"why" doc:"one sentence"`
	Rollout   int64          `json:"rollout,omitempty" doc:"that decided; absent: none"`
	Release   string         `json:"release,omitempty" doc:"version that it would be offered; absent: nothing"`
	ReleaseID int64          `json:"release_id,omitempty"`
	Stream    *WhyStream     `json:"stream,omitempty" doc:"by which it would get it; absent: by the raw one"`
	Rules     []fleet.Rule   `json:"rules" doc:"that were looked at, in order"`
	Last      []KeptDecision `json:"last_decisions" doc:"what it was told, newest first"`
}

// WhyStream is a derived stream that a device would get.
type WhyStream struct {
	Kind   string `json:"kind" enum:"compressed,patch"`
	Digest string `json:"digest"`
	Sent   int64  `json:"sent" doc:"bytes, its sheet included"`
}

func (s *server) why() {
	type whyOutput struct{ Body Why }
	huma.Register(s.api, op("why", "GET", "/devices/{device}/why", "What it would get now, and each rule that decides so"), func(ctx context.Context, in *deviceInput) (*whyOutput, error) {
		w, err := s.Asker.Why(ctx, in.ID)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &whyOutput{Why{Device: w.Device.ID, Product: w.Product, Verdict: string(w.Verdict), Why: w.Why, Rollout: w.Rollout, Rules: append([]fleet.Rule{}, w.Rules...), Last: []KeptDecision{}}}
		if w.Release != nil {
			o.Body.Release, o.Body.ReleaseID = w.Release.Version, w.Release.ID
		}
		if m := w.Derived; m != nil {
			o.Body.Stream = &WhyStream{m.Kind, m.Digest.String(), m.Sent()}
		}
		for _, k := range w.Last {
			o.Body.Last = append(o.Body.Last, KeptDecision{k.At, string(k.Verdict), k.Rollout, k.Version, k.Why})
		}
		return o, nil
	})
}
