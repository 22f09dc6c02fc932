package term

import (
	"fmt"
	"strings"
	"testing"

	"charm.land/lipgloss/v2"
)

// A rollout in its second phase, with a device of each kind.
func sampleRollouts() Rollouts {
	return Rollouts{List: []Rollout{{
		ID: 7, Product: "acme/pump", Release: "1.4.0", State: "running", To: `hardware == "r2"`, OnFailure: "revert",
		Reason: "phase 1 (1) has passed, 1 of 1 confirmed; phase 2 of 3 (10%) has begun",
		Phases: []Phase{
			{Number: 1, Takes: "1", State: "passed", Total: 1, Confirmed: 1},
			{Number: 2, Takes: "10%", State: "running", Total: 1000, Confirmed: 700, Failed: 40, Silent: 1, Unproven: 2, Progress: 120, Aside: 3, Uncounted: 5},
			{Number: 3, Takes: "group:north-and-south", State: "waiting"},
		},
		Bad: 41, Judged: 742, Bound: 0.0425, Threshold: 0.2, SoakLeft: "59m58s",
	}}}
}

func sampleEvents() (lines []string) {
	for i := range 30 {
		lines = append(lines, fmt.Sprintf("22:10:%02d  fota_failed  pump-%d  this image was tried and crashed, which is said in a line that may be long", i, i))
	}
	return lines
}

func TestRenderRollouts(t *testing.T) {
	stopped := sampleRollouts()
	r := &stopped.List[0]
	r.State, r.Reason, r.SoakLeft = "reverting", "300 of 1,000 failed, which is above 20.0% for sure (at least 27.6%)", ""
	r.Bad, r.Judged, r.Bound, r.Phases[1].Confirmed, r.Phases[1].Failed = 300, 1000, 0.276, 700, 300
	away := sampleRollouts()
	away.Trouble = "the server can't be reached: connection refused; trying again"
	fleet := sampleRollouts()
	fleet.List = append(fleet.List, Rollout{ID: 8, Product: "acme/fan", Release: "2", State: "scheduled", Phases: []Phase{{Number: 1, Takes: "100%", State: "waiting"}}, Threshold: 0.05})
	fleet.Figures = []string{"10,000 devices, 12 silent", "4,100 polls/s", "p50 1.2 ms, p99 9.8 ms"}
	for _, c := range []struct {
		name          string
		picture       Rollouts
		width, height int
	}{
		{"80x24", sampleRollouts(), 80, 24}, {"120x40", sampleRollouts(), 120, 40}, {"40x30", sampleRollouts(), 40, 30}, {"20x12", sampleRollouts(), 20, 12},
		{"80x8", sampleRollouts(), 80, 8}, {"stopped-100x24", stopped, 100, 24}, {"away-80x24", away, 80, 24}, {"fleet-100x30", fleet, 100, 30}, {"none-80x24", Rollouts{}, 80, 24},
	} {
		t.Run(c.name, func(t *testing.T) {
			drawn := c.picture.render("rollout 7 at http://127.0.0.1:8080", sampleEvents(), c.width, c.height)
			golden(t, "rollouts-"+c.name, drawn, c.width, c.height)
		})
	}
}

// Whatever the size and the numbers are, nothing is drawn beyond it and nothing panics.
func TestRenderRolloutsAnySize(t *testing.T) {
	for _, r := range []Rollouts{sampleRollouts(), {List: []Rollout{{Bound: 1, Phases: []Phase{{Total: -3, Confirmed: 5}, {Failed: 1 << 40}}}}}, {Trouble: strings.Repeat("x", 300)}} {
		for w := 0; w < 160; w += 3 {
			for h := 0; h < 45; h += 2 {
				for i, row := range strings.Split(r.render("x", sampleEvents(), w, h), "\n") {
					if lipgloss.Width(row) > max(w, minWidth) {
						t.Fatalf("%dx%d: row %d is too long: %q", w, h, i, row)
					}
					if i >= max(h, 1) {
						t.Fatalf("%dx%d: too many rows", w, h)
					}
				}
			}
		}
	}
}

// What comes from a server moves no cursor.
func TestRolloutsAreCleaned(t *testing.T) {
	const evil = "a\x1b[2Jb\r\nc"
	r := Rollouts{Trouble: evil, Figures: []string{evil}, List: []Rollout{{Product: evil, Release: evil, State: evil, Reason: evil, To: evil, OnFailure: evil, SoakLeft: evil,
		Phases: []Phase{{Takes: evil, State: evil}}}}}
	if drawn := r.render("x", nil, 120, 40); strings.Contains(drawn, "\x1b[2J") || strings.Contains(drawn, "\r") {
		t.Errorf("drawn %q", drawn)
	}
}

func TestShareOut(t *testing.T) {
	for _, c := range []struct {
		n      int
		counts []int
		want   []int
	}{
		{10, []int{0, 0}, []int{0, 0}},
		{10, []int{5, 5}, []int{5, 5}},
		{10, []int{9_999, 1, 0}, []int{9, 1, 0}},
		{10, []int{1, 1, 1}, []int{4, 3, 3}},
		{3, []int{1, 1, 1, 1, 1}, []int{0, 1, 1, 1, 1}}, // too narrow: cut by nobody, and not asked for
	} {
		if got := shareOut(c.n, c.counts); fmt.Sprint(got) != fmt.Sprint(c.want) {
			t.Errorf("%v in %d columns: %v, want %v", c.counts, c.n, got, c.want)
		}
	}
}
