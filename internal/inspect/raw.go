package inspect

import (
	"encoding/binary"
	"fmt"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
)

// RawImage is the app image of a board whose boot stage is ours.
type RawImage struct {
	Format   uint8  `json:"format"`
	Length   int64  `json:"length"` // bytes with the header, without what trails
	Load     uint32 `json:"load"`
	Entry    uint32 `json:"entry"`
	Stack    uint32 `json:"stack"`
	CRC      uint32 `json:"crc32"`
	CRCOK    bool   `json:"crc32_ok"`
	Trailing int64  `json:"trailing,omitempty"`
}

func isRaw(data []byte) bool {
	return len(data) >= 4 && binary.LittleEndian.Uint32(data) == boot.RawMagic
}

func rawFile(data []byte) *Report {
	r := &Report{Kind: KindRaw}
	data = data[:min(len(data), MaxSize)]
	var c boot.RawPass
	var h digest.SHA256
	c.Begin(0, uint32(len(data)), &h)
	err := c.Write(data)
	if err == nil {
		err = c.End()
	}
	if len(data) >= boot.RawHeaderSize {
		// Also of an image that is cut short: its header says how.
		var head boot.RawHeader
		if e := head.Parse((*[boot.RawHeaderSize]byte)(data), 0xFFFFFFFF); e == nil {
			r.Raw = &RawImage{Format: data[4], Length: int64(head.Size), Load: head.Load, Entry: head.Entry, Stack: head.Stack,
				CRC: head.CRC, CRCOK: err == nil, Trailing: max(0, int64(len(data))-int64(head.Size))}
		}
	}
	switch {
	case err == boot.ErrRawTooLong && r.Raw != nil:
		at := int64(len(data))
		r.Error, r.Offset = fmt.Sprintf("the image is cut short: %d of %d bytes", at, r.Raw.Length), &at
	case err != nil:
		at := rawDefect(err, data)
		r.Error, r.Offset = fmt.Sprintf("%v at offset 0x%x (%d)", err, at, at), &at
	}
	return r
}

// rawDefect is the offset of the field that an error is about.
func rawDefect(err error, data []byte) int64 {
	switch err {
	case boot.ErrRawFormat:
		return 4
	case boot.ErrRawSize:
		return 8
	case boot.ErrRawAddress:
		return 12
	case boot.ErrRawCRC:
		return 28
	}
	return int64(len(data))
}
