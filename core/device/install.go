package device

import (
	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// install is how far the target slot is.
type install struct {
	written uint32 // bytes programmed and read back
	erased  uint32 // bytes from the start that are erased or written
	crc     uint32 // CRC-32 of the written bytes
	noted   uint32 // written, as the newest journal entry has it
	inHand  uint32 // bytes of the chunk in the buffer that are not in flash yet
	done    uint32 // of those, programmed; then, of those, read back
	// After a resume [gapFrom, gapTo) is erased already, by an entry's word, and
	// [.., sectorsTo) is erased by sector only (flash rule 3).
	gapFrom, gapTo, sectorsTo uint32
	provenCRC                 uint32 // of the bytes that a walk has proven
	believed                  uint32 // up to here an entry's word for "erased" was taken
	resumable                 bool
	note                      bool // an erase entry is due
}

// restart forgets how far the target is, but for what is written.
//
//go:noinline
func (u *Updater) restart(written uint32) { u.inst = install{written: written} }

// drop forgets the release, too; how far it came stays where it is to be reported.
func (u *Updater) drop(written uint32) {
	u.rel.known = false
	u.restart(written)
}

//go:noinline
func (u *Updater) slot() *flash.Area { return &u.c.Slots[u.target] }

// sector is the target's erase size.
//
//go:noinline
func (u *Updater) sector() uint32 { return u.slot().EraseSize() }

// pickTarget chooses the slot that is written: the first after the running one.
// The running slot comes from the port, never from the records (I2).
func (u *Updater) pickTarget() {
	n := boot.Slot(len(u.c.Slots))
	run := u.running()
	if run >= n {
		u.target = 0 // the factory image runs
		return
	}
	u.target = (run + 1) % n
}

//go:noinline
func roundUp(n, unit uint32) uint32 { return (n + unit - 1) / unit * unit }

// useJournal begins with an empty journal where the target's lives: in the board's
// partition, or in the last two sectors of the slot; the image must leave those free.
//
//go:noinline
func (u *Updater) useJournal() {
	j := &u.jnl
	if u.partition {
		j.clear()
		return
	}
	*j = journal{}
	s := u.slot()
	two := 2 * u.sector()
	if s.Size() <= two {
		return
	}
	// What does not fit is refused, and leaves no journal.
	j.area, _ = s.Sub(s.Size()-two, two)
}

// room is how many bytes of the target the image may take.
func (u *Updater) room() uint32 {
	s := u.slot()
	if u.jnl.on() && !u.partition {
		return s.Size() - 2*s.EraseSize()
	}
	return s.Size()
}

// span is how much lies between two journal entries: a sector, or a chunk where
// that is larger (flash rule 1).
func (u *Updater) span() uint32 {
	sector := u.sector()
	if u.rel.chunk > sector {
		return u.rel.chunk
	}
	return sector
}

// planResume decides whether this download can be resumed at all, and says why not.
//
//go:noinline
func (u *Updater) planResume() {
	sector := u.sector()
	u.inst.resumable = false
	if u.rel.chunk%sector != 0 && sector%u.rel.chunk != 0 {
		u.jnl.off = true
		u.event(EventNoResume, ReasonNoChain)
		return
	}
	if u.jnl.on() && roundUp(u.rel.Size, sector) > u.room() {
		u.jnl.off = true
	}
	if !u.jnl.on() {
		if !u.chained() { // else the slot is its own journal
			u.event(EventNoResume, ReasonNoJournal)
		}
		return
	}
	u.inst.resumable = true
}

// eraseEnd is where erasing stops: the end of the image's last sector, or of its
// last block, where that is the slot's and quicker: a block takes as long as three
// and a half sectors (docs/design/flash.md, Time), so one is worth it for more than
// a quarter of its sectors.
//
//go:noinline
func (u *Updater) eraseEnd() uint32 {
	s := u.slot()
	g := s.Geometry()
	end := roundUp(u.rel.Size, g.EraseSize)
	b := g.BlockEraseSize
	if b == 0 || u.c.SectorsOnly {
		return end
	}
	over := roundUp(s.Base()+end, b) - s.Base()
	if over > u.room() || over-end >= b-b/4 {
		return end
	}
	return over
}

// eraseNext erases one sector or block behind what is erased.
//
//go:noinline
func (u *Updater) eraseNext() error {
	in, s := &u.inst, u.slot()
	g := s.Geometry()
	limit := u.eraseEnd()
	if in.erased < in.gapFrom && limit > in.gapFrom {
		limit = in.gapFrom
	}
	n := s.EraseUnit(in.erased, limit)
	if n > g.EraseSize && (u.c.SectorsOnly || in.erased < in.sectorsTo) {
		n = g.EraseSize
	}
	if err := s.Erase(in.erased, n); err != nil {
		return err
	}
	in.erased += n
	if in.gapTo > in.gapFrom && in.erased == in.gapFrom {
		in.erased, in.gapFrom, in.gapTo = in.gapTo, 0, 0
	}
	// A single sector needs no entry: space that no entry covers is erased again.
	in.note = n > g.EraseSize && in.resumable && u.patching() == nil
	return nil
}

// programNext programs the next piece of the chunk in hand. The last chunk is
// padded with the erased byte to the program unit.
//
//go:noinline
func (u *Updater) programNext() error {
	in, s := &u.inst, u.slot()
	end := roundUp(in.inHand, s.ProgramSize())
	from := u.piece()
	s.Blank(from[in.inHand:end])
	n := end - in.done
	if n > programPerStep {
		n = programPerStep
	}
	if err := s.Program(from[in.done:in.done+n], in.written+in.done); err != nil {
		return err
	}
	in.done += n
	return nil
}

// readBack compares the next piece of the chunk in hand with flash: a dying
// sector fails at once (flash rule 9).
//
//go:noinline
func (u *Updater) readBack() (bool, error) {
	in, s := &u.inst, u.slot()
	for left := uint32(programPerStep); left > 0 && in.done < in.inHand; {
		n := in.inHand - in.done
		if n > uint32(len(u.spare())) {
			n = uint32(len(u.spare()))
		}
		if n > left {
			n = left
		}
		buf := u.spare()[:n]
		if err := s.ReadAt(buf, in.written+in.done); err != nil {
			return false, err
		}
		if !digest.Equal(buf, u.piece()[in.done:in.done+n]) {
			return false, flash.ErrProgram
		}
		in.done += n
		left -= n
	}
	if in.done < in.inHand {
		return false, nil
	}
	if !u.chained() {
		in.crc = digest.CRC32(in.crc, u.chunk()[:in.inHand])
	}
	in.written += in.inHand
	in.inHand, in.done = 0, 0
	return true, nil
}

// entry is what the journal may say now. Space in the gap of a resume counts as
// erased: what a resume there would find unproven is erased again anyway.
func (in *install) entry() entry {
	erased := in.erased
	if in.gapTo > in.gapFrom {
		erased = in.gapTo
	}
	return entry{in.written, erased, in.crc}
}

// piece is what is programmed: the chunk in hand, or what was made.
func (u *Updater) piece() []byte {
	if p := u.patching(); p != nil {
		return p.out
	}
	return u.chunk()
}

// noteDue: is a journal entry due for what was written.
func (u *Updater) noteDue() bool {
	in := &u.inst
	if u.patching() != nil {
		due := in.written%u.sector() == 0 && in.written >= in.noted+derivedSpan || in.written == u.rel.Size
		return in.resumable && due // and at restart points
	}
	return in.resumable && (in.written-in.noted >= u.span() || in.written == u.rel.Size)
}

// hashNext reads the next 4 KiB of a slot, in pieces, into the SHA-256, if
// check by way of the image check; in.done is the position. It says whether size is reached.
//
//go:noinline
func (u *Updater) hashNext(slot boot.Slot, size uint32, check bool) (done bool, err error) {
	in := &u.inst
	for left := uint32(hashBytesPerStep); left > 0 && in.done < size; {
		n := size - in.done
		if n > uint32(len(u.chunk())) {
			n = uint32(len(u.chunk()))
		}
		if n > left {
			n = left
		}
		buf := u.chunk()[:n]
		if err := u.c.Slots[slot].ReadAt(buf, in.done); err != nil {
			return false, err
		}
		if check {
			// Its error stays and comes again from End: the digest is judged first,
			// which tells bytes that are not the release's from a release that is bad.
			_ = u.c.Image.Write(buf)
		} else {
			u.hash.Write(buf)
		}
		in.done += n
		left -= n
	}
	return in.done >= size, nil
}

// walkNext reads the next 4 KiB of what the journal says is written and holds
// its CRC against every retained entry. At the end, or at the first entry that
// differs, `written` is how far flash is proven.
//
//go:noinline
func (u *Updater) walkNext() (done bool, err error) {
	in, s := &u.inst, u.slot()
	end := u.jnl.newest.written
	sector := s.EraseSize()
	for left := uint32(hashBytesPerStep); left > 0 && in.done < end; {
		// Entries stand at multiples of the sector or the chunk, or at the end.
		n := sector - in.done%sector
		if n > end-in.done {
			n = end - in.done
		}
		if n > uint32(len(u.chunk())) {
			n = uint32(len(u.chunk()))
		}
		if n > left {
			n = left
		}
		buf := u.chunk()[:n]
		if err := s.ReadAt(buf, in.done); err != nil {
			return false, err
		}
		in.crc = digest.CRC32(in.crc, buf)
		in.done += n
		left -= n
		seen, ok, err := u.jnl.compare(in.done, in.crc, u.spare())
		if err != nil {
			return false, err
		}
		if seen && !ok {
			u.event(EventStartOver, ReasonDamaged)
			return true, nil
		}
		if seen {
			in.written, in.provenCRC = in.done, in.crc
		}
	}
	return in.done >= end, nil
}

// resumeAt sets the target up to go on behind the proven bytes.
//
//go:noinline
func (u *Updater) resumeAt() {
	in := &u.inst
	sector := u.sector()
	proven, crc := in.written, in.provenCRC
	erased := u.jnl.newest.erased
	if proven < u.jnl.newest.written {
		erased = 0 // damage: what the newest entry says of later space is not believed
	}
	resumable := in.resumable
	*in = install{written: proven, noted: proven, crc: crc, resumable: resumable}
	// The sector of the resume point is erased again, and every sector that a
	// chunk torn there may have touched (flash rule 4).
	in.erased = roundUp(proven, sector)
	from := in.erased + roundUp(u.span(), sector)
	if erased > from {
		in.gapFrom, in.gapTo, in.believed = from, erased, erased
	}
	// What lies behind may be half erased: by sector, up to where a block that
	// was cut could end (flash rule 3).
	in.sectorsTo = in.erased
	if b := u.slot().Geometry().BlockEraseSize; b != 0 {
		end := in.erased
		if erased > end {
			end = erased
		}
		in.sectorsTo = roundUp(u.slot().Base()+end+1, b) - u.slot().Base()
	}
}
