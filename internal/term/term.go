// Package term shows a person what goes on, on a terminal: the live view of a board or
// of rollouts, and a progress line. It draws what it is handed and knows nothing of
// boards, servers, flash files or the command line; whether there is a terminal at all,
// its caller finds out.
package term

import (
	"io"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	tea "charm.land/bubbletea/v2"
)

// Cell is what a sector of flash holds; its value is the character on the map,
// so that the map can be read without colours.
type Cell byte

const (
	CellNone    Cell = ' ' // belongs to no partition
	CellBoot    Cell = 't' // bootloader, partition table, boot records
	CellData    Cell = 's' // state, journal, nvs and other data
	CellErased  Cell = '.' // of a slot, erased
	CellRunning Cell = '#' // of the slot that runs
	CellNew     Cell = '=' // of another slot: written by the download in progress
	CellOld     Cell = '-' // of another slot: an older image
)

// Board is one look at a board. Sizes are bytes.
type Board struct {
	Doing         string // in a few words
	Bytes, Total  uint32 // in flash, of the release; Total 0: there is nothing to show
	Chunk, Chunks uint32
	Unit          string  // what is counted; "": chunk
	Rate          float64 // bytes a second; 0: not known
	// RAM is what the updater uses now, RAMPeak the most that was seen.
	RAM, RAMPeak, RAMBudget int
	Verifier                int    // state of a signature check, not in RAM; 0: there is none
	Cells                   []Cell // one a sector
	SectorBytes             uint32
}

// Picture is what a View shows: a Board or Rollouts.
type Picture interface {
	// render draws it and the lines of what happened, oldest first, into width columns
	// and at most height rows.
	render(title string, lines []string, width, height int) string
}

const (
	frameTime = 80 * time.Millisecond
	keepLines = 200 // more than a terminal is high
)

// View is the live view. Its methods never wait for the terminal: work is not
// held up by a person's screen. They may be called by any goroutine.
type View struct {
	program *tea.Program
	done    chan error
	picture atomic.Pointer[Picture]

	mu    sync.Mutex
	lines []string
}

// Start begins to draw. quit is called when the person presses ctrl-C or q; the
// view stays until Close.
func Start(in io.Reader, out io.Writer, title string, first Picture, quit func()) *View {
	v := &View{done: make(chan error, 1)}
	m := &model{view: v, quit: quit, title: clean(title), picture: first, width: 80, height: 24}
	// Signals are the program's, not the view's: to a board they mean a power cut.
	v.program = tea.NewProgram(m, tea.WithInput(in), tea.WithOutput(out), tea.WithoutSignalHandler(),
		tea.WithWindowSize(m.width, m.height)) // until the terminal says its own
	go func() {
		_, err := v.program.Run()
		v.done <- err
	}()
	return v
}

// Wanted says that what was shown last was drawn: another look is worth its cost.
func (v *View) Wanted() bool { return v.picture.Load() == nil }

// Show has p drawn with the next frame, instead of what was not drawn yet. The
// view keeps p, and what it points to.
func (v *View) Show(p Picture) { v.picture.Store(&p) }

// Say adds a line of what happened.
func (v *View) Say(line string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.lines = appendLine(v.lines, clean(line))
}

// Close draws what is left, leaves it on the screen and gives the terminal back.
func (v *View) Close() error {
	v.program.Send(frameMsg{last: true})
	v.program.Quit()
	return <-v.done
}

func appendLine(lines []string, more ...string) []string {
	lines = append(lines, more...)
	return lines[max(0, len(lines)-keepLines):]
}

// clean takes out what could move the cursor: versions come from a server.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r >= 0x7F && r < 0xA0 || r == '\u2028' || r == '\u2029' {
			return -1
		}
		return r
	}, s)
}

// model is bubbletea's side of the view.
type model struct {
	view          *View
	quit          func()
	title         string
	picture       Picture
	lines         []string
	width, height int
}

type frameMsg struct{ last bool }

func frame() tea.Cmd {
	return tea.Tick(frameTime, func(time.Time) tea.Msg { return frameMsg{} })
}

func (m *model) Init() tea.Cmd { return frame() }

func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case tea.KeyPressMsg:
		if s := msg.String(); s == "ctrl+c" || s == "q" {
			m.quit()
		}
	case frameMsg:
		m.take()
		if !msg.last {
			return m, frame()
		}
	}
	return m, nil
}

// take fetches what came since the last frame.
func (m *model) take() {
	if p := m.view.picture.Swap(nil); p != nil {
		m.picture = *p
	}
	m.view.mu.Lock()
	defer m.view.mu.Unlock()
	m.lines = appendLine(m.lines, m.view.lines...)
	m.view.lines = m.view.lines[:0]
}

// View ends in an empty row: that is where the shell's prompt goes afterwards.
func (m *model) View() tea.View {
	return tea.NewView(m.picture.render(m.title, m.lines, m.width, m.height-1) + "\n")
}

// Number writes n with a comma at each thousand.
func Number[T ~int | ~int64 | ~uint32](n T) string {
	s := strconv.FormatInt(int64(n), 10)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
