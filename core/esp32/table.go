package esp32

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
)

// Partition types and subtypes of ESP-IDF, and ours: 0x40 is in the range that
// ESP-IDF leaves to applications.
const (
	TypeApp    uint8 = 0x00
	TypeData   uint8 = 0x01
	TypeRunnel uint8 = 0x40

	SubtypeFactory uint8 = 0x00
	SubtypeOTA0    uint8 = 0x10
	SubtypeTest    uint8 = 0x20
	SubtypeOTA     uint8 = 0x00 // data
	SubtypePHY     uint8 = 0x01 // data
	SubtypeNVS     uint8 = 0x02 // data
	SubtypeJournal uint8 = 0x00 // runnel
	SubtypeState   uint8 = 0x01 // runnel
	SubtypeScratch uint8 = 0x02 // runnel
)

// A table takes 0xC00 bytes: 96 entries, the last of which is never a partition.
const (
	TableOffset    = 0x8000
	TableSize      = 0xC00
	MaxPartitions  = 95
	partitionBytes = 32
)

// Flags of a partition.
const (
	FlagEncrypted uint32 = 1
	FlagReadOnly  uint32 = 2
)

// Partition is one entry.
type Partition struct {
	Type, Subtype uint8
	Offset, Size  uint32 // bytes
	Label         [16]byte
	Flags         uint32
}

// Name is the label up to its first NUL.
func (p *Partition) Name() []byte {
	for i, b := range p.Label {
		if b == 0 {
			return p.Label[:i]
		}
	}
	return p.Label[:]
}

// Table is a partition table; the zero Table is empty.
type Table struct {
	P [MaxPartitions]Partition
	N int
	// HasMD5: the table carries a checksum entry (ESP-IDF 3.1 and later).
	HasMD5 bool
}

// TableError is what is wrong with a table. The bootloader refuses such a table
// and resets; Entry of a Table parse says which entry.
type TableError uint8

const (
	ErrTableShort TableError = iota + 1 // fewer than 32 bytes
	ErrTableEmpty                       // the first entry is the terminator
	ErrTableMagic                       // an entry begins with neither magic nor terminator
	ErrTableRange                       // a partition lies outside the chip
	ErrTableMD5                         // the checksum does not match
	ErrTableEnd                         // no terminator
	ErrTableFull                        // more partitions than fit
)

func (e TableError) Error() string {
	switch e {
	case ErrTableShort:
		return "partition table is cut short"
	case ErrTableEmpty:
		return "partition table is empty"
	case ErrTableMagic:
		return "entry has a bad magic number"
	case ErrTableRange:
		return "partition lies outside the flash chip"
	case ErrTableMD5:
		return "partition table's MD5 does not match"
	case ErrTableEnd:
		return "partition table has no end"
	case ErrTableFull:
		return "too many partitions"
	}
	return "unknown partition table error"
}

const (
	entryMagic = 0x50AA
	md5Magic   = 0xEBEB
)

// Parse reads a binary table as the bootloader verifies it, against a chip of
// flashSize bytes. On an error, entry is the one at fault.
func (t *Table) Parse(p []byte, flashSize uint32) (entry int, err error) {
	*t = Table{}
	le := binary.LittleEndian
	if len(p) > TableSize {
		p = p[:TableSize]
	}
	if len(p) < partitionBytes {
		return 0, ErrTableShort
	}
	for i := 0; (i+1)*partitionBytes <= len(p); i++ {
		e := p[i*partitionBytes:][:partitionBytes]
		switch magic := le.Uint16(e); {
		case magic == 0xFFFF && e[2] == 0xFF && e[3] == 0xFF:
			if t.N == 0 {
				return i, ErrTableEmpty
			}
			return i, nil
		case magic == md5Magic:
			var m digest.MD5
			var sum [16]byte
			m.Reset()
			m.Write(p[:i*partitionBytes])
			m.Sum(&sum)
			if t.HasMD5 || !digest.Equal(sum[:], e[16:]) {
				return i, ErrTableMD5
			}
			t.HasMD5 = true
		case magic == entryMagic:
			if t.N == MaxPartitions {
				return i, ErrTableFull
			}
			q := &t.P[t.N]
			q.Type, q.Subtype = e[2], e[3]
			q.Offset, q.Size = le.Uint32(e[4:]), le.Uint32(e[8:])
			copy(q.Label[:], e[12:28])
			q.Flags = le.Uint32(e[28:])
			if q.Offset > flashSize || q.Size > flashSize-q.Offset {
				return i, ErrTableRange
			}
			t.N++
		default:
			return i, ErrTableMagic
		}
	}
	return len(p) / partitionBytes, ErrTableEnd
}

// Encode writes the table as the generator does, padded with 0xFF.
func (t *Table) Encode(out *[TableSize]byte) error {
	le := binary.LittleEndian
	for i := range out {
		out[i] = 0xFF
	}
	room := TableSize/partitionBytes - 1
	if t.HasMD5 {
		room--
	}
	if t.N > room {
		return ErrTableFull
	}
	for i := 0; i < t.N; i++ {
		e, q := out[i*partitionBytes:][:partitionBytes], &t.P[i]
		le.PutUint16(e, entryMagic)
		e[2], e[3] = q.Type, q.Subtype
		le.PutUint32(e[4:], q.Offset)
		le.PutUint32(e[8:], q.Size)
		copy(e[12:28], q.Label[:])
		le.PutUint32(e[28:], q.Flags)
	}
	if t.HasMD5 {
		e := out[t.N*partitionBytes:][:partitionBytes]
		le.PutUint16(e, md5Magic)
		var m digest.MD5
		var sum [16]byte
		m.Reset()
		m.Write(out[:t.N*partitionBytes])
		m.Sum(&sum)
		copy(e[16:], sum[:])
	}
	return nil
}

// Find returns the last partition of a type and subtype, as the bootloader takes
// the last of duplicates; nil if there is none.
func (t *Table) Find(typ, subtype uint8) *Partition {
	for i := t.N - 1; i >= 0; i-- {
		if t.P[i].Type == typ && t.P[i].Subtype == subtype {
			return &t.P[i]
		}
	}
	return nil
}

// AppCount is the bootloader's count of ota partitions: entries, not numbers.
func (t *Table) AppCount() uint32 {
	n := uint32(0)
	for i := 0; i < t.N; i++ {
		if t.P[i].Type == TypeApp && t.P[i].Subtype&^0x0F == SubtypeOTA0 {
			n++
		}
	}
	return n
}

// Slots is the application's count: ota_0, ota_1, ... up to the first gap.
func (t *Table) Slots() uint8 {
	n := uint8(0)
	for n < 16 && t.Find(TypeApp, SubtypeOTA0+n) != nil {
		n++
	}
	return n
}
