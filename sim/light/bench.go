// Package light runs very many virtual boards at once: each with the real device core,
// a bootloader and a flash chip, as sim/board has, in a few kilobytes.
//
// What makes it light: a board that waits needs neither its buffer nor its hash, keys
// or chip, so the boards of a Bench share one of each, one board at a time, and a
// board's flash is kept by numbers in a Library, where what boards have in common lies
// once. Nothing is left out for it: every record is verified, programmed, read back,
// and the whole image proven, out of what the board itself wrote.
package light

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/sim/board"
)

// Fate is what becomes of a board that starts a new image, where that runs.
type Fate uint8

const (
	FateRun      Fate = iota // as the image itself behaves
	FateCrash                // an exception at its start
	FateSelfTest             // its self-test fails
	FateMute                 // it reaches no server: unproven
	FateSilent               // the board is never heard of again
)

// Config is what the boards of a fleet have in common.
type Config struct {
	Library   *Library
	Meter     *Meter
	Transport board.Transport // the Bench's own: one request at a time
	Product   string
	Chip      uint16
	Roots     []byte // trust store that is baked in; nil: mac-only
	Chunk     int    // largest chunk size that is taken, bytes; a power of two
	// Millis is the boards' clock, which Wait sleeps by: it returns after so many
	// milliseconds of that clock, or with the context's error.
	Millis func() uint64
	Wait   func(ctx context.Context, ms uint64) error
	// MinPollMillis and MaxPollMillis clamp the server's come-back; 0: a minute, a day.
	// TrialMillis is how long a trial may take; 0: five minutes.
	MinPollMillis, MaxPollMillis, TrialMillis uint32
	// Fate, if not nil, is asked at each start of an image that is on trial.
	Fate func(id, hardware, version string) Fate
	Seed uint64
}

// Board is a board while nothing happens on it.
type Board struct {
	ID, Hardware string
	Secret       [native.SecretSize]byte // its key number 0

	flash   kept
	up      device.Updater
	wire    device.Native
	otadata esp32.OTAData
	sectors state.Sectors
	reason  boot.ResetReason
	ran     boot.Slot // at the last start; NoSlot: it did not start yet
	on      bool      // its updater runs
	staged  bool      // since the last start
	mute    bool
	broken  bool // its self-test fails
	gone    bool // silent for ever
}

// Bench is where some boards run, one at a time, for one goroutine.
type Bench struct {
	c      Config
	boards []Board
	queue  wakes

	chip   *chip
	buffer []byte
	slots  []flash.Area
	areas  struct{ otadata, state, journal flash.Area }
	native device.NativeConfig
	keys   native.Keys
	hash   digest.SHA256
	mac    native.SoftMAC
	judge  device.Judge
	signed device.Signed
	check  esp32.ImagePass
	rng    *rand.Rand

	now    *Board // that runs
	answer board.Answer
	asked  time.Time // when the poll in progress was sent; zero: it is none
}

// nativeBeside is what a buffer has beside a chunk, and nativeLeast what an envelope
// takes, in bytes (sim/board).
const (
	nativeBeside = 48
	nativeLeast  = 1280
)

// NewBench takes its boards, with id, hardware and secret set, and an image that all
// start with, in slot 0. Board i starts at[i] milliseconds of the clock.
func NewBench(c Config, list []Board, image []byte, at []uint64) (*Bench, error) {
	b := &Bench{c: c, boards: list, chip: newChip(c.Library), buffer: make([]byte, max(c.Chunk+nativeBeside, nativeLeast)),
		rng: rand.New(rand.NewPCG(c.Seed, uint64(len(list))))}
	for i := range uint32(slots) {
		a, err := flash.NewArea(b.chip, slot0At+i*slotBytes, slotBytes)
		if err != nil {
			return nil, err
		}
		b.slots = append(b.slots, a)
	}
	for _, p := range []struct {
		to *flash.Area
		at uint32
	}{{&b.areas.otadata, otadataAt}, {&b.areas.state, stateAt}, {&b.areas.journal, journalAt}} {
		var err error
		if *p.to, err = flash.NewArea(b.chip, p.at, 2*sectorBytes); err != nil {
			return nil, err
		}
	}
	b.mac = native.SoftMAC{Keys: &b.keys, Run: &b.hash}
	b.native = device.NativeConfig{Product: []byte(c.Product), MAC: &b.mac, Hash: &b.hash, Judge: &b.judge, Profile: device.MACOnly(), Format: manifest.FormatESP,
		Security: native.Rollback, MinPollMillis: c.MinPollMillis, MaxPollMillis: c.MaxPollMillis}
	if c.Roots != nil {
		if err := device.NewSigned(&b.signed, board.Ed25519{}, board.Baked(c.Roots)); err != nil {
			return nil, err
		}
		b.native.Profile = b.signed.Profile()
	}
	if len(image) > slotBytes {
		return nil, fmt.Errorf("light: an image of %d bytes does not fit a slot of %d", len(image), slotBytes)
	}
	var first kept
	b.chip.load(&first)
	for len(image)%program != 0 {
		image = append(image[:len(image):len(image)], erased)
	}
	if err := b.chip.Program(image, slot0At); err != nil {
		return nil, err
	}
	entry := esp32.InitialEntry(0)
	if err := b.chip.Program(entry[:], otadataAt); err != nil {
		return nil, err
	}
	b.chip.settle()
	for i := range list {
		list[i].flash, list[i].reason, list[i].ran = first, boot.ResetPowerOn, boot.NoSlot
		b.queue = append(b.queue, wake{at[i], i})
	}
	heap.Init(&b.queue)
	return b, nil
}

// Run runs the boards until the context ends, or all of them fell silent.
func (b *Bench) Run(ctx context.Context) error {
	for len(b.queue) > 0 {
		next := b.queue[0]
		if now := b.c.Millis(); next.at > now {
			if err := b.c.Wait(ctx, next.at-now); err != nil {
				return ended(err)
			}
		}
		d := &b.boards[next.board]
		wait, err := b.run(ctx, d)
		if err != nil {
			return ended(err)
		}
		if d.gone {
			b.c.Meter.Silent.Add(1)
			heap.Pop(&b.queue)
			continue
		}
		b.queue[0].at = b.c.Millis() + uint64(wait)
		heap.Fix(&b.queue, 0)
	}
	return nil
}

// ended: an end that was asked for is none of an error.
func ended(err error) error {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return nil
	}
	return err
}

// maxResets of a board in one go: one that can't stay up must not hold up the others.
const maxResets = 8

// run lets a board run until it waits, and says for how many milliseconds.
func (b *Bench) run(ctx context.Context, d *Board) (wait uint32, err error) {
	// What the updaters of a bench share is this board's before its updater takes a step:
	// none of them sees it change.
	b.now = d
	b.chip.load(&d.flash)
	b.native.Device, b.native.Hardware = []byte(d.ID), []byte(d.Hardware)
	b.keys.Derive(&d.Secret, &b.hash)
	defer b.chip.settle()
	defer b.letGo()
	for resets := 0; ; {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if !d.on {
			if resets++; resets > maxResets {
				return 1000, nil
			}
			b.c.Meter.Resets.Add(1)
			if err := b.start(d); err != nil {
				return 0, fmt.Errorf("board %s: %w", d.ID, err)
			}
			if d.gone {
				return 0, nil
			}
			continue
		}
		if wait, ok := b.step(ctx, d); ok {
			return wait, nil
		}
	}
}

// letGo ends an answer that is open. What is wrong with the rest of one that nobody
// wants is of no interest.
func (b *Bench) letGo() {
	if b.answer != nil {
		_ = b.answer.Close()
		b.answer = nil
	}
	b.asked = time.Time{}
}

// start is a reset: the bootloader, then the application up to its updater.
func (b *Bench) start(d *Board) error {
	b.chip.settle()
	running, behave, err := b.boot()
	if err != nil {
		return err
	}
	if d.ran != boot.NoSlot && running != d.ran && !d.staged {
		b.c.Meter.RolledBack.Add(1)
	}
	d.ran, d.staged, d.mute, d.broken = running, false, behave == board.BehaveMute, behave == board.BehaveSelfTest
	if d.otadata, err = esp32.NewOTAData(b.areas.otadata, running, slots); err != nil {
		return err
	}
	d.otadata.SetRoom(b.buffer)
	if d.sectors, err = state.NewSectors(b.areas.state); err != nil {
		return err
	}
	if err := d.otadata.Load(); err != nil {
		return err
	}
	fate := FateRun
	if d.otadata.State(running) == boot.RecordPending && b.c.Fate != nil {
		var r state.Record
		if err := d.sectors.Load(&r, b.buffer); err != nil {
			return err
		}
		fate = b.c.Fate(d.ID, d.Hardware, string(r.Trial.Image.Version[:r.Trial.Image.VersionLen]))
	}
	switch {
	case fate == FateSilent:
		d.gone = true
		return nil
	case fate == FateCrash, behave == board.BehavePanic, behave == board.BehavePanicR2 && d.Hardware == "r2":
		d.reason = boot.ResetPanic
		return nil
	case behave == board.BehaveHang:
		d.reason = boot.ResetWatchdog
		return nil
	}
	d.mute = d.mute || fate == FateMute
	d.broken = d.broken || fate == FateSelfTest
	c := device.Config{Wire: d.wire.Wire(), Buffer: b.buffer, Journal: b.areas.journal}
	c.Port, c.Boot, c.Slots, c.Chip, c.Image, c.Store, c.Events = b, &d.otadata, b.slots, b.c.Chip, &b.check, b, b
	c.TrialMillis = b.c.TrialMillis
	if err := device.NewNative(&d.wire, &b.native); err != nil {
		return err
	}
	if err := device.New(&d.up, &c); err != nil {
		return err
	}
	d.on = true
	return nil
}

// step does what the updater needs; ok: the board waits.
func (b *Bench) step(ctx context.Context, d *Board) (wait uint32, ok bool) {
	switch need := d.up.Step(); need.Kind {
	case device.NeedSend:
		r := d.up.Request()
		if string(r.Target) == "/r1/poll" {
			b.asked = time.Now()
		}
		a, err := b.send(ctx, d, r)
		if err != nil {
			if !d.mute {
				b.c.Meter.unanswered(0)
			}
			b.asked = time.Time{}
			d.up.Broken()
			break
		}
		if s := a.Head().Status; s != 200 && s != 206 {
			b.c.Meter.unanswered(int(s))
			b.asked = time.Time{}
		}
		b.answer = a
		d.up.Response(a.Head())
	case device.NeedBytes:
		n, eof, err := b.answer.Read(d.up.Space())
		d.up.Fed(n)
		switch {
		case err != nil:
			b.c.Meter.unanswered(0)
			d.up.Broken()
			b.letGo()
		case eof:
			d.up.EndOfBody()
			if !b.asked.IsZero() {
				b.c.Meter.Polls.Add(1)
				b.c.Meter.Latency.Add(time.Since(b.asked))
			}
			b.letGo()
		}
	case device.NeedClose:
		b.letGo()
	case device.NeedTime:
		return need.Wait, true
	case device.NeedSelfTest:
		d.up.SelfTest(!d.broken)
	case device.NeedReset:
		d.on, d.reason = false, boot.ResetSoftware
	}
	return 0, false
}

var errMute = errors.New("no network")

func (b *Bench) send(ctx context.Context, d *Board, r device.Request) (board.Answer, error) {
	if d.mute {
		return nil, errMute
	}
	return b.c.Transport.Do(ctx, r)
}

// What follows is what the updater of the board that runs is given: device.Port,
// device.Store with a TrustStore, and device.Observer.

var (
	_ device.Port       = (*Bench)(nil)
	_ device.Store      = (*Bench)(nil)
	_ device.TrustStore = (*Bench)(nil)
	_ device.Observer   = (*Bench)(nil)
)

// Millis is device.Port's.
func (b *Bench) Millis() uint64 { return b.c.Millis() }

// Unix is device.Port's: not known. Boards keep their nonces in flash.
func (b *Bench) Unix() uint32 { return 0 }

// Random is device.Port's.
func (b *Bench) Random() uint32 { return b.rng.Uint32() }

// ResetReason is device.Port's.
func (b *Bench) ResetReason() boot.ResetReason { return b.now.reason }

// Bootable is device.Port's.
func (b *Bench) Bootable(boot.Slot) bool { return true }

// Load is device.Store's.
func (b *Bench) Load(r *state.Record, buf []byte) error { return b.now.sectors.Load(r, buf) }

// Save is device.Store's.
func (b *Bench) Save(r *state.Record, buf []byte) (bool, error) { return b.now.sectors.Save(r, buf) }

// ReadAt is device.TrustStore's.
func (b *Bench) ReadAt(p []byte, off uint32) error { return b.now.sectors.ReadAt(p, off) }

// TrustLen is device.TrustStore's.
func (b *Bench) TrustLen() uint32 { return b.now.sectors.TrustLen() }

// SetTrust is device.TrustStore's.
func (b *Bench) SetTrust(n uint32) error { return b.now.sectors.SetTrust(n) }

// Event is device.Observer's.
func (b *Bench) Event(e device.Event) {
	m := b.c.Meter
	switch e.Kind {
	case device.EventOffer:
		m.Offers.Add(1)
	case device.EventChunk:
		m.Records.Add(1)
	case device.EventVerified:
		m.ImageBytes.Add(int64(b.now.up.Status().Size))
	case device.EventStaged:
		b.now.staged = true
	case device.EventConfirmed:
		m.Confirmed.Add(1)
	case device.EventReverting:
		if e.Reason == device.ReasonUnproven {
			m.Unproven.Add(1)
		}
	case device.EventFailed:
		m.failed(e.Reason)
	case device.EventReported:
		m.Reports.Add(1)
	}
}

// wakes is a heap of boards by when they want to run.
type wakes []wake

type wake struct {
	at    uint64 // milliseconds of the clock
	board int
}

func (w wakes) Len() int           { return len(w) }
func (w wakes) Less(i, j int) bool { return w[i].at < w[j].at }
func (w wakes) Swap(i, j int)      { w[i], w[j] = w[j], w[i] }
func (w *wakes) Push(x any)        { *w = append(*w, x.(wake)) }

// Pop is heap.Interface's.
func (w *wakes) Pop() any {
	last := (*w)[len(*w)-1]
	*w = (*w)[:len(*w)-1]
	return last
}
