package patch

func (a *Applier) predictXtensa(o, oldAddr, newAddr, left uint32) {
	if o < a.insnNext && !(o&3 == 0 && oldAddr&3 == 0 && a.isEntry(o)) {
		return
	}
	if !a.code(oldAddr) {
		a.insnAt, a.insn, a.insnNext = o, 0, o+1
		return
	}
	w := a.oldWord(o)
	n := uint32(3)
	if w&8 != 0 {
		n = 2
	}
	a.insnAt, a.insnNext, a.insn = o, o+n, uint8(w&15)+1
	if left < 3 {
		return
	}
	switch w & 15 {
	case 5: // CALL0, 4, 8, 12
		a.guess.word = w & 0xFFFFFF
		target := oldAddr&^3 + 4 + uint32(int32(w<<8)>>14<<2)
		if _, in := a.old.offset(target); in {
			a.predictTarget(o, 3, kindCall, formXtensaCall, target, newAddr)
		}
	case 1: // L32R
		a.guess.word = w & 0xFFFFFF
		target := (oldAddr+3)&^3 + (0xFFFF0000|w>>8&0xFFFF)<<2
		if _, in := a.old.offset(target); in {
			a.predictTarget(o, 3, kindLiteral, formXtensaL32R, target, newAddr)
		}
	}
}

// isEntry reports whether a function may begin at o: with ENTRY a1. Functions are
// aligned, and what fills the gap before one is no instruction.
func (a *Applier) isEntry(o uint32) bool {
	return a.oldByte(o) == 0x36 && a.oldByte(o+1)&15 == 1
}
