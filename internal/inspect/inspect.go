// Package inspect says what a file holds: from or for an ESP32's flash an app or
// bootloader image, a partition table, boot records, or a whole flash dump; a
// raw image for a boot stage of ours, a signed object, a release file, a stream. The verbs that print it are in
// cmd/runnel.
package inspect

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"

	"github.com/runnel-fota/runnel/core/esp32"
)

// MaxSize is the largest file that is read: a 128 MiB flash dump.
const MaxSize = 128 << 20

// Kinds of a file.
const (
	KindImage      = "image"
	KindBootloader = "bootloader"
	KindTable      = "partition-table"
	KindOTAData    = "otadata"
	KindFlash      = "flash"
	KindRaw        = "raw-image"
	KindUnknown    = "unknown"
)

// Report is what a file holds. Members that do not belong to its kind are absent.
type Report struct {
	Kind   string `json:"kind"`
	Error  string `json:"error,omitempty"` // the defect; the file is bad then
	Offset *int64 `json:"error_offset,omitempty"`

	*Image
	*Signed
	Raw        *RawImage   `json:"raw,omitempty"`
	Partitions []Partition `json:"partitions,omitempty"`
	HasMD5     *bool       `json:"md5,omitempty"`
	Entries    []Entry     `json:"entries,omitempty"`
	Active     *int        `json:"active,omitempty"` // of the entries; -1: none
	Slots      []Slot      `json:"slots,omitempty"`
}

// Image is an app or bootloader image.
type Image struct {
	Chip          string    `json:"chip"`
	ChipID        uint16    `json:"chip_id"`
	Entry         uint32    `json:"entry"`
	Segments      []Segment `json:"segments"`
	ChecksumOK    bool      `json:"checksum_ok"`
	SHA256OK      *bool     `json:"sha256_ok"` // null: none is appended
	Length        int64     `json:"length"`    // bytes, without what trails
	Trailing      int64     `json:"trailing,omitempty"`
	Project       string    `json:"project,omitempty"`
	Version       string    `json:"version,omitempty"`
	IDFVersion    string    `json:"idf_version,omitempty"`
	Built         string    `json:"built,omitempty"`
	SecureVersion *uint32   `json:"secure_version,omitempty"`
	ELFSHA256     string    `json:"elf_sha256,omitempty"`
}

// Segment of an image. Data begins at FileOffset.
type Segment struct {
	Address    uint32 `json:"address"`
	Length     uint32 `json:"length"`
	FileOffset int64  `json:"file_offset"`
	Mapped     bool   `json:"mapped"`
}

// Partition of a table.
type Partition struct {
	Name    string `json:"name"`
	Type    uint8  `json:"type"`
	Subtype uint8  `json:"subtype"`
	Offset  uint32 `json:"offset"`
	Size    uint32 `json:"size"`
	Flags   uint32 `json:"flags"`
}

// Entry is a boot record.
type Entry struct {
	Sequence uint32 `json:"sequence"`
	State    string `json:"state"`
	CRCOK    bool   `json:"crc_ok"`
	Valid    bool   `json:"valid"` // the bootloader could select it
	Blank    bool   `json:"blank"`
}

// Slot is an app partition of a flash dump with what it holds.
type Slot struct {
	Name  string `json:"name"`
	Error string `json:"error,omitempty"`
	*Image
}

// File says what data is. It never fails: what is wrong is in Error.
func File(data []byte) *Report {
	if len(data) == 0 {
		return &Report{Kind: KindUnknown, Error: "the file is empty"}
	}
	if base, size, ok := flashAt(data); ok {
		return flashDump(data, base, size)
	}
	switch {
	case data[0] == esp32.ImageMagic:
		return imageFile(data)
	case isRaw(data):
		return rawFile(data)
	case IsEnvelope(data):
		return envelope(data)
	case IsRelease(data):
		return ReleaseFile(context.Background(), bytes.NewReader(data), nil)
	case len(data) >= 32 && binary.LittleEndian.Uint16(data) == 0x50AA:
		return tableFile(data)
	case len(data) == esp32.OTADataSize || len(data) == 2*esp32.EntrySize:
		return otadataFile(data)
	}
	hint := ""
	if vectorTable(data) {
		hint = "; it looks like firmware of a Cortex-M"
	}
	return &Report{Kind: KindUnknown, Offset: new(int64),
		Error: fmt.Sprintf("not an ESP32 image (those begin with E9, this with % X), nor a partition table (AA 50), an otadata pair (%d bytes) or a flash dump%s",
			data[:min(len(data), 4)], esp32.OTADataSize, hint)}
}

// vectorTable: a stack pointer into RAM and a reset vector in Thumb code, as at the
// start of what an ARM Cortex-M boots from.
func vectorTable(data []byte) bool {
	if len(data) < 8 {
		return false
	}
	sp, pc := binary.LittleEndian.Uint32(data), binary.LittleEndian.Uint32(data[4:])
	return sp>>24 == 0x20 && sp%4 == 0 && pc%2 == 1 && pc < 0x20000000
}

func tableFile(data []byte) *Report {
	r := &Report{Kind: KindTable}
	var t esp32.Table
	i, err := t.Parse(data, 0xFFFFFFFF)
	if err != nil {
		at := int64(i) * 32
		r.Error, r.Offset = fmt.Sprintf("%v: entry %d at offset 0x%x", err, i, at), &at
	}
	r.table(&t)
	return r
}

func (r *Report) table(t *esp32.Table) {
	r.HasMD5 = &t.HasMD5
	for i := range t.P[:t.N] {
		p := &t.P[i]
		r.Partitions = append(r.Partitions, Partition{Name: text(p.Name()), Type: p.Type, Subtype: p.Subtype, Offset: p.Offset, Size: p.Size, Flags: p.Flags})
	}
}

func otadataFile(data []byte) *Report {
	r := &Report{Kind: KindOTAData}
	second := esp32.EntrySize
	if len(data) == esp32.OTADataSize {
		second = esp32.SectorSize
	}
	r.otadata(data, data[second:])
	for i, e := range r.Entries {
		if !e.Blank && !e.CRCOK {
			at := int64(i*second + 28)
			r.Error, r.Offset = fmt.Sprintf("record %d: its CRC does not match its sequence, at offset 0x%x (%d)", i, at, at), &at
			break
		}
	}
	return r
}

func (r *Report) otadata(first, second []byte) {
	var e [2]esp32.Entry
	copy(e[0][:], first)
	copy(e[1][:], second)
	for i := range e {
		r.Entries = append(r.Entries, Entry{Sequence: e[i].Seq(), State: StateName(e[i].State()), CRCOK: e[i].CRCOK(),
			Valid: e[i].Valid(), Blank: e[i] == esp32.BlankEntry()})
	}
	a := esp32.Active(&e[0], &e[1])
	r.Active = &a
}

// StateName is ESP-IDF's word for a boot record's state.
func StateName(s uint32) string {
	switch s {
	case esp32.StateNew:
		return "NEW"
	case esp32.StatePending:
		return "PENDING_VERIFY"
	case esp32.StateValid:
		return "VALID"
	case esp32.StateInvalid:
		return "INVALID"
	case esp32.StateAborted:
		return "ABORTED"
	case esp32.StateUndefined:
		return "UNDEFINED"
	}
	return fmt.Sprintf("0x%08X", s)
}
