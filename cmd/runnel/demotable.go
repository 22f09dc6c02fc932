package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/board"
)

// The end of the demo: what was measured, as a table or as the summary.

// The original's page: free heap before and with a chunk in hand, in bytes.
const (
	originalBefore = 285_432
	originalInHand = 282_156
)

// demoRow is one row of the table: the original's page shows the same columns.
type demoRow struct {
	when    string
	flash   uint32   // bytes of B in flash
	powered bool     // there is RAM to speak of
	ram     ramMeter // then
}

// demoRows collects the rows while B is downloaded.
type demoRows struct {
	rows   []demoRow
	inHand *demoRow // with a chunk in hand, looked at last
	full   bool     // B is in flash
}

func (d *demoRows) row(when string, flash uint32, ram *ramMeter) {
	r := demoRow{when: when, flash: flash}
	if ram != nil {
		r.powered, r.ram = true, *ram
	}
	d.rows = append(d.rows, r)
}

// observe takes the rows that an event marks.
func (d *demoRows) observe(e device.Event, ram ramMeter) {
	switch {
	case d.full:
	case e.Kind == device.EventOffer && len(d.rows) == 0:
		d.row("before", e.Bytes, &ram)
	case e.Kind == device.EventChunk && len(d.rows) == 2:
		ram.sample(0) // it is in flash, and forgotten
		d.row("after it, chunk in flash", e.Bytes, &ram)
	case e.Kind == device.EventResume:
		d.row("resumed after the power cut", e.Bytes, &ram)
	case e.Kind == device.EventVerifying:
		if d.inHand != nil {
			d.rows = append(d.rows, *d.inHand)
		}
		d.row("after, all chunks in flash", e.Bytes, &ram)
		d.full = true
	}
}

// look takes the rows of what is in RAM between two steps.
func (d *demoRows) look(st device.Status, ram ramMeter) {
	if d.full || st.ChunkBytes == 0 {
		return
	}
	if len(d.rows) == 1 {
		d.row("with a chunk in hand", st.Written, &ram)
	}
	d.inHand = &demoRow{when: "with the last chunk in hand", flash: st.Written, powered: true, ram: ram}
}

// summary is the contract's last line.
type summary struct {
	Event      string  `json:"event"`
	OK         bool    `json:"ok"`
	ImageBytes int     `json:"image_bytes"`
	Chunks     int     `json:"chunks"`
	ChunkBytes int     `json:"chunk_bytes"`
	WorkingSet int     `json:"working_set_bytes"`
	Allocs     float64 `json:"allocs_per_chunk"`
	Refetched  int     `json:"refetched_bytes"`
	RolledBack bool    `json:"rolled_back"`
	Seconds    float64 `json:"seconds"`
	*NativeSummary
	Error string `json:"error,omitempty"`
}

// NativeSummary is what the native wire's summary says beside. Its name is for
// package json, which reads into no other.
type NativeSummary struct {
	Wire         string  `json:"wire"`
	TimeRatio    float64 `json:"update_time_ratio"`
	TimeRatioCut float64 `json:"update_time_ratio_cut"`
	WireBytes    int64   `json:"wire_bytes"`
	Overhead     float64 `json:"overhead_ratio"`
}

func (s *summary) native(wireBytes int64, image int, smooth, cut time.Duration) {
	round := func(v float64) float64 { return math.Round(v*1e4) / 1e4 }
	ratio := func(d time.Duration) float64 { return round(float64(d) / float64(flashTime(image))) }
	s.NativeSummary = &NativeSummary{Wire: "native", TimeRatio: ratio(smooth), TimeRatioCut: ratio(cut),
		WireBytes: max(wireBytes, 0), Overhead: round(float64(wireBytes) / float64(image))}
}

const maxRefetched = 4096 // bytes: invariant I6

// outOfBounds says which figure is not as it should be.
func (s *summary) outOfBounds(ram ramMeter) error {
	switch {
	case !s.RolledBack:
		return errors.New("the board did not return to B's slot")
	case s.Refetched > maxRefetched:
		return fmt.Errorf("%d bytes were fetched twice, more than %d", s.Refetched, maxRefetched)
	case s.WorkingSet > ram.budget:
		return fmt.Errorf("the updater takes %d bytes, more than its budget of %d", s.WorkingSet, ram.budget)
	case ram.peak > s.WorkingSet || ram.peak <= ram.resident:
		return fmt.Errorf("%d bytes of RAM were seen in use, of %d", ram.peak, s.WorkingSet)
	case s.Allocs != 0:
		return fmt.Errorf("%g allocations a chunk", s.Allocs)
	case s.NativeSummary == nil:
		return nil
	case s.Overhead <= 1 || s.TimeRatio <= 0 || s.TimeRatioCut <= 0:
		// Fewer bytes than the image has, or no end of an update: nothing was measured.
		return fmt.Errorf("%d bytes on the wire, %g and %g of the flash's time: that is no update", s.WireBytes, s.TimeRatio, s.TimeRatioCut)
	}
	return nil
}

// finish prints the table or the summary.
func (d *demo) finish(s summary) error {
	if d.asJSON {
		b, err := json.Marshal(s)
		if err == nil {
			_, err = d.out.Write(append(b, '\n'))
		}
		return err
	}
	var text strings.Builder
	row := func(cells ...any) { fmt.Fprintf(&text, "%-30s %12s %16s %14s\n", cells...) }
	fmt.Fprintln(&text)
	row("RAM and flash over time", "RAM in use", "free of "+term.Number(d.log.ram.budget), "in flash")
	most, least := 0, d.log.ram.budget
	for _, r := range d.rows {
		used, free := "off", "off"
		if r.powered {
			used, free = term.Number(r.ram.used()), term.Number(r.ram.budget-r.ram.used())
			most, least = max(most, r.ram.used()), min(least, r.ram.used())
		}
		row(r.when, used, free, term.Number(r.flash))
	}
	t := tabwriter.NewWriter(&text, 0, 4, 3, ' ', 0)
	line := func(what, format string, args ...any) { fmt.Fprintf(t, "%s\t%s\n", what, fmt.Sprintf(format, args...)) }
	fmt.Fprintln(t)
	line("RAM for a chunk in hand", "%s bytes", term.Number(max(0, most-least)))
	line("  on the original's page", "%s - %s = %s bytes", term.Number(originalBefore), term.Number(originalInHand), term.Number(originalBefore-originalInHand))
	line("RAM reserved, in all", "%s bytes", term.Number(s.WorkingSet))
	if s.NativeSummary != nil {
		line("apart, to check a signature", "%s bytes", term.Number(board.VerifierBytes()))
	}
	line("allocations a chunk", "%g", s.Allocs)
	line("image", "%s bytes in %s chunks of %s", term.Number(s.ImageBytes), term.Number(s.Chunks), term.Number(s.ChunkBytes))
	line("fetched twice because of the cut", "%s bytes", term.Number(s.Refetched))
	if n := s.NativeSummary; n != nil {
		line("on the wire, all in all", "%s bytes: %.3f x the image", term.Number(n.WireBytes), n.Overhead)
		line("time on a modelled board", "%.2f x the flash's own; with the cut %.2f x", n.TimeRatio, n.TimeRatioCut)
	}
	line("back to B after C's crash", "%s", yes(s.RolledBack, "yes", "no"))
	line("time", "%.1f s", s.Seconds)
	line("result", "%s", yes(s.OK, "ok", "not ok"))
	if err := t.Flush(); err != nil {
		return err
	}
	_, err := io.WriteString(d.out, text.String())
	return err
}
