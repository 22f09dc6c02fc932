package term

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"charm.land/lipgloss/v2"
)

var rewrite = flag.Bool("rewrite", false, "write what is drawn into testdata instead of comparing")

var colours = regexp.MustCompile("\x1b\\[[0-9;]*m")

// A board of 4 MiB in the middle of a download over an older image.
func sample() screen {
	cells := make([]Cell, 1024)
	set := func(from, to uint32, c Cell) {
		for i := from / 4096; i < to/4096; i++ {
			cells[i] = c
		}
	}
	set(0, 0x400000, CellNone)
	set(0x8000, 0x9000, CellBoot)
	set(0x9000, 0xC000, CellData)
	set(0xC000, 0xE000, CellBoot)
	set(0xE000, 0x10000, CellData)
	set(0x10000, 0xA0000, CellRunning)
	set(0xA0000, 0x1F0000, CellErased)
	set(0x1F0000, 0x263000, CellNew)
	set(0x263000, 0x270000, CellErased)
	set(0x270000, 0x3D0000, CellOld)
	set(0x3D0000, 0x3D2000, CellData)
	s := screen{title: "pump-7 at http://127.0.0.1:8080", board: Board{
		Doing: "downloading 1.2.0 into ota_1", Bytes: 471040, Total: 1908192, Chunk: 460, Chunks: 1864, Rate: 742_000,
		RAM: 2000, RAMPeak: 3024, RAMBudget: 3072, Cells: cells, SectorBytes: 4096,
	}}
	for i := range 12 {
		s.lines = append(s.lines, fmt.Sprintf("%8.2fs  chunk         ota_1 chunk %d of 1,864, what happens is said in a line that may be long", float64(i)/10, i*38))
	}
	return s
}

func TestRender(t *testing.T) {
	idle := sample()
	idle.board.Total, idle.board.Doing = 0, "up to date"
	native := sample()
	native.board.Unit, native.board.Verifier = "record", 1152
	slow := sample()
	slow.board.Rate = 512
	for _, c := range []struct {
		name          string
		screen        screen
		width, height int
	}{
		{"80x24", sample(), 80, 24}, {"40x24", sample(), 40, 24}, {"120x50", sample(), 120, 50}, {"200x40", sample(), 200, 40},
		{"80x12", sample(), 80, 12}, {"20x6", sample(), 20, 6}, {"idle-80x24", idle, 80, 24}, {"native-80x24", native, 80, 24}, {"slow-60x30", slow, 60, 30},
	} {
		t.Run(c.name, func(t *testing.T) {
			golden(t, c.name, c.screen.render(c.width, c.height), c.width, c.height)
		})
	}
}

// golden holds what was drawn against testdata, and against the terminal's size.
func golden(t *testing.T, name, drawn string, width, height int) {
	t.Helper()
	got := colours.ReplaceAllString(drawn, "")
	rows := strings.Split(got, "\n")
	if len(rows) > height {
		t.Errorf("%d rows in a terminal of %d", len(rows), height)
	}
	for _, r := range rows {
		if w := lipgloss.Width(r); w > width {
			t.Errorf("%d columns in a terminal of %d: %q", w, width, r)
		}
	}
	if drawn == got {
		t.Error("no colours: bubbletea takes them out where a terminal has none")
	}
	file := filepath.Join("testdata", name+".txt")
	if *rewrite {
		if err := os.WriteFile(file, []byte(got+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got+"\n" != string(want) {
		t.Errorf("drawn:\n%s\nwant (-rewrite, if it is right):\n%s", got, want)
	}
}

// Whatever the size is, nothing is drawn beyond it and nothing panics.
func TestRenderAnySize(t *testing.T) {
	s := sample()
	for w := 0; w < 160; w += 3 {
		for h := 0; h < 45; h += 2 {
			for i, r := range strings.Split(s.render(w, h), "\n") {
				if lipgloss.Width(r) > max(w, minWidth) {
					t.Fatalf("%dx%d: row %d is too long: %q", w, h, i, r)
				}
				if i >= max(h, 1) {
					t.Fatalf("%dx%d: too many rows", w, h)
				}
			}
		}
	}
	empty := screen{}
	if empty.render(80, 24) == "" {
		t.Error("nothing is drawn of a board that has not begun")
	}
}

// No sector that holds something disappears behind an erased neighbour.
func TestFlashMapMerges(t *testing.T) {
	cells := make([]Cell, 1024)
	for i := range cells {
		cells[i] = CellErased
	}
	cells[513], cells[700] = CellNew, CellBoot
	rows, per := flashMap(cells, 4096, 40, 4)
	if len(rows) > 4 || per != 8 {
		t.Fatalf("%d rows, %d sectors a cell", len(rows), per)
	}
	if all := colours.ReplaceAllString(strings.Join(rows, ""), ""); strings.Count(all, "=") != 1 || strings.Count(all, "t") != 1 {
		t.Errorf("a sector is lost:\n%s", strings.Join(rows, "\n"))
	}
}

func TestResizeAndKeys(t *testing.T) {
	quits := 0
	m := &model{view: &View{}, quit: func() { quits++ }, title: "x", picture: Board{}, width: 80, height: 24}
	m.view.Show(sample().board)
	if m.view.Wanted() {
		t.Error("another look is wanted before the first one is drawn")
	}
	m.view.Say("a line with \x1b[2J and \r in it")
	m.Update(frameMsg{})
	if !m.view.Wanted() {
		t.Error("no other look is wanted")
	}
	wide := m.View().Content
	if strings.Contains(wide, "\x1b[2J") || !strings.Contains(wide, "a line with [2J and  in it") {
		t.Errorf("a line was not cleaned: %q", wide)
	}
	m.Update(tea.WindowSizeMsg{Width: 40, Height: 16})
	narrow := m.View().Content
	if narrow == wide || len(strings.Split(narrow, "\n")) > 16 {
		t.Errorf("after a resize:\n%s", narrow)
	}
	m.Update(tea.KeyPressMsg{Code: 'x', Text: "x"})
	if quits != 0 {
		t.Error("x quits")
	}
	m.Update(tea.KeyPressMsg{Code: 'q', Text: "q"})
	m.Update(tea.KeyPressMsg{Code: 'c', Mod: tea.ModCtrl})
	if quits != 2 {
		t.Errorf("q and ctrl-C quit %d times", quits)
	}
}

// The view as a program: it reads keys, draws what came last, and gives the terminal back.
func TestView(t *testing.T) {
	in, keys := io.Pipe()
	defer keys.Close()
	var out bytes.Buffer
	pressed := make(chan struct{})
	v := Start(in, &out, "pump-7", Board{}, func() { close(pressed) })
	if _, err := keys.Write([]byte("q")); err != nil {
		t.Fatal(err)
	}
	<-pressed
	b := sample().board
	b.Doing = "the last thing"
	v.Show(b)
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "the last thing") {
		t.Errorf("the last look was not drawn: %q", out.String())
	}
}

type clock struct{ at time.Time }

func (c *clock) now() time.Time { return c.at }

func newTestProgress(w io.Writer, width int) (*Progress, *clock) {
	p := NewProgress(w, "uploading", func() int { return width })
	c := &clock{at: p.start}
	p.now = c.now
	return p, c
}

func TestProgress(t *testing.T) {
	var out bytes.Buffer
	p, c := newTestProgress(&out, 100)
	c.at = c.at.Add(499 * time.Millisecond)
	p.Set(10, 100)
	p.Clear()
	if out.Len() != 0 {
		t.Fatalf("drawn before half a second: %q", out.String())
	}
	c.at = c.at.Add(time.Millisecond)
	p.Set(500_000, 1_000_000)
	if got, want := out.String(), "\ruploading ███████████████░░░░░░░░░░░░░░░  50%  500,000 of 1,000,000 bytes  977 KiB/s  0.5s left\x1b[K"; got != want {
		t.Errorf("drawn %q\nwant  %q", got, want)
	}
	out.Reset()
	for i := range 99 {
		c.at = c.at.Add(time.Millisecond)
		p.Set(500_000+int64(i), 1_000_000)
	}
	if out.Len() != 0 {
		t.Errorf("drawn more than ten times a second: %q", out.String())
	}
	p.Set(1_000_000, 1_000_000)
	if !strings.Contains(out.String(), "100%") || strings.Contains(out.String(), "left") {
		t.Errorf("the end: %q", out.String())
	}
	out.Reset()
	p.Clear()
	p.Clear()
	if out.String() != "\r\x1b[K" {
		t.Errorf("cleared with %q", out.String())
	}
	// Other work: its rate is its own.
	out.Reset()
	p.Restart()
	p.Set(500_000, 1_000_000)
	c.at = c.at.Add(time.Second)
	p.Set(510_240, 1_000_000)
	if !strings.Contains(out.String(), " 10 KiB/s ") {
		t.Errorf("after a restart: %q", out.String())
	}
	p.Clear()
	out.Reset()
	p.End()
	c.at = c.at.Add(time.Second)
	p.Set(500_000, 1_000_000)
	if out.Len() != 0 {
		t.Errorf("drawn after the end: %q", out.String())
	}
}

// The narrower it is, the less is said; the bar goes last.
func TestProgressWidths(t *testing.T) {
	for width, want := range map[int]string{
		101: "uploading ███████████████░░░░░░░░░░░░░░░  50%  500,000 of 1,000,000 bytes  488 KiB/s  1.0s left",
		80:  "uploading ███████░░░░░░░  50%  500,000 of 1,000,000 bytes  488 KiB/s  1.0s left",
		60:  "uploading ███████████░░░░░░░░░░░  50%  488 KiB/s  1.0s left",
		40:  "uploading ████████████░░░░░░░░░░░░  50%",
		22:  "uploading  50%",
	} {
		var out bytes.Buffer
		p, c := newTestProgress(&out, width)
		p.first, p.began = 0, true
		c.at = c.at.Add(time.Second)
		p.Set(500_000, 1_000_000)
		if got := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r"), "\x1b[K"); got != want {
			t.Errorf("in %d columns:\n%q, want\n%q", width, got, want)
		}
	}
}

func TestProgressSay(t *testing.T) {
	var out bytes.Buffer
	p, c := newTestProgress(&out, 80)
	c.at = c.at.Add(time.Second)
	p.Say(0.5, "7 runs\x1b[2J")
	if got, want := out.String(), "\ruploading ███████████████░░░░░░░░░░░░░░░  50%  7 runs[2J\x1b[K"; got != want {
		t.Errorf("drawn %q\nwant  %q", got, want)
	}
	out.Reset()
	p.Say(7, "8 runs")
	if !strings.Contains(out.String(), "100%  8 runs") {
		t.Errorf("the end: %q", out.String())
	}
	(*Progress)(nil).Say(1, "")
}

func TestProgressNarrow(t *testing.T) {
	for _, width := range []int{10, 30, 60} {
		var out bytes.Buffer
		p, c := newTestProgress(&out, width)
		c.at = c.at.Add(time.Minute)
		p.Set(1, 1_000_000_000)
		line := strings.TrimSuffix(strings.TrimPrefix(out.String(), "\r"), "\x1b[K")
		if w := lipgloss.Width(line); w >= max(width, minWidth+1) || w == 0 {
			t.Errorf("%d columns in a terminal of %d: %q", w, width, line)
		}
	}
}

type deaf struct{ tries int }

func (d *deaf) Write([]byte) (int, error) { d.tries++; return 0, errors.New("gone") }

// Nothing is drawn where there is no terminal, nor after it went away.
func TestProgressNowhere(t *testing.T) {
	var p *Progress
	p.AtOnce().Set(1, 2)
	p.Clear()
	p.End()
	d := &deaf{}
	q, _ := newTestProgress(d, 80)
	q.AtOnce().Set(1, 2)
	q.Set(2, 2)
	if d.tries != 1 {
		t.Errorf("%d tries on a terminal that is gone", d.tries)
	}
}

func TestNumber(t *testing.T) {
	for n, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1068032: "1,068,032", -1000: "-1,000", -100: "-100"} {
		if got := Number(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}
