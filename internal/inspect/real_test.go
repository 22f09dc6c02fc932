package inspect

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/testenv"
)

// realFiles are the files of shared/firmware by kind; how many of each there must be.
func realFiles(t *testing.T) map[string][]string {
	t.Helper()
	root := testenv.Shared(t, "firmware")
	files := map[string][]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || filepath.Ext(path) != ".bin" {
			return err
		}
		kind := KindImage
		switch name := d.Name(); {
		case strings.Contains(path, "stm32"):
			kind = KindUnknown
		case strings.HasPrefix(name, "partitions"), name == "default.bin":
			kind = KindTable
		case strings.HasPrefix(name, "boot_app0"):
			kind = KindOTAData
		case strings.Contains(name, "bootloader"):
			kind = KindBootloader
		}
		files[kind] = append(files[kind], path)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for kind, n := range map[string]int{KindImage: 12, KindBootloader: 9, KindTable: 4, KindOTAData: 2, KindUnknown: 5} {
		if len(files[kind]) < n {
			t.Errorf("%d files of kind %s, at least %d expected", len(files[kind]), kind, n)
		}
	}
	return files
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// short is a file's name for people: its last three elements.
func short(path string) string {
	e := strings.Split(filepath.ToSlash(path), "/")
	return strings.Join(e[max(0, len(e)-3):], "/")
}

// TestRealFiles: each real file is what it is, and sound.
func TestRealFiles(t *testing.T) {
	for kind, files := range realFiles(t) {
		for _, path := range files {
			r := File(read(t, path))
			if r.Kind != kind || (r.Error == "") == (kind == KindUnknown) {
				t.Errorf("%s: %s %q, want %s", short(path), r.Kind, r.Error, kind)
				continue
			}
			switch kind {
			case KindImage, KindBootloader:
				if !r.ChecksumOK || r.SHA256OK == nil || !*r.SHA256OK || len(r.Segments) < 3 {
					t.Errorf("%s: checksum %v, sha256 %v, %d segments", short(path), r.ChecksumOK, r.SHA256OK, len(r.Segments))
				}
				old := strings.Contains(path, "lobo")
				if kind == KindImage && (r.Project == "") != old {
					t.Errorf("%s: project %q", short(path), r.Project)
				}
			case KindUnknown:
				if !strings.Contains(r.Error, "not an ESP32 image") || !strings.Contains(r.Error, "Cortex-M") {
					t.Errorf("%s: %s", short(path), r.Error)
				}
			}
		}
	}
}

// TestRealImagesAgain takes each real image into its parts (header, segments, what
// trails) and builds it again, alone and with bytes behind it.
func TestRealImagesAgain(t *testing.T) {
	files := realFiles(t)
	built, apps, boots := 0, 0, 0
	for _, path := range append(files[KindImage], files[KindBootloader]...) {
		data := read(t, path)
		im, at, err := ReadImage(data)
		if err != nil {
			t.Errorf("%s: %v at 0x%x", short(path), err, at)
			continue
		}
		var h esp32.ImageHeader
		if err := h.Parse(data); err != nil {
			t.Errorf("%s: %v", short(path), err)
			continue
		}
		var segs []segment
		for _, s := range im.Segments {
			segs = append(segs, segment{s.Address, data[s.FileOffset:][:s.Length]})
		}
		// The descriptor is a part of the first segment.
		var app esp32.AppDesc
		var boot esp32.BootDesc
		first := bytes.Clone(segs[0].data)
		switch {
		case app.Parse(first):
			clear(first[:esp32.AppDescSize])
			app.Encode((*[esp32.AppDescSize]byte)(first))
			apps++
		case boot.Parse(first):
			clear(first[:esp32.BootDescSize])
			boot.Encode((*[esp32.BootDescSize]byte)(first))
			boots++
		}
		segs[0].data = first
		again := append(build(t, &h, segs), data[im.Length:]...)
		if !bytes.Equal(again, data) {
			t.Errorf("%s: built again it differs at 0x%x, %d and %d bytes", short(path), firstDifference(again, data), len(again), len(data))
		}
		built++
	}
	t.Logf("%d images built again, %d app descriptors, %d bootloader descriptors", built, apps, boots)
	if built < 21 || apps < 9 || boots < 3 {
		t.Error("too few: the test looks at the wrong folder")
	}
}

func firstDifference(a, b []byte) int {
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// TestRealTablesAgain: binary to binary, and binary to CSV to binary.
func TestRealTablesAgain(t *testing.T) {
	for _, path := range realFiles(t)[KindTable] {
		data := read(t, path)
		var tab esp32.Table
		if i, err := tab.Parse(data, 4<<20); err != nil {
			t.Errorf("%s: entry %d: %v", short(path), i, err)
			continue
		}
		var out [esp32.TableSize]byte
		if err := tab.Encode(&out); err != nil || !bytes.Equal(out[:], data) {
			t.Errorf("%s: encoded again: %v, differs at 0x%x", short(path), err, firstDifference(out[:], data))
		}
		csv := make([]byte, esp32.MaxCSVSize)
		n, err := tab.EncodeCSV(csv)
		if err != nil {
			t.Errorf("%s: as CSV: partition %d: %v", short(path), n, err)
			continue
		}
		var again esp32.Table
		if line, err := again.ParseCSV(csv[:n], 4<<20); err != nil {
			t.Errorf("%s: CSV line %d: %v", short(path), line, err)
			continue
		}
		again.HasMD5 = tab.HasMD5 // a CSV does not say
		if err := again.Encode(&out); err != nil || !bytes.Equal(out[:], data) {
			t.Errorf("%s: by way of CSV: %v, differs at 0x%x\n%s", short(path), err, firstDifference(out[:], data), csv[:n])
		}
	}
}

// TestRealOTADataAgain: two records in their sectors are the whole partition.
func TestRealOTADataAgain(t *testing.T) {
	for _, path := range realFiles(t)[KindOTAData] {
		again := bytes.Repeat([]byte{0xFF}, esp32.OTADataSize)
		for i, seq := range []uint32{1, 0} {
			e := esp32.NewEntry(seq, esp32.StateUndefined)
			copy(again[i*esp32.SectorSize:], e[:])
		}
		if data := read(t, path); !bytes.Equal(again, data) {
			t.Errorf("%s: built again it differs at 0x%x", short(path), firstDifference(again, data))
		}
	}
}

// TestVectorsAreTheSharedOnes: core's copy of the bootloader's own decisions.
func TestVectorsAreTheSharedOnes(t *testing.T) {
	const name = "otadata-select-vectors.json"
	want := read(t, testenv.Shared(t, "vectors", name))
	if got := read(t, filepath.Join(testenv.Root(), "core", "esp32", "testdata", name)); !bytes.Equal(got, want) {
		t.Errorf("testdata/%s differs from the shared one at byte %d", name, firstDifference(got, want))
	}
}

// TestRealMergedFlash puts real parts into their places, as esptool merges them.
func TestRealMergedFlash(t *testing.T) {
	parts := func(folder string) (boot, table, app []byte) {
		dir := testenv.Shared(t, "firmware", filepath.FromSlash(folder))
		return read(t, filepath.Join(dir, "bootloader.bin")), read(t, filepath.Join(dir, "partitions.bin")), read(t, filepath.Join(dir, "firmware.bin"))
	}
	for _, c := range []struct {
		folder string
		at     int // of the bootloader
		slots  int
	}{{"fluidnc-esp32/v4.0.1", 0x1000, 2}, {"nerdminer-esp32c3/V1.7.0-9bf9108", 0, 1}} {
		boot, table, app := parts(c.folder)
		d := bytes.Repeat([]byte{0xFF}, 0x10000+len(app))
		copy(d[c.at:], boot)
		copy(d[esp32.TableOffset:], table)
		copy(d[0x10000:], app)
		for name, file := range map[string][]byte{"merged": d, "whole chip": append(bytes.Clone(d), bytes.Repeat([]byte{0xFF}, 4<<20-len(d))...)} {
			r := File(file)
			if r.Kind != KindFlash || r.Error != "" || len(r.Slots) != c.slots || r.Slots[0].Error != "" || r.Slots[0].Image == nil || !r.Slots[0].ChecksumOK {
				t.Errorf("%s, %s: %s %q, slots %+v", c.folder, name, r.Kind, r.Error, r.Slots)
			}
		}
	}
}
