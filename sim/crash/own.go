package crash

import (
	"slices"

	"github.com/runnel-fota/runnel/core/boot"
)

// The oracle's eyes for the records of a boot stage of ours: stricter than for otadata,
// because a record is whole or it is none.

// record is the boot record in force, as the boot stage reads it.
func (w *world) record() (r boot.Record, ok bool) {
	area, err := w.b.Records()
	if err != nil {
		return r, false
	}
	_, ok, err = boot.ReadRecord(&area, &r, make([]byte, boot.RecordBuffer))
	return r, ok && err == nil
}

// inspectOwn: the slot that the record names starts, and a board that had a record has
// one for ever, whose sequence never goes back.
func (w *world) inspectOwn() {
	r, ok := w.record()
	switch {
	case !ok && w.seen.recorded:
		w.fail(WrongImage, "there was a boot record, and there is none any more")
	case !ok:
	case w.seen.recorded && int32(r.Sequence-w.seen.record) < 0:
		w.fail(WrongImage, "the boot record went from %d back to %d", w.seen.record, r.Sequence)
	case r.Active != w.running && !w.set.Scenario.fallsBack && w.lie == nil:
		w.fail(WrongImage, "the boot record says slot %d, and slot %d starts: it named one that is not whole", r.Active, w.running)
	case r.States[w.running] == boot.RecordNew:
		w.fail(WrongImage, "slot %d starts on a trial that is not noted", w.running)
	}
	w.seen.recorded, w.seen.record = ok, r.Sequence
}

// ownAtEnd: in the end the record names what runs.
func (w *world) ownAtEnd(confirmed bool) {
	r, ok := w.record()
	switch {
	case !ok || r.Active != w.running:
		w.fail(WrongImage, "in the end the boot record does not name slot %d", w.running)
	case confirmed && r.States[w.running] != boot.RecordValid:
		w.fail(WrongImage, "in the end the record of slot %d is %s", w.running, r.States[w.running])
	}
}

// wearOf is the kind of a region whose wear is bounded.
func wearOf(r *region) int {
	if r.name == "boot" {
		return slices.Index(Wears[:], "otadata")
	}
	return max(0, slices.Index(Wears[:], r.name))
}
