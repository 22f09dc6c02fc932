package patch

// Prediction: where an instruction or a pointer of the old image refers to something
// that moved, its bytes in the new image are those with the moved target.

// Kinds of a prediction.
const (
	kindNone    = iota
	kindPointer // a word that is an address
	kindCall    // relative to where it stands
	kindLiteral // relative to where it stands, of data
)

// prediction is what the run's next bytes will be.
type prediction struct {
	at     uint32 // in the old image
	n      uint8  // bytes, 0: there is none
	kind   uint8
	from   uint8
	form   uint8  // how the bytes hold the address
	target uint32 // in the old image
	pc     uint32 // in the new image
	word   uint32 // the old bytes
	word2  uint32
	first  [8]byte // with the likeliest shift
	second [8]byte // with another
}

// predict looks at the old byte where the run stands, and predicts what begins there.
func (a *Applier) predict() {
	o := a.from
	if o-a.guess.at < uint32(a.guess.n) {
		return
	}
	a.guess.n = 0
	oldAddr, ok := a.old.address(o)
	if !ok {
		a.insnAt = o
		a.insn = 0
		a.insnNext = o + 1
		return
	}
	newAddr, ok := a.next.address(a.pos)
	if !ok {
		newAddr = oldAddr
	}
	left := a.runLeft
	if oldAddr&3 == 0 && newAddr&3 == 0 && left >= 4 && ok {
		if w := a.oldWord(o); a.pointer(w) {
			a.insnAt, a.insn, a.insnNext = o, 0, o+4
			a.guess.word = w
			target := w
			if a.arch == ArchThumb {
				target &^= 1
			}
			a.predictTarget(o, 4, kindPointer, formPointer, target, newAddr)
			return
		}
	}
	if oldAddr&3 == 0 && left >= 4 && ok && !a.raw && !a.code(oldAddr) {
		w := a.oldWord(o)
		if target := oldAddr + w; a.code(target) {
			if _, in := a.old.offset(target); in {
				a.insnAt, a.insn, a.insnNext = o, 0, o+4
				a.guess.word = w
				a.predictTarget(o, 4, kindPointer, formRelative, target, newAddr)
				return
			}
		}
	}
	switch a.arch {
	case ArchXtensa:
		a.predictXtensa(o, oldAddr, newAddr, left)
	case ArchRISCV:
		a.predictRISCV(o, oldAddr, newAddr, left)
	case ArchThumb:
		a.predictThumb(o, oldAddr, newAddr, left)
	}
}

// Forms: how bytes hold an address.
const (
	formPointer  = iota
	formRelative // to where it stands
	formXtensaCall
	formXtensaL32R
	formThumbBL
	formJAL
	formAUIPC
	formLUI
)

// predictTarget predicts the n bytes at o, which refer to target.
func (a *Applier) predictTarget(o uint32, n uint8, kind, form uint8, target, pc uint32) {
	g := &a.guess
	first, second, from := a.shifts(target)
	g.at, g.n, g.kind, g.form, g.from = o, n, kind, form, from
	g.target, g.pc = target, pc
	a.form(&g.first, target+uint32(first))
	if from == fromDoubted || from == fromMap {
		a.form(&g.second, target+uint32(second))
	} else {
		putWord(g.second[:], g.word)
		putWord(g.second[4:], g.word2)
	}
}

func putWord(p []byte, w uint32) {
	p[0], p[1], p[2], p[3] = byte(w), byte(w>>8), byte(w>>16), byte(w>>24)
}

// form writes the guess's old bytes with another target.
func (a *Applier) form(p *[8]byte, target uint32) {
	g := &a.guess
	w := g.word
	switch g.form {
	case formPointer:
		if a.arch == ArchThumb {
			target = target&^1 | w&1
		}
		w = target
	case formRelative:
		w = target - g.pc
	case formXtensaCall:
		off := (target - (g.pc&^3 + 4)) >> 2
		w = w&0x3F | off<<6&0xFFFFC0
	case formXtensaL32R:
		off := (target - (g.pc+3)&^3) >> 2
		w = w&0xFF | off<<8&0xFFFF00
	case formThumbBL:
		w = thumbBranch(w, target-(g.pc+4))
	case formJAL:
		w = setJAL(w, target-g.pc)
	case formAUIPC, formLUI:
		if g.form == formAUIPC {
			target -= g.pc
		}
		hi := (target + 0x800) & 0xFFFFF000
		w = w&0xFFF | hi
		putWord(p[4:], setLow(g.word2, target-hi))
	}
	putWord(p[:], w)
}

// learn takes what the guessed bytes became. recent and before are the last eight
// bytes of the output, the newest in the lowest byte.
func (a *Applier) learn() {
	g := &a.guess
	var w, w2 uint32
	switch g.n {
	case 3:
		w = swap(a.recent << 8)
	case 4:
		w = swap(a.recent)
	case 8:
		w, w2 = swap(a.before), swap(a.recent)
	}
	hit := uint8(1)
	if g.first[0] != byte(w) || g.first[1] != byte(w>>8) || g.first[2] != byte(w>>16) {
		hit = 0
	}
	h := &a.hits[g.kind&7]
	*h = *h<<1 | hit
	target, ok := a.targetOf(w, w2)
	if ok {
		a.learnShift(g.target, int32(target-g.target))
	}
	g.n = 0
}

func swap(w uint32) uint32 {
	return w>>24 | w>>8&0xFF00 | w<<8&0xFF0000 | w<<24
}

// targetOf is what the new bytes refer to, where they have the guess's form.
func (a *Applier) targetOf(w, w2 uint32) (target uint32, ok bool) {
	g := &a.guess
	switch g.form {
	case formPointer:
		if a.arch == ArchThumb {
			w &^= 1
		}
		return w, a.pointer(w)
	case formRelative:
		return g.pc + w, true
	case formXtensaCall:
		return g.pc&^3 + 4 + uint32(int32(w<<8)>>14<<2), w&15 == 5
	case formXtensaL32R:
		return (g.pc+3)&^3 + (0xFFFF0000|w>>8)<<2, w&15 == 1
	case formThumbBL:
		return g.pc + 4 + thumbOffset(w), isThumbBranch(w)
	case formJAL:
		return g.pc + jalOffset(w), w&0x7F == 0x6F
	case formAUIPC, formLUI:
		t := w&0xFFFFF000 + lowOf(w2)
		if g.form == formAUIPC {
			t += g.pc
		}
		return t, w&0x7F == g.word&0x7F && w2&0x7F == g.word2&0x7F
	}
	return 0, false
}

// syncBack is from how far before a run the lengths of instructions are followed to
// find where one begins in it, bytes: they fall into step by themselves.
const syncBack = 48

// sync finds where the first instruction of a run begins.
func (a *Applier) sync() {
	o := uint32(0)
	if a.from > syncBack {
		o = a.from - syncBack
	}
	if a.arch != ArchXtensa {
		o &^= 1
	}
	for o < a.from {
		a.insnAt = o
		o += a.length(o)
	}
	a.insnNext = o
	a.guess.n = 0
}

// length of the instruction at o of the old image, bytes.
func (a *Applier) length(o uint32) uint32 {
	b := a.oldByte(o)
	switch a.arch {
	case ArchXtensa:
		if b&8 == 0 {
			return 3
		}
		return 2
	case ArchRISCV:
		if b&3 == 3 {
			return 4
		}
		return 2
	}
	return 2
}
