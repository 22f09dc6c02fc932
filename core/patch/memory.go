package patch

// What an applier learns is in words that the caller lends it: LargeWords are enough for
// every patch, SmallWords for such that were made for them. In bytes, with the Applier
// itself, an output buffer of 256, and a record's verifier and buffer, that is less than
// 16,384 with records of 2,048, and less than 8,192 with records of 1,024
// (TestWorkingSet).
const (
	LargeWords = 5512
	SmallWords = 2192
)

// Profile of a patch, as its sheet states it: which memory it was made for.
const (
	ProfileLarge = 1
	ProfileSmall = 2
)

// A layout divides the memory: slots of one context of each part of the model as powers
// of two, entries of half the cache as one, and entries of the map.
// docs/format/patch.md has the table.
type layout struct {
	flag, other, delta, liter uint8
	cache                     uint8
	moves                     uint8
}

var layouts = [...]layout{
	{8, 5, 8, 7, 7, 128}, // large: for images that resemble each other
	{7, 5, 8, 8, 8, 0},   // for such that don't
	{4, 3, 3, 9, 3, 0},   // for one image alone
	{6, 4, 7, 5, 5, 32},  // small: the same
	{5, 4, 7, 6, 5, 16},
	{3, 3, 3, 8, 2, 0},
}

// Layouts is how many there are; those from SmallLayouts on do with SmallWords.
const (
	Layouts      = uint8(len(layouts))
	SmallLayouts = 3
)

// bases are where the parts of the memory begin: counters, the cache, the map.
type bases struct{ flag, other, delta, liter, token, misc, number, cache, moves, end uint16 }

func (l *layout) bases() (b bases) {
	b.other = b.flag + flagInputs<<l.flag
	b.delta = b.other + otherInputs<<l.other
	b.liter = b.delta + deltaInputs<<l.delta
	b.token = b.liter + literInputs<<l.liter
	b.misc = b.token + tokenCount
	b.number = b.misc + miscCount
	b.cache = b.number + numKinds*numCount
	b.moves = b.cache + cacheEntry*2<<l.cache
	b.end = b.moves + uint16(l.moves)*mapEntry
	return b
}

// divide takes what layout i wants of the memory.
func (a *Applier) divide(i uint8) Error {
	if i >= Layouts {
		return ErrFormat
	}
	a.lay = layouts[i]
	a.at = a.lay.bases()
	if len(a.c.Memory) < int(a.at.end) {
		return ErrMemory
	}
	a.words = a.c.Memory[:a.at.end]
	a.resetModel()
	return 0
}
