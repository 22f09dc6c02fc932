package fleet

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
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

// Command is what a person says to a rollout. Frozen: it is in the API.
type Command string

const (
	CommandPause  Command = "pause"
	CommandResume Command = "resume"
	CommandCancel Command = "cancel"
	CommandForce  Command = "force" // the next phase now
	CommandRevert Command = "revert"
)

// Names of events of rollouts.
const (
	EventRollout   = "rollout"        // made, or its state or phase changed
	EventRolloutNo = "rollout_failed" // it paused or reverts by itself: somebody should look
	EventGroup     = "group"          //
	EventLabels    = "labels_set"     // of a device
	EventForced    = "forced"         // a device into a rollout
)
