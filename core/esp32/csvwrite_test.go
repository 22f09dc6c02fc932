package esp32

import (
	"bytes"
	"errors"
	"strings"
	"testing"
)

// goldenCSV is what ESP-IDF's generator prints for this table.
const goldenCSV = `# ESP-IDF Partition Table
# Name, Type, SubType, Offset, Size, Flags
nvs,data,nvs,0x9000,24K,
otadata,data,ota,0xf000,8K,
factory,app,factory,0x20000,1M,
ota_0,app,ota_0,0x120000,1M,
ota_1,app,ota_1,0x220000,960K,encrypted
rnl_state,64,1,0x310000,8K,
keys,data,nvs_keys,0x312000,4K,encrypted:readonly
other,data,undefined,0x313000,4K,readonly
odd,data,153,0x314000,4K,
boot_ota,bootloader,recovery,0x315000,32K,
sixteen_bytes_nm,app,test,0x320000,64K,
`

func TestEncodeCSV(t *testing.T) {
	var table Table
	if line, err := table.ParseCSV([]byte(goldenCSV), 4<<20); err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	out := make([]byte, MaxCSVSize)
	n, err := table.EncodeCSV(out)
	if err != nil || string(out[:n]) != goldenCSV {
		t.Fatalf("%v:\n%s", err, out[:n])
	}
	for short := range n {
		if _, err := table.EncodeCSV(out[:short]); !errors.Is(err, ErrCSVRoom) {
			t.Fatalf("into %d of %d bytes: %v", short, n, err)
		}
	}
	// The most that a table can need.
	table = Table{HasMD5: true}
	for i := range MaxPartitions - 1 {
		p := &table.P[i]
		*p = Partition{Type: TypeData, Subtype: 0xFE, Offset: 0xF0000000 + uint32(i)<<16, Size: 0x1000, Flags: 3}
		copy(p.Label[:], strings.Repeat("n", 14))
		p.Label[14], p.Label[15] = 'a'+byte(i/26), 'a'+byte(i%26)
		table.N++
	}
	if _, err := table.EncodeCSV(out); err != nil {
		t.Errorf("the largest table: %v", err)
	}
	table.N = MaxPartitions
	if _, err := table.EncodeCSV(out); !errors.Is(err, ErrCSVFull) {
		t.Errorf("95 partitions: %v", err)
	}
}

// TestEncodeCSVShelf: tables that a CSV can't say, one defect each.
func TestEncodeCSVShelf(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(t *Table)
		at    int
		want  error
	}{
		{"no name", func(t *Table) { t.P[1].Label = [16]byte{} }, 1, ErrCSVName},
		{"comma", func(t *Table) { t.P[1].Label[0] = ',' }, 1, ErrCSVName},
		{"comment", func(t *Table) { t.P[1].Label[3] = '#' }, 1, ErrCSVName},
		{"line break", func(t *Table) { t.P[1].Label[2] = '\n' }, 1, ErrCSVName},
		{"space in front", func(t *Table) { t.P[1].Label[0] = ' ' }, 1, ErrCSVName},
		{"bytes behind the name", func(t *Table) { t.P[1].Label[15] = 1 }, 1, ErrCSVName},
		{"name twice", func(t *Table) { t.P[1].Label = t.P[0].Label }, 1, ErrCSVName},
		{"type of an erased byte", func(t *Table) { t.P[1].Type = 0xFF }, 1, ErrCSVType},
		{"subtype of an erased byte", func(t *Table) { t.P[1].Subtype = 0xFF }, 1, ErrCSVSubtype},
		{"unknown flag", func(t *Table) { t.P[2].Flags = 4 }, 2, ErrCSVFlags},
		{"unaligned", func(t *Table) { t.P[2].Offset += 0x1000 }, 2, ErrCSVAlign},
		{"size of nothing", func(t *Table) { t.P[0].Size = 0 }, 0, ErrCSVAlign},
		{"overlap", func(t *Table) { t.P[1].Offset = t.P[0].Offset }, 1, ErrCSVOverlap},
		{"over the table itself", func(t *Table) { t.P[0].Offset = 0x8000 }, 0, ErrCSVOverlap},
		{"past 4 GiB", func(t *Table) { t.P[4].Size = 0xFFFFF000 }, 4, ErrCSVRange},
	} {
		var table Table
		if _, err := table.ParseCSV([]byte(csvDefault), 4<<20); err != nil {
			t.Fatal(err)
		}
		c.spoil(&table)
		if at, err := table.EncodeCSV(make([]byte, MaxCSVSize)); !errors.Is(err, c.want) || at != c.at {
			t.Errorf("%s: %v at %d, want %v at %d", c.name, err, at, c.want, c.at)
		}
	}
}

// writeAndRead: a table that a CSV can say is read back the same.
func writeAndRead(t *testing.T, table *Table) {
	t.Helper()
	out := make([]byte, MaxCSVSize)
	n, err := table.EncodeCSV(out)
	if errors.Is(err, ErrCSVRoom) {
		t.Fatalf("MaxCSVSize is too small for %d partitions", table.N)
	}
	if err != nil {
		return
	}
	var again Table
	line, err := again.ParseCSV(out[:n], 0xFFFFFFFF)
	again.HasMD5 = table.HasMD5
	if err != nil || again.N != table.N || again.P != table.P {
		t.Fatalf("line %d: %v\n%s", line, err, out[:n])
	}
	second := make([]byte, MaxCSVSize)
	if m, err := again.EncodeCSV(second); err != nil || !bytes.Equal(second[:m], out[:n]) {
		t.Fatalf("written again: %v\n%s", err, second[:m])
	}
}
