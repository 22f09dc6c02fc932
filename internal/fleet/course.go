package fleet

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// What becomes of a rollout that failed.
const (
	OnFailurePause  = "pause"
	OnFailureRevert = "revert"
)

// Kinds of phases. Frozen: stored as text.
const (
	PhaseCount   = "count"   // the first so many devices that ask
	PhasePercent = "percent" // of places, from the lowest on
	PhaseGroup   = "group"   // a group's devices
)

// Phase is a wave of a rollout. Phases add up: a device of an earlier one stays in.
type Phase struct {
	Kind    string  `json:"kind"`
	Count   int     `json:"count,omitempty"`
	Percent float64 `json:"percent,omitempty"`
	Group   string  `json:"group,omitempty"`
	// Success is the share of the phase's devices that have to confirm, rounded down, one at
	// least; Fail the share of failures above which the rollout stops, by its lower bound.
	Success float64       `json:"success"`
	Fail    float64       `json:"fail"`
	Soak    time.Duration `json:"soak,omitempty"` // between success and the next phase
	Most    time.Duration `json:"most,omitempty"` // it pauses a rollout that takes longer; 0: any time
}

func (p Phase) String() string {
	switch p.Kind {
	case PhaseCount:
		return strconv.Itoa(p.Count)
	case PhaseGroup:
		return "group:" + p.Group
	}
	return strconv.FormatFloat(p.Percent, 'f', -1, 64) + "%"
}

// Bounds and defaults of rollouts, with their reasons.
const (
	MaxPhases = 16
	// MaxRollouts in force of one product: each is looked at for each poll, from the newest on.
	MaxRollouts = 32
	// MaxCount of a phase by number: they are counted for each poll that would join it.
	MaxCount       = 10_000
	MaxConcurrency = 100_000
	// DefaultSuccess lets one of five devices stay away or fail without holding up the rest.
	DefaultSuccess = 0.8
	DefaultFail    = 0.2
	// DefaultSilence: devices that sleep wake once a day or so.
	DefaultSilence = 24 * time.Hour
	// DefaultMost: a phase that takes longer than a week waits for something that a person should see.
	DefaultMost = 7 * 24 * time.Hour
	// DefaultMinRevert devices have to fail before a fleet goes back by itself: fewer may be one
	// bench, one batch, or one person with one device's key.
	DefaultMinRevert = 3
	// DefaultQuarantine failures in a row are more likely the device's than three releases'.
	DefaultQuarantine = 3
)

// Course is how a rollout is to go: what its maker said. It does not change.
type Course struct {
	To           string        `json:"to"` // filter; "": every device of the product
	Phases       []Phase       `json:"phases"`
	OnFailure    string        `json:"on_failure"`
	Silence      time.Duration `json:"silence"`    // a device that took the image and was not heard of for so long has failed
	MinRevert    int           `json:"min_revert"` // failed devices with own keys before it reverts by itself
	Assurance    Assurance     `json:"assurance"`  // least, of devices that count
	StartAt      time.Time     `json:"start_at,omitzero"`
	Window       string        `json:"window,omitempty"`           // in which an update begins, in the device's time zone
	Concurrency  int           `json:"concurrency,omitempty"`      // devices on their way at once; 0: any number
	BytesPerSec  int64         `json:"bytes_per_second,omitempty"` // of streams that begin; 0: any
	Quarantine   int           `json:"quarantine"`                 // failures in a row from which a device gets nothing; 0: any number
	BackoffScale float64       `json:"backoff_scale,omitempty"`    // of the waits between tries; 0: 1
}

// ParsePhases reads phases as the command line has them: "1,10%,group:beta,100%".
// Each gets the thresholds of like.
func ParsePhases(text string, like Phase) ([]Phase, error) {
	var list []Phase
	for i, part := range strings.Split(text, ",") {
		part = strings.TrimSpace(part)
		p := like
		var err error
		switch name, group := strings.CutPrefix(part, "group:"); {
		case group:
			p.Kind, p.Group = PhaseGroup, name
		case strings.HasSuffix(part, "%"):
			p.Kind = PhasePercent
			p.Percent, err = strconv.ParseFloat(strings.TrimSuffix(part, "%"), 64)
		default:
			p.Kind = PhaseCount
			p.Count, err = strconv.Atoi(part)
		}
		if err != nil {
			return nil, &Error{Code: CodeInvalid, Message: fmt.Sprintf("phase %d is %q", i+1, part), Hint: `write phases like "1,10%,group:beta,100%"`}
		}
		list = append(list, p)
	}
	return list, nil
}

// ParseShare reads "20%" or "0.2".
func ParseShare(text string) (float64, error) {
	number, percent := strings.CutSuffix(strings.TrimSpace(text), "%")
	f, err := strconv.ParseFloat(number, 64)
	if percent {
		f /= 100
	}
	if err != nil || math.IsNaN(f) || f < 0 || f > 1 {
		return 0, &Error{Code: CodeInvalid, Message: fmt.Sprintf("%q is no share of devices", text), Hint: "write it like 20%"}
	}
	return f, nil
}

// Fill puts the defaults where nothing is said.
func (c *Course) Fill() {
	if c.OnFailure == "" {
		c.OnFailure = OnFailurePause
	}
	if c.Silence == 0 {
		c.Silence = DefaultSilence
	}
	if c.MinRevert == 0 {
		c.MinRevert = DefaultMinRevert
	}
	if c.Assurance == "" {
		c.Assurance = AssuranceOwn
	}
}

// Validate says what is wrong with a course. groups are the names that there are.
func (c *Course) Validate(groups func(name string) bool) error {
	bad := func(format string, args ...any) error { return Errorf(CodeInvalid, format, args...) }
	if _, err := ParseFilter(c.To); err != nil {
		return err
	}
	if len(c.Phases) == 0 || len(c.Phases) > MaxPhases {
		return bad("a rollout has 1 to %d phases, not %d", MaxPhases, len(c.Phases))
	}
	var count int
	var percent float64
	for i, p := range c.Phases {
		where := fmt.Sprintf("phase %d", i+1)
		switch p.Kind {
		case PhaseCount:
			if p.Count < 1 || p.Count > MaxCount {
				return bad("%s is %d devices, allowed are 1 to %d; larger ones are said in percent", where, p.Count, MaxCount)
			}
			if percent > 0 || p.Count <= count {
				return bad("%s, %s, is not larger than the one before: phases add up, and numbers come before percent", where, p)
			}
			count = p.Count
		case PhasePercent:
			if !(p.Percent > percent) || p.Percent > 100 {
				return bad("%s is %s, not above %g%% and at most 100%%", where, p, percent)
			}
			percent = p.Percent
		case PhaseGroup:
			if !groups(p.Group) {
				return &Error{Code: CodeInvalid, Message: fmt.Sprintf("%s: there is no group %q", where, p.Group), Hint: "'runnel group create' makes one"}
			}
		default:
			return bad("%s is of kind %q, not count, percent or group", where, p.Kind)
		}
		// Written so that no NaN passes.
		if !(p.Success > 0 && p.Success <= 1) || !(p.Fail >= 0 && p.Fail < 1) {
			return bad("%s: the success threshold is above 0%% and at most 100%%, the failure threshold 0%% to below 100%%", where)
		}
		if p.Soak < 0 || p.Most < 0 || p.Most > 0 && p.Most <= p.Soak {
			return bad("%s: a soak of %s and at most %s", where, p.Soak, p.Most)
		}
	}
	switch {
	case c.OnFailure != OnFailurePause && c.OnFailure != OnFailureRevert:
		return bad("on failure it does %q, not pause or revert", c.OnFailure)
	case c.Silence < time.Minute:
		return bad("silence of %s is shorter than a device's wait between polls", c.Silence)
	case c.MinRevert < 2:
		return bad("%d device can't decide for a fleet: an automatic revert needs 2 at least", c.MinRevert)
	case c.Assurance != AssuranceOwn && c.Assurance != AssuranceShared:
		return bad("assurance %q is not own or shared: what nobody proves counts for nothing", c.Assurance)
	case c.OnFailure == OnFailureRevert && c.Assurance != AssuranceOwn:
		return bad("devices that share a key can't have a fleet revert by itself: assurance has to be own")
	case c.Concurrency < 0 || c.Concurrency > MaxConcurrency:
		return bad("a concurrency of %d is not 0 to %d", c.Concurrency, MaxConcurrency)
	case c.BytesPerSec < 0:
		return bad("%d bytes a second", c.BytesPerSec)
	case c.Quarantine < 0:
		return bad("a quarantine after %d failures", c.Quarantine)
	case c.BackoffScale != 0 && !(c.BackoffScale >= 0.01 && c.BackoffScale <= 100):
		return bad("waits between tries times %g, allowed are 0.01 to 100", c.BackoffScale)
	}
	_, err := ParseWindow(c.Window)
	return err
}
