package board

import (
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
)

// An image on trial that no record could have started (a cut in the erase of one made
// the bootloader read another state, or nothing else verified) is confirmed by a
// record of its own. A sweep of two cuts found that it could not be.
func TestConfirmWithoutARecord(t *testing.T) {
	g := standard()
	w := newWorld(t, newBoard(t, g, image(t, g.imgSize, "A", BehaveOK)), g.chunk)
	w.offer(image(t, g.imgSize, "B", BehaveOK), "B", 100)
	w.runTo(boot.ResetPowerOn, 100, at(device.EventStaged))
	w.records(esp32.BlankEntry(), esp32.NewEntry(2, esp32.StateAborted))
	if err := w.b.Chip.Load(0x10000, make([]byte, 16)); err != nil { // A does not verify any more
		t.Fatal(err)
	}
	w.runTo(boot.ResetPowerOn, 100, at(device.EventConfirmed))
	if w.run != 1 {
		t.Fatalf("slot %d runs", w.run)
	}
	bt, err := w.b.Clone().Boot()
	if err != nil || bt.Running != 1 {
		t.Fatalf("slot %d starts, %v", bt.Running, err)
	}
	var e [2]esp32.Entry
	for i := range e {
		if err := w.b.Chip.ReadAt(e[i][:], 0xC000+uint32(i)*esp32.SectorSize); err != nil {
			t.Fatal(err)
		}
	}
	if at := esp32.Active(&e[0], &e[1]); at < 0 || e[at].State() != esp32.StateValid || esp32.SlotOf(e[at].Seq(), 2) != 1 {
		t.Errorf("records %x", e)
	}
}
