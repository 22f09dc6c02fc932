package patch

// The shift of an address is how much further its target lies in the new image. It is
// learned from every reference that was decoded: for 16 bytes around its target, and
// for the 1,024 around it; and it may be sent, as a map of the old image.
const (
	fineBits   = 4
	coarseBits = 10
	mapEntry   = 3       // words
	maxShift   = 0x40000 // a farther one is a coincidence
)

// The cache has the fine entries in its first half, the coarse ones in the second: all
// tags, then the lower and then the upper halves of all shifts. A tag is what of an
// address is above the entry's number.
const cacheEntry = 3

func (a *Applier) cacheLen() uint32 { return 2 << a.lay.cache }

func (a *Applier) fine(v uint32) (i uint32, tag uint16) {
	v >>= fineBits
	half := uint32(1) << a.lay.cache
	return uint32(a.at.cache) + v&(half-1), uint16(v >> a.lay.cache)
}

func (a *Applier) coarse(v uint32) (i uint32, tag uint16) {
	v >>= coarseBits
	half := uint32(1) << a.lay.cache
	return uint32(a.at.cache) + half + v&(half-1), uint16(v >> a.lay.cache)
}

func (a *Applier) cached(i uint32) int32 {
	n := a.cacheLen()
	return int32(uint32(a.words[i+n]) | uint32(a.words[i+2*n])<<16)
}

func (a *Applier) setCached(i uint32, tag uint16, shift int32) {
	n := a.cacheLen()
	a.words[i], a.words[i+n], a.words[i+2*n] = tag, uint16(shift), uint16(uint32(shift)>>16)
}

func (a *Applier) resetCache() {
	for i := uint32(0); i < a.cacheLen(); i++ {
		a.setCached(uint32(a.at.cache)+i, 0xFFFF, 0) // a coincidence with it costs some bits
	}
}

// learnShift remembers that what was at v in the old image is shift further.
func (a *Applier) learnShift(v uint32, shift int32) {
	if shift >= maxShift || shift <= -maxShift {
		return
	}
	i, tag := a.fine(v)
	a.setCached(i, tag, shift)
	i, tag = a.coarse(v)
	a.setCached(i, tag, shift)
}

// Where a shift came from.
const (
	fromNothing = iota
	fromFine    // learned, and nothing speaks against it
	fromDoubted // learned, and the map or the surroundings say something else
	fromMap
	fromCoarse
)

// shifts of what lies at v in the old image: the likeliest, another one, and where the
// first came from.
func (a *Applier) shifts(v uint32) (first, second int32, from uint8) {
	var coarse, sent int32
	i, tag := a.coarse(v)
	hasCoarse := a.words[i] == tag
	if hasCoarse {
		coarse = a.cached(i)
	}
	hasMap := false
	if a.mapLen > 0 {
		if off, ok := a.old.offset(v); ok {
			sent, hasMap = a.mapped(off)
		}
	}
	next, hasNext := coarse, hasCoarse
	if hasMap {
		next, hasNext = sent, true
	}
	if i, tag = a.fine(v); a.words[i] == tag {
		fine := a.cached(i)
		if hasNext && next != fine {
			return fine, next, fromDoubted
		}
		return fine, 0, fromFine
	}
	if hasMap {
		return sent, coarse, fromMap
	}
	if hasCoarse {
		return coarse, 0, fromCoarse
	}
	return 0, 0, fromNothing
}

// mapped is what the map says of an offset in the old image.
func (a *Applier) mapped(off uint32) (shift int32, ok bool) {
	lo, hi := 0, int(a.mapLen)
	for lo < hi {
		mid := (lo + hi) / 2
		if a.mapStart(mid) <= off {
			lo = mid + 1
		} else {
			hi = mid
		}
	}
	if lo == 0 {
		return 0, false
	}
	return a.mapShift(lo - 1), true
}

// An entry of the map: 24 bits of where it begins in the old image, 24 of the shift
// from there on.
func (a *Applier) mapWords(i int) []uint16 { return a.words[int(a.at.moves)+i*mapEntry:][:mapEntry] }

func (a *Applier) mapStart(i int) uint32 {
	e := a.mapWords(i)
	return uint32(e[0]) | uint32(e[1]&0xFF)<<16
}

func (a *Applier) mapShift(i int) int32 {
	e := a.mapWords(i)
	return int32(uint32(e[1])&0xFF00|uint32(e[2])<<16) >> 8
}

func (a *Applier) mapPut(i int, start uint32, shift int32) {
	e := a.mapWords(i)
	e[0], e[1], e[2] = uint16(start), uint16(start>>16&0xFF|uint32(shift)<<8&0xFF00), uint16(uint32(shift)>>8)
}
