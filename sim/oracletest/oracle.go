// Package oracletest runs a real ESP32-C3 bootloader, machine code and all, so that
// tests can ask it what it would do: it is the judge of core/esp32's boot functions
// and of sim/board's Boot. It is for tests only; the binary comes from outside the
// repository and is never committed.
//
// docs/design/boot-oracle.md says what is executed and what is replaced.
package oracletest

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/sim/rv32"
)

// The one binary whose addresses are known: Arduino's bootloader for the ESP32-C3,
// ESP-IDF 4.4.6, with CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE.
const (
	fileName   = "firmware/nerdminer-esp32c3/V1.7.0-9bf9108/bootloader.bin"
	fileSHA256 = "b800a76c85c19db0bf5e40331d11736feae2c783d70d36f4d2b6fd8bda0ec32e"
)

// Places in it, found by disassembly.
const (
	// In call_start_cpu0, behind the set-up of the hardware: wake from deep sleep,
	// partition table, selection, load.
	addrMain      = 0x403CC738
	addrMainFrame = 0xC0 // bytes of its stack frame

	addrSelect = 0x403CF79C // bootloader_utility_get_selected_boot_partition(state)
	addrLoad   = 0x403CF91C // bootloader_utility_load_boot_image(state, index): does not return

	addrInitialContents = 0x3FCD5711 // static bool ota_has_initial_contents
)

// bootloader_state_t: partitions as offset and size in bytes.
const (
	stateOTAData  = 0
	stateFactory  = 8
	stateTest     = 16
	stateOTA      = 24 // 16 slots
	stateAppCount = 152
	stateSize     = 160
	maxSlots      = 16
)

// Limits of instructions. A selection takes some hundred; a boot copies and hashes
// images, at about four instructions a byte.
const (
	limitCall = 100_000
	limitBoot = 200_000_000
)

// Flash is what the bootloader sees of a chip. Offsets are bytes; what it reads is
// what the cache would show, decrypted.
type Flash interface {
	ReadAt(p []byte, off uint32) error
	Program(p []byte, off uint32) error
	Erase(off, length uint32) error
}

// Op is a flash operation that the bootloader did.
type Op struct {
	Erase     bool
	Encrypted bool // written by way of the encryption unit
	Off, Len  uint32
}

func (o Op) String() string {
	kind := "write"
	if o.Erase {
		kind = "erase"
	}
	return fmt.Sprintf("%s 0x%x +%d", kind, o.Off, o.Len)
}

// Bootloader is the machine. It is not safe for concurrent use.
type Bootloader struct {
	// Encrypted burns SPI_BOOT_CRYPT_CNT: flash encryption is on.
	Encrypted bool
	// Reset is what rtc_get_reset_reason returns; 0 is taken as 1, power on.
	Reset uint32
	// Ops are the flash operations of the last run; Steps its instructions.
	Ops   []Op
	Steps uint64

	m machine
}

// Open loads the bootloader from the shared material. Without it the test skips,
// and in CI it fails.
func Open(t testing.TB) *Bootloader {
	t.Helper()
	raw, err := os.ReadFile(testenv.Shared(t, fileName))
	if err != nil {
		t.Fatal(err)
	}
	b, err := New(raw)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// New takes the bootloader's file.
func New(raw []byte) (*Bootloader, error) {
	if sum := sha256.Sum256(raw); hex.EncodeToString(sum[:]) != fileSHA256 {
		return nil, fmt.Errorf("not the bootloader whose addresses are known: SHA-256 %x, want %s", sum, fileSHA256)
	}
	segs, err := segments(raw)
	if err != nil {
		return nil, err
	}
	b := &Bootloader{}
	b.m.init(segs)
	return b, nil
}

// segment is a piece of an image with its place in memory.
type segment struct {
	addr uint32
	data []byte
}

// segments takes an image apart that the bootloader's own checks would accept.
func segments(raw []byte) ([]segment, error) {
	var check esp32.ImageCheck
	check.Begin(esp32.ChipESP32C3, uint32(len(raw)))
	err := check.Write(raw)
	if err == nil {
		err = check.End()
	}
	if err != nil {
		return nil, fmt.Errorf("bootloader image: %w at offset 0x%x", err, check.Offset())
	}
	var list []segment
	at := uint32(esp32.HeaderSize)
	for range check.Segments() {
		addr, n := binary.LittleEndian.Uint32(raw[at:]), binary.LittleEndian.Uint32(raw[at+4:])
		at += esp32.SegmentHeaderSize
		list = append(list, segment{addr, raw[at : at+n]})
		at += n
	}
	return list, nil
}

// State is what the bootloader knows of the partition table: offsets and sizes.
// A size of 0 means that there is no such partition.
type State struct {
	OTAData, Factory, Test Place
	OTA                    [maxSlots]Place
	// AppCount is the number of ota entries in the table, not that of slots in use.
	AppCount uint32
}

// Place is a partition.
type Place struct{ Off, Size uint32 }

// put writes bootloader_state_t into the machine's memory.
func (s *State) put(m *machine) uint32 {
	const addr = 0x3FCD8000 // in between data and stack
	p := m.slice(addr, stateSize)
	clear(p)
	le := binary.LittleEndian
	place := func(at int, pl Place) {
		le.PutUint32(p[at:], pl.Off)
		le.PutUint32(p[at+4:], pl.Size)
	}
	place(stateOTAData, s.OTAData)
	place(stateFactory, s.Factory)
	place(stateTest, s.Test)
	for i, pl := range s.OTA {
		place(stateOTA+8*i, pl)
	}
	le.PutUint32(p[stateAppCount:], s.AppCount)
	return addr
}

// Index values beside those of core/esp32.
const InvalidIndex int32 = -99 // otadata can't be read: the bootloader resets

// Select runs the selection. f holds the otadata partition, which is written.
// initial is the flag that the load looks at: the records say nothing.
func (b *Bootloader) Select(f Flash, s *State) (index int32, initial bool, err error) {
	b.begin(f)
	a0, err := b.m.cpu.Call(limitCall, addrSelect, s.put(&b.m))
	b.end()
	if err != nil {
		return 0, false, err
	}
	return int32(a0), b.m.mem.Slice(addrInitialContents, 1)[0] != 0, nil
}

// Load runs the load from a start index. tried is called with the offset of each
// partition that the bootloader tries, and says whether its image verifies; the
// check itself is not executed. initial is Select's flag.
//
// It returns the offset of what starts; ok is false if the bootloader resets.
func (b *Bootloader) Load(f Flash, s *State, start int32, initial bool, tried func(off uint32) bool) (off uint32, ok bool, err error) {
	b.begin(f)
	if initial {
		b.m.slice(addrInitialContents, 1)[0] = 1
	}
	b.m.checkWith(tried)
	_, err = b.m.cpu.Call(limitCall, addrLoad, s.put(&b.m), uint32(start))
	b.end()
	return b.ended(err)
}

// Boot runs the whole decision on a chip: partition table, selection, images with
// their checks and hashes, the load, up to the jump into the application. It
// returns the offset of what starts; ok is false if the bootloader resets.
// flashSize is the chip's size as the bootloader's own header says it, in bytes.
func (b *Bootloader) Boot(f Flash, flashSize uint32) (off uint32, ok bool, err error) {
	b.begin(f)
	b.m.setFlashSize(flashSize)
	b.m.cpu.X[rv32.SP] -= addrMainFrame
	b.m.cpu.PC = addrMain
	err = b.m.cpu.Run(limitBoot)
	b.end()
	return b.ended(err)
}

var errReturned = errors.New("the load returned")

// ended says how a load went: it has no way out but the application and a reset.
func (b *Bootloader) ended(err error) (off uint32, ok bool, _ error) {
	switch {
	case b.m.outcome == outcomeStarts:
		return b.m.started, true, nil
	case b.m.outcome == outcomeResets:
		return 0, false, nil
	case err == nil:
		err = errReturned
	}
	return 0, false, err
}

func (b *Bootloader) begin(f Flash) {
	b.m.reset(f)
	b.m.encrypted = b.Encrypted
	b.m.reason = max(b.Reset, 1)
}

func (b *Bootloader) end() {
	b.Ops, b.Steps = b.m.ops, b.m.cpu.Steps
}
