package esp32

import (
	"bytes"
	"crypto/md5"
	"errors"
	"strings"
	"testing"
)

const csvDefault = `# Name, Type, SubType, Offset, Size, Flags
nvs,      data, nvs,     ,        0x6000,
phy_init, data, phy,     ,        0x1000,
factory,  app,  factory, ,        1M,
ota_0,    app,  ota_0,   ,        1M,
ota_1,    app,  ota_1,   ,        -0x400000, encrypted
`

func TestParseCSV(t *testing.T) {
	var table Table
	// otadata would not fit between here; the first app moves to 64 KiB.
	if line, err := table.ParseCSV([]byte(csvDefault), 4<<20); err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	want := []struct {
		name         string
		offset, size uint32
	}{{"nvs", 0x9000, 0x6000}, {"phy_init", 0xF000, 0x1000}, {"factory", 0x10000, 1 << 20}, {"ota_0", 0x110000, 1 << 20}, {"ota_1", 0x210000, 0x1F0000}}
	for i, w := range want {
		if p := &table.P[i]; string(p.Name()) != w.name || p.Offset != w.offset || p.Size != w.size {
			t.Errorf("%d: %s 0x%x 0x%x, want %+v", i, p.Name(), p.Offset, p.Size, w)
		}
	}
	if table.P[4].Flags != FlagEncrypted || table.AppCount() != 2 || table.Slots() != 2 {
		t.Error("flags or slots are wrong")
	}
	var raw [TableSize]byte
	if err := table.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	var again Table
	if i, err := again.Parse(raw[:], 4<<20); err != nil || again != table {
		t.Errorf("entry %d: %v; or the table changed", i, err)
	}
}

func TestCSVShelf(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       error
	}{
		{"too few fields", "a,app,ota_0", ErrCSVFields},
		{"too many fields", "a,app,ota_0,,1M,,x", ErrCSVFields},
		{"no name", ",app,ota_0,,1M", ErrCSVName},
		{"long name", "abcdefghijklmnopq,app,ota_0,,1M", ErrCSVName},
		{"control character in a name", "a\x01b,app,ota_0,,1M", ErrCSVName},
		{"recovery partition table", "a,partition_table,recovery,,4K", ErrCSVSubtype},
		{"same name", "a,app,ota_0,,1M\na,app,ota_1,,1M", ErrCSVName},
		{"type", "a,apps,ota_0,,1M", ErrCSVType},
		{"type too large", "a,255,0,,1M", ErrCSVType},
		{"subtype", "a,app,ota_16,,1M", ErrCSVSubtype},
		{"app without subtype", "a,app,,,1M", ErrCSVSubtype},
		{"size", "a,app,ota_0,,1G", ErrCSVNumber},
		{"size empty", "a,app,ota_0,,", ErrCSVNumber},
		{"size beyond 32 bits", "a,app,ota_0,,4096M", ErrCSVNumber},
		{"app not at 64 KiB", "a,app,ota_0,0x11000,1M", ErrCSVAlign},
		{"data not at 4 KiB", "a,data,nvs,0x9100,0x3000", ErrCSVAlign},
		{"size not in 4 KiB", "a,data,nvs,,0x3100", ErrCSVAlign},
		{"size zero", "a,data,nvs,,0", ErrCSVAlign},
		{"over the table", "a,data,nvs,0x8000,0x3000", ErrCSVOverlap},
		{"overlap", "a,data,nvs,0x9000,0x4000\nb,data,phy,0xA000,0x1000", ErrCSVOverlap},
		{"outside", "a,app,ota_0,,8M", ErrCSVRange},
		{"ends before it starts", "a,app,ota_0,0x100000,-0x10000", ErrCSVRange},
		{"flag", "a,app,ota_0,,1M,secret", ErrCSVFlags},
		{"otadata size", "a,data,ota,,0x1000", ErrCSVOTAData},
		{"otadata twice", "a,data,ota,,0x2000\nb,data,ota,,0x2000", ErrCSVOTAData},
		{"small nvs", "a,data,nvs,,0x2000", ErrCSVNVS},
	} {
		var table Table
		if _, err := table.ParseCSV([]byte(c.text), 4<<20); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestTableShelf(t *testing.T) {
	var good Table
	if _, err := good.ParseCSV([]byte(csvDefault), 4<<20); err != nil {
		t.Fatal(err)
	}
	var raw [TableSize]byte
	if err := good.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func(p []byte) []byte
		size  uint32
		want  error
	}{
		{"empty", func(p []byte) []byte { return nil }, 4 << 20, ErrTableShort},
		{"erased", func(p []byte) []byte { return bytes.Repeat([]byte{0xFF}, len(p)) }, 4 << 20, ErrTableEmpty},
		{"bad magic", func(p []byte) []byte { p[32] = 0; return p }, 4 << 20, ErrTableMagic},
		{"changed", func(p []byte) []byte { p[13] ^= 1; return p }, 4 << 20, ErrTableMD5},
		{"smaller chip", func(p []byte) []byte { return p }, 2 << 20, ErrTableRange},
		{"cut in the first entry", func(p []byte) []byte { return p[:31] }, 4 << 20, ErrTableShort},
		{"two checksums", func(p []byte) []byte { copy(p[6*32:], p[5*32:6*32]); return p }, 4 << 20, ErrTableMD5},
		{"checksum of another table", func(p []byte) []byte { p[5*32+16] ^= 1; return p }, 4 << 20, ErrTableMD5},
		{"half a terminator", func(p []byte) []byte { p[6*32+2] = 0; return p }, 4 << 20, ErrTableMagic},
		{"offset and size wrap around", func(p []byte) []byte { copy(p[4:], "\xff\xff\xff\xff\xff\xff\xff\xff"); return p }, 4 << 20, ErrTableRange},
		{"no end", func(p []byte) []byte { return p[:6*32] }, 4 << 20, ErrTableEnd},
	} {
		var table Table
		if _, err := table.Parse(c.spoil(bytes.Clone(raw[:])), c.size); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

// TestTableGolden is a table byte for byte: one partition, its checksum, erased bytes.
func TestTableGolden(t *testing.T) {
	table := Table{N: 1, HasMD5: true}
	table.P[0] = Partition{Type: TypeData, Subtype: SubtypeOTA, Offset: 0xE000, Size: 0x2000, Flags: FlagEncrypted}
	copy(table.P[0].Label[:], "otadata")
	entry := "\xaaP\x01\x00\x00\xe0\x00\x00\x00\x20\x00\x00otadata\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00"
	sum := md5.Sum([]byte(entry))
	want := entry + "\xeb\xeb" + strings.Repeat("\xff", 14) + string(sum[:]) + strings.Repeat("\xff", TableSize-64)
	var out [TableSize]byte
	if err := table.Encode(&out); err != nil || string(out[:]) != want {
		t.Errorf("%v: % X", err, out[:96])
	}
	table.HasMD5 = false
	if err := table.Encode(&out); err != nil || string(out[:]) != entry+strings.Repeat("\xff", TableSize-32) {
		t.Errorf("%v: % X", err, out[:96])
	}
	table.N, table.HasMD5 = MaxPartitions, true
	if err := table.Encode(&out); !errors.Is(err, ErrTableFull) {
		t.Errorf("95 partitions and a checksum: %v", err)
	}
}

func FuzzTable(f *testing.F) {
	var t Table
	if _, err := t.ParseCSV([]byte(csvDefault), 4<<20); err != nil {
		f.Fatal(err)
	}
	var raw [TableSize]byte
	if err := t.Encode(&raw); err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:])
	f.Fuzz(func(t *testing.T, p []byte) {
		var table Table
		if _, err := table.Parse(p, 16<<20); err != nil {
			return
		}
		writeAndRead(t, &table)
		var out [TableSize]byte
		if err := table.Encode(&out); err != nil {
			return // 95 partitions and a checksum do not fit the generator's file
		}
		var again Table
		if _, err := again.Parse(out[:], 16<<20); err != nil || again != table {
			t.Fatalf("written and read again: %v", err)
		}
	})
}

func FuzzCSV(f *testing.F) {
	f.Add([]byte(csvDefault))
	f.Add([]byte("a,0x40,1,,4K,readonly:encrypted\n"))
	f.Fuzz(func(t *testing.T, p []byte) {
		var table Table
		if _, err := table.ParseCSV(p, 16<<20); err != nil || table.N == 0 {
			return
		}
		if _, err := table.EncodeCSV(make([]byte, MaxCSVSize)); err != nil {
			t.Fatalf("read, but not to be written: %v", err)
		}
		writeAndRead(t, &table)
		var out [TableSize]byte
		if err := table.Encode(&out); err != nil {
			return
		}
		var again Table
		if i, err := again.Parse(out[:], 16<<20); err != nil {
			t.Fatalf("accepted, but the bootloader refuses entry %d: %v", i, err)
		}
	})
}
