package adminapi

import (
	"testing"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
)

// How long a phase has still to soak goes by the fleet's clock, and is said while it
// does: not before enough have confirmed, nor of a rollout that stands still.
func TestSoakLeft(t *testing.T) {
	const passed = fleet.Clock(1_000_000)
	for _, c := range []struct {
		state  fleet.RolloutState
		passed fleet.Clock
		since  time.Duration
		want   string
	}{
		{fleet.RolloutRunning, passed, 10 * time.Minute, "50m0s"},
		{fleet.RolloutRunning, passed, 59*time.Minute + 59600*time.Millisecond, "0s"},
		{fleet.RolloutRunning, passed, 2 * time.Hour, "0s"},
		{fleet.RolloutRunning, 0, 10 * time.Minute, ""},
		{fleet.RolloutPaused, passed, 10 * time.Minute, ""},
	} {
		r := fleet.Rollout{State: c.state, Passed: c.passed, Course: fleet.Course{Phases: []fleet.Phase{{Kind: fleet.PhaseCount, Count: 1, Soak: time.Hour}, {Kind: fleet.PhasePercent, Percent: 100, Soak: time.Hour}}}}
		got := showRollout(r, make([]fleet.Counts, 2), passed.After(c.since))
		if got.Phases[0].Left != c.want || got.Phases[1].Left != "" {
			t.Errorf("%s, %v after it passed at %d: %q and %q, want %q", c.state, c.since, c.passed, got.Phases[0].Left, got.Phases[1].Left, c.want)
		}
	}
}
