package link

import (
	"testing"
	"time"
)

type clock time.Duration

func (c *clock) Now() time.Duration   { return time.Duration(*c) }
func (c *clock) Wait(d time.Duration) { *c += clock(d) }

func TestLine(t *testing.T) {
	const ms = time.Millisecond
	slow := Line{BytesPerSecond: 1000, RoundTrip: 100 * ms, Window: 1 << 20}
	far := Line{BytesPerSecond: 1_000_000, RoundTrip: 100 * ms, Window: 1000}
	for _, c := range []struct {
		name               string
		line               Line
		request, head, len int
		reads              []int
		between            time.Duration // the device works on what it read
		want               time.Duration
	}{
		{"the rate", slow, 10, 20, 1000, []int{500, 500}, 0, 10*ms + 100*ms + 20*ms + 1000*ms},
		{"a device that is slower than the line", slow, 0, 0, 300, []int{100, 100, 100}, 500 * ms, 100*ms + 100*ms + 3*500*ms},
		// One window a round trip.
		{"the window", far, 0, 0, 3000, []int{1000, 1000, 1000}, 0, 100*ms + 3*ms + 2*100*ms},
		// The window fills while the device works: only the first piece is waited for.
		{"a window that fills meanwhile", far, 0, 0, 3000, []int{1000, 1000, 1000}, 200 * ms, 100*ms + 1*ms + 3*200*ms},
	} {
		var now clock
		b := c.line.Ask(&now, c.request, c.head, c.len)
		for _, n := range c.reads {
			b.Read(n)
			now.Wait(c.between)
		}
		if now.Now() != c.want {
			t.Errorf("%s: %v, want %v", c.name, now.Now(), c.want)
		}
	}
}
