//go:build tinygo

// Package chip is what the drivers of all chips share: the arithmetic of a clock, and
// the words of RAM that outlive a reset.
package chip

// Millis makes milliseconds out of a counter of microseconds that wraps after 71
// minutes. The zero value stands at 0, with the counter.
type Millis struct {
	last   uint32 // reading of the counter, us
	part   uint32 // us that are not a whole millisecond yet
	millis uint64
}

// At never goes back. It must be called once in 71 minutes at least.
func (m *Millis) At(micros uint32) uint64 {
	m.part += micros - m.last
	m.last = micros
	m.millis += uint64(m.part / 1000)
	m.part %= 1000
	return m.millis
}
