package patch

type phase uint8

const (
	phaseVersion phase = iota
	phasePreamble
	phaseOp        // length of a run, which may be 0
	phaseInsertLen // length of the insertion behind it
	phaseSource    // where the run lies
	phaseRun
	phaseInsert // a literal, or that a copy begins
	phaseCopyFrom
	phaseCopy
	phaseLink // a restart point
	phaseDone
	phaseFailed
)

// grain is where restart points may stand: at multiples of it in the output, bytes, so
// that each is a chunk's end, whatever the image's chunk size.
const grain = 16384

// winSize is how much of the old image the applier has at hand, bytes; winBack of it lie
// before what it wanted first.
const (
	winSize = 64
	winBack = 4
)

// Applier makes the new image out of the old one and a patch. See the package's
// comment for how it is driven.
//
//	A1 nothing outside of OldSize and of what was made so far is read
//	A2 never more than NewSize bytes are made
//	A3 each unit of work makes bytes, takes input, fails or comes nearer to one of
//	   these, so that every patch ends
type Applier struct {
	phase    phase
	err      Error
	arch     Arch
	raw      bool  // the images have one base address each, not an ESP image's segments
	keep     bool  // the model goes on over restart points
	copyOld  bool  // the copy is from the old image
	step     uint8 // of the preamble
	mapLen   uint8
	index    uint8 // of the segment or the entry that is read
	movedLen uint8
	backsLen uint8
	token    uint8    // 1 for a copy, of the last tokens; the newest in bit 0
	insn     uint8    // what kind of instruction the run is in, 0: none
	hits     [8]uint8 // by kind: was the prediction right, the newest in bit 0
	lay      layout
	at       bases

	pos        uint32 // bytes made
	wrote      uint32 // of those, in New
	limit      uint32 // where the next restart point may be
	resume     uint32 // where to go on, 0: at the beginning
	from       uint32 // where the run stands in the old image
	runLeft    uint32 // bytes of the run
	insertLeft uint32
	copyFrom   uint32
	copyLeft   uint32
	expect     uint32 // the old image behind the last run
	insnAt     uint32 // where the instruction that the run is in begins
	insnNext   uint32
	dist       uint32 // bytes since the last miss
	flags      uint32 // was a byte as predicted; the newest in bit 0
	missed     uint32 // the last difference
	recent     uint32 // the last bytes of the output, the newest lowest
	before     uint32 // and the four before
	fed        uint32
	linkAt     uint32
	winAt      uint32
	winN       uint32

	ix      [maxInputs]uint16
	one     [1]byte
	link    [LinkSize]byte
	moved   [16]uint32 // shifts of the last runs, pos - from, the newest first
	backs   [4]uint32  // how far back the last copies lay, doubled, and 1 for the old image
	c       Config
	enc     Encoder
	words   []uint16 // what of the memory the layout wants
	old     space
	next    space
	guess   prediction
	in      input
	win     [winSize]byte
	weights [weightCount]int16
}

// Begin starts at the patch's first byte.
func (a *Applier) Begin(c Config) Error {
	*a = Applier{c: c, limit: grain}
	if len(c.Out) < MinOut || c.New == nil || (c.Old == nil && c.OldSize > 0) || c.OldSize > MaxImage || c.NewSize > MaxImage {
		return a.fail(ErrConfig)
	}
	return 0
}

func (a *Applier) fail(e Error) Error {
	a.phase, a.err = phaseFailed, e
	return e
}

// Feed takes as many bytes as it has room for, and says how many: none where Step is
// to be called first. Behind the end of the image none are due.
func (a *Applier) Feed(p []byte) int {
	n := a.in.fill(p)
	a.fed += uint32(n)
	if n > 0 && a.phase == phaseDone {
		a.fail(ErrLong)
	}
	return n
}

// End says that there is no more input.
func (a *Applier) End() { a.in.ended = true }

// Output is what was made and is not written yet.
func (a *Applier) Output() []byte { return a.c.Out[:a.pos-a.wrote] }

// Wrote says that Output is in New now, behind what was there.
func (a *Applier) Wrote() { a.wrote = a.pos }

// Made is how much of the image is made, bytes.
func (a *Applier) Made() uint32 { return a.pos }

// Err says why it failed.
func (a *Applier) Err() Error { return a.err }

// Step works until it needs something: it makes at most as many bytes as the output
// buffer holds.
func (a *Applier) Step() Status {
	for a.phase < phaseDone {
		switch {
		case a.pos-a.wrote >= uint32(len(a.c.Out)):
			return Full
		case a.enc == nil && !a.in.ended && a.in.w-a.in.r < unitInput:
			return Hungry
		}
		was := a.phase
		err := a.unit()
		if a.err != 0 {
			err = a.err // what could not be read was taken for zeros
		}
		if err == 0 && a.in.over > coderLead {
			err = ErrShort
		}
		switch {
		case err != 0:
			a.fail(err)
		case was == phasePreamble && a.phase == phaseLink:
			a.in.r, a.in.w = 0, 0
			a.fed = 0
			return Seek
		case was == phaseLink:
			return Restart
		}
	}
	if a.phase == phaseDone {
		return Done
	}
	return Failed
}

// unit does one unit of work.
func (a *Applier) unit() Error {
	if a.phase >= phaseOp && a.phase <= phaseCopy {
		if a.pos == a.c.NewSize {
			a.phase = phaseDone
			if a.in.r < a.in.w {
				return ErrLong
			}
			return 0
		}
		if a.pos == a.limit {
			a.limit += grain
			if a.direct(int(a.at.misc)+miscRestart, a.want(SymRestart)) != 0 {
				a.phase = phaseLink
				return 0
			}
		}
	}
	switch a.phase {
	case phaseVersion:
		return a.version()
	case phasePreamble:
		return a.preamble()
	case phaseOp:
		a.runLeft = a.number(numRun, a.want(SymRun))
		a.phase = phaseInsertLen
	case phaseInsertLen:
		a.insertLeft = a.number(numInsert, a.want(SymInsert))
		left := a.c.NewSize - a.pos
		if a.runLeft > left || a.insertLeft > left-a.runLeft || a.runLeft|a.insertLeft == 0 {
			return ErrRange
		}
		a.phase = phaseInsert
		if a.runLeft > 0 {
			a.phase = phaseSource
		}
	case phaseSource:
		return a.source()
	case phaseRun:
		a.run()
	case phaseInsert:
		a.insert()
	case phaseCopyFrom:
		return a.copySource()
	case phaseCopy:
		return a.copy()
	case phaseLink:
		a.linkUp()
	}
	return 0
}

// put makes a byte.
func (a *Applier) put(b uint32) {
	a.c.Out[a.pos-a.wrote] = byte(b)
	a.pos++
	a.before = a.before<<8 | a.recent>>24
	a.recent = a.recent<<8 | b
}

// newByte is a byte that was made, 0 where there is none.
func (a *Applier) newByte(off uint32) uint32 {
	if off >= a.pos {
		return 0
	}
	if off >= a.wrote {
		return uint32(a.c.Out[off-a.wrote])
	}
	if a.c.New.ReadAt(a.one[:], off) != nil {
		a.err = ErrRead
	}
	return uint32(a.one[0])
}

// oldByte is the byte at off of the old image, 0 behind its end.
func (a *Applier) oldByte(off uint32) uint32 {
	if off-a.winAt >= a.winN {
		if off >= a.c.OldSize {
			return 0
		}
		at := uint32(0)
		if off > winBack {
			at = off - winBack
		}
		n := a.c.OldSize - at
		if n > winSize {
			n = winSize
		}
		a.winAt, a.winN = at, n
		if a.c.Old.ReadAt(a.win[:n], at) != nil {
			a.winN = 0
			a.err = ErrRead
			return 0
		}
	}
	return uint32(a.win[off-a.winAt])
}

// oldWord is the four bytes at off, little-endian.
func (a *Applier) oldWord(off uint32) uint32 {
	return a.oldByte(off) | a.oldByte(off+1)<<8 | a.oldByte(off+2)<<16 | a.oldByte(off+3)<<24
}
