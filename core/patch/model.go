package patch

// The model: what the coder expects, from what came before. Every decision mixes
// counters that are found by hashed contexts.

// maxInputs is how many counters one decision mixes at most.
const maxInputs = 6

// Inputs of the flag "as predicted", the flag "as the other prediction", a difference,
// a literal, the flag "a copy begins".
const (
	flagInputs  = 6
	otherInputs = 4
	deltaInputs = 4
	literInputs = 5
	tokenInputs = 4
)

const (
	tokenCount = 192
	numCount   = 48 // counters of a kind of number

	// Weights, a set for each situation.
	flagSets     = 64
	deltaSets    = 16
	literSets    = 8
	otherWeights = flagSets * flagInputs
	deltaWeights = otherWeights + 4*otherInputs
	literWeights = deltaWeights + deltaSets*deltaInputs
	tokenWeights = literWeights + literSets*literInputs
	weightCount  = tokenWeights + tokenInputs
)

// Decisions with a counter of their own.
const (
	miscRecent  = 0 // the run has a shift that a run before it had
	miscAgain   = 1 // the copy lies where one of the last ones would go on; by the two tokens before
	miscOld     = 5 // the copy is from the old image
	miscRestart = 6
	miscCount   = 7
)

// Kinds of numbers.
const (
	numPreamble    = iota
	numMapStart    // from the entry before
	numMapShift    // zigzag, to the entry before
	numRun         // length of a run
	numInsert      // length of an insertion
	numSource      // of a run: zigzag, from where the last one ended
	numRecent      // which of the shifts that runs had
	numLength      // of a copy, less minCopy
	numBack        // which of the last copies' places
	numAgainLength // of a copy at such a place, less minCopy
	numOldSource   // of a copy: zigzag, from where the last run ended
	numDistance    // of a copy: back from here, less 1
	numKinds
)

// resetModel forgets all that was learned, but not the map, which was sent.
func (a *Applier) resetModel() {
	for i := range a.words[:a.at.cache] {
		a.words[i] = counterStart
	}
	for i := range a.weights {
		a.weights[i] = weightOne / 4
	}
	a.resetCache()
}

// slot is where a context's counter is, in 1<<n of them from base on.
func slot(base uint16, n uint8, ctx uint32) uint16 {
	ctx *= 0x9E3779B1
	return base + uint16((ctx^ctx>>15)*0x2C1B3C6D>>(32-n))
}

// number codes v of a kind: how many bits v+1 has, then those below its highest.
func (a *Applier) number(kind int, v uint32) uint32 {
	base := int(a.at.number) + kind*numCount
	v++
	width := uint32(0)
	for x := v; x > 1; x >>= 1 {
		width++
	}
	n := uint32(0)
	for n < 31 {
		more := uint32(0)
		if n < width {
			more = 1
		}
		i := n
		if i > 19 {
			i = 19
		}
		if a.direct(base+int(i), more) == 0 {
			break
		}
		n++
	}
	c := n
	if c > 8 {
		c = 8
	}
	got := uint32(1)
	for i := uint32(0); i < n; i++ {
		want := v >> (n - 1 - i) & 1
		switch i {
		case 0:
			want = a.direct(base+20+int(c)*3-3, want)
		case 1:
			want = a.direct(base+21+int(c)*3-3+int(got&1), want)
		case n - 2:
			// Instructions and words are aligned, and so is what lies between two.
			want = a.direct(base+44, want)
		case n - 1:
			want = a.direct(base+45+int(got&1), want)
		default:
			want = a.bit(1<<(probBits-1), want)
		}
		got = got<<1 | want
	}
	return got - 1
}

func zigzag(v int32) uint32   { return uint32(v<<1) ^ uint32(v>>31) }
func unzigzag(v uint32) int32 { return int32(v>>1) ^ -int32(v&1) }

func log2(v uint32) uint32 {
	n := uint32(0)
	for v > 0 {
		n++
		v >>= 1
	}
	return n
}

// runByte codes a byte of a run; want is the byte where an Encoder drives.
func (a *Applier) runByte(want uint32) uint32 {
	o := a.from
	ob, next := a.oldByte(o), a.oldByte(o+1)
	guess, other := ob, ob
	kind, from := uint32(0), uint32(0)
	if i := o - a.guess.at; i < uint32(a.guess.n) {
		guess, other = uint32(a.guess.first[i]), uint32(a.guess.second[i])
		kind, from = uint32(a.guess.kind), uint32(a.guess.from)
	}
	moved := uint32(0)
	if guess != ob {
		moved = 1
	}
	phase := o - a.insnAt
	if a.arch == ArchNone {
		phase = a.pos
	}
	phase &= 3
	class := kind<<4 | from<<1 | moved
	dq := log2(a.dist)
	if dq > 15 {
		dq = 15
	}
	fh := a.flags
	hits := uint32(a.hits[kind&7])
	at, n := a.at.flag, a.lay.flag
	a.ix[0] = slot(at, n, fh&0xFF|class<<8)
	a.ix[1] = slot(at+1<<n, n, dq|phase<<4|class<<8|uint32(a.insn)<<16|1<<30)
	a.ix[2] = slot(at+2<<n, n, ob|fh&3<<8|class<<16|phase<<24|2<<30)
	a.ix[3] = slot(at+3<<n, n, next<<8|fh&1<<16|class<<18|phase<<26)
	a.ix[4] = slot(at+4<<n, n, hits&15|fh&3<<4|phase<<6|class<<8|4<<28)
	a.ix[5] = slot(at+5<<n, n, next|a.oldByte(o+2)<<8|fh&1<<24|moved<<25)
	d := dq / 3
	if d > 3 {
		d = 3
	}
	hit := uint32(0)
	if want == guess {
		hit = 1
	}
	set := int((kind&3)<<3|moved<<2|d) * flagInputs
	if from > fromFine {
		set += 32 * flagInputs
	}
	hit = a.mix(flagInputs, set, flagRate, fastLimit, hit)
	a.flags = fh<<1 | hit
	if hit != 0 {
		a.dist++
		return guess
	}
	b := uint32(0)
	found := false
	if other != guess {
		if want == other {
			b = 1
		}
		at, n = a.at.other, a.lay.other
		a.ix[0] = slot(at, n, class)
		a.ix[1] = slot(at+1<<n, n, hits&15|class<<8)
		a.ix[2] = slot(at+2<<n, n, fh&7|phase<<4)
		a.ix[3] = slot(at+3<<n, n, phase|class<<8)
		found = a.mix(otherInputs, otherWeights+int(kind&3)*otherInputs, commonRate, fastLimit, b) != 0
		b = other
	}
	if !found {
		b = (guess + a.delta(want-guess, ob, kind, phase)) & 0xFF
	}
	a.dist = 0
	return b
}

// delta codes how far a byte is from its prediction, 1..255.
func (a *Applier) delta(want, ob, kind, phase uint32) uint32 {
	d := uint32(0)
	switch {
	case a.dist < 4:
	case a.dist < 32:
		d = 1
	default:
		d = 2
	}
	set := deltaWeights + int((kind&3)<<2|d)*deltaInputs
	c0 := kind<<10 | phase<<8
	c1 := uint32(a.insn)<<8 | phase<<14 | 1<<30
	c2 := ob&0xF0<<8 | kind<<16 | 2<<30
	c3 := a.missed<<8 | phase<<16 | 3<<30
	at, n := a.at.delta, a.lay.delta
	tree := uint32(1)
	for i := 7; i >= 0; i-- {
		a.ix[0] = slot(at, n, tree|c0)
		a.ix[1] = slot(at+1<<n, n, tree|c1)
		a.ix[2] = slot(at+2<<n, n, tree|c2)
		a.ix[3] = slot(at+3<<n, n, tree|c3)
		tree = tree<<1 | a.mix(deltaInputs, set, deltaRate, fastLimit, want>>uint(i)&1)
	}
	tree &= 0xFF
	a.missed = tree
	return tree
}

// literal codes a byte that nothing predicts.
func (a *Applier) literal(want uint32) uint32 {
	c1, c2, c3 := a.recent&0xFF, a.recent>>8&0xFF, a.recent>>16&0xFF
	phase := a.pos & 3
	after := int(a.token >> 1 & 1)
	peek := a.peek()<<8 | uint32(a.token&3)<<16 | 1<<29
	at, n := a.at.liter, a.lay.liter
	tree := uint32(1)
	for i := 7; i >= 0; i-- {
		a.ix[0] = slot(at, n, tree|phase<<8)
		a.ix[1] = slot(at+1<<n, n, tree|c1&0xF0<<8|1<<30)
		a.ix[2] = slot(at+2<<n, n, tree|c2&0xF0<<8|phase&1<<16|2<<30)
		a.ix[3] = slot(at+3<<n, n, tree|c3&0xF0<<8|3<<30)
		a.ix[4] = slot(at+4<<n, n, tree|peek)
		tree = tree<<1 | a.mix(literInputs, literWeights+(int(phase)+4*after)*literInputs, commonRate, slowLimit, want>>uint(i)&1)
	}
	return tree & 0xFF
}

// peek is the byte with which the last copy would go on.
func (a *Applier) peek() uint32 {
	if a.backsLen == 0 {
		return 0
	}
	from := a.pos - uint32(int32(a.backs[0])>>1)
	if a.backs[0]&1 != 0 {
		return a.oldByte(from)
	}
	return a.newByte(from)
}
