//go:build tinygo

// Command app is the board's program: its only work is to update itself. QEMU does not
// model writes to the chip's flash, so that it is loaded once, and does at its start
// what a boot stage would; then it acts as the image in the slot that was chosen
// (docs/design/netduino.md).
package main

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/ed25519"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/firmware/agent"
	board "github.com/runnel-fota/runnel/firmware/netduinoplus2"
	"github.com/runnel-fota/runnel/firmware/stm32f405"
)

// Faults that tests put into an image.
const (
	faultNone = iota
	faultCrash
	faultHang
	faultSelfTest
	faultMute
	faultOverflow
)

// Everything that the updater has lies here: no byte is allocated later.
var (
	clock    stm32f405.Clock
	uart     stm32f405.UART
	random   stm32f405.Random
	line     serial.Client
	page     factory.Page
	pageRAM  [1024]byte
	area     flash.Area // of the boot records
	records  boot.Records
	store    state.Sectors
	image    boot.RawPass
	updater  device.Updater
	wire     device.Native
	config   device.NativeConfig
	judge    device.Judge
	signed   device.Signed
	ed       ed25519.Verifier
	keys     native.Keys
	mac      native.SoftMAC
	hash     digest.SHA256
	self     agent.Agent
	teller   = agent.Teller{Line: &line}
	buffer   [4096 + 48]byte // a record with a chunk of 4 KiB
	seed     [board.SeedSize]byte
	info     [20]byte // of the image that runs
	checking boot.RawHeader
	checked  [2]uint8 // 0: not yet, 1: good, 2: not
	fault    uint32
)

func main() {
	stm32f405.TakeResetReason()
	stm32f405.Start()
	stm32f405.Watch()
	uart.Open()
	line.Port, line.Nonce = port{}, random.Uint32()
	board.Open(&line)
	if slot := start(); slot != boot.NoSlot {
		run(slot)
	}
	for {
		// Nothing starts. The watchdog resets, and a marginal bit may read otherwise.
	}
}

// start is the boot stage's part.
func start() boot.Slot {
	if !board.Seed(&seed) {
		return boot.NoSlot
	}
	random.Seed(seed[:])
	area = board.Pair(board.Records)
	slot := boot.Start(&area, bootable, buffer[:1024])
	if slot == boot.NoSlot || board.Slots[slot].ReadAt(info[:], board.InfoAt) != nil {
		return boot.NoSlot
	}
	fault = binary.LittleEndian.Uint32(info[16:])
	return slot
}

// bootable checks a slot's image, once, as it would be copied into the chip's flash.
func bootable(s boot.Slot) bool {
	if int(s) >= len(checked) {
		return false
	}
	if checked[s] == 0 {
		checked[s] = 2
		if boot.VerifyRaw(&board.Slots[s], board.Load, &checking, buffer[:1024]) == nil {
			checked[s] = 1
		}
	}
	return checked[s] == 1
}

// run is the image's part.
func run(slot boot.Slot) {
	switch fault {
	case faultCrash:
		panic("crash")
	case faultHang:
		for {
		}
	case faultOverflow:
		deeper(&info)
	}
	if setUp(slot) {
		for {
			self.Step()
		}
	}
	for { // no factory page: there is nobody to be
		stm32f405.Feed()
		stm32f405.Nap(1000)
	}
}

func setUp(slot boot.Slot) bool {
	f := board.Area(board.Factory, board.Sector)
	if f.ReadAt(pageRAM[:], 0) != nil || page.Parse(pageRAM[:]) != 0 {
		return false
	}
	if boot.NewRecords(&records, &area, slot, 2) != nil {
		return false
	}
	var err error
	if store, err = state.NewSectors(board.Pair(board.State)); err != nil {
		return false
	}
	keys.Derive(page.Secret, &hash)
	mac.Keys, mac.Run = &keys, &hash
	if device.NewSigned(&signed, verifier{}, roots{}) != nil {
		return false
	}
	config.Device, config.Product, config.Hardware, config.Key = page.Device, page.Product, page.Hardware, page.Key
	config.MAC, config.Hash, config.Judge, config.Profile = &mac, &hash, &judge, signed.Profile()
	config.Format, config.Security = manifest.FormatRaw, native.Rollback
	if device.NewNative(&wire, &config) != nil {
		return false
	}
	var c device.Config
	c.Port, c.Boot, c.Slots, c.Image, c.Store, c.Events = port{}, &records, board.Slots[:], &image, &store, &teller
	c.Journal, c.Wire, c.Buffer = board.Pair(board.Journal), wire.Wire(), buffer[:]
	self.Updater, self.Line, self.Chip, self.SelfTest = &updater, &line, port{}, selfTest
	return device.New(&updater, &c) == nil
}

func selfTest() bool { return fault != faultSelfTest }

// deeper leaves the stack at its bottom.
//
//go:noinline
func deeper(p *[20]byte) {
	var more [20]byte
	copy(more[:], p[:])
	more[0]++
	deeper(&more)
	copy(p[:], more[:])
}

// verifier is Ed25519, and roots the page's: without fields, so that TinyGo links no
// description of what is behind them.
type (
	verifier struct{}
	roots    struct{}
)

func (verifier) Verify(alg int8, key, sig, head, payload []byte) bool {
	return ed.Verify(alg, key, sig, head, payload)
}
func (verifier) Begin(alg int8, key, sig, head, payload []byte) {
	ed.Begin(alg, key, sig, head, payload)
}
func (verifier) Step() (done, ok bool)          { return ed.Step() }
func (roots) ReadAt(p []byte, off uint32) error { return page.ReadAt(p, off) }

// port is the chip, as the updater, the agent and the line see it.
type port struct{}

func (port) Millis() uint64                { return clock.Millis() }
func (port) Unix() uint32                  { return 0 } // it has no clock of day
func (port) Random() uint32                { return random.Uint32() }
func (port) ResetReason() boot.ResetReason { return stm32f405.ResetReason() }
func (port) Bootable(boot.Slot) bool       { return true } // the image check is the boot stage's own
func (port) Feed()                         { stm32f405.Feed() }
func (port) Nap(ms uint32)                 { stm32f405.Nap(ms) }
func (port) Reset()                        { stm32f405.Reset() }

// An image that is mute reaches its flash, which is behind the same line, and no server:
// what it would send there does not go out.
var mute struct{ ended, now bool }

func (port) Put(b byte) {
	if mute.ended {
		mute.now = fault == faultMute && b == serial.OpSend
	}
	mute.ended = b == 0xC0
	if !mute.now {
		uart.Put(b)
	}
}

// Get feeds the watchdog: how long an answer is waited for, the line bounds.
func (port) Get(ms uint32) (byte, bool) {
	stm32f405.Feed()
	if mute.now {
		stm32f405.Nap(ms)
		return 0, false
	}
	return uart.Get(ms)
}
