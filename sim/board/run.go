package board

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/core/wire/native"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
)

// Transport carries a request and hands the answer on.
type Transport interface {
	Do(ctx context.Context, r device.Request) (Answer, error)
}

// Answer is an answer being read.
type Answer interface {
	Head() device.Head
	Read(buf []byte) (n int, eof bool, err error)
	Close() error
}

// Clock is the board's time. Wait returns early with the context's error.
type Clock interface {
	Millis() uint64
	Unix() uint32
	Wait(ctx context.Context, ms uint64) error
}

// RealClock is the time of day.
type RealClock struct{ start time.Time }

// NewRealClock starts now.
func NewRealClock() *RealClock { return &RealClock{start: time.Now()} }

func (c *RealClock) Millis() uint64 { return uint64(time.Since(c.start).Milliseconds()) }
func (c *RealClock) Unix() uint32   { return uint32(time.Now().Unix()) }

// Wait sleeps.
func (c *RealClock) Wait(ctx context.Context, ms uint64) error {
	t := time.NewTimer(time.Duration(ms) * time.Millisecond)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// VirtualClock jumps instead of waiting.
type VirtualClock struct{ Now uint64 }

func (c *VirtualClock) Millis() uint64 { return c.Now }
func (c *VirtualClock) Unix() uint32   { return 1_800_000_000 + uint32(c.Now/1000) }

// Wait moves the clock on.
func (c *VirtualClock) Wait(ctx context.Context, ms uint64) error {
	c.Now += ms
	return ctx.Err()
}

// App is how the application runs.
type App struct {
	Transport   Transport
	Identity    v1.Identity // on the v1 wire
	Native      *Native     // not nil: it speaks the native wire
	Clock       Clock
	ChunkSize   int // bytes; 0: 1024. The largest that is taken
	PollMillis  uint32
	TrialMillis uint32
	ReportEvery uint32
	Seed        uint64
	// OnBoot is called after each decision of the bootloader, with why the chip
	// started: also where the image then crashes before its updater starts. OnStart is
	// called with each updater, before its first Step; OnEvent with what it says. Stop
	// is asked before each Step and ends Run where it returns true. All may be nil.
	OnBoot  func(boot.ResetReason, Boot)
	OnStart func(*device.Updater, Boot)
	OnEvent func(device.Event)
	Stop    func() bool
	// Change has a test put other parts into an updater, to see that the tests see it.
	Change func(*device.Config)
	// ChangeScratch has a test put another area in the place of the scratch partition, with
	// each start of an updater.
	ChangeScratch func(flash.Area) flash.Area
}

// run is one start of the application.
type run struct {
	b      *Board
	app    *App
	reason boot.ResetReason
	up     device.Updater
	otad   esp32.OTAData
	check  esp32.ImagePass
	own    boot.Records // in place of otad and check, where the boot stage is ours
	raw    boot.RawPass
	slots  []flash.Area
	store  state.Sectors
	wires  wires
	rng    *rand.Rand
	health [native.MaxHealth]byte
	dead   bool // the application can't reach any server
}

func (r *run) Millis() uint64                { return r.app.Clock.Millis() }
func (r *run) Unix() uint32                  { return r.app.Clock.Unix() }
func (r *run) Random() uint32                { return r.rng.Uint32() }
func (r *run) ResetReason() boot.ResetReason { return r.reason }
func (r *run) Bootable(s boot.Slot) bool {
	return r.b.Own == nil || r.b.verifyRaw(&r.slots[s], false) == nil
}

// Health makes it a device.Healthy.
func (r *run) Health() []byte {
	if r.app.Native == nil || r.app.Native.Health == (native.Health{}) {
		return nil
	}
	h := r.app.Native.Health
	h.Reset = uint8(r.reason)
	return h.Encode(r.health[:])
}

func (r *run) Event(e device.Event) {
	// What software says without power nobody hears.
	if r.app.OnEvent != nil && !r.b.Chip.Dead() {
		r.app.OnEvent(e)
	}
}

// Run powers the board on for the given reason and lets it run, over as many
// resets as come, until the power is cut (ErrPowerCut), Stop says so (nil), or
// the context ends.
func (b *Board) Run(ctx context.Context, reason boot.ResetReason, app App) error {
	if app.ChunkSize == 0 {
		app.ChunkSize = 1024
	}
	if app.Native != nil {
		app.ChunkSize = max(app.ChunkSize, app.Native.Patches.Chunk())
	}
	if app.Clock == nil {
		app.Clock = NewRealClock()
	}
	t, err := b.Table()
	if err != nil {
		return b.power(err)
	}
	if err := updatable(&t); err != nil {
		return err
	}
	for n := uint64(0); ; n++ {
		bt, err := b.Boot()
		if err != nil {
			return err
		}
		if app.OnBoot != nil {
			app.OnBoot(reason, bt)
		}
		if err := ctx.Err(); err != nil {
			return err // an image that crashes at once never looks
		}
		r := &run{b: b, app: &app, reason: reason, rng: rand.New(rand.NewPCG(app.Seed, n))}
		reason, err = r.start(ctx, bt)
		if err != nil || reason == boot.ResetUnknown {
			return err
		}
	}
}

// start runs the image in the running slot until a reset; ResetUnknown: stop.
func (r *run) start(ctx context.Context, bt Boot) (boot.ResetReason, error) {
	b := r.b
	t, err := b.Table()
	if err != nil {
		return 0, b.power(err)
	}
	slots, err := b.Slots(&t)
	if err != nil {
		return 0, err
	}
	head := make([]byte, markerWindow)
	if bt.Running != boot.Factory {
		if err := slots[bt.Running].ReadAt(head, 0); err != nil {
			return 0, b.power(err)
		}
	}
	behave := BehaviourOf(head)
	switch behave {
	case BehavePanic:
		return boot.ResetPanic, nil
	case BehavePanicR2:
		if n := r.app.Native; n != nil && n.Hardware == "r2" {
			return boot.ResetPanic, nil
		}
	case BehaveHang:
		if err := r.app.Clock.Wait(ctx, watchdogMillis); err != nil {
			return 0, err
		}
		return boot.ResetWatchdog, nil
	case BehaveMute:
		r.dead = true
	}
	kind := V1
	if r.app.Native != nil {
		kind = NativeWire
	}
	scratch, err := b.area(&t, esp32.TypeRunnel, esp32.SubtypeScratch)
	if err != nil {
		return 0, err
	}
	if r.app.ChangeScratch != nil {
		scratch = r.app.ChangeScratch(scratch)
	}
	wire, err := r.wires.choose(r.app, scratch)
	if err != nil {
		return 0, err
	}
	c := device.Config{Wire: wire, Buffer: make([]byte, BufferBytes(kind, r.app.ChunkSize))}
	c.Port, c.Slots, c.Chip, c.Image, c.Events = r, slots, b.ChipID, &r.check, r
	c.HasFactory = t.Find(esp32.TypeApp, esp32.SubtypeFactory) != nil
	c.PollMillis, c.TrialMillis, c.ReportEvery = r.app.PollMillis, r.app.TrialMillis, r.app.ReportEvery
	if r.slots = slots; b.Own != nil {
		c.Image = &r.raw
	}
	if c.Boot, err = r.scheme(&t, bt.Running, c.Buffer); err != nil {
		return 0, err
	}
	if c.Journal, err = b.area(&t, esp32.TypeRunnel, esp32.SubtypeJournal); err != nil {
		return 0, err
	}
	st, err := b.area(&t, esp32.TypeRunnel, esp32.SubtypeState)
	if err != nil {
		return 0, err
	}
	if st.Size() != 0 {
		if r.store, err = state.NewSectors(st); err != nil {
			return 0, err
		}
		c.Store = &r.store
	}
	if behave == BehaveEarly {
		if err := confirmEarly(c.Boot); err != nil {
			return 0, b.power(err)
		}
	}
	if r.app.Change != nil {
		r.app.Change(&c)
	}
	if err := device.New(&r.up, &c); err != nil {
		return 0, err
	}
	if r.app.OnStart != nil {
		r.app.OnStart(&r.up, bt)
	}
	return r.loop(ctx, behave)
}

// scheme is how the board remembers which slot starts. buf holds nothing while a boot
// record is written.
func (r *run) scheme(t *esp32.Table, running boot.Slot, buf []byte) (boot.Scheme, error) {
	od, err := r.b.area(t, esp32.TypeData, esp32.SubtypeOTA)
	if err != nil {
		return nil, err
	}
	n := t.Slots()
	if r.b.Own != nil {
		if err := boot.NewRecords(&r.own, &od, running, n); err != nil {
			return nil, fmt.Errorf("this board can't be updated: %w", err)
		}
		r.own.SetRoom(buf)
		return &r.own, nil
	}
	if r.otad, err = esp32.NewOTAData(od, running, n); err != nil {
		return nil, fmt.Errorf("this board can't be updated: %w", err)
	}
	r.otad.SetRoom(buf)
	return &r.otad, nil
}

// ErrGap: bootloader and updater would mean different slots by the same number.
var ErrGap = errors.New("its ota partitions are not numbered 0, 1, 2 and so on without a gap")

// updatable refuses a table in which the bootloader counts other slots than the
// updater: with ota_0 and ota_2, a record for "the second" starts what nobody wrote.
func updatable(t *esp32.Table) error {
	if int(t.AppCount()) != int(t.Slots()) {
		return fmt.Errorf("this board can't be updated: %w", ErrGap)
	}
	return nil
}

// watchdogMillis is how long a hanging application lives.
const watchdogMillis = 5000

// confirmEarly is what the Arduino core does before setup().
func confirmEarly(s boot.Scheme) error {
	if err := s.Load(); err != nil {
		return err
	}
	for {
		done, err := s.Step(boot.GoalConfirm, s.Running())
		if done || errors.Is(err, esp32.ErrNotActive) || errors.Is(err, boot.ErrNotActive) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// loop does what the updater needs until it wants a reset.
func (r *run) loop(ctx context.Context, behave Behaviour) (boot.ResetReason, error) {
	var ans Answer
	closeAnswer := func() error {
		if ans == nil {
			return nil
		}
		a := ans
		ans = nil
		return a.Close()
	}
	defer func() {
		if err := closeAnswer(); err != nil && r.app.OnEvent != nil {
			r.Event(device.Event{Kind: device.EventUnreachable})
		}
	}()
	for {
		if r.b.Chip.Dead() {
			return 0, ErrPowerCut
		}
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		if r.app.Stop != nil && r.app.Stop() {
			return boot.ResetUnknown, nil
		}
		need := r.up.Step()
		switch need.Kind {
		case device.NeedSend:
			if ans != nil {
				return 0, errors.New("board: the updater asks while an answer is open: it was to be let go of first")
			}
			a, err := r.send(ctx)
			if err != nil {
				r.up.Broken()
				break
			}
			ans = a
			r.up.Response(a.Head())
		case device.NeedBytes:
			n, eof, err := ans.Read(r.up.Space())
			r.up.Fed(n)
			switch {
			case err != nil:
				r.up.Broken()
			case eof:
				r.up.EndOfBody()
			}
			if err != nil || eof {
				// A broken body was told already; closing it adds nothing.
				_ = closeAnswer()
			}
		case device.NeedClose:
			// What is wrong with the rest of an answer that nobody wants is of no interest.
			_ = closeAnswer()
		case device.NeedTime:
			if err := r.app.Clock.Wait(ctx, min(uint64(need.Wait), maxWait)); err != nil {
				return 0, err
			}
		case device.NeedSelfTest:
			r.up.SelfTest(behave != BehaveSelfTest)
		case device.NeedReset:
			return boot.ResetSoftware, nil
		}
	}
}

// maxWait keeps the loop looking at Stop and at the power.
const maxWait = 1000

func (r *run) send(ctx context.Context) (Answer, error) {
	if r.dead {
		return nil, errors.New("no network")
	}
	return r.app.Transport.Do(ctx, r.up.Request())
}
