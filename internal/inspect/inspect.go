// Package inspect says what a file from or for an ESP32's flash holds: an app or
// bootloader image, a partition table, boot records, or a whole flash dump. The
// verbs that print it are in cmd/runnel.
package inspect

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
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
	KindUnknown    = "unknown"
)

// Report is what a file holds. Members that do not belong to its kind are absent.
type Report struct {
	Kind   string `json:"kind"`
	Error  string `json:"error,omitempty"` // the defect; the file is bad then
	Offset *int64 `json:"error_offset,omitempty"`

	*Image
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
	switch {
	case len(data) == 0:
		return &Report{Kind: KindUnknown, Error: "the file is empty"}
	case len(data) >= 1<<20 && len(data)%65536 == 0 && tableAt(data):
		return flashDump(data)
	case data[0] == esp32.ImageMagic:
		return imageFile(data)
	case len(data) >= 32 && binary.LittleEndian.Uint16(data) == 0x50AA:
		return tableFile(data)
	case len(data) == esp32.OTADataSize || len(data) == 2*esp32.EntrySize:
		return otadataFile(data)
	}
	n := min(len(data), 16)
	return &Report{Kind: KindUnknown, Error: fmt.Sprintf("not an ESP32 image (0xE9), partition table (AA 50), otadata pair (%d bytes) or flash dump: begins with % X",
		esp32.OTADataSize, data[:n]), Offset: new(int64)}
}

func tableAt(data []byte) bool {
	return len(data) > esp32.TableOffset+32 && binary.LittleEndian.Uint16(data[esp32.TableOffset:]) == 0x50AA
}

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
// defect is told, and im holds what was read up to it.
func ReadImage(data []byte) (im *Image, offset int64, err error) {
	var c esp32.ImageCheck
	c.Begin(esp32.AnyChip, uint32(min(len(data), MaxSize)))
	err = c.Write(data)
	if err == nil {
		err = c.End()
	}
	offset = int64(c.Offset())
	im = &Image{Segments: []Segment{}}
	if len(data) < esp32.HeaderSize || data[0] != esp32.ImageMagic {
		return im, offset, err
	}
	le := binary.LittleEndian
	im.ChipID = le.Uint16(data[12:])
	im.Chip = esp32.ChipName(im.ChipID)
	if im.Chip == "" {
		im.Chip = fmt.Sprintf("unknown (%d)", im.ChipID)
	}
	im.Entry = le.Uint32(data[4:])
	im.segments(data)
	bad, _ := err.(esp32.ImageError)
	im.ChecksumOK = err == nil || bad == esp32.ErrHash
	if data[23] == 1 {
		ok := err == nil
		im.SHA256OK = &ok
	}
	if err == nil {
		im.Length = int64(c.Length())
		im.Trailing = int64(len(data)) - im.Length
		offset = 0
	}
	im.describe(data)
	return im, offset, err
}

func (im *Image) segments(data []byte) {
	le := binary.LittleEndian
	at := int64(esp32.HeaderSize)
	for range min(int(data[1]), esp32.MaxSegments) {
		if at+esp32.SegmentHeaderSize > int64(len(data)) {
			return
		}
		s := Segment{Address: le.Uint32(data[at:]), Length: le.Uint32(data[at+4:]), FileOffset: at + esp32.SegmentHeaderSize}
		s.Mapped = esp32.Mapped(im.ChipID, s.Address)
		im.Segments = append(im.Segments, s)
		at = s.FileOffset + int64(s.Length)
	}
}

const (
	descOffset = 32
	descSize   = 256
	descMagic  = 0xABCD5432
)

// describe reads the app descriptor, or the bootloader's.
func (im *Image) describe(data []byte) {
	if len(data) < descOffset+descSize {
		return
	}
	d := data[descOffset:]
	le := binary.LittleEndian
	switch {
	case le.Uint32(d) == descMagic:
		v := le.Uint32(d[4:])
		im.SecureVersion = &v
		im.Version, im.Project = text(d[16:48]), text(d[48:80])
		im.Built = text(d[96:112]) + " " + text(d[80:96])
		im.IDFVersion = text(d[112:144])
		im.ELFSHA256 = hex.EncodeToString(d[144:176])
	case d[0] == 80 && bytes.HasPrefix(d[8:], []byte("v")):
		im.IDFVersion, im.Built = text(d[8:40]), text(d[40:64])
	}
}

// isBootloader: a bootloader is loaded whole, an app has segments mapped from flash.
func (im *Image) isBootloader(data []byte) bool {
	if len(data) >= descOffset+4 && binary.LittleEndian.Uint32(data[descOffset:]) == descMagic || len(im.Segments) == 0 {
		return false
	}
	for _, s := range im.Segments {
		if s.Mapped {
			return false
		}
	}
	return len(data) <= 64<<10
}

// text is a NUL-terminated field, cleaned for a terminal.
func text(p []byte) string {
	p, _, _ = bytes.Cut(p, []byte{0})
	return string(bytes.Map(func(r rune) rune {
		if r < 0x20 || r == 0x7F || r == 0xFFFD {
			return '?'
		}
		return r
	}, p))
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

func flashDump(data []byte) *Report {
	r := &Report{Kind: KindFlash}
	var t esp32.Table
	i, err := t.Parse(data[esp32.TableOffset:], uint32(len(data)))
	if err != nil {
		at := int64(esp32.TableOffset + i*32)
		r.Error, r.Offset = fmt.Sprintf("%v: entry %d at offset 0x%x", err, i, at), &at
		return r
	}
	r.table(&t)
	if p := t.Find(esp32.TypeData, esp32.SubtypeOTA); p != nil && p.Size >= esp32.OTADataSize {
		r.otadata(data[p.Offset:], data[p.Offset+esp32.SectorSize:])
	}
	for i := range t.P[:t.N] {
		p := &t.P[i]
		if p.Type != esp32.TypeApp {
			continue
		}
		s := Slot{Name: text(p.Name())}
		if data[p.Offset] == 0xFF {
			s.Error = "erased"
			r.Slots = append(r.Slots, s)
			continue
		}
		im, at, err := ReadImage(data[p.Offset : p.Offset+p.Size])
		s.Image = im
		if err != nil {
			s.Error = fmt.Sprintf("%v at offset 0x%x", err, int64(p.Offset)+at)
			if len(im.Segments) == 0 {
				s.Image = nil
			}
		}
		r.Slots = append(r.Slots, s)
	}
	return r
}
