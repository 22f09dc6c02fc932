package main

import (
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	xterm "golang.org/x/term"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/nor"
)

// What is drawn on a terminal, and when there is one: internal/term draws it.

// terminal answers w as one that can be drawn on; nil: a pipe, a file, or a
// terminal that can't move its cursor.
func terminal(w io.Writer) *os.File {
	f, ok := w.(*os.File)
	if !ok || !xterm.IsTerminal(int(f.Fd())) || strings.EqualFold(os.Getenv("TERM"), "dumb") {
		return nil
	}
	return f
}

// newProgress is a progress line on w, where that is a terminal; nil where not.
func newProgress(w io.Writer, label string) *term.Progress {
	f := terminal(w)
	if f == nil {
		return nil
	}
	return term.NewProgress(f, label, func() int {
		if width, _, err := xterm.GetSize(int(f.Fd())); err == nil {
			return width
		}
		return 80
	})
}

// live is the view of one running board.
type live struct {
	view  *term.View
	chip  *nor.Chip
	table *esp32.Table
}

// newLive starts a view where there is a terminal for it; quit is the hand on the plug.
func newLive(cmd *cobra.Command, title string, chip *nor.Chip, table *esp32.Table, quit func()) *live {
	f := terminal(cmd.OutOrStdout())
	if f == nil {
		return nil
	}
	return &live{view: term.Start(cmd.InOrStdin(), f, title, term.Board{}, quit), chip: chip, table: table}
}

// show hands the view a look at the board, if it has drawn the last one or force says so.
func (l *live) show(b term.Board, st device.Status, force bool) {
	if !force && !l.view.Wanted() {
		return
	}
	b.SectorBytes = l.chip.Geometry().EraseSize
	b.Cells = flashCells(l.chip.Raw(), b.SectorBytes, l.table, st)
	l.view.Show(b)
}

// flashCells says what each sector holds.
func flashCells(raw []byte, sector uint32, t *esp32.Table, st device.Status) []term.Cell {
	cells := make([]term.Cell, uint32(len(raw))/sector)
	for i := range cells {
		off := uint32(i) * sector
		cells[i] = flashCell(off, raw[off:off+sector], t, st)
	}
	return cells
}

func flashCell(off uint32, data []byte, t *esp32.Table, st device.Status) term.Cell {
	p := partitionAt(t, off)
	switch {
	case p == nil && off < esp32.TableOffset+esp32.SectorSize && !blank(data):
		return term.CellBoot
	case p == nil:
		return term.CellNone
	case p.Type == esp32.TypeData && p.Subtype == esp32.SubtypeOTA:
		return term.CellBoot
	case p.Type != esp32.TypeApp:
		return term.CellData
	case blank(data):
		return term.CellErased
	}
	slot := boot.Factory
	if p.Subtype >= esp32.SubtypeOTA0 && p.Subtype < esp32.SubtypeOTA0+16 {
		slot = boot.Slot(p.Subtype - esp32.SubtypeOTA0)
	}
	switch {
	case slot == st.Running:
		return term.CellRunning
	case slot == st.Target && off-p.Offset < st.Written:
		return term.CellNew
	}
	return term.CellOld
}

func partitionAt(t *esp32.Table, off uint32) *esp32.Partition {
	for i := range t.P[:t.N] {
		if p := &t.P[i]; off >= p.Offset && off-p.Offset < p.Size {
			return p
		}
	}
	return nil
}

// blank looks at a byte in each 64: enough for a picture.
func blank(data []byte) bool {
	for i := 0; i < len(data); i += 64 {
		if data[i] != 0xFF {
			return false
		}
	}
	return true
}
