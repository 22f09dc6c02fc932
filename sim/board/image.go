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
)

var behaviours = []Behaviour{BehaveOK, BehavePanic, BehaveHang, BehaveMute, BehaveSelfTest, BehaveEarly}

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
	// Seed of the content. Images of one seed and different versions share most of
	// it, as releases do.
	Seed uint64
}

const (
	appDescMagic = 0xABCD5432
	appDescSize  = 256
	smallImage   = 192 << 10 // below it there is no room for a segment mapped at the next MMU page
)

// BuildImage makes an app image that ESP-IDF's bootloader would take: header,
// descriptor, segments that the MMU can map, checksum, appended SHA-256.
func BuildImage(s ImageSpec) ([]byte, error) {
	if s.Size%16 != 0 || s.Size < 1024 || s.Size > 16<<20 {
		return nil, fmt.Errorf("board: image size %d is not a multiple of 16 from 1024 bytes to 16 MiB", s.Size)
	}
	le := binary.LittleEndian
	end := s.Size - 32 - 16 // of the last segment: then 15 zeros and the checksum, then the hash
	img := make([]byte, 0, s.Size)
	head := make([]byte, esp32.HeaderSize)
	head[0], head[2], head[3] = esp32.ImageMagic, 2, 0x20 // DIO, 40 MHz, 4 MB
	le.PutUint32(head[4:], 0x40081234)
	head[8] = 0xEE
	le.PutUint16(head[12:], s.Chip)
	head[23] = 1
	img = append(img, head...)

	content := newContent(s)
	var xor byte = 0xEF
	count := byte(0)
	segment := func(addr uint32, data []byte) {
		img = le.AppendUint32(img, addr)
		img = le.AppendUint32(img, uint32(len(data)))
		img = append(img, data...)
		for _, b := range data {
			xor ^= b
		}
		count++
	}
	drom, iram, irom := regions(s.Chip)
	first := min(80<<10, (end-len(img)-8)&^15)
	if s.Size < smallImage {
		first = (end - len(img) - 8 - 8 - 128) &^ 15
	}
	if first < appDescSize+64 {
		return nil, fmt.Errorf("board: image size %d has no room for a descriptor", s.Size)
	}
	data := make([]byte, first)
	describe(data, s)
	content.fill(data[appDescSize+64:])
	segment(drom+0x20, data)
	if s.Size < smallImage {
		data = make([]byte, end-len(img)-8)
		content.fill(data)
		segment(iram, data)
	} else {
		data = make([]byte, 24<<10)
		content.fill(data)
		segment(iram, data)
		// A segment that is not loaded moves the next one to its page.
		at := len(img) + 16
		pad := (0x20 - at%65536 + 65536) % 65536
		segment(0, make([]byte, pad))
		data = make([]byte, end-len(img)-8)
		content.fill(data)
		segment(irom+0x20, data)
	}
	img[1] = count
	img = append(img, make([]byte, 15)...)
	img = append(img, xor)
	sum := sha256.Sum256(img)
	return append(img, sum[:]...), nil
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
	binary.LittleEndian.PutUint32(p, appDescMagic)
	put := func(at, size int, text string) { copy(p[at:at+size-1], text) }
	put(16, 32, s.Version)
	put(48, 32, s.Project)
	put(80, 16, "12:00:00")
	put(96, 16, "Nov 23 2026")
	put(112, 32, "v5.5.1")
	elf := sha256.Sum256([]byte(s.Project + "\x00" + s.Version))
	copy(p[144:], elf[:])
	b := s.Behave
	if b == "" {
		b = BehaveOK
	}
	copy(p[appDescSize:appDescSize+64], marker+string(b)+"\x00")
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
