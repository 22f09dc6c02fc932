package term

import (
	"fmt"
	"strings"
	"time"

	"charm.land/lipgloss/v2"
)

func (b Board) render(title string, lines []string, width, height int) string {
	b.Doing = clean(b.Doing)
	return (&screen{title, b, lines}).render(width, height)
}

// screen is what is drawn of a board: text from data and a size, nothing else.
type screen struct {
	title string
	board Board
	lines []string // what happened, oldest first
}

// Bounds of the layout, in columns and rows.
const (
	minWidth  = 20
	maxWidth  = 140
	minLines  = 3 // of what happened, before the map gets more rows
	minMap    = 4 // rows: a smaller map says nothing
	ramBar    = 24
	partSpace = 3
)

var (
	styleTitle = lipgloss.NewStyle().Bold(true)
	styleDim   = lipgloss.NewStyle().Faint(true)
	styleBar   = lipgloss.NewStyle().Foreground(lipgloss.Color("6"))
	cellStyle  = map[Cell]lipgloss.Style{
		CellNone:    lipgloss.NewStyle(),
		CellErased:  styleDim,
		CellBoot:    lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
		CellData:    lipgloss.NewStyle().Foreground(lipgloss.Color("5")),
		CellRunning: lipgloss.NewStyle().Foreground(lipgloss.Color("2")),
		CellNew:     styleBar,
		CellOld:     styleDim,
	}
	legend = []string{"# running", "= new", "- older image", ". erased", "t boot, table", "s state, journal, data"}
)

// render draws into width columns and at most height rows: a terminal that is
// too small loses the legend first, then the map, then what happened.
func (s *screen) render(width, height int) string {
	w := min(max(width, minWidth), maxWidth)
	b := &s.board
	rows := []string{cut(styleTitle.Render("runnel board")+"  "+s.title, w), cut(b.Doing, w)}
	if height >= 20 {
		rows = append(rows, "")
	}
	rows = append(rows, s.progress(w)...)
	rows = append(rows, s.ram(w)...)
	rest := height - len(rows)
	keys := flow(w, append([]string{"a cell: 000 KiB"}, legend...)...)
	// Blank, map, legend, blank, lines.
	room := rest - 2 - len(keys) - minLines
	if room < minMap {
		keys = nil
		room = rest - 2 - 1
	}
	if room >= minMap && len(b.Cells) > 0 {
		m, per := flashMap(b.Cells, b.SectorBytes, w, room)
		rows = append(append(rows, ""), m...)
		if keys != nil {
			keys = flow(w, append([]string{fmt.Sprintf("a cell: %d KiB", uint32(per)*b.SectorBytes/1024)}, legend...)...)
			for _, k := range keys {
				rows = append(rows, styleDim.Render(k))
			}
		}
	}
	if rest = height - len(rows) - 1; rest > 0 && len(s.lines) > 0 {
		rows = append(rows, "")
		for _, l := range s.lines[max(0, len(s.lines)-rest):] {
			rows = append(rows, styleDim.Render(cut(l, w)))
		}
	}
	return strings.Join(rows[:min(len(rows), max(height, 1))], "\n")
}

// progress is the bar and its figures. Its rows are there before there is
// anything to show, so that the map below does not jump.
func (s *screen) progress(w int) []string {
	b := &s.board
	if b.Total == 0 {
		return []string{styleDim.Render(strings.Repeat("░", w-8)) + "       -", "nothing to download"}
	}
	unit := b.Unit
	if unit == "" {
		unit = "chunk"
	}
	done := min(float64(b.Bytes)/float64(b.Total), 1)
	parts := []string{
		fmt.Sprintf("%s %s of %s", unit, Number(b.Chunk), Number(b.Chunks)),
		fmt.Sprintf("%s of %s bytes", Number(b.Bytes), Number(b.Total)),
	}
	if b.Rate > 0 && b.Bytes < b.Total {
		parts = append(parts, rateText(b.Rate), leftText(float64(b.Total-b.Bytes)/b.Rate))
	}
	return append([]string{fmt.Sprintf("%s %6.1f%%", bar(w-8, done, done), 100*done)}, flow(w, parts...)...)
}

// ram is the updater's memory: solid what is in use, shaded up to the most that was.
func (s *screen) ram(w int) []string {
	b := &s.board
	if b.RAMBudget == 0 {
		return nil
	}
	share := func(n int) float64 { return min(float64(n)/float64(b.RAMBudget), 1) }
	parts := []string{"updater's RAM " + bar(min(ramBar, w-14), share(b.RAM), share(b.RAMPeak)),
		fmt.Sprintf("%s of %s bytes, at most %s", Number(b.RAM), Number(b.RAMBudget), Number(b.RAMPeak))}
	if b.Verifier > 0 {
		parts = append(parts, fmt.Sprintf("apart, to check a signature: %s bytes", Number(b.Verifier)))
	}
	return flow(w, parts...)
}

// bar is n cells: solid up to full, shaded up to peak.
func bar(n int, full, peak float64) string {
	n = max(n, 1)
	a := int(full * float64(n))
	p := max(int(peak*float64(n)), a)
	return styleBar.Render(strings.Repeat("█", a)) + styleBar.Render(strings.Repeat("▒", p-a)) + styleDim.Render(strings.Repeat("░", n-p))
}

func rateText(bytesPerSecond float64) string {
	if bytesPerSecond >= 10<<20 {
		return fmt.Sprintf("%.0f MiB/s", bytesPerSecond/(1<<20))
	}
	if bytesPerSecond >= 10<<10 {
		return fmt.Sprintf("%.0f KiB/s", bytesPerSecond/1024)
	}
	return fmt.Sprintf("%.1f KiB/s", bytesPerSecond/1024)
}

func leftText(seconds float64) string {
	if seconds < 10 {
		return fmt.Sprintf("%.1fs left", seconds)
	}
	if seconds > 99*3600 {
		return "days left"
	}
	return (time.Duration(seconds) * time.Second).String() + " left"
}

// flow puts parts side by side as far as the width lets it.
func flow(w int, parts ...string) []string {
	var rows []string
	for _, p := range parts {
		p = cut(p, w)
		if n := len(rows) - 1; n >= 0 && lipgloss.Width(rows[n])+partSpace+lipgloss.Width(p) <= w {
			rows[n] += strings.Repeat(" ", partSpace) + p
			continue
		}
		rows = append(rows, p)
	}
	return rows
}

func cut(s string, w int) string {
	if lipgloss.Width(s) <= w {
		return s
	}
	return lipgloss.NewStyle().MaxWidth(w).Render(s)
}

// weight says which sector of several speaks for a cell that they share.
var weight = map[Cell]int{CellNone: 0, CellErased: 1, CellOld: 2, CellRunning: 3, CellNew: 4, CellData: 5, CellBoot: 6}

// flashMap draws a cell for so many sectors (a power of two) as the room asks for.
// A row begins at a round address.
func flashMap(cells []Cell, sectorBytes uint32, w, room int) (rows []string, per int) {
	digits := max(6, len(fmt.Sprintf("%x", uint64(len(cells))*uint64(sectorBytes)-1)))
	cols := 8
	for cols*2 <= w-digits-1 {
		cols *= 2
	}
	per = 1
	for (len(cells)+cols*per-1)/(cols*per) > room {
		per *= 2
	}
	for at := 0; at < len(cells); at += cols * per {
		var row strings.Builder
		row.WriteString(styleDim.Render(fmt.Sprintf("%0*x", digits, uint64(at)*uint64(sectorBytes))) + " ")
		var run []byte
		end := min(at+cols*per, len(cells))
		for i := at; i < end; i += per {
			c := CellNone
			for _, k := range cells[i:min(i+per, end)] {
				if weight[k] > weight[c] {
					c = k
				}
			}
			if len(run) > 0 && Cell(run[0]) != c {
				row.WriteString(cellStyle[Cell(run[0])].Render(string(run)))
				run = run[:0]
			}
			run = append(run, byte(c))
		}
		row.WriteString(cellStyle[Cell(run[0])].Render(string(run)))
		rows = append(rows, row.String())
	}
	return rows, per
}
