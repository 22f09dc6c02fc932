package boot

import (
	"slices"
	"testing"
)

// A test a row of the table in docs/design/trial.md.
func TestJudge(t *testing.T) {
	resets := []ResetReason{ResetUnknown, ResetPowerOn, ResetBrownout, ResetPanic, ResetWatchdog, ResetSoftware, ResetDeepSleep, ResetExternal}
	const old, trial = Slot(0), Slot(1)
	runsNew := func(s RecordState, e Evidence) Evidence {
		e.Trial, e.TrialSlot, e.Running, e.RunningRecord, e.TrialRecord = true, trial, trial, s, s
		return e
	}
	runsOld := func(s RecordState, e Evidence) Evidence {
		e.Trial, e.TrialSlot, e.Running, e.RunningRecord, e.TrialRecord = true, trial, old, RecordValid, s
		return e
	}
	type row struct {
		name string
		e    Evidence
		want Verdict
		only []ResetReason // nil: any
	}
	power, crash := []ResetReason{ResetPowerOn, ResetBrownout}, []ResetReason{ResetPanic, ResetWatchdog}
	other := []ResetReason{ResetUnknown, ResetSoftware, ResetDeepSleep, ResetExternal}
	awake := []ResetReason{ResetUnknown, ResetPanic, ResetWatchdog, ResetSoftware, ResetExternal}
	rows := []row{
		{"no trial", Evidence{Running: old, RunningRecord: RecordValid}, VerdictNone, nil},
		{"no trial, but PENDING", Evidence{Running: old, RunningRecord: RecordPending}, VerdictOnTrial, nil},
		{"no trial, but NEW", Evidence{Running: old, RunningRecord: RecordNew}, VerdictOnTrial, nil},
		{"new, PENDING", runsNew(RecordPending, Evidence{}), VerdictOnTrial, nil},
		{"new, NEW", runsNew(RecordNew, Evidence{}), VerdictNoRollback, nil},
		{"new, UNDEFINED", runsNew(RecordUndefined, Evidence{}), VerdictNoRollback, nil},
		{"new, VALID, confirming", runsNew(RecordValid, Evidence{Confirming: true}), VerdictConfirmed, nil},
		{"new, VALID", runsNew(RecordValid, Evidence{}), VerdictConfirmedElsewhere, nil},
		{"new, none", runsNew(RecordNone, Evidence{}), VerdictOnTrial, nil},
		{"new, ABORTED", runsNew(RecordAborted, Evidence{}), VerdictOnTrial, nil},
		{"new, INVALID", runsNew(RecordInvalid, Evidence{}), VerdictOnTrial, nil},
		{"old, rejected", runsOld(RecordInvalid, Evidence{Rejected: true}), VerdictRejected, nil},
		{"old, ABORTED, crash", runsOld(RecordAborted, Evidence{}), VerdictBadCrash, crash},
		{"old, ABORTED, power", runsOld(RecordAborted, Evidence{}), VerdictInconclusive, power},
		{"old, ABORTED, other reset", runsOld(RecordAborted, Evidence{}), VerdictInconclusiveReset, other},
		{"old, none", runsOld(RecordNone, Evidence{}), VerdictInconclusive, nil},
		{"old, INVALID by another", runsOld(RecordInvalid, Evidence{}), VerdictBadImage, slices.Concat(crash, other)},
		{"old, INVALID from before", runsOld(RecordInvalid, Evidence{}), VerdictInconclusive, power},
	}
	for _, s := range []RecordState{RecordNew, RecordPending, RecordValid, RecordUndefined} {
		rows = append(rows,
			row{"old, still " + s.String(), runsOld(s, Evidence{}), VerdictBadImage, awake},
			row{"old, still " + s.String() + ", power", runsOld(s, Evidence{}), VerdictInconclusive, power},
			row{"old, still " + s.String() + ", deep sleep", runsOld(s, Evidence{}), VerdictInconclusiveReset, []ResetReason{ResetDeepSleep}})
	}
	for _, r := range rows {
		reasons := r.only
		if reasons == nil {
			reasons = resets
		}
		for _, reason := range reasons {
			r.e.Reason = reason
			if got := Judge(r.e); got != r.want {
				t.Errorf("%s, %s reset: %s, want %s", r.name, reason, got, r.want)
			}
		}
	}
}
