package patch

func (a *Applier) predictThumb(o, oldAddr, newAddr, left uint32) {
	if o < a.insnNext || o&1 != 0 {
		return
	}
	w := a.oldWord(o)
	a.insnAt, a.insnNext, a.insn = o, o+2, uint8(w>>11&31)+1
	if left < 4 || !isThumbBranch(w) {
		return
	}
	a.insnNext = o + 4
	a.guess.word = w
	a.predictTarget(o, 4, kindCall, formThumbBL, oldAddr+4+thumbOffset(w), newAddr)
}

// isThumbBranch: BL or the unconditional B.W, as a word of two halfwords.
func isThumbBranch(w uint32) bool {
	h2 := w >> 16
	return w&0xF800 == 0xF000 && (h2&0xD000 == 0xD000 || h2&0xD000 == 0x9000)
}

func thumbOffset(w uint32) uint32 {
	h1, h2 := w&0xFFFF, w>>16
	s := h1 >> 10 & 1
	i1, i2 := ^(h2>>13^s)&1, ^(h2>>11^s)&1
	v := s<<24 | i1<<23 | i2<<22 | h1&0x3FF<<12 | h2&0x7FF<<1
	return uint32(int32(v<<7) >> 7)
}

func thumbBranch(w, off uint32) uint32 {
	s := off >> 24 & 1
	j1, j2 := ^(off>>23^s)&1, ^(off>>22^s)&1
	h1 := 0xF000 | s<<10 | off>>12&0x3FF
	h2 := w>>16&0xD000 | j1<<13 | j2<<11 | off>>1&0x7FF
	return h1 | h2<<16
}
