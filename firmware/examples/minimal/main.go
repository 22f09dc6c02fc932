//go:build tinygo

// Command minimal is all that an author writes to put the updater on a board, here an nRF51 under the boot
// stage of firmware/microbit. docs/porting.md has each function's contract; sim/minimal runs an update.
package main

import (
	"device/arm"
	"runtime/volatile"
	"unsafe"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/firmware/agent"
)

//go:extern image_header
var header [32]byte // its address says which slot runs

// Everything that the updater has lies here: no byte is allocated later, and none is on the stack.
var (
	slots        [2]flash.Area
	given        factory.Page
	records      boot.Records
	store        state.Sectors
	image        boot.RawPass
	keys         native.Keys
	hash         digest.SHA256
	mac          = native.SoftMAC{Keys: &keys, Run: &hash}
	judge        device.Judge
	wire         device.Native
	trust        device.NativeConfig
	config       device.Config
	line         serial.Client
	updater      device.Updater
	self         agent.Agent
	buffer       [1280]byte // a chunk of 1,024 bytes, its hash, and what the updater reads through
	micros, rest uint32     // the timer as it stood; what is no whole millisecond yet
	millis       uint64
)

const page, slotSize = 1024, 0x1E000 // bytes; docs/design/microbit.md has the map

func area(off, size uint32) (a flash.Area) { a, _ = flash.NewArea(chip{}, off, size); return }

func reg(a uint32) *volatile.Register32 { return (*volatile.Register32)(unsafe.Pointer(uintptr(a))) }

// wait is for an event of a peripheral.
func wait(event uint32) {
	for reg(event).Get() == 0 {
	}
}

// chip is the board as flash.Device, device.Port, serial.Port and agent.Chip. Without fields.
type chip struct{}

func (chip) Geometry() flash.Geometry {
	return flash.Geometry{Size: 256 * page, EraseSize: page, ProgramSize: 4, ErasedByte: 0xFF, ErasedReadable: true}
}
func (chip) ReadAt(p []byte, off uint32) error {
	copy(p, unsafe.Slice((*byte)(unsafe.Pointer(uintptr(off))), len(p)))
	return nil
}
func (chip) Erase(off, n uint32) error {
	reg(0x4001E504).Set(2) // NVMC: erase. The CPU stands still for 21 ms a page
	for end := off + n; off < end; off += page {
		reg(0x4001E508).Set(off)
		wait(0x4001E400)
	}
	reg(0x4001E504).Set(0)
	return nil
}
func (chip) Program(p []byte, off uint32) error {
	reg(0x4001E504).Set(1) // write
	for i := 0; i+3 < len(p); i += 4 {
		reg(off + uint32(i)).Set(uint32(p[i]) | uint32(p[i+1])<<8 | uint32(p[i+2])<<16 | uint32(p[i+3])<<24)
		wait(0x4001E400)
	}
	reg(0x4001E504).Set(0)
	return nil
}
func (chip) Sync() error { return nil } // nothing is buffered

func (chip) Millis() uint64 {
	reg(0x40008040).Set(1) // TIMER0, 1 MHz: take its value
	now := reg(0x40008540).Get()
	rest, micros = rest+now-micros, now
	millis, rest = millis+uint64(rest/1000), rest%1000
	return millis
}
func (chip) Unix() uint32 { return 0 } // no clock of day
func (chip) Random() (v uint32) {
	for i := 0; i < 4; i++ {
		reg(0x4000D100).Set(0)
		wait(0x4000D100)
		v = v<<8 | reg(0x4000D508).Get()
	}
	return v
}
func (chip) ResetReason() boot.ResetReason { return boot.ResetReason(reg(0x20003FE4).Get()) } // the boot stage's word
func (chip) Bootable(boot.Slot) bool       { return true }                                    // the boot stage judges

func (chip) Feed() { reg(0x40010600).Set(0x6E524635); reg(0x20003FE8).Set(0) }
func (chip) Reset() {
	reg(0x20003FE0).Set(0x534F4654) // to the boot stage: software asked for it
	reg(0xE000ED0C).Set(0x05FA0004)
	for {
	}
}

// Nap: a compare event of TIMER0 wakes the CPU. There is no handler, so it is never served.
func (c chip) Nap(ms uint32) {
	c.Millis()
	reg(0x40008544).Set(micros + ms*1000)
	reg(0x40008144).Set(0)
	reg(0xE000E280).Set(1 << 8) // no longer pending
	reg(0x40008304).Set(1 << 17)
	for reg(0x40008144).Get() == 0 {
		arm.Asm("cpsid i")
		reg(0xE000E100).Set(1 << 8) // enabled while interrupts are masked
		arm.Asm("wfi")
		reg(0xE000E180).Set(1 << 8)
		arm.Asm("cpsie i") // the boot stage's own is served here
	}
}
func (chip) Put(b byte) { reg(0x4000211C).Set(0); reg(0x4000251C).Set(uint32(b)); wait(0x4000211C) }
func (c chip) Get(ms uint32) (byte, bool) {
	c.Feed()
	for until := c.Millis() + uint64(ms); reg(0x40002108).Get() == 0; {
		if c.Millis() >= until {
			return 0, false
		}
	}
	reg(0x40002108).Set(0)
	return byte(reg(0x40002518).Get()), true
}

func setUp() bool {
	for _, r := range [...][2]uint32{{0x40008508, 3}, {0x40008510, 4}, {0x40008000, 1}, {0x4000D000, 1}, // TIMER0: 32 bits, 1 MHz; RNG
		{0x4000250C, 24}, {0x40002514, 25}, {0x40002524, 0x01D7E000}, {0x40002500, 4}, {0x40002000, 1}, {0x40002008, 1}} { // UART
		reg(r[0]).Set(r[1])
	}
	slots[0], slots[1] = area(0x2000, slotSize), area(0x2000+slotSize, slotSize)
	runs := boot.Slot((uintptr(unsafe.Pointer(&header)) - 0x2000) / slotSize)
	if given.Parse(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(0x3F800))), page)) != 0 {
		return false // not written in the factory: there is nobody to be
	}
	keys.Derive(given.Secret, &hash)
	trust = device.NativeConfig{Device: given.Device, Product: given.Product, Hardware: given.Hardware, Key: given.Key,
		MAC: &mac, Hash: &hash, Judge: &judge, Format: manifest.FormatRaw, Security: native.Rollback, Profile: device.MACOnly()}
	at := area(0x3E000, 2*page)
	store, _ = state.NewSectors(area(0x3E800, 2*page))
	if boot.NewRecords(&records, &at, runs, 2) != nil || device.NewNative(&wire, &trust) != nil {
		return false
	}
	config.Port, config.Boot, config.Slots, config.Image, config.Store = chip{}, &records, slots[:], &image, &store
	config.Journal, config.Wire, config.Buffer = area(0x3F000, 2*page), wire.Wire(), buffer[:]
	line.Port, line.Nonce = chip{}, chip{}.Random()
	self.Updater, self.Line, self.Chip = &updater, &line, chip{}
	self.SelfTest = func() bool { return true } // what must work before this image stays
	return device.New(&updater, &config) == nil
}

func main() {
	for ok := setUp(); ok; self.Step() { // if not, main returns, and the chip starts anew
		// Between two Steps: whatever the board is for.
	}
}
