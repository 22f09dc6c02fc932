// Package node is what the programs maconly and signed share: an updater as the
// firmware of a small board has it, with one of each thing. Their sizes are what
// such a board pays, up to its radio, its boot records and its verifier.
package node

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

const (
	sector = 1024
	// bufferBytes is what every device takes of an envelope; chunks of 1,024 fit.
	bufferBytes = 1280
)

// Everything that the updater needs of RAM is here and in the two programs.
var (
	updater device.Updater
	wire    device.Native
	parts   device.Config
	config  device.NativeConfig
	judge   device.Judge
	keys    native.Keys
	mac     native.SoftMAC
	hash    digest.SHA256
	store   state.Sectors
	slots   [2]flash.Area
	buffer  [bufferBytes]byte

	chip board.NOR
	name = [...]byte{'n', 'o', 'd', 'e', '-', '1'}
)

// Run is the program: it never ends.
func Run(profile device.Profile) {
	var secret [native.SecretSize]byte
	board.Fill(secret[:])
	keys.Derive(&secret, &hash)
	mac.Keys, mac.Run = &keys, &hash

	c := &parts
	c.Port, c.Boot, c.Image, c.Store, c.Slots = port{}, scheme{}, check{}, &store, slots[:]
	c.HasFactory, c.Buffer = true, buffer[:]
	areas(c)

	config.Device, config.Product, config.Hardware, config.Key = name[:], name[:4], name[:], 1
	config.MAC, config.Hash, config.Judge, config.Format = &mac, &hash, &judge, manifest.FormatRaw
	config.Profile = profile
	board.Err(device.NewNative(&wire, &config))
	c.Wire = wire.Wire()
	board.Err(device.New(&updater, &parts))
	for {
		step()
	}
}

// areas parts the chip.
func areas(c *device.Config) {
	var err error
	for i := range slots {
		slots[i], err = flash.NewArea(&chip, uint32(i)*sector, sector)
		board.Err(err)
	}
	c.Journal, err = flash.NewArea(&chip, 2*sector, 2*sector)
	board.Err(err)
	a, err := flash.NewArea(&chip, 4*sector, 2*sector)
	board.Err(err)
	store, err = state.NewSectors(a)
	board.Err(err)
}

// step does what the updater needs, over a line that has no headers to speak of.
func step() {
	switch need := updater.Step(); need.Kind {
	case device.NeedSend:
		send()
	case device.NeedBytes:
		p := updater.Space()
		board.Fill(p)
		updater.Fed(len(p))
		if board.Bool() {
			updater.EndOfBody()
		}
	case device.NeedTime:
		board.Output(need.Wait)
	case device.NeedSelfTest:
		updater.SelfTest(board.Bool())
	case device.NeedReset:
		board.Output(0)
	}
}

func send() {
	r := updater.Request()
	board.Bytes(r.Target)
	board.Bytes(r.Body)
	board.Output(r.From)
	board.Output(r.To)
	if board.Bool() {
		updater.Broken()
		return
	}
	var h device.Head
	h.Status, h.From, h.To, h.Total = uint16(board.Input()), board.Input(), board.Input(), board.Input()
	updater.Response(h)
}

// port is the chip.
type port struct{}

func (port) Millis() uint64                { return uint64(board.Input()) }
func (port) Unix() uint32                  { return 0 }
func (port) Random() uint32                { return board.Input() }
func (port) ResetReason() boot.ResetReason { return boot.ResetReason(board.Input()) }
func (port) Bootable(boot.Slot) bool       { return true }

// check is that of a bootloader which asks nothing of an image.
type check struct{}

func (check) Begin(_ uint16, _ uint32, h *digest.SHA256) { h.Reset() }
func (check) Write(p []byte) error                       { hash.Write(p); return nil }
func (check) End() error                                 { return nil }

// scheme stands where the board's boot records are.
type scheme struct{}

func (scheme) Load() error                      { return nil }
func (scheme) Running() boot.Slot               { return boot.Slot(board.Input()) }
func (scheme) State(boot.Slot) boot.RecordState { return boot.RecordState(board.Input()) }

func (scheme) Step(g boot.Goal, s boot.Slot) (bool, error) {
	board.Output(uint32(g)<<8 | uint32(s))
	return board.Bool(), nil
}
