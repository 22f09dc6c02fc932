//go:build tinygo

// Command app is an image for the board: its only work is to update itself. It is
// linked for one slot or the other.
package main

import (
	"runtime/volatile"
	"unsafe"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/firmware/agent"
	"github.com/runnel-fota/runnel/firmware/microbit"
	"github.com/runnel-fota/runnel/firmware/nrf51"
)

// header is where this image is linked to.
//
//go:extern image_header
var header [32]byte

// info is what tells builds apart: 16 bytes of version, and what is wrong with it.
//
//go:extern image_info
var info struct {
	version [16]byte
	fault   volatile.Register32
}

// Faults that tests put into an image.
const (
	faultNone = iota
	faultCrash
	faultHang
	faultSelfTest
	faultMute
)

// Everything that the updater has lies here: no byte is allocated later.
var (
	clock   nrf51.Clock
	uart    nrf51.UART
	line    serial.Client
	page    factory.Page
	records boot.Records
	store   state.Sectors
	image   boot.RawPass
	updater device.Updater
	wire    device.Native
	config  device.NativeConfig
	judge   device.Judge
	keys    native.Keys
	mac     native.SoftMAC
	hash    digest.SHA256
	self    agent.Agent
	teller  = agent.Teller{Line: &line}
	buffer  [1280]byte
)

func main() {
	clock.Start()
	nrf51.Feed()
	switch info.fault.Get() {
	case faultCrash:
		panic("crash")
	case faultHang:
		for {
		}
	}
	uart.Clock = &clock
	uart.Open(microbit.PinTX, microbit.PinRX)
	line.Port, line.Nonce = (*port)(nil), nrf51.Random()
	if setUp() {
		for {
			self.Step()
		}
	}
	for { // no factory page: there is nobody to be
		nrf51.Feed()
		nrf51.Nap(1000)
	}
}

func setUp() bool {
	if page.Parse(unsafe.Slice((*byte)(unsafe.Pointer(uintptr(microbit.Factory))), nrf51.Page)) != 0 {
		return false
	}
	microbit.Open()
	slot := boot.Slot(0)
	if uintptr(unsafe.Pointer(&header)) == microbit.Slot1 {
		slot = 1
	}
	area := microbit.Pair(microbit.Records)
	if boot.NewRecords(&records, &area, slot, 2) != nil {
		return false
	}
	var err error
	if store, err = state.NewSectors(microbit.Pair(microbit.State)); err != nil {
		return false
	}
	keys.Derive(page.Secret, &hash)
	mac.Keys, mac.Run = &keys, &hash
	config.Device, config.Product, config.Hardware, config.Key = page.Device, page.Product, page.Hardware, page.Key
	config.MAC, config.Hash, config.Judge = (*macs)(nil), &hash, &judge
	config.Format, config.Security = manifest.FormatRaw, native.Rollback
	if !trust(&config) {
		return false
	}
	if device.NewNative(&wire, &config) != nil {
		return false
	}
	var c device.Config
	c.Port, c.Boot, c.Slots, c.Image, c.Store, c.Events = (*port)(nil), (*scheme)(nil), microbit.Slots[:], (*check)(nil), (*keeper)(nil), (*events)(nil)
	c.Journal, c.Wire, c.Buffer = microbit.Pair(microbit.Journal), wire.Wire(), buffer[:]
	self.Updater, self.Line, self.Chip, self.SelfTest = &updater, &line, (*port)(nil), selfTest
	return device.New(&updater, &c) == nil
}

func selfTest() bool { return info.fault.Get() != faultSelfTest }

// port is the chip, as the updater, the agent and the line see it.
type port struct{}

func (*port) Millis() uint64                { return clock.Millis() }
func (*port) Unix() uint32                  { return 0 } // it has no clock of day
func (*port) Random() uint32                { return random() }
func (*port) ResetReason() boot.ResetReason { return nrf51.ResetReason() }
func (*port) Bootable(boot.Slot) bool       { return true } // the image check is the boot stage's own
func (*port) Feed()                         { nrf51.Feed() }
func (*port) Nap(ms uint32)                 { nrf51.Nap(ms) }
func (*port) Reset()                        { nrf51.Reset() }

func (*port) Put(b byte) {
	if info.fault.Get() != faultMute {
		uart.Put(b)
	}
}

// Get feeds the watchdog: how long an answer is waited for, the line bounds.
func (*port) Get(ms uint32) (byte, bool) {
	nrf51.Feed()
	if info.fault.Get() == faultMute {
		nrf51.Nap(ms)
		return 0, false
	}
	return uart.Get(ms)
}
