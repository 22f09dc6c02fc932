package term

import (
	"fmt"
	"strings"

	"charm.land/lipgloss/v2"
)

// Rollouts is one look at some rollouts.
type Rollouts struct {
	List    []Rollout
	Trouble string   // why this look is an old one; "": it is not
	Figures []string // of what else goes on, in groups of words that stay together
}

// Rollout is one look at a rollout.
type Rollout struct {
	ID               int64
	Product, Release string
	State, Reason    string
	To, OnFailure    string // a filter, "": every device; pause or revert
	Phases           []Phase
	Bad, Judged      int     // devices that failed, of those whose end is known
	Bound, Threshold float64 // the rate at which they fail at least, and above which the rollout stops; 0 to 1
	SoakLeft         string  // "": it does not soak
}

// Phase is one of its phases. What Total is above all the others together has not begun.
type Phase struct {
	Number           int
	Takes, State     string
	Total            int // that it waits for, as far as is known
	Confirmed        int
	Failed, Silent   int
	Unproven         int
	Progress         int // on the way
	Aside, Uncounted int // say nothing of the release; have too little assurance
}

// mark is how one of a bar's parts is drawn: its character says what it is without
// colours.
type mark struct {
	char  string
	style lipgloss.Style
	name  string
}

var (
	styleGood = lipgloss.NewStyle().Foreground(lipgloss.Color("2"))
	styleBad  = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
	styleWarn = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))

	markConfirmed = mark{"█", styleGood, "confirmed"}
	markFailed    = mark{"X", styleBad, "failed"}
	markSilent    = mark{"s", styleBad, "silent"}
	markUnproven  = mark{"?", styleWarn, "unproven"}
	markProgress  = mark{"▒", styleBar, "on the way"}
	markAside     = mark{"-", styleDim, "aside"}
	markWaiting   = mark{"░", styleDim, "waiting"}
)

// Columns of a rollout's picture.
const (
	takesMost = 16 // what a phase takes
	wideRow   = 96 // from here on the figures stand beside the bar
	wideBar   = 36
	gauge     = 40
)

func (r Rollouts) render(title string, lines []string, width, height int) string {
	w := min(max(width, minWidth), maxWidth)
	rows := []string{cut(styleTitle.Render("runnel")+"  "+title, w)}
	if r.Trouble != "" {
		rows = append(rows, styleWarn.Render(cut(clean(r.Trouble), w)))
	}
	for i := range r.List {
		if height >= 14 {
			rows = append(rows, "")
		}
		rows = append(rows, r.List[i].rows(w)...)
	}
	if len(r.Figures) > 0 {
		var parts []string
		for _, f := range r.Figures {
			parts = append(parts, clean(f))
		}
		rows = append(append(rows, ""), flow(w, parts...)...)
	}
	keys := legendOf(w)
	if len(r.List) == 0 {
		keys = nil
	}
	// What happened goes before the legend does.
	if rest := height - len(rows) - len(keys) - 1; keys != nil && rest >= 0 {
		rows = append(append(rows, ""), keys...)
	}
	if rest := height - len(rows) - 1; rest > 0 && len(lines) > 0 {
		rows = append(rows, "")
		for _, l := range lines[max(0, len(lines)-rest):] {
			rows = append(rows, styleDim.Render(cut(l, w)))
		}
	}
	return strings.Join(rows[:min(len(rows), max(height, 1))], "\n")
}

func legendOf(w int) []string {
	var parts []string
	for _, m := range []mark{markConfirmed, markFailed, markSilent, markUnproven, markProgress, markAside, markWaiting} {
		parts = append(parts, m.style.Render(m.char)+" "+m.name)
	}
	return flow(w, parts...)
}

// rows are one rollout's.
func (r *Rollout) rows(w int) []string {
	to := r.To
	if to == "" {
		to = "every device"
	}
	rows := []string{
		cut(fmt.Sprintf("%s %s %s to %s", styleTitle.Render(fmt.Sprintf("rollout %d", r.ID)), clean(r.Product), clean(r.Release), clean(to)), w),
	}
	// The reason is what one came for: all of it.
	for i, line := range wrap(clean(r.State)+"  "+clean(r.Reason), w) {
		if i == 0 {
			state, rest, _ := strings.Cut(line, " ")
			line = stateStyle(r.State).Render(state) + " " + rest
		}
		rows = append(rows, line)
	}
	takes := 0
	for i := range r.Phases {
		takes = max(takes, lipgloss.Width(clean(r.Phases[i].Takes)))
	}
	for i := range r.Phases {
		rows = append(rows, r.Phases[i].rows(w, min(takes, takesMost))...)
	}
	return append(rows, r.judged(w)...)
}

// wrap breaks a text between words; a word that is too long is cut.
func wrap(text string, w int) []string {
	var rows []string
	for i, word := range strings.Split(text, " ") {
		word = cut(word, w)
		if n := len(rows) - 1; i > 0 && lipgloss.Width(rows[n])+1+lipgloss.Width(word) <= w {
			rows[n] += " " + word
			continue
		}
		rows = append(rows, word)
	}
	return rows
}

func stateStyle(state string) lipgloss.Style {
	switch state {
	case "complete":
		return styleGood.Bold(true)
	case "paused", "reverting", "reverted":
		return styleBad.Bold(true)
	case "cancelled", "superseded":
		return styleWarn.Bold(true)
	}
	return styleBar.Bold(true)
}

// rows are a phase's: number, what it takes in so many columns, state, bar, figures.
func (p *Phase) rows(w, takes int) []string {
	head := fmt.Sprintf("%2d  %s  %s  ", p.Number, pad(clean(p.Takes), takes), pad(clean(p.State), len("waiting")))
	indent, n := 4, w-lipgloss.Width(head)
	switch {
	case n < minBar:
		rows := []string{cut(head, w)}
		for _, f := range p.figures(w - indent) {
			rows = append(rows, strings.Repeat(" ", indent)+f)
		}
		return rows
	case w >= wideRow:
		indent, n = lipgloss.Width(head)+wideBar+2, wideBar
	}
	rows := []string{head + p.bar(n)}
	for i, f := range p.figures(w - indent) {
		if i == 0 && w >= wideRow {
			rows[0] += "  " + f
			continue
		}
		rows = append(rows, strings.Repeat(" ", indent)+f)
	}
	rows[0] = strings.TrimRight(rows[0], " ")
	return rows
}

// pad makes s so many columns wide.
func pad(s string, w int) string {
	s = cut(s, w)
	return s + strings.Repeat(" ", max(w-lipgloss.Width(s), 0))
}

// waiting is how many have not begun.
func (p *Phase) waiting() int {
	return max(p.Total-p.Confirmed-p.Failed-p.Silent-p.Unproven-p.Progress-p.Aside, 0)
}

func (p *Phase) parts() ([]mark, []int) {
	return []mark{markConfirmed, markFailed, markSilent, markUnproven, markProgress, markAside, markWaiting},
		[]int{p.Confirmed, p.Failed, p.Silent, p.Unproven, p.Progress, p.Aside, p.waiting()}
}

// bar is n columns, shared out by number; whoever is there at all has a column.
func (p *Phase) bar(n int) string {
	marks, counts := p.parts()
	cells := shareOut(n, counts)
	var s strings.Builder
	for i, m := range marks {
		if cells[i] > 0 {
			s.WriteString(m.style.Render(strings.Repeat(m.char, cells[i])))
			n -= cells[i]
		}
	}
	return s.String() + strings.Repeat(" ", max(n, 0))
}

// shareOut gives each count its share of n, one at least where it is not 0; the
// largest gives or takes what does not come out even. All 0: nothing.
func shareOut(n int, counts []int) []int {
	out, sum, largest := make([]int, len(counts)), 0, 0
	for i, c := range counts {
		sum += c
		if c > counts[largest] {
			largest = i
		}
	}
	if sum == 0 {
		return out
	}
	left := n
	for i, c := range counts {
		if c > 0 {
			out[i] = max(int(int64(n)*int64(c)/int64(sum)), 1)
			left -= out[i]
		}
	}
	out[largest] = max(out[largest]+left, 0)
	return out
}

// figures say a phase in words; nothing of one that has not begun.
func (p *Phase) figures(w int) []string {
	marks, counts := p.parts()
	var parts []string
	for i, m := range marks {
		if counts[i] > 0 {
			parts = append(parts, Number(counts[i])+" "+m.name)
		}
	}
	if p.Uncounted > 0 {
		parts = append(parts, Number(p.Uncounted)+" not counted")
	}
	var rows []string
	for _, part := range parts {
		if n := len(rows) - 1; n >= 0 && len(rows[n])+2+len(part) <= w {
			rows[n] += ", " + part
			continue
		}
		rows = append(rows, cut(part, w))
	}
	return rows
}

// judged is the bound beside its threshold, and the soak.
func (r *Rollout) judged(w int) []string {
	stops := "stops"
	if r.OnFailure == "revert" {
		stops = "reverts"
	}
	parts := []string{fmt.Sprintf("failed %s of %s", Number(r.Bad), Number(r.Judged)), fmt.Sprintf("at least %.1f%%, %s above %.1f%%", 100*r.Bound, stops, 100*r.Threshold)}
	if w >= gauge+2 {
		parts = append(parts, r.gauge(min(gauge, w-2)))
	}
	if r.SoakLeft != "" {
		parts = append(parts, "soaks, "+clean(r.SoakLeft)+" left")
	}
	return flow(w, parts...)
}

// gauge draws the bound on a scale of twice the threshold, which stands in its middle.
func (r *Rollout) gauge(n int) string {
	n--
	mid, at := n/2, n
	if r.Threshold > 0 && r.Bound < 2*r.Threshold {
		at = int(r.Bound / (2 * r.Threshold) * float64(n))
	}
	if r.Bound == 0 {
		at = 0
	}
	style := styleWarn
	if r.Bound > r.Threshold {
		style = styleBad
	}
	left, right := min(at, mid), max(at-mid, 0)
	return style.Render(strings.Repeat("=", left)) + styleDim.Render(strings.Repeat(".", mid-left)) + "|" +
		style.Render(strings.Repeat("=", right)) + styleDim.Render(strings.Repeat(".", n-mid-right))
}
