package term

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Progress is one line that is drawn over and over, for work that takes long. The
// nil Progress draws nothing: that is what a pipe gets.
type Progress struct {
	mu    sync.Mutex // an HTTP client may read a body after it gave up
	w     io.Writer
	label string
	width func() int // of the terminal now
	now   func() time.Time
	start time.Time
	drawn time.Time
	first int64 // done, when the work began
	began bool
	shown bool
	after time.Duration
	ended bool
}

const (
	progressAfter = 500 * time.Millisecond // what is done sooner needs no bar
	progressEvery = 100 * time.Millisecond
	progressBar   = 30 // columns
	minBar        = 8  // a shorter one says nothing
)

// NewProgress starts the clock; nothing is drawn for the first half second.
func NewProgress(w io.Writer, label string, width func() int) *Progress {
	return &Progress{w: w, label: clean(label), width: width, now: time.Now, start: time.Now(), after: progressAfter}
}

// AtOnce has the line drawn from the start.
func (p *Progress) AtOnce() *Progress {
	if p != nil {
		p.after = 0
	}
	return p
}

// Restart measures anew: other work begins, and the next Set says where.
func (p *Progress) Restart() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.start, p.began = p.now(), false
}

// Set says how far the work is. What comes faster than ten times a second is not
// drawn, but the end is. A terminal that can't be written to ends the drawing,
// not the work.
func (p *Progress) Set(done, total int64) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if total <= 0 {
		return
	}
	if !p.began {
		p.began, p.first = true, done
	}
	p.draw(done >= total, func(w int, seconds float64) string { return p.line(w, done, total, seconds) })
}

// Say is Set for work that is not counted in bytes: how much of it is done, from 0 to
// 1, and what stands beside the bar.
func (p *Progress) Say(part float64, text string) {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	part = min(max(part, 0), 1)
	percent := fmt.Sprintf("%3.0f%%", 100*part)
	p.draw(part == 1, func(w int, _ float64) string { return p.bar(w, part, percent+"  "+clean(text), percent) })
}

// draw draws a line unless it is too early for one.
func (p *Progress) draw(last bool, line func(w int, seconds float64) string) {
	now := p.now()
	if p.ended || now.Sub(p.start) < p.after || p.shown && now.Sub(p.drawn) < progressEvery && !last {
		return
	}
	p.drawn, p.shown = now, true
	w := max(p.width()-1, minWidth) // a full last column would wrap
	p.write("\r" + cut(line(w, now.Sub(p.start).Seconds()), w) + "\x1b[K")
}

// line has the figures that leave room for a bar.
func (p *Progress) line(w int, done, total int64, seconds float64) string {
	part := min(float64(done)/float64(total), 1)
	percent := fmt.Sprintf("%3.0f%%", 100*part)
	bytes := fmt.Sprintf("%s of %s bytes", Number(done), Number(total))
	choices := []string{percent + "  " + bytes, percent}
	if seconds > 0 && done > p.first && done < total {
		rate := float64(done-p.first) / seconds
		left := leftText(float64(total-done) / rate)
		choices = []string{percent + "  " + bytes + "  " + rateText(rate) + "  " + left, percent + "  " + rateText(rate) + "  " + left, percent}
	}
	return p.bar(w, part, choices...)
}

// bar is a bar and the first of the texts that leaves room for it.
func (p *Progress) bar(w int, part float64, choices ...string) string {
	for _, text := range choices {
		n := min(w-len([]rune(p.label))-len(text)-2, progressBar)
		if n < minBar {
			continue
		}
		full := int(part * float64(n))
		return p.label + " " + strings.Repeat("█", full) + strings.Repeat("░", n-full) + " " + text
	}
	return p.label + " " + choices[len(choices)-1]
}

// Clear takes the line away, until the next Set.
func (p *Progress) Clear() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
}

// End takes the line away for good.
func (p *Progress) End() {
	if p == nil {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.clear()
	p.ended = true
}

func (p *Progress) clear() {
	if p.shown {
		p.shown = false
		p.write("\r\x1b[K")
	}
}

func (p *Progress) write(s string) {
	if _, err := io.WriteString(p.w, s); err != nil {
		p.ended = true
	}
}
