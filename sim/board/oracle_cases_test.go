package board

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/sim/nor"
)

// One state of flash each, for Boot and for the real bootloader.

// rebuild lets a change at a whole image be the only defect: checksum and hash are
// made right again.
func rebuild(img []byte) {
	x := byte(0xEF)
	at := esp32.HeaderSize
	for range img[1] {
		n := int(binary.LittleEndian.Uint32(img[at+4:]))
		at += esp32.SegmentHeaderSize
		for _, b := range img[at : at+n] {
			x ^= b
		}
		at += n
	}
	end := at/16*16 + 16
	img[end-1] = x
	if img[23] != 0 {
		sum := sha256.Sum256(img[:end])
		copy(img[end:], sum[:])
	}
}

// TestOracleImages puts images with one defect each into a slot, and lets both
// decide whether it starts.
func TestOracleImages(t *testing.T) {
	g := tiny()
	g.factory = true
	o := newOracle(t)
	le := binary.LittleEndian
	second := func(p []byte) []byte { // header of the second segment
		return p[esp32.HeaderSize+esp32.SegmentHeaderSize+le.Uint32(p[esp32.HeaderSize+4:]):]
	}
	for _, c := range []struct {
		name   string
		starts bool
		change func(p []byte)
	}{
		{"whole", true, func([]byte) {}},
		{"magic", false, func(p []byte) { p[0] = 0xE8 }},
		{"another chip", false, func(p []byte) { p[12] = 9; rebuild(p) }},
		{"17 segments", false, func(p []byte) { p[1] = 17 }},
		{"one segment too many", false, func(p []byte) { p[1]++ }},
		{"a flipped bit in data", false, func(p []byte) { p[1000] ^= 4 }},
		{"two flipped bits that the checksum misses", false, func(p []byte) { p[1000] ^= 4; p[1001] ^= 4 }},
		{"the same without a hash", true, func(p []byte) { p[1000] ^= 4; p[1001] ^= 4; p[23] = 0 }},
		{"checksum without a hash", false, func(p []byte) { p[1000] ^= 4; p[23] = 0 }},
		{"hash", false, func(p []byte) { p[len(p)-1] ^= 1 }},
		{"the end is missing", false, func(p []byte) { fill(p[len(p)-16:], 0xFF) }},
		{"the second half is missing", false, func(p []byte) { fill(p[len(p)/2:], 0xFF) }},
		{"the first sixteen bytes are missing", false, func(p []byte) { fill(p[:16], 0xFF) }},
		{"zeros", false, func(p []byte) { fill(p, 0) }},
		{"segment length no multiple of four", false, func(p []byte) { le.PutUint32(second(p)[4:], le.Uint32(second(p)[4:])-2); rebuild(p) }},
		{"segment of 16 MiB", false, func(p []byte) { le.PutUint32(second(p)[4:], 16<<20) }},
		{"segment longer than the slot", false, func(p []byte) { le.PutUint32(second(p)[4:], 64<<10) }},
		{"segment at an address that can't be mapped there", false, func(p []byte) { le.PutUint32(p[esp32.HeaderSize:], 0x3C000024); rebuild(p) }},
		{"segment that is not loaded", true, func(p []byte) { le.PutUint32(second(p), 0); rebuild(p) }},
		{"hash byte 2", true, func(p []byte) { p[23] = 2; rebuild(p) }},
		{"other flash settings in the header", true, func(p []byte) { p[2], p[3] = 0, 0x4F; rebuild(p) }},
		{"old minimal revision of the chip", true, func(p []byte) { p[14] = 3; rebuild(p) }},
	} {
		img := imageC3(t, g.imgSize, "A", BehaveOK)
		c.change(img)
		b := newBoard(t, g, imageC3(t, g.imgSize, "F", BehaveOK)) // into factory
		b.ChipID = esp32.ChipESP32C3
		table, err := b.Table()
		if err == nil {
			err = b.Chip.Load(table.Find(esp32.TypeApp, esp32.SubtypeOTA0+1).Offset, img)
		}
		e := esp32.NewEntry(2, esp32.StateNew)
		if err == nil {
			err = b.Chip.Load(0xC000, e[:])
		}
		if err != nil {
			t.Fatal(err)
		}
		o.compare(b, c.name)
		if bt, err := b.Boot(); err != nil || (bt.Running == 1) != c.starts {
			t.Errorf("%s: %v, %v", c.name, bt, err)
		}
	}
	o.end()
}

// TestOracleKnownDifferences holds what the virtual board does not do, so that the
// list in docs/design/boot-oracle.md is true: the real one refuses these, or not.
func TestOracleKnownDifferences(t *testing.T) {
	g := tiny()
	for _, c := range []struct {
		name  string
		ours  bool // starts slot 0
		image func(p []byte)
		table func(p []byte) // the entry of app1
		noMD5 bool
	}{
		{"minimal revision of the chip is higher", true, func(p []byte) { p[15] = 99; rebuild(p) }, nil, false},
		{"a segment would overwrite the bootloader", true, func(p []byte) {
			at := esp32.HeaderSize + esp32.SegmentHeaderSize + binary.LittleEndian.Uint32(p[esp32.HeaderSize+4:])
			binary.LittleEndian.PutUint32(p[at:], 0x403CF000)
			rebuild(p)
		}, nil, false},
		{"a partition that ends behind 4 GiB", false, nil, func(p []byte) { binary.LittleEndian.PutUint32(p[8:], 0xFFFF0000) }, true},
	} {
		o := newOracle(t)
		img := imageC3(t, g.imgSize, "A", BehaveOK)
		if c.image != nil {
			c.image(img)
		}
		b := newBoard(t, g, img)
		b.ChipID = esp32.ChipESP32C3
		table, err := b.Table()
		if err != nil {
			t.Fatal(err)
		}
		table.HasMD5 = !c.noMD5
		var raw [esp32.TableSize]byte
		if err := table.Encode(&raw); err != nil {
			t.Fatal(err)
		}
		if c.table != nil {
			c.table(raw[3*32:])
		}
		if err := b.Chip.Load(esp32.TableOffset, raw[:]); err != nil {
			t.Fatal(err)
		}
		o.compare(b, c.name)
		if _, err := b.Boot(); (err == nil) != c.ours || len(o.found) == 0 {
			t.Errorf("%s: ours %v; no difference any more: %q", c.name, err, o.found)
		}
	}
}

func fill(p []byte, b byte) {
	for i := range p {
		p[i] = b
	}
}

// TestOracleRealFirmware boots a release of the firmware that this bootloader came
// with, from its own partition table; then with one bit of it flipped.
func TestOracleRealFirmware(t *testing.T) {
	o := newOracle(t)
	const dir = "firmware/nerdminer-esp32c3/V1.7.0-9bf9108"
	b := &Board{ChipID: esp32.ChipESP32C3}
	var err error
	if b.Chip, err = nor.New(nor.Config{Size: 4 << 20}); err != nil {
		t.Fatal(err)
	}
	var image []byte
	for _, f := range []struct {
		name string
		off  uint32
	}{{"partitions.bin", esp32.TableOffset}, {"firmware.bin", 0x10000}} {
		data, err := os.ReadFile(testenv.Shared(t, dir, f.name))
		if err == nil {
			err = b.Chip.Load(f.off, pad16(data))
			image = data
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	o.compare(b, "as released")
	if bt, err := b.Clone().Boot(); err != nil || bt.Running != 0 {
		t.Errorf("as released: %v, %v", bt, err)
	}
	image[len(image)/2] ^= 0x10
	if err := b.Chip.Load(0x10000, pad16(image)); err != nil {
		t.Fatal(err)
	}
	o.compare(b, "one bit flipped")
	if _, err := b.Boot(); !errors.Is(err, ErrNoImage) {
		t.Errorf("one bit flipped: %v", err)
	}
	if o.steps < uint64(len(image)) {
		t.Errorf("%d instructions for images of %d bytes", o.steps, len(image))
	}
	o.end()
}

// TestOracleTables has both read partition tables, right ones and ones with a defect.
func TestOracleTables(t *testing.T) {
	o := newOracle(t)
	app := imageC3(t, 6<<10, "A", BehaveOK)
	const entry = 32
	for _, c := range []struct {
		name   string
		starts bool
		table  func(*esp32.Table)
		raw    func(p []byte)
	}{
		{"two slots", true, nil, nil},
		{"without MD5", true, func(t *esp32.Table) { t.HasMD5 = false }, nil},
		{"wrong MD5", false, nil, func(p []byte) { p[len(p)-1] ^= 1 }},
		{"changed entry", false, nil, func(p []byte) { p[4] ^= 1 }},
		{"empty", false, nil, func(p []byte) { fill(p, 0xFF) }},
		{"bad magic", false, func(t *esp32.Table) { t.HasMD5 = false }, func(p []byte) { p[entry] = 0 }},
		{"behind the end of the chip", false, func(t *esp32.Table) { t.P[4].Size = 1 << 20 }, nil},
		{"offset behind the end of the chip", false, func(t *esp32.Table) { t.P[4].Offset = 1 << 20 }, nil},
		{"no otadata", true, func(t *esp32.Table) { t.P[0].Subtype = esp32.SubtypeNVS }, nil},
		{"otadata of one sector", false, func(t *esp32.Table) { t.P[0].Size = 0x1000 }, nil},
		{"no slots", false, func(t *esp32.Table) { t.P[2].Type, t.P[3].Type = 0x40, 0x40 }, nil},
		{"a gap between slots", true, func(t *esp32.Table) { t.P[3].Subtype = esp32.SubtypeOTA0 + 2 }, nil},
		{"otadata at 0", true, func(t *esp32.Table) { t.P[0].Offset = 0 }, nil},
		{"a slot twice", false, func(t *esp32.Table) { t.P[3].Subtype = esp32.SubtypeOTA0 }, nil},
		{"a slot of size 0", true, func(t *esp32.Table) { t.P[3].Size = 0 }, nil},
		{"test instead of a slot", true, func(t *esp32.Table) { t.P[2].Subtype = esp32.SubtypeTest }, nil},
		{"more entries than slots, and records that name the last", true, func(t *esp32.Table) {
			extra := t.P[3]
			extra.Subtype = esp32.SubtypeOTA0 + 5
			for t.AppCount() < 17 {
				t.P[t.N] = extra
				t.N++
			}
			t.P[t.N] = t.P[2] // test, with the image: not to be taken for slot 16
			t.P[t.N].Subtype = esp32.SubtypeTest
			t.P[t.N].Label = [16]byte{'t', 'e', 's', 't'}
			t.N++
		}, nil},
		{"factory instead of a slot", true, func(t *esp32.Table) { t.P[2].Subtype = esp32.SubtypeFactory }, nil},
	} {
		b := newBoard(t, tiny(), app)
		b.ChipID = esp32.ChipESP32C3
		table, err := b.Table()
		if err != nil {
			t.Fatal(err)
		}
		if c.table != nil {
			c.table(&table)
		}
		var raw [esp32.TableSize]byte
		if err := table.Encode(&raw); err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		used := int(table.N) * entry
		if table.HasMD5 {
			used += entry
		}
		if c.raw != nil {
			c.raw(raw[:used])
		}
		e := esp32.NewEntry(max(1, table.AppCount()), esp32.StateUndefined)
		if err := errors.Join(b.Chip.Load(esp32.TableOffset, raw[:]), b.Chip.Load(0xC000, e[:])); err != nil {
			t.Fatal(err)
		}
		o.compare(b, c.name)
		if _, err := b.Boot(); (err == nil) != c.starts {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	o.end()
}

// TestOracleResetReasons: why the chip was reset is not looked at, deep sleep
// included, as nothing is remembered in RTC memory (CONFIG_BOOTLOADER_SKIP_VALIDATE_IN_DEEP_SLEEP).
func TestOracleResetReasons(t *testing.T) {
	g := tiny()
	o := newOracle(t)
	for reason := range uint32(25) {
		for _, state := range []uint32{esp32.StateNew, esp32.StatePending} {
			b := newBoard(t, g, imageC3(t, g.imgSize, "A", BehaveOK))
			b.ChipID = esp32.ChipESP32C3
			e := esp32.NewEntry(1, state)
			if err := b.Chip.Load(0xC000, e[:]); err != nil {
				t.Fatal(err)
			}
			o.real.Reset = reason
			clear(o.seen)
			o.compare(b, fmt.Sprintf("reset reason %d, state %d", reason, state))
		}
	}
	if o.written != 2*25 {
		t.Errorf("%d boots wrote otadata", o.written)
	}
	o.end()
}
