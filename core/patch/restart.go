package patch

// LinkSize is the length of the hash at a restart point.
const LinkSize = 32

// Restart points: places in the patch where the coder begins anew at a byte, after
// the hash with which the image's chain goes on there (core/stream): the walk from it
// over what is in the slot arrives at the signed root, or not. The model begins anew
// too, or goes on: then a snapshot that was taken there is needed to come back.

// ResumeAt is for an applier that is about to begin: it reads the preamble, asks for
// Seek, and goes on where a Restart was told at this place of the output. The caller
// proves Link and what the slot holds before anything that is made counts.
func (a *Applier) ResumeAt(pos uint32) Error {
	if a.phase != phaseVersion || pos == 0 || pos%grain != 0 || pos >= a.c.NewSize {
		return a.fail(ErrResume)
	}
	a.resume = pos
	return 0
}

// LinkAt is where in the patch the restart point stood that Restart told: Feed from
// there, after Seek. It counts from what was fed first, and after Seek from there.
func (a *Applier) LinkAt() uint32 { return a.linkAt }

// Link is the hash of the image's chunk that begins at Made, as the patch has it.
func (a *Applier) Link() *[LinkSize]byte { return &a.link }

// Kept reports whether the model goes on over restart points.
func (a *Applier) Kept() bool { return a.keep }

// linkUp passes a restart point.
func (a *Applier) linkUp() {
	a.linkAt = a.fed - uint32(a.in.w-a.in.r)
	if a.enc != nil {
		a.enc.Restart(a.pos)
	} else {
		for i := range a.link {
			a.link[i] = byte(a.in.next())
		}
		a.in.begin()
	}
	if !a.keep {
		a.resetModel()
	}
	a.phase = phaseOp
	a.guess.n = 0
	a.runLeft, a.insertLeft, a.copyLeft = 0, 0, 0
	a.movedLen, a.backsLen, a.token, a.insn = 0, 0, 0, 0
	a.dist, a.flags, a.missed, a.recent, a.before = 0, 0, 0, 0, 0
	a.hits = [8]uint8{}
	a.expect = a.pos
	if a.expect > a.c.OldSize {
		a.expect = a.c.OldSize
	}
}

// Snapshot is the model as bytes. At a Restart, take SnapshotLen bytes, in any pieces;
// to go on there, give them back after the Seek. off is even. What is given back is
// believed by nobody: whatever it is, the applier stays within its bounds.
func (a *Applier) Snapshot(p []byte, off uint32) {
	for i := uint32(0); i+1 < uint32(len(p)); i += 2 {
		w := a.modelWord((off+i)/2, 0, false)
		p[i], p[i+1] = byte(w), byte(w>>8)
	}
}

// Restore is Snapshot's way back.
func (a *Applier) Restore(p []byte, off uint32) {
	for i := uint32(0); i+1 < uint32(len(p)); i += 2 {
		a.modelWord((off+i)/2, uint16(p[i])|uint16(p[i+1])<<8, true)
	}
}

// SnapshotLen is how long a snapshot is, bytes.
func (a *Applier) SnapshotLen() uint32 { return 2 * (uint32(a.at.moves) + weightCount) }

// modelWord is word i of the model: counters, the cache, weights; and sets it.
func (a *Applier) modelWord(i uint32, w uint16, set bool) uint16 {
	n := uint32(a.at.moves)
	switch {
	case i < n:
		if set {
			a.words[i] = w
		}
		return a.words[i]
	case i-n < weightCount:
		if set {
			a.weights[i-n] = int16(w)
		}
		return uint16(a.weights[i-n])
	}
	return 0
}
