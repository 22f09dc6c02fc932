package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/board"
)

// boardEvent is one line of what a board does, for people or as JSON.
type boardEvent struct {
	Seconds   float64 `json:"t"` // since the command began
	Event     string  `json:"event"`
	Slot      string  `json:"slot,omitempty"`
	Version   string  `json:"version,omitempty"`
	Bytes     uint32  `json:"bytes,omitempty"`
	Total     uint32  `json:"total,omitempty"`
	Chunk     uint32  `json:"chunk,omitempty"`
	Chunks    uint32  `json:"chunks,omitempty"`
	Rate      float64 `json:"bytes_per_second,omitempty"`
	RAM       int     `json:"ram_bytes,omitempty"` // in use now
	RAMPeak   int     `json:"ram_peak,omitempty"`  // the most since the start of the command
	RAMBudget int     `json:"ram_budget,omitempty"`
	Verifier  int     `json:"verifier_bytes,omitempty"` // of a signature check, apart from the RAM
	record    bool    // for people: what Chunk counts are records
	Reason    string  `json:"reason,omitempty"`
	Text      string  `json:"text,omitempty"`
}

// Budgets of the updater's RAM in bytes: what it may use beside its chunk buffer,
// and on the native wire, where the buffer also takes an envelope and behind a chunk
// its hash, at the chunk sizes that the budget was set for.
const (
	ramBeside       = 2048
	ramNativeSmall  = 3072 // chunks of up to 1,024
	ramBesideNative = 2560 // with 4,096: 6,656
)

func ramBudget(kind board.Kind, chunkBuffer int) int {
	switch {
	case kind == board.V1:
		return chunkBuffer + ramBeside
	case chunkBuffer <= 1024:
		return ramNativeSmall
	}
	return chunkBuffer + ramBesideNative
}

// ramMeter measures the updater's RAM: the size of its parts on this machine, and
// the bytes of a chunk that it has in hand, looked at between its steps. The chunk
// buffer is reserved all the time; the figure says how much of it holds a chunk.
type ramMeter struct{ resident, inHand, peak, budget int }

func newRAMMeter(kind board.Kind, chunkBuffer, slots int) ramMeter {
	resident := board.WorkingSet(kind, chunkBuffer, slots) - chunkBuffer
	return ramMeter{resident: resident, peak: resident, budget: ramBudget(kind, chunkBuffer)}
}

// patches counts the memory for derived streams, which is taken all the time.
func (m *ramMeter) patches(p board.PatchMemory) {
	if p == board.PatchNone {
		return
	}
	n := board.PatchBytes(p)
	m.resident, m.peak, m.budget = m.resident+n, m.peak+n, m.budget+n
}

func (m *ramMeter) sample(inHand uint32) {
	m.inHand = int(inHand)
	m.peak = max(m.peak, m.used())
}

func (m *ramMeter) used() int { return m.resident + m.inHand }

// rateMeter is the rate of the last few seconds: a server that was away must not
// make the time left wrong for the rest of a download.
type rateMeter struct {
	marks []rateMark
}

type rateMark struct {
	at    time.Time
	bytes uint32
}

const (
	rateEvery = 250 * time.Millisecond
	rateMarks = 12 // with rateEvery: three seconds
)

func (m *rateMeter) reset(now time.Time, bytes uint32) {
	m.marks = append(m.marks[:0], rateMark{now, bytes})
}

// add answers bytes a second, 0 where it is not known yet.
func (m *rateMeter) add(now time.Time, bytes uint32) float64 {
	if len(m.marks) == 0 {
		m.reset(now, bytes)
		return 0
	}
	oldest, newest := m.marks[0], m.marks[len(m.marks)-1]
	if now.Sub(newest.at) >= rateEvery {
		m.marks = append(m.marks, rateMark{now, bytes})
		m.marks = m.marks[max(0, len(m.marks)-rateMarks):]
	}
	s := now.Sub(oldest.at).Seconds()
	if s <= 0 || bytes < oldest.bytes {
		return 0
	}
	return float64(bytes-oldest.bytes) / s
}

// boardLog turns a running board's events into lines, and into looks for a view.
type boardLog struct {
	w       io.Writer
	asJSON  bool
	kind    board.Kind
	start   time.Time
	up      *device.Updater
	ram     ramMeter
	rate    rateMeter
	last    float64 // the rate
	lastPct uint32
	state   string     // what a board that waits would say: up to date, or what is wrong
	again   boardEvent // the newest line for people: it is not said twice in a row
	err     error
	live    *live          // nil: lines go to w
	bar     *term.Progress // nil: none
	trouble func() string  // why the server could not be reached; may be nil
	// verifier is the state of a signature check in bytes, stated apart; 0: it makes none.
	verifier int
}

func newBoardLog(w io.Writer, asJSON bool, kind board.Kind, chunkBuffer, slots int) *boardLog {
	return &boardLog{w: w, asJSON: asJSON, kind: kind, start: time.Now(), ram: newRAMMeter(kind, chunkBuffer, slots)}
}

// booted is called at each start of the chip: also of one whose image crashes.
func (l *boardLog) booted(r boot.ResetReason, b board.Boot) {
	l.emit(boardEvent{Event: "reset", Text: r.String()})
	for _, s := range b.Steps {
		l.emit(boardEvent{Event: "bootloader", Text: s})
	}
}

// started is called at each start of the updater.
func (l *boardLog) started(u *device.Updater, b board.Boot) {
	l.up = u
	l.emit(boardEvent{Event: "running", Slot: slotName(b.Running), RAM: l.ram.used(), RAMPeak: l.ram.peak, RAMBudget: l.ram.budget})
}

// step is called between the updater's steps.
func (l *boardLog) step() {
	if l.up == nil {
		return
	}
	st := l.up.Status()
	l.ram.sample(st.ChunkBytes)
	if l.live != nil {
		l.show(st, false)
	}
}

// show hands the view a look.
func (l *boardLog) show(st device.Status, force bool) {
	b := term.Board{Doing: l.doing(st), RAM: l.ram.used(), RAMPeak: l.ram.peak, RAMBudget: l.ram.budget}
	if l.kind == board.NativeWire {
		b.Unit, b.Verifier = "record", l.verifier
	}
	if st.Size > 0 && st.ChunkSize > 0 {
		b.Bytes, b.Total = st.Written, st.Size
		if l.state == "" { // while the server is away, nothing is known of the time left
			b.Rate = l.last
		}
		b.Chunk, b.Chunks = chunks(st.Written, st.ChunkSize), chunks(st.Size, st.ChunkSize)
	}
	l.live.show(b, st, force)
}

func chunks(bytes, size uint32) uint32 { return (bytes + size - 1) / size }

// doing is what the board does, in a line.
func (l *boardLog) doing(st device.Status) string {
	if l.again.Event == "power_cut" {
		return l.state
	}
	running := slotName(st.Running) + " runs"
	if st.Trial {
		running += ", on trial"
	}
	switch st.Phase {
	case "downloading", "verifying", "staging":
		running += fmt.Sprintf(": %s %s into %s", st.Phase, l.up.Version(), slotName(st.Target))
		if l.state == "" {
			return running
		}
		return running + "; " + l.state
	case "idle", "polling":
		if l.state != "" {
			return running + ": " + l.state
		}
	}
	return running + ": " + st.Phase
}

// note keeps what doing says while nothing else happens.
func (l *boardLog) note(e *boardEvent) {
	switch e.Event {
	case "up_to_date":
		l.state = "up to date"
	case "unreachable":
		l.state = "the server can't be reached"
	case "failed":
		l.state = "failed"
	case "power_cut":
		l.state = "powered off"
	case "chunk", "offer", "resume", "running":
		l.state = ""
	}
	if l.state != "" && e.Text+e.Reason != "" {
		l.state += ": " + e.details()
	}
}

var eventNames = map[device.EventKind]string{
	device.EventVerdict: "verdict", device.EventOffer: "offer", device.EventResume: "resume", device.EventStartOver: "damaged",
	device.EventNoResume: "no_resume", device.EventErase: "erase", device.EventChunk: "chunk", device.EventRefused: "chunk_refused",
	device.EventVerifying: "verifying", device.EventVerified: "verified", device.EventStaged: "staged", device.EventTrial: "trial",
	device.EventConfirmed: "confirmed", device.EventReverting: "reverting", device.EventFailed: "failed",
	device.EventUpToDate: "up_to_date", device.EventUnreachable: "unreachable", device.EventReported: "reported",
	device.EventKeyList: "key_list", device.EventDerived: "derived", device.EventFullStream: "full_stream",
}

// event is what the updater says. Chunks are told at each tenth; as JSON, all.
func (l *boardLog) event(e device.Event) {
	out := boardEvent{Event: eventNames[e.Kind], Reason: e.Reason.String(), Slot: slotName(e.Slot)}
	st := l.up.Status()
	switch e.Kind {
	case device.EventVerdict:
		if l.up.Verdict() == boot.VerdictNone {
			return
		}
		out.Slot, out.Text = "", l.up.Verdict().String()
	case device.EventKeyList:
		out.Slot, out.Text = "", "a newer one, signed by the roots that the board holds"
	case device.EventDerived:
		out.Slot, out.Text = "", fmt.Sprintf("%s of %s bytes", yes(st.Patch, "a patch", "a compressed stream"), term.Number(st.Derived))
	case device.EventFailed:
		switch e.Reason {
		case device.ReasonTrust, device.ReasonKeyList, device.ReasonManifest, device.ReasonSignature:
			out.Slot = "" // it never came to one
		}
	case device.EventUnreachable:
		out.Slot = ""
		if l.trouble != nil {
			out.Text = l.trouble()
		}
	case device.EventOffer, device.EventResume:
		l.last = 0
		l.rate.reset(time.Now(), e.Bytes)
		l.bar.Restart()
		out.Version, out.Bytes, out.Total = string(l.up.Version()), e.Bytes, st.Size
		l.lastPct = tenth(e.Bytes, st.Size)
	case device.EventErase, device.EventVerifying, device.EventReported:
		if !l.asJSON {
			return
		}
	case device.EventChunk:
		l.last = l.rate.add(time.Now(), e.Bytes)
		l.bar.Set(int64(e.Bytes), int64(st.Size))
		at := tenth(e.Bytes, st.Size)
		l.state = ""
		// A person who looks on has a bar.
		if !l.asJSON && (at == l.lastPct || l.bar != nil || l.live != nil) {
			return
		}
		l.lastPct = at
		out.Bytes, out.Total, out.Rate = e.Bytes, st.Size, l.last
		out.Chunk, out.Chunks, out.record = chunks(e.Bytes, st.ChunkSize), chunks(st.Size, st.ChunkSize), l.kind == board.NativeWire
		out.RAM, out.RAMPeak, out.RAMBudget = l.ram.used(), l.ram.peak, l.ram.budget
	}
	l.emit(out)
}

func tenth(bytes, size uint32) uint32 {
	if size == 0 {
		return 0
	}
	return uint32(uint64(bytes) * 10 / uint64(size))
}

// emit writes a line, or has the view show it.
func (l *boardLog) emit(e boardEvent) {
	if l.err != nil {
		return
	}
	e.Seconds = time.Since(l.start).Seconds()
	if l.asJSON {
		var b []byte
		if b, l.err = json.Marshal(e); l.err == nil {
			_, l.err = l.w.Write(append(b, '\n'))
		}
		return
	}
	l.note(&e)
	// A board that polls says the same over and over.
	same := e
	same.Seconds = l.again.Seconds
	if same == l.again {
		return
	}
	l.again = e
	if l.live != nil {
		l.live.view.Say(e.line())
		if l.up != nil {
			l.show(l.up.Status(), true)
		}
		return
	}
	l.bar.Clear()
	_, l.err = fmt.Fprintln(l.w, yes(e.Event == "step", "\n", "")+e.line())
}

// line is the event for people. Versions come from a server: control characters go.
func (e *boardEvent) line() string {
	return strings.TrimRight(fmt.Sprintf("%8.2fs  %-13s %s", e.Seconds, e.Event, fleet.CleanText(e.details(), 400)), " ")
}

func (e *boardEvent) details() string {
	s := e.Slot
	add := func(format string, args ...any) {
		if s != "" {
			s += " "
		}
		s += fmt.Sprintf(format, args...)
	}
	if e.Version != "" {
		add("version %s", e.Version)
	}
	if e.Chunks > 0 {
		add("%s %s of %s,", yes(e.record, "record", "chunk"), term.Number(e.Chunk), term.Number(e.Chunks))
	}
	if e.Total > 0 {
		add("%s of %s bytes", term.Number(e.Bytes), term.Number(e.Total))
	}
	if e.Rate > 0 {
		s += fmt.Sprintf(", %.0f KiB/s", e.Rate/1024)
	}
	if e.Chunks > 0 {
		s += fmt.Sprintf(", RAM at most %s of %s bytes", term.Number(e.RAMPeak), term.Number(e.RAMBudget))
	}
	for _, t := range []string{e.Text, e.Reason} {
		if t == "" {
			continue
		}
		if s != "" {
			s += ": "
		}
		s += t
	}
	return s
}
