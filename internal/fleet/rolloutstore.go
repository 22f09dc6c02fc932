package fleet

import (
	"context"
	"time"
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
