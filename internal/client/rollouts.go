package client

import (
	"context"
	"net/url"
	"strconv"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// Counts are the devices of a phase, or of a rollout.
type Counts = fleet.Counts

// Phase is a phase of a rollout.
type Phase struct {
	Number  int     `json:"number"`
	Takes   string  `json:"takes"`
	State   string  `json:"state"`
	Success float64 `json:"success_threshold"`
	Fail    float64 `json:"fail_threshold"`
	Soak    string  `json:"soak,omitempty"`
	Left    string  `json:"soak_left,omitempty"`
	Most    string  `json:"max_duration,omitempty"`
	Waits   *int    `json:"waits_for,omitempty"`
	Counts  Counts  `json:"devices"`
}

// Rollout is a rollout.
type Rollout struct {
	ID          int64      `json:"id"`
	Product     string     `json:"product"`
	ReleaseID   int64      `json:"release_id"`
	Release     string     `json:"release"`
	State       string     `json:"state"`
	Phase       int        `json:"phase"`
	Phases      []Phase    `json:"phases"`
	Reason      string     `json:"reason"`
	To          string     `json:"to"`
	OnFailure   string     `json:"on_failure"`
	MinRevert   int        `json:"min_revert"`
	Silence     string     `json:"silence"`
	Assurance   string     `json:"assurance"`
	StartAt     *time.Time `json:"start_at,omitempty"`
	Window      string     `json:"window,omitempty"`
	Concurrency int        `json:"concurrency,omitempty"`
	Rate        int64      `json:"bytes_per_second,omitempty"`
	Quarantine  int        `json:"quarantine"`
	Backoff     float64    `json:"backoff_scale"`
	Counts      Counts     `json:"devices"`
	FailureRate float64    `json:"failure_rate_at_least"`
	Version     int64      `json:"version"`
	CreatedAt   time.Time  `json:"created_at"`
	ChangedAt   time.Time  `json:"changed_at"`
}

// NewRollout is what a rollout is made from; what is empty takes the server's default.
type NewRollout struct {
	Product     string     `json:"product"`
	Release     string     `json:"release,omitempty"`
	Channel     string     `json:"channel,omitempty"` // in place of Release: its newest
	To          string     `json:"to,omitempty"`
	Phases      string     `json:"phases"`
	Success     string     `json:"success_threshold,omitempty"`
	Fail        string     `json:"fail_threshold,omitempty"`
	Soak        string     `json:"soak,omitempty"`
	Most        string     `json:"max_duration,omitempty"`
	OnFailure   string     `json:"on_failure,omitempty"`
	MinRevert   int        `json:"min_revert,omitempty"`
	Silence     string     `json:"silence,omitempty"`
	Assurance   string     `json:"assurance,omitempty"`
	StartAt     *time.Time `json:"start_at,omitempty"`
	Window      string     `json:"window,omitempty"`
	Concurrency int        `json:"concurrency,omitempty"`
	Rate        int64      `json:"bytes_per_second,omitempty"`
	Quarantine  *int       `json:"quarantine,omitempty"`
	Backoff     float64    `json:"backoff_scale,omitempty"`
}

// CreateRollout begins a rollout.
func (c *Client) CreateRollout(ctx context.Context, n NewRollout) (Rollout, error) {
	var out Rollout
	err := c.call(ctx, "POST", "/rollouts", n, &out)
	return out, err
}

// Rollouts lists rollouts, newest first; product "" means all.
func (c *Client) Rollouts(ctx context.Context, product string) ([]Rollout, error) {
	var out struct {
		Rollouts []Rollout `json:"rollouts"`
	}
	err := c.get(ctx, "/rollouts", url.Values{"product": {product}}, &out)
	return out.Rollouts, err
}

// Rollout is one rollout.
func (c *Client) Rollout(ctx context.Context, id int64) (Rollout, error) {
	var out Rollout
	err := c.get(ctx, rolloutPath(id), nil, &out)
	return out, err
}

func rolloutPath(id int64) string { return "/rollouts/" + strconv.FormatInt(id, 10) }

// Say has a rollout paused, resumed, cancelled, forced or reverted.
func (c *Client) Say(ctx context.Context, id int64, say fleet.Command, reason string) (Rollout, error) {
	in := struct {
		Reason string `json:"reason,omitempty"`
	}{reason}
	var out Rollout
	err := c.call(ctx, "POST", rolloutPath(id)+"/"+string(say), in, &out)
	return out, err
}

// ForceDevice lets one device have a rollout's release now.
func (c *Client) ForceDevice(ctx context.Context, id int64, device string) (Device, error) {
	var out Device
	err := c.call(ctx, "POST", rolloutPath(id)+"/devices/"+url.PathEscape(device)+"/force", nil, &out)
	return out, err
}

// Group is a filter with a name.
type Group struct {
	Name      string    `json:"name"`
	Product   string    `json:"product,omitempty"`
	Filter    string    `json:"filter"`
	ChangedAt time.Time `json:"changed_at,omitzero"`
}

// SetGroup makes a group or changes its filter.
func (c *Client) SetGroup(ctx context.Context, g Group) (Group, error) {
	in := struct {
		Name    string `json:"name"`
		Product string `json:"product,omitempty"`
		Filter  string `json:"filter"`
	}{g.Name, g.Product, g.Filter}
	var out Group
	err := c.call(ctx, "POST", "/groups", in, &out)
	return out, err
}

// Groups lists groups by their names.
func (c *Client) Groups(ctx context.Context) ([]Group, error) {
	var out struct {
		Groups []Group `json:"groups"`
	}
	err := c.get(ctx, "/groups", nil, &out)
	return out.Groups, err
}

// DeleteGroup deletes a group.
func (c *Client) DeleteGroup(ctx context.Context, name string) error {
	var out struct{}
	return c.call(ctx, "DELETE", "/groups/"+url.PathEscape(name), nil, &out)
}

// SetLabels says a device's tags and attributes; they replace those before.
func (c *Client) SetLabels(ctx context.Context, id string, tags []string, attributes map[string]string) (Device, error) {
	in := struct {
		Tags       []string          `json:"tags"`
		Attributes map[string]string `json:"attributes"`
	}{append([]string{}, tags...), attributes}
	if in.Attributes == nil {
		in.Attributes = map[string]string{}
	}
	var out Device
	err := c.call(ctx, "POST", "/devices/"+url.PathEscape(id)+"/labels", in, &out)
	return out, err
}

// KeptDecision is one of a device's last decisions.
type KeptDecision struct {
	Time    time.Time `json:"time"`
	Verdict string    `json:"verdict"`
	Rollout int64     `json:"rollout,omitempty"`
	Version string    `json:"version,omitempty"`
	Why     string    `json:"why"`
}

// Why is what a device would get now.
type Why struct {
	Device    string         `json:"device"`
	Product   string         `json:"product"`
	Verdict   string         `json:"verdict"`
	Why       string         `json:"why"`
	Rollout   int64          `json:"rollout,omitempty"`
	Release   string         `json:"release,omitempty"` // "": nothing
	ReleaseID int64          `json:"release_id,omitempty"`
	Stream    *WhyStream     `json:"stream,omitempty"` // nil: the raw one
	Rules     []fleet.Rule   `json:"rules"`
	Last      []KeptDecision `json:"last_decisions"`
}

// WhyStream is a derived stream that a device would get.
type WhyStream struct {
	Kind   string `json:"kind"`
	Digest string `json:"digest"`
	Sent   int64  `json:"sent"` // bytes
}

// Why says what a device would get if it polled now, and each rule that decides so.
func (c *Client) Why(ctx context.Context, id string) (Why, error) {
	var out Why
	err := c.get(ctx, "/devices/"+url.PathEscape(id)+"/why", nil, &out)
	return out, err
}
