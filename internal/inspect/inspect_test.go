package inspect

import (
	"bytes"
	"encoding/binary"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
)

// image builds a small app or bootloader image through core's writer.
func image(t testing.TB, chip uint16, app bool, size int, hashed byte) []byte {
	t.Helper()
	h := esp32.ImageHeader{Segments: 2, SPIFreqSize: 0x20, Chip: chip, HashAppended: hashed}
	first := make([]byte, size)
	addr := uint32(0x3FFF0000)
	if app {
		d := esp32.AppDesc{SecureVersion: 3}
		copy(d.Version[:], "1.2.3")
		copy(d.Project[:], "demo\x1b[31m")
		copy(d.IDFVersion[:], "v5.5.1")
		copy(d.Date[:], "Nov 23 2026")
		d.Encode((*[esp32.AppDescSize]byte)(first))
		addr = 0x3F400020
		if chip != esp32.ChipESP32 {
			addr = 0x3C000020
		}
	}
	return build(t, &h, []segment{{addr, first}, {0x40080000, []byte{1, 2, 3, 4}}})
}

type segment struct {
	addr uint32
	data []byte
}

func build(t testing.TB, h *esp32.ImageHeader, segs []segment) []byte {
	t.Helper()
	var w esp32.ImageWriter
	var head [esp32.HeaderSize]byte
	if err := w.Begin(h, &head); err != nil {
		t.Fatal(err)
	}
	img := append([]byte{}, head[:]...)
	for i, s := range segs {
		var sh [esp32.SegmentHeaderSize]byte
		err := w.Segment(s.addr, uint32(len(s.data)), &sh)
		if err == nil {
			err = w.Data(s.data)
		}
		if err != nil {
			t.Fatalf("segment %d at 0x%x: %v", i, s.addr, err)
		}
		img = append(append(img, sh[:]...), s.data...)
	}
	var tail [esp32.TailSize]byte
	n, err := w.End(&tail)
	if err != nil {
		t.Fatal(err)
	}
	return append(img, tail[:n]...)
}

// table is that of a small board with two slots.
func table(t testing.TB) []byte {
	t.Helper()
	const csv = "nvs,data,nvs,,0x3000\notadata,data,ota,,0x2000\napp0,app,ota_0,0x10000,0x20000\napp1,app,ota_1,0x30000,0x20000\n"
	var tab esp32.Table
	if line, err := tab.ParseCSV([]byte(csv), 4<<20); err != nil {
		t.Fatalf("line %d: %v", line, err)
	}
	var raw [esp32.TableSize]byte
	if err := tab.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	return raw[:]
}

// dump is a chip of size bytes with a bootloader, a table, records and an app.
func dump(t testing.TB, chip uint16, size int) []byte {
	t.Helper()
	d := bytes.Repeat([]byte{0xFF}, size)
	at := 0
	if chip == esp32.ChipESP32 {
		at = 0x1000
	}
	put := func(at int, p []byte) {
		if at < size {
			copy(d[at:], p)
		}
	}
	put(at, image(t, chip, false, 4096, 1))
	put(esp32.TableOffset, table(t))
	e := esp32.NewEntry(1, esp32.StateValid)
	put(0xC000, e[:])
	put(0x10000, image(t, chip, true, 4096, 1))
	return d
}

func TestKinds(t *testing.T) {
	blank := bytes.Repeat([]byte{0xFF}, esp32.OTADataSize)
	boots := image(t, esp32.ChipESP32, false, 4096, 1)
	spoilt := func(d []byte, at int, b byte) []byte { d = bytes.Clone(d); d[at] = b; return d }
	torn := spoilt(blank, 0x1000, 5)
	for _, c := range []struct {
		name  string
		data  []byte
		kind  string
		error string // a part of it; "": the file is good
	}{
		{"app", image(t, esp32.ChipESP32, true, 4096, 1), KindImage, ""},
		{"app without a hash", image(t, esp32.ChipESP32, true, 4096, 0), KindImage, ""},
		{"a large app", image(t, esp32.ChipESP32C3, true, 200000, 1), KindImage, ""},
		{"an app's whole partition", append(image(t, esp32.ChipESP32C3, true, 200000, 1), bytes.Repeat([]byte{0xFF}, 1<<20)...)[:1<<20], KindImage, ""},
		{"bootloader", boots, KindBootloader, ""},
		{"bootloader, padded", append(boots, make([]byte, 0x6000)...), KindBootloader, ""},
		{"bootloader, cut short", boots[:2000], KindBootloader, "cut short at offset 0x7d0 (2000)"},
		{"checksum", spoilt(boots, 100, 1), KindBootloader, "checksum does not match at offset 0x"},
		{"table", table(t), KindTable, ""},
		{"table with a bad checksum", spoilt(table(t), 13, 'x'), KindTable, "MD5 does not match: entry 4 at offset 0x80"},
		{"otadata", blank, KindOTAData, ""},
		{"otadata with a torn record", torn, KindOTAData, "record 1: its CRC does not match its sequence, at offset 0x101c (4124)"},
		{"two records", blank[:64], KindOTAData, ""},
		{"flash of an ESP32", dump(t, esp32.ChipESP32, 4<<20), KindFlash, ""},
		{"flash of a C3", dump(t, esp32.ChipESP32C3, 4<<20), KindFlash, ""},
		{"flash with a bad table", spoilt(dump(t, esp32.ChipESP32, 4<<20), 0x8000+13, 'x'), KindFlash, "partition table: partition table's MD5 does not match: entry 4 at offset 0x8080"},
		{"flash without a table", spoilt(dump(t, esp32.ChipESP32, 4<<20), 0x8000, 0), KindFlash, "bad magic number: entry 0 at offset 0x8000"},
		{"flash of a C3 without a table", spoilt(dump(t, esp32.ChipESP32C3, 4<<20), 0x8000, 0), KindFlash, "bad magic number: entry 0 at offset 0x8000"},
		{"merged image", dump(t, esp32.ChipESP32, 0x13000), KindFlash, ""},
		{"merged image of a C3", dump(t, esp32.ChipESP32C3, 0x13000), KindFlash, ""},
		{"merged image from 0x1000 on", dump(t, esp32.ChipESP32, 0x13000)[0x1000:], KindFlash, ""},
		{"merged image, bootloader spoilt", spoilt(dump(t, esp32.ChipESP32C3, 0x13000), 30, 0x7F), KindFlash, ""},
		{"nothing", nil, KindUnknown, "empty"},
		{"text", []byte("hello, world, this is not firmware at all"), KindUnknown, "not an ESP32 image (those begin with E9, this with 68 65 6C 6C)"},
		{"Cortex-M", []byte{0, 0, 5, 0x20, 0xD9, 0x9B, 3, 8, 0, 0}, KindUnknown, "it looks like firmware of a Cortex-M"},
		{"one byte", []byte{0xE9}, KindImage, "cut short"},
	} {
		r := File(c.data)
		if r.Kind != c.kind || (r.Error == "") != (c.error == "") || !strings.Contains(r.Error, c.error) {
			t.Errorf("%s: %s %q, want %s %q", c.name, r.Kind, r.Error, c.kind, c.error)
		}
		if r.Error != "" && len(c.data) > 0 && r.Offset == nil {
			t.Errorf("%s: no offset", c.name)
		}
	}
}

// TestSums: checksum and hash are looked at each for itself.
func TestSums(t *testing.T) {
	good := image(t, esp32.ChipESP32, true, 4096, 1)
	n := len(good)
	for _, c := range []struct {
		name     string
		spoil    func(p []byte) []byte
		checksum bool
		sha256   bool
		length   int64
	}{
		{"good", func(p []byte) []byte { return p }, true, true, int64(n)},
		{"hash", func(p []byte) []byte { p[n-1] ^= 1; return p }, true, false, int64(n)},
		{"data", func(p []byte) []byte { p[400] ^= 1; return p }, false, false, int64(n)},
		{"header", func(p []byte) []byte { p[3] ^= 1; return p }, true, false, int64(n)},
		{"hash cut off", func(p []byte) []byte { return p[:n-32] }, true, false, int64(n)},
		{"cut in a segment", func(p []byte) []byte { return p[:2000] }, false, false, 0},
		{"trailing", func(p []byte) []byte { return append(p, 1, 2, 3) }, true, true, int64(n)},
	} {
		im, _, err := ReadImage(c.spoil(bytes.Clone(good)))
		if im.ChecksumOK != c.checksum || *im.SHA256OK != c.sha256 || im.Length != c.length || (err == nil) != (c.checksum && c.sha256) {
			t.Errorf("%s: checksum %v, sha256 %v, length %d, %v", c.name, im.ChecksumOK, *im.SHA256OK, im.Length, err)
		}
	}
	im, _, err := ReadImage(image(t, esp32.ChipESP32, true, 4096, 0))
	if err != nil || im.SHA256OK != nil || im.Project != "demo?[31m" || im.Version != "1.2.3" || *im.SecureVersion != 3 || im.Built != "Nov 23 2026" {
		t.Errorf("%v: %+v", err, im)
	}
}

// TestSlots: what a dump's app partitions hold.
func TestSlots(t *testing.T) {
	check := func(name string, data []byte, want ...string) {
		t.Helper()
		r := File(data)
		if len(r.Slots) != len(want) || r.Active == nil || *r.Active != 0 {
			t.Fatalf("%s: %+v", name, r)
		}
		for i, s := range r.Slots {
			if !strings.Contains(s.Error, want[i]) || want[i] == "" && s.Error != "" {
				t.Errorf("%s, %s: %q, want %q", name, s.Name, s.Error, want[i])
			}
		}
	}
	d := dump(t, esp32.ChipESP32, 4<<20)
	check("whole", d, "", "erased")
	check("merged", d[:0x12000], "", "not in this file")
	check("merged from 0x1000 on", d[0x1000:0x12000], "", "not in this file")
	d[0x10000+300] ^= 1
	d[0x30000] = 0
	check("spoilt", d, "checksum does not match at offset 0x11", "no image: bad magic byte")
	// A partition of no bytes at the very end.
	var tab esp32.Table
	if _, err := tab.Parse(table(t), 4<<20); err != nil {
		t.Fatal(err)
	}
	tab.P[3].Offset, tab.P[3].Size = 4<<20, 0
	var raw [esp32.TableSize]byte
	if err := tab.Encode(&raw); err != nil {
		t.Fatal(err)
	}
	copy(d[esp32.TableOffset:], raw[:])
	check("of no bytes", d, "checksum", "has no bytes")
}

func FuzzFile(f *testing.F) {
	f.Add(image(f, esp32.ChipESP32, true, 512, 1), false)
	f.Add(table(f), false)
	f.Add(table(f), true)
	f.Fuzz(func(t *testing.T, p []byte, asTable bool) {
		r := File(p)
		if asTable { // in its place in a chip, with records that end behind it
			d := bytes.Repeat([]byte{0xFF}, 1<<20)
			copy(d[esp32.TableOffset:], p)
			binary.LittleEndian.PutUint16(d[esp32.TableOffset:], 0x50AA)
			r = File(d)
		}
		if r.Kind == KindUnknown && r.Error == "" {
			t.Fatal("unknown, and no reason")
		}
	})
}
