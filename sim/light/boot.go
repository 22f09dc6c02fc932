package light

import (
	"errors"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/board"
)

// ErrNoImage: no slot holds an image that starts. A real board resets for ever.
var ErrNoImage = errors.New("light: no bootable slot")

// boot does what ESP-IDF's bootloader does on a board with two slots and no factory
// image, its writes to otadata included, and answers the slot that starts.
func (b *Bench) boot() (boot.Slot, board.Behaviour, error) {
	var e [2]esp32.Entry
	for i := range e {
		if err := b.chip.ReadAt(e[i][:], otadataAt+uint32(i)*sectorBytes); err != nil {
			return 0, "", err
		}
	}
	sel := esp32.Select(e[0], e[1], slots, false, true)
	for _, i := range sel.Written[:sel.Writes] {
		if err := b.writeEntry(i, &sel.After[i]); err != nil {
			return 0, "", err
		}
	}
	for i := 0; ; i++ {
		k, ok := esp32.LoadOrder(sel.BootIndex, slots, i)
		if !ok {
			return 0, "", ErrNoImage
		}
		if k < 0 || k >= slots {
			continue
		}
		v := b.chip.lib.verify(b.slot(boot.Slot(k)), b.c.Chip)
		if v.err != nil || v.behave == board.BehaveNoBoot {
			continue
		}
		if sel.InitialContents {
			first := esp32.InitialEntry(k)
			if err := b.writeEntry(0, &first); err != nil {
				return 0, "", err
			}
		}
		return boot.Slot(k), v.behave, nil
	}
}

// slot is what a slot holds. Nothing of it is open: a slot is read by the bootloader
// after a reset, and a reset puts everything back.
func (b *Bench) slot(s boot.Slot) (c slotContent) {
	copy(c[:], b.chip.from.blocks[(slot0At+uint32(s)*slotBytes)/blockBytes:])
	return c
}

func (b *Bench) writeEntry(i uint8, e *esp32.Entry) error {
	at := otadataAt + uint32(i)*sectorBytes
	if err := b.chip.Erase(at, sectorBytes); err != nil {
		return err
	}
	return b.chip.Program(e[:], at)
}
