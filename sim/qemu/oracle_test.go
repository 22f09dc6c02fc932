package qemu

import (
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
)

// oracle judges what flash holds between two starts, through which an update from
// 1.0.0 in slot 0 to 2.0.0 in slot 1 is cut, and each operation. The rules are those of
// the sweeps (docs/design/power-cuts.md).
type oracle struct {
	places *Map
	holds  func(boot.Slot, string) bool // an image, byte for byte

	ops  int // that were judged
	seen struct {
		floors   state.Floors
		nonce    uint64
		sequence uint32
		recorded bool
	}
	slot  boot.Slot // starts next
	trial bool      // and is on trial then
}

// cutsInRow is how often the power goes before an update is left in peace.
const cutsInRow = 3

// startsToEnd is in how many more starts an update has then to be over: the boot stage's,
// two for stagings that were cut in their trial, and the switch.
const startsToEnd = 8

// look judges flash as it is read by a chip that starts.
func (o *oracle) look(chip flash.Device) error {
	m := o.places
	var r boot.Record
	_, ok, err := boot.ReadRecord(m.area(chip, m.Records, 2*m.Sector), &r, make([]byte, boot.RecordBuffer))
	switch {
	case err != nil:
		return err
	case !ok && o.seen.recorded:
		return errors.New("there was a boot record, and there is none any more")
	case o.seen.recorded && int32(r.Sequence-o.seen.sequence) < 0:
		return fmt.Errorf("the boot record went from %d back to %d", o.seen.sequence, r.Sequence)
	}
	o.seen.recorded, o.seen.sequence = ok, r.Sequence
	bootable := func(s boot.Slot) bool {
		var h boot.RawHeader
		return int(s) < len(m.Slots) && boot.VerifyRaw(m.area(chip, m.Slots[s], m.SlotSize), m.Load[s], &h, make([]byte, 256)) == nil
	}
	o.slot, _ = boot.Decide(&r, ok, bootable)
	switch {
	case o.slot == boot.NoSlot:
		return errors.New("bricked: nothing starts")
	case o.slot == 0 && !o.holds(0, "1.0.0"), o.slot == 1 && !o.holds(1, "2.0.0"):
		return fmt.Errorf("slot %d would start, and holds neither the old image nor the new one", o.slot)
	}
	o.trial = ok && (r.States[o.slot] == boot.RecordPending)
	if o.trial && !o.holds(1-o.slot, "1.0.0") {
		return errors.New("on trial, and the only way back is not whole")
	}
	store, err := state.NewSectors(*m.area(chip, m.State, 2*m.Sector))
	if err != nil {
		return err
	}
	var s state.Record
	if err := store.Load(&s, make([]byte, state.BufferSize)); err != nil {
		return fmt.Errorf("the state can't be read: %w", err)
	}
	f := &o.seen.floors
	if s.Floors.Epoch < f.Epoch || s.Floors.Epoch == f.Epoch && s.Floors.Stamp < f.Stamp || s.Floors.Security < f.Security {
		return fmt.Errorf("floors went from %+v back to %+v", *f, s.Floors)
	}
	if s.NonceLimit < o.seen.nonce {
		return fmt.Errorf("reserved nonces went from %d back to %d", o.seen.nonce, s.NonceLimit)
	}
	for _, b := range s.Bad {
		if b != (state.BadImage{}) {
			return errors.New("an innocent image is called bad")
		}
	}
	o.seen.floors, o.seen.nonce = s.Floors, s.NonceLimit
	return nil
}

// operation judges where one is about to happen.
func (o *oracle) operation(off uint32, what fmt.Stringer) error {
	o.ops++
	m := o.places
	switch in := func(from, size uint32) bool { return off >= from && off < from+size }; {
	case in(m.Records, 2*m.Sector), in(m.State, 2*m.Sector), in(m.Journal, 2*m.Sector):
	case !in(m.Slots[1-o.slot], m.SlotSize):
		return fmt.Errorf("it may not be touched: %s", what)
	case o.trial:
		return fmt.Errorf("the only way back is touched during a trial: %s", what)
	}
	return nil
}

// settled is how it has to end: the new image is confirmed, and whole.
func (o *oracle) settled(r boot.Record) error {
	if r.Active != 1 || r.States[1] != boot.RecordValid || !o.holds(1, "2.0.0") {
		return fmt.Errorf("in the end the record is %+v", r)
	}
	return nil
}
