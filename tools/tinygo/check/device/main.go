// Command device reaches the exported API of core/device: an updater with
// ESP-IDF's boot records, a state of its own and a journal.
package main

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

const sector = 1024

var (
	updater device.Updater
	config  device.Config
	slots   [2]flash.Area
	records esp32.OTAData
	image   esp32.ImagePass
	sectors state.Sectors
	v1wire  device.V1

	nativeWire   device.Native
	nativeConfig device.NativeConfig
	keys         native.Keys
	mac          native.SoftMAC
	hash         digest.SHA256
	judge        device.Judge
	signed       device.Signed
	patches      device.Patches
	memory       [16]uint16 // far too little: this chip has no room for more, and nothing runs here
	output       [256]byte
	scratch      flash.Area

	buffer [1280]byte
	key    [32]byte
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
		Port:  port{},
		Boot:  &records,
		Slots: slots[:],
		Image: &image,
		Store: &sectors,

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
	config.Buffer = buffer[:]
	if board.Bool() {
		board.Err(device.NewV1(&v1wire, v1.Identity{ID: "device", Signed: board.Bool(), Key: key[:]}))
		config.Wire = v1wire.Wire()
	} else {
		keys.Derive(&key, &hash)
		mac = native.SoftMAC{Keys: &keys, Run: &hash}
		nativeConfig = device.NativeConfig{
			Device: key[:8], Product: key[8:16], Hardware: key[16:24], Key: uint8(board.Input()), MAC: &mac, Hash: &hash,
			Profile: device.MACOnly(), Judge: &judge,
			Format: uint8(board.Input()), Security: native.Security(board.Input()), SecureVersion: board.Input(), HasSecure: board.Bool(),
			MinPollMillis: board.Input(), MaxPollMillis: board.Input(),
		}
		if board.Bool() {
			board.Err(device.NewSigned(&signed, &keeper, &keeper))
			nativeConfig.Profile = signed.Profile()
		}
		if board.Bool() {
			scratch = area(8 * sector)
			board.Err(device.NewPatches(&patches, &device.PatchConfig{Memory: memory[:board.Input()%16], Out: output[:], Scratch: &scratch}))
			nativeConfig.Patches = &patches
		}
		if board.Bool() {
			nativeConfig.MAC = &keeper2
		}
		board.Err(device.NewNative(&nativeWire, &nativeConfig))
		config.Wire = nativeWire.Wire()
	}
	if err := device.New(&updater, &config); err != nil {
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
		board.Output(r.From + r.To)
		if board.Bool() {
			updater.Broken()
			return
		}
		updater.Response(device.Head{Status: uint16(board.Input()), RetryAfter: board.Input(), To: board.Input(), Total: board.Input(), Coded: board.Bool()})
	case device.NeedBytes:
		board.Fill(updater.Space())
		updater.Fed(int(board.Input()))
		if board.Bool() {
			updater.EndOfBody()
		}
	case device.NeedTime:
		board.Output(need.Wait)
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
func (port) Health() []byte {
	h := native.Health{FreeRAM: board.Input(), Reset: uint8(board.Input())}
	return h.Encode(healthRoom[:])
}

var healthRoom [native.MaxHealth]byte

// keep implements the updater's interfaces and keeps every pointer.
type keep struct {
	bytes  []byte
	record *state.Record
	event  device.Event
}

var keeper keep

func (k *keep) Begin(chip uint16, limit uint32, h *digest.SHA256) {
	board.Output(uint32(chip) + limit)
	h.Reset()
}

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

// ReadAt, TrustLen and SetTrust make it a TrustStore.
func (k *keep) ReadAt(p []byte, off uint32) error {
	k.bytes = p
	board.Output(off)
	return k.End()
}

func (k *keep) TrustLen() uint32 { return board.Input() }

func (k *keep) SetTrust(n uint32) error {
	board.Output(n)
	return k.End()
}

// Verify is a signature check that keeps what it is handed.
func (k *keep) Verify(alg int8, key, sig, head, payload []byte) bool {
	k.bytes = payload
	board.Bytes(key)
	board.Bytes(sig)
	board.Bytes(head)
	return board.Bool()
}

// keepMAC is a second native.MAC.
type keepMAC struct{ bytes []byte }

var keeper2 keepMAC

func (k *keepMAC) Begin(m native.Message) { board.Output(uint32(m)) }
func (k *keepMAC) Write(p []byte)         { k.bytes = p }
func (k *keepMAC) Sum(out []byte)         { k.bytes = out }

func (k *keepMAC) Is(mac []byte) bool {
	k.bytes = mac
	return board.Bool()
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
