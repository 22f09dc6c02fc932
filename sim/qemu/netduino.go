package qemu

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Map of the Netduino's flash, which is the host's NOR (firmware/netduinoplus2/map.go).
var NetduinoMap = Map{
	Slots: [2]uint32{0, 0x20000}, SlotSize: 0x20000, Load: [2]uint32{netduinoLoad, netduinoLoad},
	Records: 0x40000, State: 0x42000, Journal: 0x44000, Factory: 0x46000, Sector: 4096,
}

const (
	netduinoSize = 0x80000    // of the NOR
	netduinoLoad = 0x08000400 // where an image is linked to: behind the vectors
)

// NetduinoKit is the Netduino's firmware: one program, which QEMU loads, and images of
// which the host's NOR holds one a slot.
type NetduinoKit struct{ App *Firmware }

// BuildNetduino builds it.
func BuildNetduino(ctx context.Context, b *Builder) (*NetduinoKit, error) {
	app, err := b.Build(ctx, "netduinoplus2", "app", "app")
	return &NetduinoKit{App: app}, err
}

// Image is the program without its vectors, for either slot, sealed: with a version for
// people, and a fault. What the chip executes is the program that QEMU loaded; which
// image it acts as, it reads from the slot. So an image may end after size bytes, for a
// test that has no need of more; 0: all of it.
func (k *NetduinoKit) Image(version string, f Fault, size int) ([]byte, error) {
	front := int(netduinoLoad - k.App.Base)
	if k.App.Symbols["image_header"] != netduinoLoad || front > len(k.App.Image) {
		return nil, fmt.Errorf("qemu: the image's header lies at 0x%x", k.App.Symbols["image_header"])
	}
	img := bytes.Clone(k.App.Image[front:])
	if size > 0 {
		img = img[:min(size, len(img))]
	}
	return img, tell(img, int(k.App.Symbols["image_info"]-netduinoLoad), version, f)
}

// tell completes an image: who it is, what is wrong with it, its size and CRC.
func tell(img []byte, info int, version string, f Fault) error {
	if info <= 0 || info+20 > len(img) || len(version) > 16 {
		return fmt.Errorf("qemu: image_info at %d of %d bytes", info, len(img))
	}
	copy(img[info:info+16], make([]byte, 16))
	copy(img[info:], version)
	binary.LittleEndian.PutUint32(img[info+16:], uint32(f))
	return boot.SealRaw(img)
}

// Flash is the NOR as it leaves the factory: an image in slot 0, and the board's page.
// seed is that of torn and marginal bits.
func (k *NetduinoKit) Flash(image []byte, page *factory.Page, seed uint64) (*nor.Chip, error) {
	m := &NetduinoMap
	c, err := nor.New(nor.Config{Size: netduinoSize, Seed: seed})
	if err != nil {
		return nil, err
	}
	p, e := page.Encode(make([]byte, m.Sector))
	if e != 0 {
		return nil, e
	}
	if len(image) > int(m.SlotSize) {
		return nil, fmt.Errorf("qemu: an image of %d bytes does not fit", len(image))
	}
	if err := c.Load(m.Slots[0], image); err != nil {
		return nil, err
	}
	return c, c.Load(m.Factory, p)
}

// NewNetduino is a board with an image in slot 0, and a server with nothing on offer
// whose device it is. seed is that of all that is random.
func (k *NetduinoKit) NewNetduino(image []byte, seed uint64) (*Lab, *labserver.Book, error) {
	book, err := labserver.NewBook()
	if err != nil {
		return nil, nil, err
	}
	book.Raw = true
	page := factory.Page{Device: []byte(labserver.Device), Product: []byte(labserver.Product), Hardware: []byte(labserver.Hardware),
		Secret: &book.Secret, Roots: book.Baked()}
	chip, err := k.Flash(image, &page, seed)
	if err != nil {
		return nil, nil, err
	}
	lab := NewHostLab(&Chip{Board: Netduino, Flash: bytes.Clone(k.App.Image)},
		&HostFlash{NOR: chip, Seed: rand.New(rand.NewPCG(seed, 0x73656564))}, labserver.New(book))
	return lab, book, nil
}
