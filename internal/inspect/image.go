package inspect

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/runnel-fota/runnel/core/esp32"
)

func imageFile(data []byte) *Report {
	im, at, err := ReadImage(data)
	r := &Report{Kind: KindImage, Image: im}
	if im.isBootloader(data) {
		r.Kind = KindBootloader
	}
	if err != nil {
		r.Error = fmt.Sprintf("%v at offset 0x%x (%d)", err, at, at)
		r.Offset = &at
	}
	return r
}

// ReadImage reads an image from its first byte. On an error the offset of the
// defect is told, and im holds what could be read in spite of it.
func ReadImage(data []byte) (im *Image, offset int64, err error) {
	data = data[:min(len(data), MaxSize)]
	var c esp32.ImageCheck
	c.Begin(esp32.AnyChip, uint32(len(data)))
	err = c.Write(data)
	if err == nil {
		err = c.End()
	}
	offset = int64(c.Offset())
	im = &Image{Segments: []Segment{}}
	var h esp32.ImageHeader
	if h.Parse(data) != nil {
		return im, offset, err
	}
	im.ChipID, im.Entry = h.Chip, h.Entry
	im.Chip = esp32.ChipName(h.Chip)
	if im.Chip == "" {
		im.Chip = fmt.Sprintf("unknown (%d)", h.Chip)
	}
	im.sums(data, &h)
	if err == nil {
		im.Length = int64(c.Length())
		im.Trailing = int64(len(data)) - im.Length
		offset = 0
	}
	im.describe(data)
	return im, offset, err
}

// sums lists the segments and, where they end inside the file, looks at checksum
// and hash each for itself: ImageCheck stops at the first defect.
func (im *Image) sums(data []byte, h *esp32.ImageHeader) {
	hashed := h.HashAppended != 0
	if hashed {
		im.SHA256OK = new(bool)
	}
	le := binary.LittleEndian
	at, xor := int64(esp32.HeaderSize), byte(0xEF)
	for range min(int(h.Segments), esp32.MaxSegments) {
		if at+esp32.SegmentHeaderSize > int64(len(data)) {
			return
		}
		s := Segment{Address: le.Uint32(data[at:]), Length: le.Uint32(data[at+4:]), FileOffset: at + esp32.SegmentHeaderSize}
		s.Mapped = esp32.Mapped(im.ChipID, s.Address)
		im.Segments = append(im.Segments, s)
		at = s.FileOffset + int64(s.Length)
		for _, b := range data[min(s.FileOffset, int64(len(data))):min(at, int64(len(data)))] {
			xor ^= b
		}
	}
	end := at + 16 - at%16 // behind the checksum
	if end > int64(len(data)) {
		return
	}
	im.ChecksumOK = data[end-1] == xor
	im.Length = end
	if !hashed {
		return
	}
	im.Length += sha256.Size
	if im.Length <= int64(len(data)) {
		sum := sha256.Sum256(data[:end])
		*im.SHA256OK = bytes.Equal(sum[:], data[end:im.Length])
	}
}

// describe reads the app descriptor, or the bootloader's.
func (im *Image) describe(data []byte) {
	if len(data) < esp32.DescOffset {
		return
	}
	var d esp32.AppDesc
	var b esp32.BootDesc
	switch {
	case d.Parse(data[esp32.DescOffset:]):
		im.SecureVersion = &d.SecureVersion
		im.Version, im.Project = text(d.Version[:]), text(d.Project[:])
		im.Built = strings.TrimSpace(text(d.Date[:]) + " " + text(d.Time[:]))
		im.IDFVersion = text(d.IDFVersion[:])
		im.ELFSHA256 = hex.EncodeToString(d.ELFSHA256[:])
	case b.Parse(data[esp32.DescOffset:]):
		v := uint32(b.SecureVersion)
		im.SecureVersion = &v
		im.IDFVersion, im.Built = text(b.IDFVersion[:]), text(b.Built[:])
	}
}

// isBootloader: one that says so; else, as a bootloader is loaded whole, an image
// without an app descriptor and without a segment mapped from flash.
func (im *Image) isBootloader(data []byte) bool {
	var d esp32.AppDesc
	var b esp32.BootDesc
	switch {
	case len(data) < esp32.DescOffset || len(im.Segments) == 0 || d.Parse(data[esp32.DescOffset:]):
		return false
	case b.Parse(data[esp32.DescOffset:]):
		return true
	}
	for _, s := range im.Segments {
		if s.Mapped {
			return false
		}
	}
	// Of other chips it is not known what is mapped; a bootloader is small.
	const most = 0x10000
	return im.Length > 0 && im.Length <= most || im.Length == 0 && len(data) <= most
}

// damaged says what is wrong with an image inside a larger file, that begins at base.
func damaged(err error, base, at int64) string {
	if errors.Is(err, esp32.ErrMagic) {
		return fmt.Sprintf("no image: %v at offset 0x%x", err, base+at)
	}
	return fmt.Sprintf("%v at offset 0x%x", err, base+at)
}

// text is a NUL-terminated field, cleaned for a terminal.
func text(p []byte) string {
	return string(bytes.Map(func(r rune) rune {
		if r < 0x20 || r >= 0x7F && r < 0xA0 || r == 0xFFFD {
			return '?'
		}
		return r
	}, esp32.Text(p)))
}
