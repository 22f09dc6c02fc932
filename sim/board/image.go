package board

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/rand/v2"

	"github.com/runnel-fota/runnel/core/esp32"
)

// Behaviour is what the application in an image does on a virtual board.
type Behaviour string

const (
	BehaveOK       Behaviour = "ok"
	BehavePanic    Behaviour = "panic"         // an exception before the updater starts
	BehaveHang     Behaviour = "hang"          // a watchdog ends it
	BehaveMute     Behaviour = "mute"          // it can't reach any server
	BehaveSelfTest Behaviour = "selftest-fail" //
	BehaveEarly    Behaviour = "early-confirm" // confirms before its first line, as the Arduino core does
	BehavePanicR2  Behaviour = "panic-on-r2"   // an exception on a board of hardware r2, of which the native wire tells; else ok
	BehaveNoBoot   Behaviour = "no-boot"       // the bootloader refuses it, as one does that asks for more than the updater's check
)

var behaviours = []Behaviour{BehaveOK, BehavePanic, BehaveHang, BehaveMute, BehaveSelfTest, BehaveEarly, BehavePanicR2, BehaveNoBoot}

// marker stands in the first segment of an image that was built here, right
// behind the app descriptor. Real images have none, and behave.
const marker = "RUNNEL-SIM/1 behave="

const markerWindow = 1024 // bytes of an image that are searched

// BehaviourOf reads an image's marker from its first bytes.
func BehaviourOf(head []byte) Behaviour {
	head = head[:min(len(head), markerWindow)]
	_, after, found := bytes.Cut(head, []byte(marker))
	if !found {
		return BehaveOK
	}
	for _, b := range behaviours {
		if bytes.HasPrefix(after, append([]byte(b), 0)) {
			return b
		}
	}
	return BehaveOK
}

// ImageSpec says what BuildImage builds.
type ImageSpec struct {
	Size    int // bytes in all, a multiple of 16
	Chip    uint16
	Project string
	Version string
	Behave  Behaviour // "" is ok
	Raw     bool      // for a board whose boot stage is ours
	// Seed of the content. Images of one seed and different versions share most of
	// it, as releases do.
	Seed uint64
}

// smallImage: below it there is no room for a segment mapped at the next MMU page.
const smallImage = 192 << 10

// markerSize is the room for the marker behind the descriptor.
const markerSize = 64

// BuildImage makes an app image that ESP-IDF's bootloader would take: header,
// descriptor, segments that the MMU can map, checksum, appended SHA-256; or a raw one
// that our boot stage would take.
func BuildImage(s ImageSpec) ([]byte, error) {
	if s.Raw {
		return buildRaw(s)
	}
	if s.Size%16 != 0 || s.Size < 1024 || s.Size > 16<<20 {
		return nil, fmt.Errorf("board: image size %d is not a multiple of 16 from 1024 bytes to 16 MiB", s.Size)
	}
	end := s.Size - esp32.TailSize // of the last segment
	b := builder{img: make([]byte, 0, s.Size)}
	small := s.Size < smallImage
	head := esp32.ImageHeader{Segments: 4, SPIMode: 2, SPIFreqSize: 0x20, // DIO, 40 MHz, 4 MB
		Entry: 0x40081234, WPPin: 0xEE, Chip: s.Chip, HashAppended: 1}
	if small {
		head.Segments = 2
	}
	b.begin(&head)

	content := newContent(s)
	drom, iram, irom := regions(s.Chip)
	first := min(80<<10, (end-len(b.img)-8)&^15)
	if small {
		first = (end - len(b.img) - 8 - 8 - 128) &^ 15
	}
	if first < esp32.AppDescSize+markerSize {
		return nil, fmt.Errorf("board: image size %d has no room for a descriptor", s.Size)
	}
	data := make([]byte, first)
	describe(data, s)
	content.fill(data[esp32.AppDescSize+markerSize:])
	b.segment(drom+0x20, data)
	if small {
		data = make([]byte, end-len(b.img)-8)
		content.fill(data)
		b.segment(iram, data)
	} else {
		data = make([]byte, 24<<10)
		content.fill(data)
		b.segment(iram, data)
		// A segment that is not loaded moves the next one to its page.
		at := len(b.img) + 16
		pad := (0x20 - at%65536 + 65536) % 65536
		b.segment(0, make([]byte, pad))
		data = make([]byte, end-len(b.img)-8)
		content.fill(data)
		b.segment(irom+0x20, data)
	}
	return b.end()
}

// builder holds what core's writer and its caller have written, each their part.
type builder struct {
	w   esp32.ImageWriter
	img []byte
	err error
}

func (b *builder) begin(h *esp32.ImageHeader) {
	var out [esp32.HeaderSize]byte
	b.err = b.w.Begin(h, &out)
	b.img = append(b.img, out[:]...)
}

func (b *builder) segment(addr uint32, data []byte) {
	var out [esp32.SegmentHeaderSize]byte
	if b.err == nil {
		b.err = b.w.Segment(addr, uint32(len(data)), &out)
	}
	if b.err == nil {
		b.err = b.w.Data(data)
	}
	b.img = append(append(b.img, out[:]...), data...)
}

func (b *builder) end() ([]byte, error) {
	var out [esp32.TailSize]byte
	if b.err != nil {
		return nil, b.err
	}
	n, err := b.w.End(&out)
	return append(b.img, out[:n]...), err
}

// regions are load addresses: mapped data, RAM, mapped code.
func regions(chip uint16) (drom, iram, irom uint32) {
	switch chip {
	case esp32.ChipESP32C3:
		return 0x3C000000, 0x40380000, 0x42000000
	case esp32.ChipESP32S3:
		return 0x3C000000, 0x40374000, 0x42000000
	}
	return 0x3F400000, 0x40080000, 0x400D0000
}

// describe writes the app descriptor and the marker.
func describe(p []byte, s ImageSpec) {
	d := esp32.AppDesc{ELFSHA256: sha256.Sum256([]byte(s.Project + "\x00" + s.Version))}
	put := func(field []byte, text string) { copy(field[:len(field)-1], text) } // a NUL stays
	put(d.Version[:], s.Version)
	put(d.Project[:], s.Project)
	put(d.Time[:], "12:00:00")
	put(d.Date[:], "Nov 23 2026")
	put(d.IDFVersion[:], "v5.5.1")
	d.Encode((*[esp32.AppDescSize]byte)(p))
	putMarker(p[esp32.AppDescSize:], s.Behave)
}

// putMarker fills markerSize bytes.
func putMarker(p []byte, b Behaviour) {
	if b == "" {
		b = BehaveOK
	}
	copy(p[:markerSize], marker+string(b)+"\x00")
}

// content makes bytes that look like code: words of a small vocabulary, which
// compress, with a version's own words strewn in.
type content struct {
	words   [512]uint32
	rng     *rand.Rand // of the seed: shared by versions
	version *rand.Rand
}

func newContent(s ImageSpec) *content {
	h := sha256.Sum256([]byte(s.Version))
	c := &content{rng: rand.New(rand.NewPCG(s.Seed, 1)), version: rand.New(rand.NewPCG(s.Seed, binary.LittleEndian.Uint64(h[:])))}
	for i := range c.words {
		c.words[i] = c.rng.Uint32()
	}
	return c
}

func (c *content) fill(p []byte) {
	for i := 0; i+4 <= len(p); i += 4 {
		w := c.words[c.rng.IntN(len(c.words))]
		if c.version.IntN(64) == 0 {
			w = c.version.Uint32()
		}
		binary.LittleEndian.PutUint32(p[i:], w)
	}
}
