package esp32

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Chip ids of the image header.
const (
	ChipESP32   uint16 = 0
	ChipESP32S2 uint16 = 2
	ChipESP32C3 uint16 = 5
	ChipESP32S3 uint16 = 9
	ChipESP32C2 uint16 = 12
	ChipESP32C6 uint16 = 13
	ChipESP32H2 uint16 = 16
	ChipESP32P4 uint16 = 18
	ChipESP32C5 uint16 = 23
	AnyChip     uint16 = 0xFFFF // ImageCheck takes whatever the header says
)

// ChipName is the usual name of a chip id, empty for an unknown one.
func ChipName(id uint16) string {
	switch id {
	case ChipESP32:
		return "ESP32"
	case ChipESP32S2:
		return "ESP32-S2"
	case ChipESP32C3:
		return "ESP32-C3"
	case ChipESP32S3:
		return "ESP32-S3"
	case ChipESP32C2:
		return "ESP32-C2"
	case ChipESP32C6:
		return "ESP32-C6"
	case ChipESP32H2:
		return "ESP32-H2"
	case ChipESP32P4:
		return "ESP32-P4"
	case ChipESP32C5:
		return "ESP32-C5"
	}
	return ""
}

// Sizes of the image format in bytes.
const (
	ImageMagic        = 0xE9
	HeaderSize        = 24
	SegmentHeaderSize = 8
	MaxSegments       = 16
	maxSegment        = 16 << 20
	mmuPage           = 64 << 10
	checksumSeed      = 0xEF
)

// ImageError is what is wrong with an image; Offset says where.
type ImageError uint8

const (
	ErrMagic       ImageError = iota + 1 // the first byte is not 0xE9
	ErrChip                              // made for another chip
	ErrSegments                          // none, or more than 16
	ErrSegmentSize                       // not a multiple of four, or 16 MiB and more
	ErrMapping                           // a flash-mapped segment at an offset that the MMU can't map
	ErrChecksum                          // the XOR of the segments' data is wrong
	ErrHash                              // the appended SHA-256 is wrong
	ErrTruncated                         // the image ends in the middle
	ErrTooLong                           // the image is longer than its place
)

func (e ImageError) Error() string {
	switch e {
	case ErrMagic:
		return "bad magic byte, 0xE9 expected"
	case ErrChip:
		return "image is for another chip"
	case ErrSegments:
		return "bad segment count"
	case ErrSegmentSize:
		return "bad segment length"
	case ErrMapping:
		return "segment's address does not fit its place in the file"
	case ErrChecksum:
		return "checksum does not match"
	case ErrHash:
		return "appended SHA-256 does not match"
	case ErrTruncated:
		return "image is cut short"
	case ErrTooLong:
		return "image does not fit its place"
	}
	return "unknown image error"
}

type imagePart uint8

const (
	partHeader imagePart = iota
	partSegment
	partData
	partPadding
	partHash
	partDone
)

// ImagePass verifies an app image as the bootloader does (image_load), fed from the
// image's first byte in any pieces. It rides on a pass that hashes: the running hash
// is the caller's, gets every byte that is written, those behind the image too, and
// is looked at in the middle for the hash that is appended. What reads a slot for its
// SHA-256 has the bootloader's check in the same pass, for one hash and not two.
type ImagePass struct {
	h      *digest.SHA256
	sum    [32]byte // of what is before the appended hash
	buf    [32]byte // header, segment header or hash, while incomplete
	limit  uint32
	off    uint32 // bytes of the image taken
	bad    uint32 // where the defect is
	left   uint32 // bytes of the present part still to come
	length uint32
	chip   uint16
	have   uint8
	part   imagePart
	segs   uint8 // still to come
	count  uint8
	xor    byte
	hashed bool
	err    ImageError
}

// ImageCheck is an ImagePass with a hash of its own, for who needs no other. It must
// not be copied while it is fed.
type ImageCheck struct {
	ImagePass
	own digest.SHA256
}

// Begin starts a check. chip is the board's, or AnyChip; limit the room in bytes.
func (c *ImageCheck) Begin(chip uint16, limit uint32) { c.ImagePass.Begin(chip, limit, &c.own) }

// Begin starts a check and the hash h. chip is the board's, or AnyChip; limit the
// room in bytes.
func (c *ImagePass) Begin(chip uint16, limit uint32, h *digest.SHA256) {
	*c = ImagePass{h: h, chip: chip, limit: limit, xor: checksumSeed, left: HeaderSize}
	h.Reset()
}

// Length is the image's length in bytes, once End was nil.
func (c *ImagePass) Length() uint32 { return c.length }

// Offset is where the defect was found.
func (c *ImagePass) Offset() uint32 { return c.bad }

// Done says that the whole image was seen; what follows is ignored.
func (c *ImagePass) Done() bool { return c.part == partDone }

// Segments is the image's number of segments.
func (c *ImagePass) Segments() int { return int(c.count) }

// Chip is the chip id in the image's header.
func (c *ImagePass) Chip() uint16 { return c.chip }

// HasHash says whether a SHA-256 is appended.
func (c *ImagePass) HasHash() bool { return c.hashed }

func (c *ImagePass) fail(e ImageError, at uint32) error {
	c.err, c.bad = e, at
	return e
}

// Write takes the next bytes. The first error stays; the hash goes on.
func (c *ImagePass) Write(p []byte) error {
	for c.err == 0 && len(p) > 0 && c.part != partDone {
		used, err := c.take(p)
		c.h.Write(p[:used])
		p = p[used:]
		if err == nil && used > 0 && c.left == 0 {
			err = c.next()
		}
		if err != nil {
			break
		}
	}
	c.h.Write(p)
	if c.err != 0 {
		return c.err
	}
	return nil
}

// take takes what p has of the present part.
func (c *ImagePass) take(p []byte) (used uint32, err error) {
	n := uint32(len(p))
	if n > c.left {
		n = c.left
	}
	if n > c.limit-c.off {
		return 0, c.fail(ErrTooLong, c.off)
	}
	q := p[:n]
	switch c.part {
	case partData:
		for _, b := range q {
			c.xor ^= b
		}
	case partPadding:
		c.buf[0] = q[n-1] // the last byte of the padding is the checksum
	default:
		copy(c.buf[c.have:], q)
		c.have += uint8(n)
	}
	c.off += n
	c.left -= n
	return n, nil
}

// next is called at the end of a part.
func (c *ImagePass) next() error {
	le := binary.LittleEndian
	c.have = 0
	switch c.part {
	case partHeader:
		if c.buf[0] != ImageMagic {
			return c.fail(ErrMagic, 0)
		}
		id := le.Uint16(c.buf[12:])
		if c.chip != AnyChip && c.chip != id {
			return c.fail(ErrChip, 12)
		}
		c.chip = id
		c.count, c.segs, c.hashed = c.buf[1], c.buf[1], c.buf[23] != 0
		if c.segs == 0 || c.segs > MaxSegments {
			return c.fail(ErrSegments, 1)
		}
		c.part, c.left = partSegment, SegmentHeaderSize
	case partSegment:
		addr, n := le.Uint32(c.buf[0:]), le.Uint32(c.buf[4:])
		switch e := checkSegment(c.chip, addr, n, c.off); e {
		case 0:
		case ErrMapping:
			return c.fail(e, c.off-8)
		default:
			return c.fail(e, c.off-4)
		}
		c.segs--
		c.part, c.left = partData, n
		if n == 0 {
			return c.next()
		}
	case partData:
		if c.segs > 0 {
			c.part, c.left = partSegment, SegmentHeaderSize
			return nil
		}
		c.part, c.left = partPadding, 16-c.off%16
	case partPadding:
		if c.buf[0] != c.xor {
			return c.fail(ErrChecksum, c.off-1)
		}
		c.part, c.left = partHash, 32
		c.h.Sum(&c.sum)
		if !c.hashed {
			c.part, c.length = partDone, c.off
		}
	case partHash:
		if !digest.Equal(c.sum[:], c.buf[:]) {
			return c.fail(ErrHash, c.off-32)
		}
		c.part, c.length = partDone, c.off
	}
	return nil
}

// checkSegment is what the bootloader asks of a segment whose data begins at off.
func checkSegment(chip uint16, addr, size, off uint32) ImageError {
	switch {
	case size%4 != 0 || size >= maxSegment:
		return ErrSegmentSize
	case Mapped(chip, addr) && off%mmuPage != addr%mmuPage:
		return ErrMapping
	}
	return 0
}

// End says whether a whole, sound image was seen.
func (c *ImagePass) End() error {
	if c.err != 0 {
		return c.err
	}
	if c.part != partDone {
		if c.part == partHeader && c.have > 0 && c.buf[0] != ImageMagic {
			return c.fail(ErrMagic, 0)
		}
		return c.fail(ErrTruncated, c.off)
	}
	return nil
}

// Mapped says whether an address is in a region that the chip maps from flash.
// Regions are those of ESP-IDF's soc headers; of other chips nothing is known.
func Mapped(chip uint16, addr uint32) bool {
	in := func(lo, hi uint32) bool { return addr >= lo && addr < hi }
	switch chip {
	case ChipESP32:
		return in(0x3F400000, 0x3F800000) || in(0x400D0000, 0x40400000)
	case ChipESP32S2:
		return in(0x3F000000, 0x3FF80000) || in(0x40080000, 0x40800000)
	case ChipESP32C3:
		return in(0x3C000000, 0x3C800000) || in(0x42000000, 0x42800000)
	case ChipESP32S3:
		return in(0x3C000000, 0x3E000000) || in(0x42000000, 0x44000000)
	}
	return false
}
