package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// Map of the microbit's flash (firmware/microbit/map.go).
const (
	SlotSize    = 0x1E000
	RecordsAt   = 0x3E000
	StateAt     = 0x3E800
	JournalAt   = 0x3F000
	FactoryAt   = 0x3F800
	PageSize    = 1024
	ProgramSize = 4
)

// SlotAt is where the slots begin.
var SlotAt = [2]uint32{0x2000, 0x20000}

// MicrobitMap says the same.
var MicrobitMap = Map{
	Slots: SlotAt, SlotSize: SlotSize, Load: SlotAt,
	Records: RecordsAt, State: StateAt, Journal: JournalAt, Factory: FactoryAt, Sector: PageSize,
}

// Fault is what is wrong with a build of the example image.
type Fault uint32

const (
	Healthy Fault = iota
	Crashes
	Hangs
	FailsSelfTest
	Mute      // it reaches no server
	Overflows // its stack grows past its end; the Netduino's alone
)

// Kit is the microbit's firmware: the boot stage, and the image linked for each slot.
type Kit struct {
	Boot *Firmware
	App  [2]*Firmware
}

// BuildKit builds it; with tags for the image.
func BuildKit(ctx context.Context, b *Builder, tags ...string) (*Kit, error) {
	k := &Kit{}
	var err error
	if k.Boot, err = b.Build(ctx, "microbit", "boot", "boot"); err != nil {
		return nil, err
	}
	for i := range k.App {
		if k.App[i], err = b.Build(ctx, "microbit", "app", fmt.Sprintf("slot%d", i), tags...); err != nil {
			return nil, err
		}
	}
	return k, nil
}

// Image is a build for a slot, sealed: with a version for people, and a fault.
func (k *Kit) Image(slot int, version string, f Fault) ([]byte, error) {
	app := k.App[slot]
	img := bytes.Clone(app.Image)
	return img, tell(img, int(app.Symbols["image_info"]-app.Base), version, f)
}

// Flash is the chip as it leaves the factory: boot stage, an image in slot 0, and the
// board's page.
func (k *Kit) Flash(image []byte, page *factory.Page) ([]byte, error) {
	flash := bytes.Repeat([]byte{0xFF}, int(Microbit.Flash.Size))
	if len(k.Boot.Image) > int(SlotAt[0]) || len(image) > SlotSize {
		return nil, fmt.Errorf("qemu: boot stage of %d and image of %d bytes do not fit", len(k.Boot.Image), len(image))
	}
	copy(flash, k.Boot.Image)
	copy(flash[SlotAt[0]:], image)
	if _, err := page.Encode(flash[FactoryAt : FactoryAt+PageSize]); err != 0 {
		return nil, err
	}
	return flash, nil
}

// NewMicrobit is a board with an image in slot 0, and a server with nothing on offer
// whose device it is.
func (k *Kit) NewMicrobit(image []byte) (*Lab, *labserver.Book, error) {
	book, err := labserver.NewBook()
	if err != nil {
		return nil, nil, err
	}
	book.Raw = true
	page := factory.Page{Device: []byte(labserver.Device), Product: []byte(labserver.Product), Hardware: []byte(labserver.Hardware),
		Secret: &book.Secret, Roots: book.Baked()}
	flash, err := k.Flash(image, &page)
	if err != nil {
		return nil, nil, err
	}
	return NewLab(&Chip{Board: Microbit, Flash: flash}, labserver.New(book)), book, nil
}

// Release adds both builds of a version to a book and returns the number of that for
// slot 0; the other one follows.
func (k *Kit) Release(book *labserver.Book, version string, sequence uint32, f Fault) (first int, images [2][]byte, err error) {
	first = -1
	for slot := range images {
		if images[slot], err = k.Image(slot, version, f); err != nil {
			return first, images, err
		}
		n, err := book.AddBuild(version, images[slot], sequence, 0, 1024, slot)
		if err != nil {
			return first, images, err
		}
		if first < 0 {
			first = n
		}
	}
	return first, images, nil
}

// why is the word that the microbit's program left for the start after its reset
// (firmware/nrf51/handover.go): SOFT, PANI, WDOG.
func (c *Chip) why() string {
	at := len(c.RAM) - 32
	if at < 0 {
		return "power"
	}
	w := binary.LittleEndian.Uint32(c.RAM[at:])
	return string([]byte{byte(w >> 24), byte(w >> 16), byte(w >> 8), byte(w)})
}
