// Command device reaches the exported API of core/device: an updater with
// ESP-IDF's boot records, a state of its own and a journal.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

const sector = 1024

var (
	updater device.Updater
	config  device.Config
	slots   [2]flash.Area
	records esp32.OTAData
	image   esp32.ImageCheck
	sectors state.Sectors
	chunk   [1024]byte
	scratch [device.ScratchBuffer]byte
	key     [32]byte
)

func main() {
	board.Fill(key[:])
	for i := range slots {
		slots[i] = area(board.Input())
	}
	var err error
	records, err = esp32.NewOTAData(area(0), boot.Slot(board.Input()), uint8(len(slots)))
	board.Err(err)
	board.Err(records.Load())
	sectors, err = state.NewSectors(area(2 * sector))
	board.Err(err)

	config.Parts = device.Parts{
		Port:    port{},
		Boot:    &records,
		Slots:   slots[:],
		Image:   &image,
		Store:   &sectors,
		Chunk:   chunk[:],
		Scratch: scratch[:],

		Chip:        uint16(board.Input()),
		HasFactory:  board.Bool(),
		SectorsOnly: board.Bool(),
		NoContact:   board.Bool(),
		PollMillis:  board.Input(),
		TrialMillis: board.Input(),
		ReportEvery: board.Input(),
	}
	// Each interface has a second implementation, chosen at run time, that keeps
	// what it is handed: the compiler can't see through the call.
	if board.Bool() {
		config.Store = &keeper
	}
	if board.Bool() {
		config.Image = &keeper
	}
	if board.Bool() {
		config.Boot = &other
	}
	if board.Bool() {
		config.Events = &keeper
	}
	config.Journal = area(4 * sector)
	config.Identity = v1.Identity{ID: "device", Signed: board.Bool(), Key: key[:]}
	if err := device.New(&updater, config); err != nil {
		board.Text(device.Error(board.Input()).Error())
		return
	}
	for board.Bool() {
		step()
	}
	show()
}

func area(off uint32) flash.Area {
	a, err := flash.NewArea(board.Flash(), off, board.Input())
	board.Err(err)
	return a
}

func step() {
	switch need := updater.Step(); need.Kind {
	case device.NeedSend:
		r := updater.Request()
		board.Text(r.Method)
		board.Text(r.DeviceID)
		board.Bytes(r.Target)
		board.Bytes(r.Nonce)
		board.Bytes(r.Timestamp)
		board.Bytes(r.MAC)
		board.Bytes(r.Body)
		if board.Bool() {
			updater.Broken()
			return
		}
		updater.Response(int(board.Input()), uint64(board.Input()))
	case device.NeedBytes:
		board.Fill(scratch[:])
		updater.Feed(scratch[:])
		if board.Bool() {
			updater.EndOfBody()
		}
	case device.NeedTime:
		board.Output(uint32(need.Wait))
	case device.NeedSelfTest:
		updater.SelfTest(board.Bool())
	}
}

func show() {
	s := updater.Status()
	board.Text(s.Phase)
	board.Text(s.Reason.String())
	board.Output(s.Written)
	board.Text(updater.Verdict().String())
	board.Bytes(updater.Version())
	board.Output(updater.State().BootCount)
}

// port is the chip.
type port struct{}

func (port) Millis() uint64                { return uint64(board.Input()) }
func (port) Unix() uint32                  { return board.Input() }
func (port) Random() uint32                { return board.Input() }
func (port) ResetReason() boot.ResetReason { return boot.ResetReason(board.Input()) }
func (port) Bootable(boot.Slot) bool       { return board.Bool() }

// keep implements the updater's interfaces and keeps every pointer.
type keep struct {
	bytes  []byte
	record *state.Record
	event  device.Event
}

var keeper keep

func (k *keep) Begin(chip uint16, limit uint32) { board.Output(uint32(chip) + limit) }

func (k *keep) Write(p []byte) error {
	k.bytes = p
	return k.End()
}

func (k *keep) End() error {
	board.Bytes(k.bytes)
	if board.Bool() {
		return esp32.ImageError(board.Input())
	}
	return nil
}

func (k *keep) Load(r *state.Record, buf []byte) error {
	k.record, k.bytes = r, buf
	return k.End()
}

func (k *keep) Save(r *state.Record, buf []byte) (bool, error) {
	board.Output(k.record.BootCount)
	k.record, k.bytes = r, buf
	return board.Bool(), k.End()
}

func (k *keep) Event(e device.Event) { k.event = e }

// noScheme is a second boot.Scheme.
type noScheme struct{ slot boot.Slot }

var other noScheme

func (n *noScheme) Load() error        { return keeper.End() }
func (n *noScheme) Running() boot.Slot { return n.slot }

func (n *noScheme) State(s boot.Slot) boot.RecordState {
	n.slot = s
	return boot.RecordState(board.Input())
}

func (n *noScheme) Step(g boot.Goal, s boot.Slot) (bool, error) {
	n.slot = s
	return g == boot.GoalStage, keeper.End()
}
