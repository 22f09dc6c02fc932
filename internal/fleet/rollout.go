package fleet

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Clock is the time that the server has watched its fleet, in microseconds: it
// stands still while the server is down and does not follow a clock that is set
// (internal/rollout). Soaks, silences and back-offs are measured by it, so that
// neither an outage nor a wrong clock reads as a fleet that fell silent. 0: never.
type Clock int64

// Since is how much of it has passed since then.
func (c Clock) Since(then Clock) time.Duration { return time.Duration(c-then) * time.Microsecond }

// After is the moment that far from c.
func (c Clock) After(d time.Duration) Clock { return c + Clock(d/time.Microsecond) }

// RolloutState is frozen: stored as text. docs/design/rollouts.md has the table of
// what leads from which to which.
type RolloutState string

const (
	RolloutScheduled  RolloutState = "scheduled"
	RolloutRunning    RolloutState = "running"
	RolloutPaused     RolloutState = "paused"
	RolloutComplete   RolloutState = "complete" // all phases passed; devices that come later get it too
	RolloutReverting  RolloutState = "reverting"
	RolloutReverted   RolloutState = "reverted"
	RolloutCancelled  RolloutState = "cancelled"
	RolloutSuperseded RolloutState = "superseded" // a newer one for the same devices is complete
)

// InForce says whether it may still decide what a device gets.
func (s RolloutState) InForce() bool {
	switch s {
	case RolloutReverted, RolloutCancelled, RolloutSuperseded:
		return false
	}
	return true
}

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

// Counts are the devices of a phase by what became of them, each once. Devices of too
// little assurance are in Uncounted, Progress, ToRevert and Reverting alone.
type Counts struct {
	Offered   int `json:"offered"`   // all that count
	Progress  int `json:"progress"`  // on their way, and heard of
	Confirmed int `json:"confirmed"` //
	Failed    int `json:"failed"`    // failed, or went back by themselves
	Silent    int `json:"silent"`    // took the image and were not heard of again
	Unproven  int `json:"unproven"`  // could not reach the server
	Aside     int `json:"aside"`     // skipped, cancelled, or ordered back: they say nothing of the release
	Retrying  int `json:"retrying"`  // of Failed, those that are tried again
	OwnBad    int `json:"own_bad"`   // of Failed and Silent, those with keys of their own
	Uncounted int `json:"uncounted"` //
	ToRevert  int `json:"to_revert"` // run it by this rollout, and have no order to go back
	Reverting int `json:"reverting"` // have one
}

// Bad is what counts against the release.
func (c Counts) Bad() int { return c.Failed + c.Silent }

// Plus adds them up.
func (c Counts) Plus(o Counts) Counts {
	return Counts{c.Offered + o.Offered, c.Progress + o.Progress, c.Confirmed + o.Confirmed, c.Failed + o.Failed, c.Silent + o.Silent, c.Unproven + o.Unproven,
		c.Aside + o.Aside, c.Retrying + o.Retrying, c.OwnBad + o.OwnBad, c.Uncounted + o.Uncounted, c.ToRevert + o.ToRevert, c.Reverting + o.Reverting}
}

// Tally is so many devices of which the same is to be said.
type Tally struct {
	N         int
	Phase     int // index
	State     DeploymentState
	Class     Class
	Tries     int
	Assurance Assurance
	Quiet     bool // not heard of for the rollout's silence
	Runs      bool // it is the last release that the device confirmed
	Ordered   bool // the device has an order to go back
}

// Count puts a tally where it counts.
func (c *Counts) Count(t Tally, least Assurance) {
	under := false // way
	switch t.State {
	case StateConfirmed:
		if t.Ordered {
			c.Reverting += t.N
		} else if t.Runs {
			c.ToRevert += t.N
		}
	case StateOffered, StateDownloading, StateVerifying, StateRebooting, StateTrial, StateUnproven:
		if under = !t.Quiet; under && t.State != StateOffered {
			c.Progress += t.N
		}
	}
	if t.Assurance != AssuranceOwn && (t.Assurance != AssuranceShared || least != AssuranceShared) {
		c.Uncounted += t.N
		return
	}
	c.Offered += t.N
	bad := false
	switch t.State {
	case StateConfirmed:
		c.Confirmed += t.N
	case StateFailed, StateReverted:
		if t.Class == ClassOrdered {
			c.Aside += t.N
			break
		}
		c.Failed += t.N
		bad = true
		if _, again := RetryAfter(t.Class, t.Tries, 1); again {
			c.Retrying += t.N
		}
	case StateVerifying, StateRebooting, StateTrial:
		if !under {
			c.Silent += t.N
			bad = true
		}
	case StateUnproven:
		c.Unproven += t.N
	case StateSkipped, StateCancelled:
		c.Aside += t.N
	}
	if bad && t.Assurance == AssuranceOwn {
		c.OwnBad += t.N
	}
}

// Evidence is what of it was known when a person said to go on: it stops the
// rollout no second time.
type Evidence struct {
	Confirmed int `json:"confirmed"`
	Bad       int `json:"bad"`
	Unproven  int `json:"unproven"`
}

// Rollout is a release on its way to devices.
//
//	O1 Version rises with every change, and nothing is changed but from the version
//	   that was read (compare and set)
//	O2 Phase never falls
//	O3 what is not in force comes into force no more
type Rollout struct {
	ID             int64
	Product        string
	ReleaseID      int64 // of one of its builds
	ReleaseVersion string
	Course         Course
	CreatedAt      time.Time

	Version  int64
	State    RolloutState
	Phase    int    // index; len(Course.Phases): all passed
	Reason   string // why it is in its state, for people
	Began    Clock  // the phase
	Passed   Clock  // its success threshold was reached; 0: not yet
	Expected int    // devices that the phase waits for, as far as they are known; -1: not counted yet
	// Reach is a place below which devices are in a phase by percent though its share ends before:
	// of a fleet of three a tenth is nobody, and nothing passes on no evidence.
	Reach     float64
	Forgiven  Evidence
	ChangedAt time.Time
}

// CurrentPhase is the last one that devices are in; ok is false before the first.
func (r *Rollout) CurrentPhase() (p Phase, ok bool) {
	if len(r.Course.Phases) == 0 {
		return Phase{}, false
	}
	return r.Course.Phases[min(r.Phase, len(r.Course.Phases)-1)], true
}

// Complete says whether all phases are passed.
func (r *Rollout) Complete() bool { return r.Phase >= len(r.Course.Phases) }

// Place is where a device stands in a rollout: 0 to 1, the same on every server and
// in no relation to its place in another rollout, so that it is not always the
// same devices that are first.
func Place(rollout int64, device string) float64 {
	h := sha256.Sum256(append(strconv.AppendInt(nil, rollout, 10), "/"+device...))
	return float64(binary.BigEndian.Uint64(h[:])>>11) / (1 << 53) // as many bits as a float64 holds
}

// Group is a filter with a name.
type Group struct {
	Name      string
	Product   string // "": of all
	Filter    string
	ChangedAt time.Time
}

// ValidateGroup says what is wrong with a group.
func ValidateGroup(g Group) error {
	if err := validTag("group", g.Name); err != nil {
		return err
	}
	if g.Product != "" {
		if err := ValidateProduct(g.Product); err != nil {
			return err
		}
	}
	if g.Filter == "" {
		return Errorf(CodeInvalid, "group %s has no filter: true takes every device", g.Name)
	}
	_, err := ParseFilter(g.Filter)
	return err
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

// ZoneAttribute is the attribute of a device that names its time zone.
const ZoneAttribute = "timezone"

// zones that were asked for. There are some 600, and only those that exist are kept.
var zones sync.Map

// LoadZone is a time zone by its name in the IANA data base.
func LoadZone(name string) (*time.Location, error) {
	if z, ok := zones.Load(name); ok {
		return z.(*time.Location), nil
	}
	if name == "Local" {
		return nil, Errorf(CodeInvalid, "Local is another zone on each machine")
	}
	z, err := time.LoadLocation(name)
	if err != nil {
		return nil, Errorf(CodeInvalid, "there is no time zone %q", CleanText(name, maxTag))
	}
	zones.Store(name, z)
	return z, nil
}

// Window is a part of the day, in whole minutes; it may go over midnight. The zero
// window is always open.
type Window struct{ from, to int }

// ParseWindow reads "22:00-04:30"; "" is always open.
func ParseWindow(text string) (Window, error) {
	if text == "" {
		return Window{}, nil
	}
	wrong := &Error{Code: CodeInvalid, Message: fmt.Sprintf("%q is no maintenance window", CleanText(text, maxTag)), Hint: "write it like 22:00-04:30"}
	a, b, ok := strings.Cut(text, "-")
	from, err1 := time.Parse("15:04", a)
	to, err2 := time.Parse("15:04", b)
	if !ok || err1 != nil || err2 != nil {
		return Window{}, wrong
	}
	w := Window{from.Hour()*60 + from.Minute(), to.Hour()*60 + to.Minute()}
	if w.from == w.to {
		wrong.Hint = "a window that begins when it ends says nothing: leave it away"
		return Window{}, wrong
	}
	return w, nil
}

// Open says whether the window is open at that time of day.
func (w Window) Open(local time.Time) bool {
	m := local.Hour()*60 + local.Minute()
	switch {
	case w == Window{}:
		return true
	case w.from < w.to:
		return w.from <= m && m < w.to
	}
	return m >= w.from || m < w.to
}

// Class is what kind of failure a device reported. Frozen: stored as text.
type Class string

const (
	ClassNone    Class = ""        // none, or not said: the release's
	ClassImage   Class = "image"   // the image crashed, did not start or failed its self-test
	ClassFlash   Class = "flash"   // the device could not erase, program or read its flash or state
	ClassRefused Class = "refused" // keys, numbers or sizes: the device does not take it
	ClassOrdered Class = "ordered" // it went back because an operator or a rollout said so
)

// backoff is how failures of a class are tried again; those not named are not.
type backoff struct {
	tries  int // in all
	first  time.Duration
	factor int
}

var backoffs = map[Class]backoff{
	// Flash that failed once may work when it is warmer, or the supply stronger.
	ClassFlash: {tries: 3, first: time.Hour, factor: 4},
	// A key list that follows changes what a device takes.
	ClassRefused: {tries: 3, first: 24 * time.Hour, factor: 1},
}

// RetryAfter is how long after its failure a deployment is tried again; ok is false
// where it is not. scale 0 is 1.
func RetryAfter(c Class, tries int, scale float64) (wait time.Duration, ok bool) {
	b, ok := backoffs[c]
	if !ok || tries >= b.tries {
		return 0, false
	}
	wait = b.first
	for i := 1; i < tries; i++ {
		wait *= time.Duration(b.factor)
	}
	if scale > 0 {
		wait = time.Duration(float64(wait) * scale)
	}
	return wait, true
}

// Command is what a person says to a rollout. Frozen: it is in the API.
type Command string

const (
	CommandPause  Command = "pause"
	CommandResume Command = "resume"
	CommandCancel Command = "cancel"
	CommandForce  Command = "force" // the next phase now
	CommandRevert Command = "revert"
)

// Rollouts keeps rollouts and what they rest on.
type Rollouts interface {
	// CreateRollout stores a new rollout: ID, Version and times are set here, State is
	// scheduled. CodeConflict where the product has MaxRollouts in force. The generation rises.
	CreateRollout(ctx context.Context, r Rollout, now time.Time) (Rollout, error)
	Rollout(ctx context.Context, id int64) (Rollout, error)
	// ListRollouts is newest first; product "" means all.
	ListRollouts(ctx context.Context, product string) ([]Rollout, error)
	// StepRollout stores a step from r.Version-1 to r with what it brings about, in one
	// transaction; done=false where the stored version is another: then nothing was done.
	StepRollout(ctx context.Context, r Rollout, effects []Effect, now time.Time) (done bool, err error)
	// ForceDevice has the device get the rollout's release whatever its phase, window and budgets
	// say; rollout 0 takes that back.
	ForceDevice(ctx context.Context, rollout int64, device string, now time.Time) error
}

// RolloutEngine is what the engine asks of a store.
type RolloutEngine interface {
	// ActiveRollouts are those in force, oldest first.
	ActiveRollouts(ctx context.Context) ([]Rollout, error)
	// CountRollout counts a rollout's deployments.
	CountRollout(ctx context.Context, r Rollout, clock Clock) ([]Tally, error)
	// Census calls f for each device that may be of the product, and says which of the rollout's
	// phases it was admitted to, -1: none. It is a read of all devices.
	Census(ctx context.Context, r Rollout, f func(d *Device, phase int)) error
	// ReadClock and SaveClock keep the fleet's clock and the wall's time that it was read at;
	// saved=false where it is no longer at from.
	ReadClock(ctx context.Context) (Clock, time.Time, error)
	SaveClock(ctx context.Context, from, to Clock, wall time.Time) (saved bool, err error)
	// Alone runs f unless another server runs a step on the same database just now: then ran is
	// false. What f writes is there when Alone returns nil, and f may run again before that.
	Alone(ctx context.Context, f func(StepStore) error) (ran bool, err error)
}

// StepStore is what a step of a rollout reads and writes. More than six methods because a
// step sees a whole fleet.
type StepStore interface {
	Rollouts
	RolloutEngine
	NativeCatalogue
	Generation(ctx context.Context) (int64, error)
}

// RolloutDevices is what a wire that has no polls of its own asks of a store.
type RolloutDevices interface {
	// NativePoll reads a device with what Wanted names, on whichever wire it is.
	NativePoll(ctx context.Context, device string, want Wanted) (NativeDevice, error)
	// Admit has the device come into a rollout by the decision, or refuses it as TakePoll does.
	Admit(ctx context.Context, device string, a Admission, k KeptDecision) (refused bool, err error)
}

// Groups keeps groups.
type Groups interface {
	// SetGroup makes a group or changes its filter; the generation rises.
	SetGroup(ctx context.Context, g Group, now time.Time) (Group, error)
	ListGroups(ctx context.Context) ([]Group, error)
	// DeleteGroup answers CodeConflict while a rollout in force has it in a phase.
	DeleteGroup(ctx context.Context, name string, now time.Time) error
}

// Labels keeps what people say of devices.
type Labels interface {
	// SetLabels replaces the device's tags and attributes.
	SetLabels(ctx context.Context, device string, tags []string, attributes map[string]string, now time.Time) error
}

// Decisions reads what devices were told last.
type Decisions interface {
	// LastDecisions are KeepDecisions at most, newest first.
	LastDecisions(ctx context.Context, device string) ([]KeptDecision, error)
}

// RolloutCatalogue is what decisions need of rollouts, of one generation.
type RolloutCatalogue interface {
	RolloutSnapshot(ctx context.Context) (RolloutSnapshot, error)
}

// RolloutPolicies keeps which products are moved by rollouts alone. Without it a
// product's releases are for all of its devices until it has its first rollout.
type RolloutPolicies interface {
	// OnlyByRollout is an operator's word on a product; the generation rises.
	OnlyByRollout(ctx context.Context, product string, only bool, now time.Time) error
	// ByRollout is the products of which that was said.
	ByRollout(ctx context.Context) ([]string, error)
}

// RolloutSnapshot is what RolloutCatalogue reads: the rollouts in force and of the others the
// newest of each release, newest first; and every group.
type RolloutSnapshot struct {
	Generation int64
	Rollouts   []Rollout
	Groups     []Group
	Only       []string         // products that are moved by rollouts alone
	Terms      map[string]Terms // by product, where there are any
}

// Effect is what a step brings about beside the rollout's new state.
type Effect struct {
	Event string // name, with Detail: a line of the log
	// Detail is for people.
	Detail string
	// Revert orders the devices back that run the release by this rollout and have no order.
	Revert bool
	// Supersede ends the older rollouts of the product that are for the same devices, or for fewer
	// where this one is for all.
	Supersede bool
}

// Names of events of rollouts.
const (
	EventRollout   = "rollout"        // made, or its state or phase changed
	EventRolloutNo = "rollout_failed" // it paused or reverts by itself: somebody should look
	EventGroup     = "group"          //
	EventLabels    = "labels_set"     // of a device
	EventForced    = "forced"         // a device into a rollout
)
