// Package device is the updater: it polls, takes an image chunk by chunk into
// the slot that does not run, proves what is in flash, stages it, and after the
// reset confirms it or goes back.
//
// It owns no socket, no thread and no memory beyond what it is given: the caller
// calls Step in a loop and does what Need says. One Step does at most one flash
// operation, or hashes at most 4 KiB, so the caller can feed its watchdog and
// choose the moment. Nothing is allocated after New.
//
// Rules behind it: docs/design/trial.md (slots, trial) and docs/design/journal.md
// (erase, journal, resume). Invariants that tests name:
//
//	I1 a byte reaches flash only after its chunk's MAC, number and length were right
//	I2 the running slot is never erased or programmed
//	I3 while the running image is on trial nothing of any other slot is touched
//	I4 no unit is programmed twice without an erase
//	I5 the boot record changes only after the whole image was read back and proven
//	I6 what was durable in flash is not fetched again, but for max(4 KiB, a chunk)
package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/state"
)

// Port is what the updater needs of the chip.
type Port interface {
	// Millis is a clock that never goes back, from the start of the chip.
	Millis() uint64
	// Unix is the time of day in seconds, 0 where it is not known.
	Unix() uint32
	Random() uint32
	ResetReason() boot.ResetReason
	// Bootable is the chip's own verdict on a slot's image, asked before the
	// switch; a chip that has none answers true.
	Bootable(boot.Slot) bool
}

// Healthy is the power of a Port to say how its board is doing, with each poll of the
// native wire: an encoded native.Health in memory of the board's, which lasts until the
// next call; nil for nothing. Where no Port has it, nothing of it is linked.
type Healthy interface{ Health() []byte }

// ImageCheck is the boot loader's image check, fed from the start of a slot, on the
// pass that takes the slot's SHA-256; core/esp32's ImagePass is one. Write takes more
// bytes than the image has; its first error stays, and End returns it.
type ImageCheck interface {
	// Begin starts the check, and the hash h, which gets every byte that is written.
	Begin(chip uint16, limit uint32, h *digest.SHA256)
	Write(p []byte) error
	End() error
}

// Store keeps the state.Record; state.Sectors is one. Save does one flash
// operation a call.
type Store interface {
	Load(r *state.Record, buf []byte) error
	Save(r *state.Record, buf []byte) (done bool, err error)
}

// Observer hears what happens, for a view or a log. It must not call back.
type Observer interface {
	Event(Event)
}

// Event is one thing that happened. Bytes is how far the target is written.
type Event struct {
	Kind   EventKind
	Reason Reason
	Slot   boot.Slot
	Bytes  uint32
}

// EventKind says what happened.
type EventKind uint8

const (
	EventVerdict     EventKind = iota + 1 // after a reset; Updater.Verdict says which
	EventOffer                            // a release is on offer and will be taken
	EventResume                           // a download goes on at Bytes
	EventStartOver                        // what was in flash could not be used
	EventNoResume                         // this download can't be resumed; Reason says why
	EventErase                            // the target is erased up to Bytes
	EventChunk                            // a chunk was verified, programmed and read back
	EventRefused                          // a chunk was refused before it reached flash
	EventVerifying                        // the whole image is being read back
	EventVerified                         //
	EventStaged                           // the boot record names the target
	EventTrial                            // this image is on trial
	EventConfirmed                        //
	EventReverting                        // going back
	EventFailed                           // the deployment failed
	EventUpToDate                         // what runs is what is on offer
	EventUnreachable                      // the server could not be reached
	EventReported                         // a report was acknowledged
	EventKeyList                          // a new key list was accepted
	EventDerived                          // the image comes by a patch or compressed stream; Status says how many bytes it has
	EventFullStream                       // a patch or compressed stream is of no use; Reason says why, the raw stream is taken
)

// Need is what Step wants next.
type Need struct {
	Kind NeedKind
	// Wait is how long nothing happens by itself, in milliseconds (NeedTime).
	Wait uint32
}

// NeedKind is what the caller does before the next Step.
type NeedKind uint8

const (
	NeedStep     NeedKind = iota // nothing: call Step again
	NeedSend                     // send Request(), then call Response, or Broken
	NeedBytes                    // read into Space(), then Fed; EndOfBody or Broken at the body's end
	NeedClose                    // let go of the answer that is being read
	NeedTime                     // wait, at most Wait
	NeedSelfTest                 // the image on trial tests itself: call SelfTest
	NeedReset                    // reset the chip now
)

// Config is what an Updater is made of.
type Config struct {
	Parts
	// Journal is the partition for the journal: two sectors. Size 0: the target's
	// tail is used where the image leaves it free.
	Journal flash.Area
	// Wire is what it speaks with the server: a V1's or a Native's, for this Updater alone.
	Wire Wire
	// Buffer is the one that everything passes through: a chunk, requests, answers,
	// what is read back. At least MinBuffer bytes; each wire says what chunks it
	// takes with how much. The caller keeps it for the Updater alone.
	Buffer []byte
}

// Parts is what an Updater keeps.
type Parts struct {
	Port   Port
	Boot   boot.Scheme
	Slots  []flash.Area // by slot number
	Chip   uint16       // for ImageCheck
	Image  ImageCheck
	Store  Store    // nil: no state outlives an update; see docs/design/trial.md
	Events Observer // nil: nobody listens

	// HasFactory: a factory image is there to go back to.
	HasFactory bool
	// SectorsOnly caps a stall at one sector's erase, at the price of time.
	SectorsOnly bool
	// NoContact lets an image confirm on its self-test alone.
	NoContact bool

	PollMillis  uint32 // between polls; 0: the default, a minute
	TrialMillis uint32 // for a self-test and contact; 0: the default, five minutes
	ReportEvery uint32 // chunks between progress reports; 0: 64, and 1 MiB of them on the native wire
}

// Limits and defaults, with their reasons.
const (
	// MinChunkBuffer: the state's record, and every request, are built in the chunk
	// buffer while no chunk is in hand. Bytes.
	MinChunkBuffer = state.BufferSize
	// MinBuffer in bytes: with less, no wire takes any chunk.
	MinBuffer = MinChunkBuffer + 256

	defaultPollMillis  = 60_000
	defaultTrialMillis = 5 * 60_000
	defaultReportEvery = 64
	// nativeReportBytes: a report interrupts a stream, and costs two round trips.
	nativeReportBytes = 1 << 20

	maxBuffer = 65535 // offsets in it are 16 bits

	hashBytesPerStep = 4096       // architecture.md, idea 4: one bounded thing
	programPerStep   = 4096       //
	chunkTries       = 6          // wrong chunks in a row before the deployment fails
	networkTries     = 8          // failed requests in a row before the poll interval rules
	maxSpent         = 16         // times that releases are begun and given up before only a newer one is taken
	backoffBase      = 1_000      // ms, doubled a try
	backoffCap       = 300_000    // ms
	parkCap          = 3_600_000  // ms: what a download that gets nowhere may cost a day is 24 erases of a sector
	maxRetryAfter    = 3600       // s
	restageMillis    = 2 * 60_000 // the old image runs this long before it stages again
	maxStagings      = 4          // the first and three more
	maxTrialBoots    = 3          // where the bootloader has no rollback
	nonceBlock       = 4096       // reserved at a time: one state write per so many requests
)

// Error is a wrong Config.
type Error uint8

const (
	ErrBuffer Error = iota + 1
	ErrSlots
	ErrPort
	ErrJournal
	ErrIdentity
	ErrTrust
	ErrPatches
)

//go:noinline
func (e Error) Error() string {
	switch e {
	case ErrBuffer:
		return "device: buffer too short or not a multiple of the program unit"
	case ErrSlots:
		return "device: no slot to update"
	case ErrPort:
		return "device: port, boot scheme, image check or wire missing"
	case ErrJournal:
		return "device: journal area is not two sectors"
	case ErrIdentity:
		return "device: no id, no product or no key"
	case ErrTrust:
		return "device: no roots, no verifier, or no store for a key list"
	case ErrPatches:
		return "device: memory for patches too short, or an output buffer that is no power of two from 256 to 4,096 and no multiple of the program units"
	}
	return "device: unknown error"
}

// Updater is the device core. Make one with New after every reset.
//
// What is used most comes first, bytes before words before arrays: a Cortex-M0 reaches
// the first 32 bytes, 64 of halfwords and 128 of words of a struct in one instruction.
type Updater struct {
	phase    phase
	sub      uint8
	then     phase // where a report or a journal entry returns to
	saveNext phase // where a save of the state returns to

	target   boot.Slot
	verdict  boot.Verdict
	trial    bool  // the running image is on trial (I3)
	contact  bool  //
	selfTest uint8 // 0 not done, 1 passed, 2 failed

	chain     bool  // records prove what is in flash; releases have sequences
	signed    bool  // requests carry nonces
	partition bool  // the journal has a partition of its own
	pauses    bool  // the request in progress ends with the chunk in hand
	final     bool  // the poll to come is the one right before the switch
	goOn      bool  // the release is the one that the journal has
	ends      bool  // it ends another one that the journal has
	tries     uint8 //
	parks     uint8 // downloads or manifests in a row that got nowhere
	saying    saying
	failing   Reason
	isSame    bool
	warned    bool // a refused offer was reported in this start

	io   exchange
	inst install
	rel  release // in progress, or on offer and looked at

	buf     []byte
	chunkTo uint16         // where the part of buf ends that holds a chunk
	spareAt uint16         // where the part begins that is free while a chunk is in hand
	hash    *digest.SHA256 // the wire's, between two of its exchanges
	w       Wire
	c       Parts

	wakeAt  uint64
	pollAt  uint64
	stageAt uint64 // when to stage again; 0: not
	trialBy uint64
	nonce   uint64

	jnl    journal
	failed imageID // not tried again until the next start
	same   imageID // found to run
	rec    state.Record
	sum    [32]byte // a slot's hash, or a chunk's MAC; a field, because what meets an interface escapes
}

// chained: records prove what is in flash; else CRCs say what may be there, as over v1.
func (u *Updater) chained() bool { return !v1Made || u.chain }

// imageID tells offers apart in RAM: the head of the digest, and the stamp.
type imageID struct {
	stamp uint32
	head  [8]byte
}

//go:noinline
func (id *imageID) set(d *[32]byte, stamp uint32) {
	id.stamp = stamp
	copy(id.head[:], d[:])
}

func (id *imageID) is(d *[32]byte, stamp uint32) bool {
	return id.stamp == stamp && digest.Equal(id.head[:], d[:len(id.head)])
}

// same compares two digests. (As arrays they would be compared byte by byte in line.)
//
//go:noinline
func same(a, b *[32]byte) bool { return digest.Equal(a[:], b[:]) }

// chunk is where a chunk lies, and everything that passes while none is in hand.
func (u *Updater) chunk() []byte { return u.buf[:u.chunkTo] }

// spare is free while a chunk is in hand.
func (u *Updater) spare() []byte { return u.buf[u.spareAt:] }

// release is one on offer or in progress.
type release struct {
	chunk uint32 // bytes
	known bool   // digest, size and chunk are set
	state.Image
}

func (r *release) set(o *release) {
	r.chunk, r.known = o.chunk, true
	r.Image.Set(&o.Image)
}

// New checks the Config, which is not kept. It touches no hardware.
//
//go:noinline
func New(u *Updater, c *Config) error {
	*u = Updater{c: c.Parts}
	if c.Port == nil || c.Boot == nil || c.Image == nil || c.Wire.by == nil {
		return ErrPort
	}
	if len(c.Slots) == 0 || (len(c.Slots) == 1 && !c.HasFactory) {
		return ErrSlots
	}
	if c.Journal.Size() != 0 && c.Journal.Size() != 2*c.Journal.EraseSize() {
		return ErrJournal
	}
	if len(c.Buffer) < MinBuffer || len(c.Buffer) > maxBuffer {
		return ErrBuffer
	}
	u.w, u.buf = c.Wire, c.Buffer
	if err := u.w.by.attach(u); err != nil {
		return err
	}
	if uint32(u.chunkTo)%c.Slots[0].ProgramSize() != 0 {
		return ErrBuffer
	}
	u.jnl.area, u.partition = c.Journal, c.Journal.Size() != 0
	if u.c.PollMillis == 0 {
		u.c.PollMillis = defaultPollMillis
	}
	if u.c.TrialMillis == 0 {
		u.c.TrialMillis = defaultTrialMillis
	}
	return nil
}

// Status is a look at the updater, for a view.
type Status struct {
	Phase      string
	Running    boot.Slot
	Target     boot.Slot
	Trial      bool
	Size       uint32 // bytes of the release in progress, 0: none
	ChunkSize  uint32
	Written    uint32 // bytes programmed and read back
	Erased     uint32 // bytes of the target erased
	ChunkBytes uint32 // bytes of a chunk in hand
	Reason     Reason // why the last deployment failed
	Derived    uint32 // bytes of the derived stream that the image comes by; 0: a raw one
	Patch      bool   // it is a patch, else compressed
}

// Status may be called between Steps.
func (u *Updater) Status() Status {
	s := Status{
		Phase: u.phase.String(), Running: u.running(), Target: u.target, Trial: u.trial,
		Written: u.inst.written, Erased: u.inst.erased, ChunkBytes: u.inst.inHand, Reason: u.failing,
	}
	if u.rel.known {
		s.Size, s.ChunkSize = u.rel.Size, u.rel.chunk
	}
	if p := u.patching(); p != nil {
		s.Derived, s.Patch = p.shape.Size, p.kind == manifest.StreamPatch
	}
	return s
}

// Verdict is what the last reset meant, once Step has found out.
func (u *Updater) Verdict() boot.Verdict { return u.verdict }

// Version is the text of the release in progress.
func (u *Updater) Version() []byte { return u.rel.Version[:u.rel.VersionLen] }

// State is what the updater remembers; read only.
func (u *Updater) State() *state.Record { return &u.rec }

// SelfTest is the image's word on itself, when it is on trial.
func (u *Updater) SelfTest(passed bool) {
	u.selfTest = 2
	if passed {
		u.selfTest = 1
	}
}

// blame notes why the deployment, or what was tried, failed.
func (u *Updater) blame(r Reason) {
	u.failing = r
	u.event(EventFailed, r)
}

//go:noinline
func (u *Updater) event(k EventKind, r Reason) {
	if u.c.Events == nil {
		return
	}
	e := Event{Kind: k, Reason: r, Slot: u.target, Bytes: u.inst.written}
	switch k {
	case EventTrial, EventConfirmed, EventUpToDate:
		e.Slot = u.running()
	}
	u.c.Events.Event(e)
}
