package boot

// Evidence is what the image that runs can see after a reset. The updater fills
// it from core/state, the Scheme and the port.
type Evidence struct {
	// Trial is whether core/state holds an open trial, TrialSlot its slot.
	Trial     bool
	TrialSlot Slot
	// Confirming: we had decided to confirm it and a cut may have come between.
	Confirming bool
	// Rejected: the new image itself had decided to go back (self-test, no contact).
	Rejected bool
	// Running is the slot that executes, from the port; never from the records.
	Running Slot
	// RunningRecord and TrialRecord are what the records say of the two slots.
	RunningRecord RecordState
	TrialRecord   RecordState
	Reason        ResetReason
}

// Verdict is what a reset means for the trial.
type Verdict uint8

const (
	// VerdictNone: no trial is open; nothing to decide.
	VerdictNone Verdict = iota
	// VerdictOnTrial: the new image runs and must prove itself.
	VerdictOnTrial
	// VerdictNoRollback: the new image runs under a bootloader that will not go
	// back by itself: the updater counts boots and reverts.
	VerdictNoRollback
	// VerdictConfirmed: the new image runs and we confirmed it before the reset.
	VerdictConfirmed
	// VerdictConfirmedElsewhere: it is VALID and we did not do it; reported.
	VerdictConfirmedElsewhere
	// VerdictBadCrash: the old image runs because the new one crashed or hung.
	VerdictBadCrash
	// VerdictBadImage: the old image runs because the new one did not verify at boot.
	VerdictBadImage
	// VerdictRejected: the old image runs because the new one went back by itself.
	VerdictRejected
	// VerdictInconclusive: the old image runs and the new one may be innocent
	// (power was cut): stage again.
	VerdictInconclusive
	// VerdictInconclusiveReset: the same after a reset that software or the reset
	// pin asked for; told apart so that a report can say so. Both are counted.
	VerdictInconclusiveReset
)

func (v Verdict) String() string {
	switch v {
	case VerdictNone:
		return "none"
	case VerdictOnTrial:
		return "on trial"
	case VerdictNoRollback:
		return "on trial, bootloader without rollback"
	case VerdictConfirmed:
		return "confirmed"
	case VerdictConfirmedElsewhere:
		return "confirmed by someone else"
	case VerdictBadCrash:
		return "bad: crashed"
	case VerdictBadImage:
		return "bad: did not verify at boot"
	case VerdictRejected:
		return "rejected by itself"
	case VerdictInconclusive:
		return "inconclusive: power was cut"
	case VerdictInconclusiveReset:
		return "inconclusive: reset from outside"
	}
	return "unknown"
}

// Judge says what a reset means. It is the table of docs/design/trial.md, row by
// row, and has a test a row.
func Judge(e Evidence) Verdict {
	if !e.Trial {
		// Staged by somebody else, or core/state was lost: the bootloader waits
		// for a confirm all the same. NEW is PENDING to a bootloader that misread a
		// record whose erase was cut.
		if e.RunningRecord == RecordPending || e.RunningRecord == RecordNew {
			return VerdictOnTrial
		}
		return VerdictNone
	}
	if e.Running == e.TrialSlot {
		return judgeNewRuns(e)
	}
	return judgeOldRuns(e)
}

func judgeNewRuns(e Evidence) Verdict {
	switch e.RunningRecord {
	case RecordPending:
		return VerdictOnTrial
	case RecordNew, RecordUndefined:
		return VerdictNoRollback // a bootloader with rollback would have made it PENDING
	case RecordValid:
		if e.Confirming {
			return VerdictConfirmed
		}
		return VerdictConfirmedElsewhere
	}
	// None, INVALID, ABORTED: the bootloader fell back to it because nothing else
	// verifies. It is the only image there is and has still to prove itself.
	return VerdictOnTrial
}

func judgeOldRuns(e Evidence) Verdict {
	if e.Rejected {
		return VerdictRejected
	}
	switch e.TrialRecord {
	case RecordNone:
		// The trial is noted before the record is written, and the bootloader
		// erases the record before it rewrites it: a cut in between loses it.
		return VerdictInconclusive
	case RecordPending, RecordValid, RecordUndefined, RecordNew:
		switch e.Reason {
		case ResetDeepSleep:
			// With validation skipped on wake-up the bootloader starts the slot
			// it remembers and reads no record.
			return VerdictInconclusiveReset
		case ResetPowerOn, ResetBrownout:
			// A cut in the erase of the record leaves bits that the bootloader may have
			// read otherwise. An image that does not verify is found out by the reset
			// that ends its next staging.
			return VerdictInconclusive
		}
		// It was to start and the old image runs: its check at boot failed.
		return VerdictBadImage
	case RecordInvalid:
		if e.Reason == ResetPowerOn || e.Reason == ResetBrownout {
			// The trial is noted before the record is written: a cut in between leaves
			// the record of what was rejected in this slot before.
			return VerdictInconclusive
		}
		return VerdictBadImage // rejected by something that is not this updater
	}
	// ABORTED: it started and was reset before it confirmed.
	switch e.Reason {
	case ResetPanic, ResetWatchdog:
		return VerdictBadCrash
	case ResetPowerOn, ResetBrownout:
		return VerdictInconclusive
	}
	return VerdictInconclusiveReset
}
