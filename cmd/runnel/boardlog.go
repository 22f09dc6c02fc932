package main

import (
	"encoding/json"
	"fmt"
	"io"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
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
	RAM       int     `json:"ram_bytes,omitempty"`
	RAMBudget int     `json:"ram_budget,omitempty"`
	Reason    string  `json:"reason,omitempty"`
	Text      string  `json:"text,omitempty"`
}

// ramBudget is what the updater may use at chunks of 1,024 bytes.
const ramBudget = 3072

// boardLog turns a running board's events into lines.
type boardLog struct {
	w       io.Writer
	asJSON  bool
	start   time.Time
	up      *device.Updater
	ram     int
	since   time.Time // of the download's first chunk in this start
	from    uint32
	lastPct uint32
	err     error
	live    *liveView // nil: lines go to w
}

func newBoardLog(w io.Writer, asJSON bool, chunk, slots int) *boardLog {
	return &boardLog{w: w, asJSON: asJSON, start: time.Now(), ram: board.WorkingSet(chunk, slots)}
}

// started is called at each start of the updater.
func (l *boardLog) started(u *device.Updater, b board.Boot) {
	l.up = u
	for _, s := range b.Steps {
		l.emit(boardEvent{Event: "bootloader", Text: s})
	}
	l.emit(boardEvent{Event: "running", Slot: slotName(b.Running), RAM: l.ram, RAMBudget: ramBudget})
}

var eventNames = map[device.EventKind]string{
	device.EventVerdict: "verdict", device.EventOffer: "offer", device.EventResume: "resume", device.EventStartOver: "damaged",
	device.EventNoResume: "no_resume", device.EventErase: "erase", device.EventChunk: "chunk", device.EventRefused: "chunk_refused",
	device.EventVerifying: "verifying", device.EventVerified: "verified", device.EventStaged: "staged", device.EventTrial: "trial",
	device.EventConfirmed: "confirmed", device.EventReverting: "reverting", device.EventFailed: "failed",
	device.EventUpToDate: "up_to_date", device.EventUnreachable: "unreachable", device.EventReported: "reported",
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
		out.Text = l.up.Verdict().String()
	case device.EventOffer, device.EventResume:
		l.since, l.from, l.lastPct = time.Now(), e.Bytes, 0
		out.Version, out.Bytes, out.Total = string(l.up.Version()), e.Bytes, st.Size
	case device.EventErase, device.EventVerifying, device.EventReported:
		if !l.asJSON {
			return
		}
	case device.EventChunk:
		out.Bytes, out.Total = e.Bytes, st.Size
		out.Chunk, out.Chunks = (e.Bytes+st.ChunkSize-1)/st.ChunkSize, (st.Size+st.ChunkSize-1)/st.ChunkSize
		out.RAM, out.RAMBudget = l.ram, ramBudget
		if s := time.Since(l.since).Seconds(); s > 0 {
			out.Rate = float64(e.Bytes-l.from) / s
		}
		pct := uint32(uint64(e.Bytes) * 10 / uint64(st.Size))
		if !l.asJSON && pct == l.lastPct {
			if l.live != nil {
				l.live.event(out, "")
			}
			return
		}
		l.lastPct = pct
	}
	l.emit(out)
}

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
	line := fmt.Sprintf("%8.2fs  %-13s", e.Seconds, e.Event)
	if e.Slot != "" {
		line += " " + e.Slot
	}
	if e.Version != "" {
		line += " version " + e.Version
	}
	if e.Chunks > 0 {
		line += fmt.Sprintf(" chunk %d of %d,", e.Chunk, e.Chunks)
	}
	if e.Total > 0 {
		line += fmt.Sprintf(" %d of %d bytes", e.Bytes, e.Total)
	}
	if e.Rate > 0 {
		line += fmt.Sprintf(", %.0f KiB/s", e.Rate/1024)
	}
	if e.RAM > 0 {
		line += fmt.Sprintf(", RAM %d of %d bytes", e.RAM, e.RAMBudget)
	}
	for _, s := range []string{e.Text, e.Reason} {
		if s != "" {
			line += "  " + s
		}
	}
	if l.live != nil {
		l.live.event(e, line)
		return
	}
	_, l.err = fmt.Fprintln(l.w, line)
}
