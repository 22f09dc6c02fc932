package nor

import "github.com/runnel-fota/runnel/core/flash"

// CutWhen is where in an operation the power fails.
type CutWhen uint8

const (
	CutNone CutWhen = iota
	CutBefore
	CutInside
	CutAfter
)

// Cut is one power failure.
type Cut struct {
	When CutWhen
	// Done is, for CutInside of a program, how many bytes are done for good: whole
	// program units in ascending order; the next up to 64 bytes are torn, or one
	// unit where it is larger. Of an
	// erase: below a quarter of its length nothing happened yet, above three
	// quarters the bits look erased but are marginal, between some are erased.
	Done uint32
	// Disturb also flips bits elsewhere in the sector of a torn program.
	Disturb bool
	// Clean leaves what is behind Done as it was: the command that would have
	// changed it had not begun.
	Clean bool
}

const tornChunk = 64 // bytes: what one SPI command of ESP-IDF's driver carries

// SetCut has f decide, before every operation, whether power fails at it.
func (c *Chip) SetCut(f func(Op) Cut) { c.cut = f }

// SetFail has f fail operations; flash.ErrErase and ErrProgram are what a dying
// sector gives. The operation takes its time and leaves its range torn.
func (c *Chip) SetFail(f func(Op) error) { c.fail = f }

// SetReadFlip has f change what a read returns.
func (c *Chip) SetReadFlip(f func(off uint32, p []byte)) { c.readFlip = f }

// CutPower tears the next operation that changes flash. It may be called from any
// goroutine: it is what a hand on the plug does.
func (c *Chip) CutPower() { c.pull.Store(true) }

// Fork is a copy of the chip, as Clone makes it, on which the operation that is about
// to happen ended in a cut, with the power back. Only the function given to SetCut
// may call it: so a sweep goes on with the same run behind any number of cuts.
func (c *Chip) Fork(cut Cut) *Chip {
	f := c.Clone()
	f.cut = func(Op) Cut { return cut }
	// Its error is the cut.
	if c.op.Kind == Erase {
		_ = f.eraseUnit(c.op.Off, c.op.Len)
	} else {
		_ = f.programPage(c.opData, c.op.Off)
	}
	f.cut = nil
	f.PowerOn()
	return f
}

// Dead says whether the power is gone. Every access fails until PowerOn.
func (c *Chip) Dead() bool { return c.dead }

// PowerOn brings the chip back, as the cut left it.
func (c *Chip) PowerOn() {
	c.dead = false
	c.pull.Store(false)
}

func (c *Chip) die() error {
	c.dead = true
	return flash.ErrPower
}

// tearProgram does the first units for good and leaves the next ones with some of
// their bits cleared. A torn unit counts as programmed: it must be erased before use.
func (c *Chip) tearProgram(data []byte, off uint32, cut Cut) {
	n := uint32(len(data))
	done := min(cut.Done/c.geo.ProgramSize*c.geo.ProgramSize, n)
	if done > 0 {
		c.clear(data, off, done)
	}
	torn := min(max(tornChunk, c.geo.ProgramSize), n-done)
	if cut.Clean {
		torn = 0
	}
	for i := done; i < done+torn; i++ {
		keep := byte(c.rng.UintN(256)) // bits that did not get cleared
		c.mem[off+i] &= data[i] | keep
	}
	if torn > 0 {
		for u := (off + done) / c.geo.ProgramSize; u*c.geo.ProgramSize < off+done+torn; u++ {
			c.used[u/64] |= 1 << (u % 64)
		}
	}
	c.store(off, n)
	if cut.Disturb {
		// Program disturb reaches the whole sector (Microchip says so of its SST26):
		// a few bits of what stands there lose their charge or gain some.
		s := off / c.geo.EraseSize * c.geo.EraseSize
		for i := 0; i < 8; i++ {
			at := s + c.rng.Uint32N(c.geo.EraseSize)
			c.mem[at] ^= 1 << c.rng.UintN(8)
		}
		c.markTorn(s, c.geo.EraseSize)
		c.store(s, c.geo.EraseSize)
	}
}

// tearErase leaves a sector or block in the middle of an erase.
func (c *Chip) tearErase(off, n uint32, cut Cut) {
	switch {
	case cut.Done < n/4:
		// untouched, as far as anybody can read
	case cut.Done > n/4*3:
		for i := off; i < off+n; i++ {
			c.mem[i] = 0xFF
		}
	default:
		for i := off; i < off+n; i++ {
			c.mem[i] |= byte(c.rng.UintN(256))
		}
	}
	for s := off / c.geo.EraseSize; s < (off+n)/c.geo.EraseSize; s++ {
		c.shaky[s/64] |= 1 << (s % 64)
	}
	c.markTorn(off, n)
	c.store(off, n)
}

// markTorn makes all units of a range count as programmed.
func (c *Chip) markTorn(off, n uint32) {
	for u := off / c.geo.ProgramSize; u < (off+n)/c.geo.ProgramSize; u++ {
		c.used[u/64] |= 1 << (u % 64)
	}
}

// shake makes marginal bits read differently from time to time.
func (c *Chip) shake(p []byte, off uint32) {
	if len(p) == 0 {
		return
	}
	for s := off / c.geo.EraseSize; s <= (off+uint32(len(p))-1)/c.geo.EraseSize; s++ {
		if c.shaky[s/64]&(1<<(s%64)) == 0 {
			continue
		}
		lo := max(s*c.geo.EraseSize, off) - off
		hi := min((s+1)*c.geo.EraseSize-off, uint32(len(p)))
		if hi <= lo || c.rng.UintN(4) != 0 {
			continue
		}
		at := lo + c.rng.Uint32N(hi-lo)
		if c.block == nil {
			p[at] ^= 1 << c.rng.UintN(8)
			continue
		}
		// One bit of ciphertext is the whole block of plain text.
		first := (off + at) &^ 15
		for i := max(first, off) - off; i < min(first+16-off, uint32(len(p))); i++ {
			p[i] = byte(c.rng.UintN(256))
		}
	}
}
