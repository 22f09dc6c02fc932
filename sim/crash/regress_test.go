package crash

import (
	"context"
	"testing"

	"github.com/runnel-fota/runnel/sim/nor"
)

// What the sweep found, a test each, named after the bug.

func setup(t testing.TB, scenario, geometry string) *Setup {
	t.Helper()
	s, g := FindScenario(scenario), FindGeometry(geometry)
	if s == nil || g == nil || !Fits(s, g) {
		t.Fatalf("no %s on %s", scenario, geometry)
	}
	set, err := NewSetup(s, g, 1)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// cutsIn cuts at the operations on some partitions, in every way.
func cutsIn(t *testing.T, set *Setup, partitions ...string) {
	t.Helper()
	var row Row
	root := set.root.clone(set.root.b.Chip.Clone())
	root.dry = true
	root.power(func(k int, op nor.Op) nor.Cut {
		r, _ := set.regionOf(op.Off, op.Len)
		for _, p := range partitions {
			if r.name == p {
				root.children(k, op, func(w *world) { explore(context.Background(), w, 0, &row) })
			}
		}
		return nor.Cut{}
	})
	if row.Cuts == 0 {
		t.Error("nothing was cut")
	}
	for _, f := range row.Failures {
		t.Error(f)
	}
}

// A cut between the state that says "went back as ordered" and the boot record that
// does it had the device report what it had not done, and stay.
func TestOrderedWayBackIsTakenAfterACut(t *testing.T) {
	cutsIn(t, setup(t, "native-revert", "tiny"), "rnl_state", "otadata")
	cutsIn(t, setup(t, "v1-revert", "tiny"), "rnl_state", "otadata")
}

// An unproven image whose report was acknowledged, then a cut: the trial was closed
// without an end, and the whole image fetched once more. And the second staging, cut
// before its record was written, had an innocent image called bad, for the record of
// the first.
func TestUnprovenSurvivesACut(t *testing.T) {
	cutsIn(t, setup(t, "v1-mute", "tiny"), "rnl_state", "otadata")
}

// A boot record whose erase was cut reads one way or the other: the bootloader started
// the old image, the updater read NEW, and called the new one bad.
func TestMarginalRecordIsNoVerdict(t *testing.T) {
	cutsIn(t, setup(t, "v1-over-older", "full"), "otadata")
	cutsIn(t, setup(t, "native-no-rollback", "encrypted"), "otadata")
}

// A dead sector of the state was erased without a pause, because a report that needs
// a nonce was due at once again. And a board that could not write the record of the
// way back told that it had gone.
func TestDeadSectorIsNotWornOn(t *testing.T) {
	for _, name := range []string{"native-update", "native-self-test", "v1-revert"} {
		set := setup(t, name, "tiny")
		for at := range set.Dry.Ops {
			w, l := set.lieAt(at, WornOut, nil)
			if !l.told {
				continue
			}
			if w.failure != nil {
				t.Error(w.failure)
			}
			if n := w.b.Chip.Wear(l.sector*4096) - set.root.b.Chip.Wear(l.sector*4096); n > 2*waitsAfterLie {
				t.Errorf("%s: sector %d was erased %d times after it died at operation %d", name, l.sector, n, at)
			}
		}
	}
}

// The journal of the download before the last, whole in the other slot's tail, was
// taken for a download in progress: there was no way back.
func TestWayBackBesideAWholeJournal(t *testing.T) { setup(t, "v1-revert", "tail") }
