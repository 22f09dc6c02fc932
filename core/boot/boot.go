// Package boot is what the updater believes about starting: which slots there
// are, what the boot records say of them, and what a reset means.
//
// Scheme is how records are written, one bounded flash operation at a time;
// core/esp32 implements it for ESP-IDF's otadata. Judge is the verdict after a
// reset, a pure function.
//
// Boards whose boot stage is ours have records of their own (Record: Start is the boot
// stage's side, Records the updater's; docs/format/boot-record.md) and an app image of
// their own (VerifyRaw and RawPass; docs/format/raw-image.md).
package boot

// Slot is the number of an app slot: 0 is ota_0. Factory is the image that a
// board falls back to where no record says otherwise; it is never a target.
type Slot uint8

const Factory Slot = 0xFF

// ResetReason is why the chip started, as the port read it from the chip.
type ResetReason uint8

const (
	ResetUnknown ResetReason = iota
	ResetPowerOn
	ResetBrownout
	ResetPanic    // exception or abort in software
	ResetWatchdog // any of the watchdogs
	ResetSoftware // asked for by software
	ResetDeepSleep
	ResetExternal // the reset pin
)

func (r ResetReason) String() string {
	switch r {
	case ResetPowerOn:
		return "power-on"
	case ResetBrownout:
		return "brown-out"
	case ResetPanic:
		return "panic"
	case ResetWatchdog:
		return "watchdog"
	case ResetSoftware:
		return "software"
	case ResetDeepSleep:
		return "deep-sleep"
	case ResetExternal:
		return "external"
	}
	return "unknown"
}

// RecordState is what the boot records say of a slot.
type RecordState uint8

const (
	RecordNone      RecordState = iota // no CRC-valid record names the slot
	RecordNew                          // chosen, not started yet
	RecordPending                      // started once, on trial
	RecordValid                        // confirmed
	RecordInvalid                      // rejected by the application
	RecordAborted                      // started, reset before it confirmed
	RecordUndefined                    // named by a writer that knows no trial
)

func (s RecordState) String() string {
	switch s {
	case RecordNone:
		return "none"
	case RecordNew:
		return "new"
	case RecordPending:
		return "pending"
	case RecordValid:
		return "valid"
	case RecordInvalid:
		return "invalid"
	case RecordAborted:
		return "aborted"
	case RecordUndefined:
		return "undefined"
	}
	return "unknown"
}

// Goal is what a change of the boot records is for.
type Goal uint8

const (
	// GoalProtect prepares for the first erase of a slot: a record that says the
	// running slot is VALID exists, and none that could be selected names the slot.
	GoalProtect Goal = iota + 1
	// GoalStage makes the slot the next to start, on trial. Running keeps its record.
	GoalStage
	// GoalConfirm makes the running slot's record VALID, where it is the active one, or
	// writes one where there is none.
	GoalConfirm
	// GoalRevert makes the named slot (or Factory), confirmed before, the one that starts and the
	// running slot's record INVALID.
	GoalRevert
)

// Scheme is a board's way of remembering which slot starts. It knows the running
// slot from the port, never from its records.
type Scheme interface {
	// Load reads the records from flash. It must be called before the others.
	Load() error
	// Running is the slot that executes.
	Running() Slot
	// State is what the records say of a slot now.
	State(Slot) RecordState
	// Step does at most one flash operation (erase, program or read back) towards
	// the goal and says whether it is reached. It may be called again after a
	// power cut: each operation leaves records under which the running slot or
	// the goal's slot starts, never a third one.
	Step(goal Goal, slot Slot) (done bool, err error)
}
