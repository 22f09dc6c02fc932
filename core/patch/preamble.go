package patch

// The preamble: what both images are, and how addresses moved.

// Version is the first byte of a patch.
const Version = 1

// version reads what is not coded: the version, and how memory is divided.
func (a *Applier) version() Error {
	if a.in.next() != Version {
		return ErrVersion
	}
	if err := a.divide(uint8(a.in.next())); err != 0 {
		return err
	}
	a.in.begin()
	a.phase = phasePreamble
	return 0
}

// Steps of the preamble, one number each.
const (
	stepArch = iota
	stepFlags
	stepSize
	stepOldBase
	stepNewBase
	stepSegments
	stepAddress
	stepLength
	stepMap
	stepMapStart
	stepMapShift
)

// Bits of the preamble's flags.
const (
	FlagRaw  = 1 // one base address for an image, instead of an ESP image's segments
	FlagKeep = 2 // the model goes on over restart points
	flagsEnd = 4
)

// preamble reads one number of it.
func (a *Applier) preamble() Error {
	kind := numPreamble
	switch a.step {
	case stepMapStart:
		kind = numMapStart
	case stepMapShift:
		kind = numMapShift
	}
	v := a.number(kind, a.want(SymPreamble))
	switch a.step {
	case stepArch:
		if v >= uint32(archEnd) {
			return ErrFormat
		}
		a.arch = Arch(v)
		a.step = stepFlags
	case stepFlags:
		if v >= flagsEnd {
			return ErrFormat
		}
		a.raw, a.keep = v&FlagRaw != 0, v&FlagKeep != 0
		a.step = stepSize
	case stepSize:
		if v != a.c.NewSize {
			return ErrSize
		}
		switch {
		case a.arch == ArchNone:
			a.step = stepMap
			return a.begin()
		case a.raw:
			a.step = stepOldBase
		default:
			a.step = stepSegments
			return a.espSegments()
		}
	case stepOldBase:
		a.old.n, a.old.seg[0] = 1, segment{0, a.c.OldSize, v}
		a.step = stepNewBase
	case stepNewBase:
		a.next.n, a.next.seg[0] = 1, segment{0, a.c.NewSize, v}
		a.step = stepMap
	case stepSegments:
		if v > maxSegments {
			return ErrFormat
		}
		a.next.n = uint8(v)
		a.step = stepAddress
		if v == 0 {
			a.step = stepMap
		}
	case stepAddress:
		i := a.index
		a.next.seg[i].addr = a.old.seg[i].addr + uint32(unzigzag(v))
		a.step = stepLength
	case stepLength:
		i := a.index
		g := &a.next.seg[i]
		g.size = a.old.seg[i].size + uint32(unzigzag(v))
		g.off = espHeader + espSegment
		if i > 0 {
			g.off = a.next.seg[i-1].off + a.next.seg[i-1].size + espSegment
		}
		a.index++
		a.step = stepAddress
		if a.index == a.next.n {
			a.index = 0
			a.step = stepMap
		}
	case stepMap:
		if v > uint32(a.lay.moves) {
			return ErrFormat
		}
		a.mapLen = uint8(v)
		a.step = stepMapStart
		if v == 0 {
			return a.begin()
		}
	case stepMapStart:
		if a.index > 0 {
			v += a.mapStart(int(a.index) - 1)
		}
		a.mapPut(int(a.index), v, 0)
		a.step = stepMapShift
	case stepMapShift:
		shift := unzigzag(v)
		if a.index > 0 {
			shift += a.mapShift(int(a.index) - 1)
		}
		a.mapPut(int(a.index), a.mapStart(int(a.index)), shift)
		a.index++
		a.step = stepMapStart
		if a.index == a.mapLen {
			return a.begin()
		}
	}
	return 0
}

// begin goes on with the image, or with its rest.
func (a *Applier) begin() Error {
	a.phase = phaseOp
	if a.resume != 0 {
		a.pos, a.wrote, a.limit = a.resume, a.resume, a.resume+grain
		a.phase = phaseLink
	}
	return 0
}

// An ESP image's header and that of a segment, bytes (docs/format/image.md).
const (
	espHeader  = 24
	espSegment = 8
)

// espSegments finds the segments of the old image.
func (a *Applier) espSegments() Error {
	s := &a.old
	s.n = uint8(a.oldByte(1))
	if a.oldByte(0) != 0xE9 || s.n > maxSegments {
		return ErrFormat
	}
	at := uint32(espHeader)
	for i := uint8(0); i < s.n; i++ {
		g := &s.seg[i]
		g.addr, g.size, g.off = a.oldWord(at), a.oldWord(at+4), at+espSegment
		if g.size > a.c.OldSize || g.off > a.c.OldSize-g.size {
			return ErrFormat
		}
		at = g.off + g.size
	}
	return 0
}
