package boot

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// The raw image is that of a board whose boot stage is ours: a header of 32 bytes,
// then the program as it is linked. docs/format/raw-image.md has the layout.
const (
	RawHeaderSize = 32
	RawMagic      = 0x494C4E52 // "RNLI", little-endian
	RawFormat     = 1

	rawCRCAt = 28 // of the header: counted as zero in the CRC
)

// RawError is what is wrong with a raw image.
type RawError uint8

const (
	ErrRawMagic     RawError = iota + 1 // the first four bytes are not "RNLI"
	ErrRawFormat                        // a format, header length or flag that is not known here
	ErrRawSize                          // no longer than its header
	ErrRawTooLong                       // longer than its place
	ErrRawAddress                       // addresses that do not fit each other, or its place
	ErrRawCRC                           // the CRC-32 is wrong
	ErrRawTruncated                     // the image ends in the middle
)

func (e RawError) Error() string {
	switch e {
	case ErrRawMagic:
		return "bad magic, \"RNLI\" expected"
	case ErrRawFormat:
		return "raw image of an unknown format"
	case ErrRawSize:
		return "raw image has nothing behind its header"
	case ErrRawTooLong:
		return "image does not fit its place"
	case ErrRawAddress:
		return "raw image's addresses do not fit"
	case ErrRawCRC:
		return "CRC-32 does not match"
	case ErrRawTruncated:
		return "image is cut short"
	}
	return "unknown raw image error"
}

// RawHeader is what a raw image says of itself.
type RawHeader struct {
	Size  uint32 // of the whole image with this header, bytes
	Load  uint32 // address at which the header lies when the image runs
	Entry uint32 // address of the first instruction; on Cortex-M bit 0 is set
	Stack uint32 // initial stack pointer
	CRC   uint32
}

// Parse reads a header and holds it against itself and the room in bytes, before
// anything in it is used.
//
//go:noinline
func (h *RawHeader) Parse(b *[RawHeaderSize]byte, room uint32) error {
	le := binary.LittleEndian
	if le.Uint32(b[0:]) != RawMagic {
		return ErrRawMagic
	}
	// A flag that is not known could mean anything. The reserved word can't: a boot
	// stage in the field ignores it, so that a later format may use it for hints.
	if b[4] != RawFormat || b[5] != RawHeaderSize || le.Uint16(b[6:]) != 0 {
		return ErrRawFormat
	}
	h.Size, h.Load, h.Entry, h.Stack = le.Uint32(b[8:]), le.Uint32(b[12:]), le.Uint32(b[16:]), le.Uint32(b[20:])
	h.CRC = le.Uint32(b[rawCRCAt:])
	if h.Size <= RawHeaderSize {
		return ErrRawSize
	}
	if h.Size > room {
		return ErrRawTooLong
	}
	at := h.Entry&^1 - h.Load // wraps where the entry lies before the image
	if h.Load%4 != 0 || h.Load+h.Size-1 < h.Load || at < RawHeaderSize || at >= h.Size || h.Stack%4 != 0 || h.Stack == 0 {
		return ErrRawAddress
	}
	return nil
}

// rawHeaderCRC is the CRC-32 of a header, its last four bytes taken as zero: they
// are afterwards.
func rawHeaderCRC(b *[RawHeaderSize]byte) uint32 {
	binary.LittleEndian.PutUint32(b[rawCRCAt:], 0)
	return digest.CRC32(0, b[:])
}

// RawPass verifies a raw image as the boot stage does, fed from its first byte in any
// pieces. It rides on a pass that hashes, as esp32.ImagePass does: the running hash is
// the caller's and gets every byte, those behind the image too.
type RawPass struct {
	h    *digest.SHA256
	head RawHeader
	buf  [RawHeaderSize]byte // the header, while incomplete
	room uint32
	off  uint32 // bytes of the image taken
	crc  uint32
	err  RawError
}

// Begin starts a check and the hash h. A raw image does not name a chip; room is in
// bytes.
func (c *RawPass) Begin(_ uint16, room uint32, h *digest.SHA256) {
	c.h, c.room, c.off, c.crc, c.err = h, room, 0, 0, 0
	c.head.Size = RawHeaderSize // until it is read
	h.Reset()
}

// Header is the image's, once its first 32 bytes were taken without an error.
func (c *RawPass) Header() *RawHeader { return &c.head }

// Done says that the whole image was seen; what follows is ignored.
func (c *RawPass) Done() bool { return c.off > RawHeaderSize && c.off == c.head.Size }

// Write takes the next bytes. The first error stays; the hash goes on.
func (c *RawPass) Write(p []byte) error {
	c.h.Write(p)
	if c.err == 0 && c.off < RawHeaderSize {
		n := copy(c.buf[c.off:], p)
		p = p[n:]
		if c.off += uint32(n); c.off == RawHeaderSize {
			if err := c.head.Parse(&c.buf, c.room); err != nil {
				c.err, _ = err.(RawError)
			}
			c.crc = rawHeaderCRC(&c.buf)
		}
	}
	if c.err != 0 {
		return c.err
	}
	if left := c.head.Size - c.off; uint32(len(p)) > left {
		p = p[:left]
	}
	c.crc = digest.CRC32(c.crc, p)
	c.off += uint32(len(p))
	return nil
}

// End says whether a whole, sound image was seen.
func (c *RawPass) End() error {
	switch {
	case c.err != 0:
	case !c.Done():
		c.err = ErrRawTruncated
	case c.crc != c.head.CRC:
		c.err = ErrRawCRC
	default:
		return nil
	}
	return c.err
}

// VerifyRaw is the boot stage's check of a slot: the image that stands at its start is
// whole, and linked to run at load, where the slot lies in the processor's memory. h
// is good where it returns nil. buf is what flash is read through, RawHeaderSize bytes or
// more.
func VerifyRaw(slot *flash.Area, load uint32, h *RawHeader, buf []byte) error {
	if len(buf) < RawHeaderSize {
		return ErrBuffer
	}
	head := (*[RawHeaderSize]byte)(buf)
	if err := slot.ReadAt(head[:], 0); err != nil {
		return err
	}
	if err := h.Parse(head, slot.Size()); err != nil {
		return err
	}
	if h.Load != load {
		return ErrRawAddress
	}
	crc := rawHeaderCRC(head)
	for off := uint32(RawHeaderSize); off < h.Size; {
		p := buf
		if left := h.Size - off; uint32(len(p)) > left {
			p = p[:left]
		}
		if err := slot.ReadAt(p, off); err != nil {
			return err
		}
		crc = digest.CRC32(crc, p)
		off += uint32(len(p))
	}
	if crc != h.CRC {
		return ErrRawCRC
	}
	return nil
}

// SealRaw completes a linked program in place: the linker left the header's room at its
// start and wrote load address, entry and stack pointer there. bin is the whole image.
func SealRaw(bin []byte) error {
	if len(bin) <= RawHeaderSize {
		return ErrRawSize
	}
	le := binary.LittleEndian
	head := (*[RawHeaderSize]byte)(bin)
	switch le.Uint32(head[0:]) {
	case 0, 0xFFFFFFFF, RawMagic:
	default:
		return ErrRawMagic // a program without the room: its first instructions are not a header
	}
	le.PutUint32(head[0:], RawMagic)
	head[4], head[5] = RawFormat, RawHeaderSize
	le.PutUint16(head[6:], 0)
	le.PutUint32(head[8:], uint32(len(bin)))
	le.PutUint32(head[24:], 0xFFFFFFFF)
	var h RawHeader
	if err := h.Parse(head, uint32(len(bin))); err != nil {
		return err
	}
	le.PutUint32(head[rawCRCAt:], digest.CRC32(rawHeaderCRC(head), bin[RawHeaderSize:]))
	return nil
}
