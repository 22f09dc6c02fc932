package patch

func (a *Applier) predictRISCV(o, oldAddr, newAddr, left uint32) {
	if o < a.insnNext || o&1 != 0 {
		return
	}
	if !a.code(oldAddr) {
		a.insnAt, a.insn, a.insnNext = o, 0, o+2
		return
	}
	w := a.oldWord(o)
	if w&3 != 3 {
		a.insnAt, a.insnNext, a.insn = o, o+2, 32+uint8(w&3<<3|w>>13&7)
		return
	}
	a.insnAt, a.insnNext, a.insn = o, o+4, uint8(w>>2&31)+1
	if left < 4 {
		return
	}
	a.guess.word = w
	switch op := w & 0x7F; op {
	case 0x6F:
		target := oldAddr + jalOffset(w)
		if _, in := a.old.offset(target); in {
			a.predictTarget(o, 4, kindCall, formJAL, target, newAddr)
		}
	case 0x17, 0x37: // AUIPC, LUI, and what completes the address behind it
		if left < 8 {
			return
		}
		w2 := a.oldWord(o + 4)
		if !completes(w2, w>>7&31) {
			return
		}
		target := w&0xFFFFF000 + lowOf(w2)
		form, kind := uint8(formLUI), uint8(kindLiteral)
		if op == 0x17 {
			target += oldAddr
			form, kind = formAUIPC, kindCall
		} else if !a.pointer(target) {
			return
		}
		a.guess.word2 = w2
		a.predictTarget(o, 8, kind, form, target, newAddr)
		a.insnNext = o + 8
	}
}

// completes reports whether w adds the lower 12 bits to register r: JALR, ADDI, a load
// or a store.
func completes(w, r uint32) bool {
	switch w & 0x7F {
	case 0x67, 0x13, 0x03, 0x23:
		return w>>15&31 == r
	}
	return false
}

func jalOffset(w uint32) uint32 {
	return uint32(int32(w)>>31)<<20 | w&0xFF000 | w>>20&1<<11 | w>>21&0x3FF<<1
}

func setJAL(w, off uint32) uint32 {
	return w&0xFFF | off>>20&1<<31 | off>>1&0x3FF<<21 | off>>11&1<<20 | off&0xFF000
}

// lowOf is the signed 12 bits of a load or a store.
func lowOf(w uint32) uint32 {
	if w&0x7F == 0x23 {
		return uint32(int32(w)>>25)<<5 | w>>7&31
	}
	return uint32(int32(w) >> 20)
}

func setLow(w, v uint32) uint32 {
	if w&0x7F == 0x23 {
		return w&0x01FFF07F | v>>5&0x7F<<25 | v&31<<7
	}
	return w&0xFFFFF | v<<20
}
