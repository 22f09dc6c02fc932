package board

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
)

// A board whose boot stage is ours: core/boot decides, the images are raw, and no
// partition table is in flash.

// rawWindow is where the running slot lies in the processor's memory on such a board:
// its chip maps either slot there, so that an image runs in both.
const rawWindow = 0x08000000

// rawStack is the end of its 16 KiB of RAM.
const rawStack = 0x20004000

// ErrStage: the boot stage can't tell which slot it was to start.
var ErrStage = errors.New("the boot records' partition is missing")

// bootOwn does what our boot stage does, its writes to the records included.
func (b *Board) bootOwn() (Boot, error) {
	var out Boot
	say := func(f string, args ...any) { out.Steps = append(out.Steps, fmt.Sprintf(f, args...)) }
	slots, err := b.Slots(b.Own)
	if err != nil {
		return out, err
	}
	area, err := b.Records()
	if err != nil {
		return out, err
	}
	bootable := func(s boot.Slot) bool {
		if int(s) >= len(slots) {
			return false
		}
		err := b.verifyRaw(&slots[s], true)
		if err != nil {
			say("slot %d does not verify: %v", s, err)
		}
		return err == nil
	}
	buf := make([]byte, max(boot.RecordBuffer, b.Chip.Geometry().ProgramSize))
	out.Running = boot.Start(&area, bootable, buf)
	if b.Chip.Dead() {
		return out, ErrPowerCut
	}
	if out.Running == boot.NoSlot {
		return out, ErrNoImage
	}
	var r boot.Record
	if _, ok, err := boot.ReadRecord(&area, &r, buf); ok && err == nil {
		say("record %d: slot %d %s, else %d", r.Sequence, r.Active, r.States[r.Active], r.Fallback)
	}
	say("slot %d starts", out.Running)
	return out, nil
}

// Records are the two sectors of the boot records of a board whose boot stage is ours.
func (b *Board) Records() (flash.Area, error) {
	a, err := b.area(b.Own, esp32.TypeData, esp32.SubtypeOTA)
	if err == nil && a.Size() == 0 {
		err = ErrStage
	}
	return a, err
}

// verifyRaw is the check of a slot by the boot stage, or by the updater's port, which
// knows nothing of what only the boot stage refuses.
func (b *Board) verifyRaw(slot *flash.Area, starts bool) error {
	var h boot.RawHeader
	buf := make([]byte, 1024)
	if err := boot.VerifyRaw(slot, rawWindow, &h, buf); err != nil {
		return err
	}
	head := buf[:min(len(buf), markerWindow, int(slot.Size()))]
	if err := slot.ReadAt(head, 0); err != nil {
		return err
	}
	if starts && BehaviourOf(head) == BehaveNoBoot {
		return errRefuses
	}
	return nil
}

// writeOwn puts an image into the first slot, as a flasher tool would. The records stay
// blank: the boot stage then starts the lowest slot that verifies.
func (b *Board) writeOwn(app []byte) error {
	slots, err := b.Slots(b.Own)
	if err != nil || len(slots) == 0 {
		return fmt.Errorf("board: no slot: %w", err)
	}
	if uint32(len(app)) > slots[0].Size() {
		return fmt.Errorf("board: image of %d bytes does not fit a slot of %d", len(app), slots[0].Size())
	}
	for unit := int(b.Chip.Geometry().ProgramSize); len(app)%unit != 0; {
		app = append(app[:len(app):len(app)], b.Chip.Geometry().ErasedByte)
	}
	return b.Chip.Load(slots[0].Base(), app)
}

// buildRaw makes a raw image that our boot stage would take.
func buildRaw(s ImageSpec) ([]byte, error) {
	const code = boot.RawHeaderSize + markerSize
	if s.Size < code+16 || s.Size > 16<<20 {
		return nil, fmt.Errorf("board: size %d of a raw image has no room", s.Size)
	}
	img := make([]byte, s.Size)
	le := binary.LittleEndian
	le.PutUint32(img[12:], rawWindow)
	le.PutUint32(img[16:], rawWindow+code|1)
	le.PutUint32(img[20:], rawStack)
	putMarker(img[boot.RawHeaderSize:], s.Behave)
	newContent(s).fill(img[code:])
	return img, boot.SealRaw(img)
}
