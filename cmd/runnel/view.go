package main

import (
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/nor"
)

// The live view of a running board: progress, rate, the updater's RAM against its
// budget, and a map of the flash. It reads what boardLog emits, and never holds
// the updater up: what comes faster than it draws is dropped, the last one kept.

const viewFrame = 80 * time.Millisecond

// liveView is one terminal. event is called by the board's goroutine; the rest is
// the program's own. What passes between them is copied.
type liveView struct {
	program *tea.Program
	latest  atomic.Pointer[boardEvent]
	cells   atomic.Pointer[[]byte] // what each sector holds
	lines   chan string
	done    chan error

	chip   *nor.Chip
	table  *esp32.Table
	slot   string // that runs: ota_0, ...
	mapped time.Time
}

type frameMsg struct{}

// newLiveView starts drawing. onQuit is the hand on the plug.
func newLiveView(in io.Reader, out io.Writer, name string, chip *nor.Chip, table *esp32.Table, onQuit func()) *liveView {
	v := &liveView{lines: make(chan string, 256), done: make(chan error, 1), chip: chip, table: table}
	m := &viewModel{v: v, name: name, sectorKiB: int(chip.Geometry().EraseSize) / 1024, onQuit: onQuit, width: 80, height: 24}
	v.program = tea.NewProgram(m, tea.WithInput(in), tea.WithOutput(out))
	go func() {
		_, err := v.program.Run()
		v.done <- err
	}()
	return v
}

// event takes what happened; it never waits.
func (v *liveView) event(e boardEvent, line string) {
	if e.Total > 0 {
		v.latest.Store(&e)
	}
	if e.Event == "running" {
		v.slot = e.Slot
	}
	if now := time.Now(); now.Sub(v.mapped) >= viewFrame || line != "" {
		v.mapped = now
		cells := v.flashCells()
		v.cells.Store(&cells)
	}
	if line == "" {
		return
	}
	select {
	case v.lines <- line:
	default: // more lines than anybody reads
	}
}

// close draws the last frame and gives the terminal back.
func (v *liveView) close() error {
	v.program.Send(frameMsg{})
	v.program.Quit()
	return <-v.done
}

type viewModel struct {
	v             *liveView
	name          string
	sectorKiB     int
	onQuit        func()
	width, height int

	last   boardEvent // what is shown
	cells  []byte
	recent []string
}

func (m *viewModel) Init() tea.Cmd { return frame() }

func frame() tea.Cmd {
	return tea.Tick(viewFrame, func(time.Time) tea.Msg { return frameMsg{} })
}

func (m *viewModel) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		if s := msg.String(); s == "ctrl+c" || s == "q" {
			m.onQuit()
		}
	case frameMsg:
		m.take()
		return m, frame()
	}
	return m, nil
}

// take reads what came since the last frame.
func (m *viewModel) take() {
	if e := m.v.latest.Load(); e != nil {
		m.last = *e
	}
	if c := m.v.cells.Load(); c != nil {
		m.cells = *c
	}
	for {
		select {
		case l := <-m.v.lines:
			m.recent = append(m.recent, l)
			if len(m.recent) > 64 {
				m.recent = m.recent[1:]
			}
			continue
		default:
		}
		return
	}
}

var (
	styleTitle = lipgloss.NewStyle().Bold(true)
	styleDim   = lipgloss.NewStyle().Faint(true)
	styleBar   = lipgloss.NewStyle().Foreground(lipgloss.Color("6"))
	cellStyle  = map[byte]lipgloss.Style{
		'.': lipgloss.NewStyle().Faint(true),
		't': lipgloss.NewStyle().Foreground(lipgloss.Color("3")),
		's': lipgloss.NewStyle().Foreground(lipgloss.Color("5")),
		'#': lipgloss.NewStyle().Foreground(lipgloss.Color("2")),
		'=': lipgloss.NewStyle().Foreground(lipgloss.Color("6")),
		' ': lipgloss.NewStyle(),
	}
)

func (m *viewModel) View() tea.View {
	var b strings.Builder
	e := &m.last
	w := min(max(m.width, 40), 120)
	fmt.Fprintf(&b, "%s  %s\n\n", styleTitle.Render("runnel board"), m.name)
	if e.Total > 0 {
		done := float64(e.Bytes) / float64(e.Total)
		bar := w - 10
		n := int(done * float64(bar))
		fmt.Fprintf(&b, "%s%s %5.1f%%\n", styleBar.Render(strings.Repeat("█", n)), styleDim.Render(strings.Repeat("░", bar-n)), done*100)
		fmt.Fprintf(&b, "chunk %d of %d   %d of %d bytes", e.Chunk, e.Chunks, e.Bytes, e.Total)
		if e.Rate > 0 {
			left := time.Duration(float64(e.Total-e.Bytes) / e.Rate * float64(time.Second)).Round(100 * time.Millisecond)
			fmt.Fprintf(&b, "   %.0f KiB/s   %s left", e.Rate/1024, left)
		}
		b.WriteByte('\n')
	} else {
		b.WriteString("nothing to download yet\n\n")
	}
	if e.RAM > 0 {
		const bar = 24
		n := min(e.RAM*bar/e.RAMBudget, bar)
		fmt.Fprintf(&b, "updater's RAM %s%s %d of %d bytes\n", styleBar.Render(strings.Repeat("█", n)), styleDim.Render(strings.Repeat("░", bar-n)), e.RAM, e.RAMBudget)
	}
	b.WriteByte('\n')
	rows := m.flashMap(&b, w)
	b.WriteByte('\n')
	room := max(m.height-8-rows, 3)
	for _, l := range m.recent[max(0, len(m.recent)-room):] {
		if len(l) > w {
			l = l[:w]
		}
		b.WriteString(styleDim.Render(l))
		b.WriteByte('\n')
	}
	return tea.NewView(b.String())
}

// flashMap draws the chip, a cell for so many sectors as fit eight rows.
func (m *viewModel) flashMap(b *strings.Builder, w int) int {
	if len(m.cells) == 0 {
		return 0
	}
	cols := min(w-10, 64)
	per := 1
	for (len(m.cells)+per-1)/per > cols*8 {
		per *= 2
	}
	rows := 0
	for at := 0; at < len(m.cells); at += cols * per {
		fmt.Fprintf(b, "%s ", styleDim.Render(fmt.Sprintf("%06x", at*m.sectorKiB*1024)))
		var run []byte
		for i := at; i < min(at+cols*per, len(m.cells)); i += per {
			if k := m.cells[i]; len(run) > 0 && run[0] != k {
				b.WriteString(cellStyle[run[0]].Render(string(run)))
				run = run[:0]
			}
			run = append(run, m.cells[i])
		}
		b.WriteString(cellStyle[run[0]].Render(string(run)))
		b.WriteByte('\n')
		rows++
	}
	fmt.Fprintf(b, "%s\n", styleDim.Render("       # running  = other slot  . erased  t table, boot records"))
	fmt.Fprintf(b, "%s\n", styleDim.Render(fmt.Sprintf("       s state, journal, nvs   one cell is %d KiB", per*m.sectorKiB)))
	return rows + 2
}

// flashCells says what each sector holds.
func (v *liveView) flashCells() []byte {
	g := v.chip.Geometry()
	raw := v.chip.Raw()
	cells := make([]byte, g.Size/g.EraseSize)
	for i := range cells {
		off := uint32(i) * g.EraseSize
		cells[i] = v.cell(off, raw[off:off+g.EraseSize])
	}
	return cells
}

func (v *liveView) cell(off uint32, data []byte) byte {
	for i := range v.table.P[:v.table.N] {
		p := &v.table.P[i]
		if off < p.Offset || off >= p.Offset+p.Size {
			continue
		}
		switch {
		case p.Type == esp32.TypeData && p.Subtype == esp32.SubtypeOTA:
			return 't'
		case p.Type != esp32.TypeApp:
			return 's'
		case blank(data):
			return '.'
		case p.Subtype >= esp32.SubtypeOTA0 && fmt.Sprintf("ota_%d", p.Subtype-esp32.SubtypeOTA0) == v.slot,
			p.Subtype == esp32.SubtypeFactory && v.slot == "factory":
			return '#'
		}
		return '='
	}
	if off < esp32.TableOffset+0x1000 {
		return 't'
	}
	return ' '
}

// blank looks at a byte of each page: enough for a picture.
func blank(data []byte) bool {
	for i := 0; i < len(data); i += 256 {
		if data[i] != 0xFF {
			return false
		}
	}
	return true
}
