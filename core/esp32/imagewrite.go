package esp32

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// ImageHeader is an image's first 24 bytes behind the magic. Every byte is a
// field, so that what is read and written again is the same.
type ImageHeader struct {
	Segments     uint8
	SPIMode      uint8 // 0 QIO, 1 QOUT, 2 DIO, 3 DOUT
	SPIFreqSize  uint8 // low nibble the clock, high nibble the flash chip's size
	Entry        uint32
	WPPin        uint8 // 0xEE: none
	Drive        [3]byte
	Chip         uint16
	MinRevLegacy uint8
	MinRev       uint16 // chip revision: major*100 + minor
	MaxRev       uint16 // 0 and 0xFFFF: any
	Reserved     [4]byte
	HashAppended uint8 // the bootloader takes anything but 0 as yes
}

// Parse reads a header from an image's first bytes. It looks at the magic only:
// ImageCheck is the judge of the rest.
func (h *ImageHeader) Parse(p []byte) error {
	*h = ImageHeader{}
	switch {
	case len(p) > 0 && p[0] != ImageMagic:
		return ErrMagic
	case len(p) < HeaderSize:
		return ErrTruncated
	}
	le := binary.LittleEndian
	h.Segments, h.SPIMode, h.SPIFreqSize = p[1], p[2], p[3]
	h.Entry = le.Uint32(p[4:])
	h.WPPin = p[8]
	copy(h.Drive[:], p[9:])
	h.Chip = le.Uint16(p[12:])
	h.MinRevLegacy = p[14]
	h.MinRev, h.MaxRev = le.Uint16(p[15:]), le.Uint16(p[17:])
	copy(h.Reserved[:], p[19:])
	h.HashAppended = p[23]
	return nil
}

// Encode writes the header.
func (h *ImageHeader) Encode(out *[HeaderSize]byte) {
	le := binary.LittleEndian
	out[0], out[1], out[2], out[3] = ImageMagic, h.Segments, h.SPIMode, h.SPIFreqSize
	le.PutUint32(out[4:], h.Entry)
	out[8] = h.WPPin
	copy(out[9:], h.Drive[:])
	le.PutUint16(out[12:], h.Chip)
	out[14] = h.MinRevLegacy
	le.PutUint16(out[15:], h.MinRev)
	le.PutUint16(out[17:], h.MaxRev)
	copy(out[19:], h.Reserved[:])
	out[23] = h.HashAppended
}

// FlashSize is the size of the flash chip that the header names, in bytes; 0 for a
// code that ESP-IDF does not know. In a bootloader's header it is the size that
// the partition table is held against.
func (h *ImageHeader) FlashSize() uint32 {
	if code := h.SPIFreqSize >> 4; code <= 7 {
		return 1 << 20 << code
	}
	return 0
}

// TailSize is the most that End writes: padding and checksum, then the hash.
const TailSize = 16 + digest.Size

// ImageWriter writes the parts of an image that are computed: the caller sends
// them and, between them, the segments' data, in this order:
//
//	Begin; for each segment: Segment, Data in any pieces; End
//
// It refuses what ImageCheck would refuse. The first error stays.
type ImageWriter struct {
	sha  digest.SHA256
	sum  [digest.Size]byte
	off  uint32 // bytes of the image so far
	left uint32 // bytes of the segment still to come
	chip uint16
	segs uint8 // still to come
	xor  byte
	hash bool
	err  ImageError
}

// Begin starts an image and writes its header.
func (w *ImageWriter) Begin(h *ImageHeader, out *[HeaderSize]byte) error {
	*w = ImageWriter{chip: h.Chip, segs: h.Segments, xor: checksumSeed, hash: h.HashAppended != 0}
	w.sha.Reset()
	if h.Segments == 0 || h.Segments > MaxSegments {
		w.err = ErrSegments
		return w.err
	}
	h.Encode(out)
	w.sha.Write(out[:])
	w.off = HeaderSize
	return nil
}

// Offset is where in the image the next byte goes. A segment that is mapped from
// flash needs its data, 8 bytes behind it, at its address modulo 64 KiB.
func (w *ImageWriter) Offset() uint32 { return w.off }

// Segment begins the next segment, of size bytes, and writes its header.
func (w *ImageWriter) Segment(addr, size uint32, out *[SegmentHeaderSize]byte) error {
	switch {
	case w.err != 0:
	case w.left > 0:
		w.err = ErrTruncated
	case w.segs == 0:
		w.err = ErrSegments
	default:
		w.err = checkSegment(w.chip, addr, size, w.off+SegmentHeaderSize)
	}
	if w.err != 0 {
		return w.err
	}
	binary.LittleEndian.PutUint32(out[0:], addr)
	binary.LittleEndian.PutUint32(out[4:], size)
	w.sha.Write(out[:])
	w.off += SegmentHeaderSize
	w.segs--
	w.left = size
	return nil
}

// Data takes the segment's next bytes; the caller sends them on as they are.
func (w *ImageWriter) Data(p []byte) error {
	if w.err == 0 && uint64(len(p)) > uint64(w.left) {
		w.err = ErrTooLong
	}
	if w.err != 0 {
		return w.err
	}
	for _, b := range p {
		w.xor ^= b
	}
	w.sha.Write(p)
	w.off += uint32(len(p))
	w.left -= uint32(len(p))
	return nil
}

// End writes padding, checksum and hash into out, and says how many bytes of it
// they are.
func (w *ImageWriter) End(out *[TailSize]byte) (n int, err error) {
	if w.err == 0 && (w.left > 0 || w.segs > 0 || w.off == 0) {
		w.err = ErrTruncated
	}
	if w.err != 0 {
		return 0, w.err
	}
	n = int(16 - w.off%16)
	for i := range out[:n] {
		out[i] = 0
	}
	out[n-1] = w.xor
	w.sha.Write(out[:n])
	if w.hash {
		w.sha.Sum(&w.sum)
		n += copy(out[n:], w.sum[:])
	}
	w.off += uint32(n)
	return n, nil
}
