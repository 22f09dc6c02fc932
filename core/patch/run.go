package patch

// source codes where a run lies, by the shift of an earlier run or by how far it is
// from where the last one ended.
func (a *Applier) source() Error {
	shift := a.pos - a.want(SymSource)
	k := uint32(0)
	for k < uint32(a.movedLen) && a.moved[k] != shift {
		k++
	}
	again := uint32(0)
	if k < uint32(a.movedLen) {
		again = 1
	}
	if a.movedLen > 0 {
		again = a.direct(int(a.at.misc)+miscRecent, again)
	}
	if again != 0 {
		k = a.number(numRecent, k)
		if k >= uint32(a.movedLen) {
			return ErrRange
		}
		shift = a.moved[k]
	} else {
		d := unzigzag(a.number(numSource, zigzag(int32(a.pos-shift-a.expect))))
		shift = a.pos - (a.expect + uint32(d))
		k = uint32(a.movedLen)
		if k < uint32(len(a.moved)) {
			a.movedLen++
		} else {
			k--
		}
	}
	copy(a.moved[1:k+1], a.moved[:k])
	a.moved[0] = shift
	a.from = a.pos - shift
	if a.from > a.c.OldSize || a.runLeft > a.c.OldSize-a.from {
		return ErrRange
	}
	a.expect = a.from + a.runLeft
	if a.arch != ArchNone {
		a.sync()
	}
	a.phase = phaseRun
	return 0
}

// run makes a byte of it.
func (a *Applier) run() {
	if a.arch != ArchNone {
		a.predict()
	}
	a.put(a.runByte(a.want(SymByte)))
	a.from++
	a.runLeft--
	if a.guess.n > 0 && a.from == a.guess.at+uint32(a.guess.n) {
		a.learn()
	}
	if a.runLeft == 0 {
		a.guess.n = 0
		a.nextInsert()
	}
}

// nextInsert goes on with what is left of an insertion.
func (a *Applier) nextInsert() {
	a.phase = phaseInsert
	if a.insertLeft == 0 {
		a.phase = phaseOp
	}
}
