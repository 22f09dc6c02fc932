package patch

// minCopy is the shortest copy, bytes.
const minCopy = 2

// insert makes a literal, or finds that a copy begins.
func (a *Applier) insert() {
	h := uint32(a.token)
	at := a.at.token
	a.ix[0] = at + uint16(h&31)
	a.ix[1] = at + 32 + uint16(h&7)<<2 + uint16(a.pos&3)
	a.ix[2] = slot(at+64, 6, a.recent&0xFF|h&1<<8)
	a.ix[3] = slot(at+128, 6, a.recent&0xFFFF)
	isCopy := a.mix(tokenInputs, tokenWeights, commonRate, slowLimit, a.want(SymToken))
	a.token = uint8(h<<1 | isCopy)
	if isCopy != 0 {
		a.phase = phaseCopyFrom
		return
	}
	a.put(a.literal(a.want(SymByte)))
	a.insertLeft--
	a.flags, a.dist = a.flags<<1, 0
	a.nextInsert()
}

// copySource codes where a copy lies, and its length: at one of the last copies'
// places, or anywhere in what was made, or in the old image.
func (a *Applier) copySource() Error {
	old := a.want(SymOld)
	from := a.want(SymFrom)
	back := (a.pos-from)<<1 | old
	k := uint32(0)
	for k < uint32(a.backsLen) && a.backs[k] != back {
		k++
	}
	again := uint32(0)
	if k < uint32(a.backsLen) {
		again = 1
	}
	misc := int(a.at.misc)
	if a.backsLen > 0 {
		again = a.direct(misc+miscAgain+int(a.token>>1&3), again)
	}
	kind := numLength
	if again != 0 {
		k = a.number(numBack, k)
		if k >= uint32(a.backsLen) {
			return ErrRange
		}
		back = a.backs[k]
		kind = numAgainLength
	} else {
		old = a.direct(misc+miscOld, old)
		if old != 0 {
			from = a.expect + uint32(unzigzag(a.number(numOldSource, zigzag(int32(from-a.expect)))))
		} else {
			from = a.pos - 1 - a.number(numDistance, a.pos-1-from)
		}
		back = (a.pos-from)<<1 | old
		k = uint32(a.backsLen)
		if k < uint32(len(a.backs)) {
			a.backsLen++
		} else {
			k--
		}
	}
	copy(a.backs[1:k+1], a.backs[:k])
	a.backs[0] = back
	a.copyOld = back&1 != 0
	from = a.pos - uint32(int32(back)>>1)
	n := a.number(kind, a.want(SymLength)-minCopy) + minCopy
	switch {
	case n < minCopy || n > a.insertLeft:
		return ErrRange
	case a.copyOld && (from > a.c.OldSize || n > a.c.OldSize-from):
		return ErrRange
	case !a.copyOld && from >= a.pos:
		return ErrRange
	}
	a.copyFrom, a.copyLeft = from, n
	a.phase = phaseCopy
	return 0
}

// copy makes as much of a copy as goes at once.
func (a *Applier) copy() Error {
	n := a.copyLeft
	if room := uint32(len(a.c.Out)) - (a.pos - a.wrote); n > room {
		n = room
	}
	if n > a.limit-a.pos {
		n = a.limit - a.pos
	}
	to := a.c.Out[a.pos-a.wrote:]
	switch {
	case a.copyOld:
		if a.c.Old.ReadAt(to[:n], a.copyFrom) != nil {
			return ErrRead
		}
	case a.copyFrom < a.wrote:
		if n > a.wrote-a.copyFrom {
			n = a.wrote - a.copyFrom
		}
		if a.c.New.ReadAt(to[:n], a.copyFrom) != nil {
			return ErrRead
		}
	default: // may reach into itself
		from := a.c.Out[a.copyFrom-a.wrote:]
		for i := uint32(0); i < n; i++ {
			to[i] = from[i]
		}
	}
	for i := uint32(0); i < n; i++ {
		a.put(uint32(to[i]))
	}
	a.copyFrom += n
	a.copyLeft -= n
	a.insertLeft -= n
	a.flags, a.dist = 0, 0
	if a.copyLeft == 0 {
		a.nextInsert()
	}
	return 0
}
