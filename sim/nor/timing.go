package nor

import "time"

// Timing is how long operations take. The figures are those that public drivers
// and notes quote of the W25Q32JV class; docs/design/flash.md names them.
type Timing struct {
	Page      time.Duration // a program of a whole page of 256 bytes
	FirstByte time.Duration // a program of one byte
	NextByte  time.Duration // and each further, up to Page
	Sector    time.Duration // erase of a sector
	Block     time.Duration // erase of a block
	// ReadBytesPerSecond over the bus.
	ReadBytesPerSecond int
}

var (
	// Typical timings of a W25Q32-class chip.
	Typical = Timing{Page: 400 * time.Microsecond, FirstByte: 30 * time.Microsecond, NextByte: 2500 * time.Nanosecond,
		Sector: 45 * time.Millisecond, Block: 150 * time.Millisecond, ReadBytesPerSecond: 8_000_000}
	// Maximum timings of the same class.
	Maximum = Timing{Page: 3 * time.Millisecond, FirstByte: 50 * time.Microsecond, NextByte: 12 * time.Microsecond,
		Sector: 400 * time.Millisecond, Block: 2 * time.Second, ReadBytesPerSecond: 8_000_000}
)

func (t Timing) program(n uint32) time.Duration {
	return min(t.Page, t.FirstByte+time.Duration(n-1)*t.NextByte)
}

func (t Timing) read(n int) time.Duration {
	if t.ReadBytesPerSecond == 0 {
		return 0
	}
	return time.Duration(n) * time.Second / time.Duration(t.ReadBytesPerSecond)
}
