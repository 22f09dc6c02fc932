// Package state is what outlives an update: the trial, bad images, counters and
// what still has to be reported. Two copies, each in a sector of its own, are
// written in turn, so that one is whole at any instant. The journal of a
// download is another thing and lives in core/device.
//
// The bytes are in docs/format/state.md; what each field survives is there too.
package state

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// Size is the length of an encoded record in bytes, before it is padded to the
// chip's program unit.
const Size = 264

// BufferSize is the length of the buffer that Load and Save need: Size rounded
// up to the largest program unit, 256 bytes.
const BufferSize = 512

// VersionBytes is how much of a version's text is kept. It is shown and decides nothing.
const VersionBytes = 32

// BadImages is how many bad images are remembered; the oldest is forgotten.
const BadImages = 6

const (
	magic  = 0x534C4E52 // "RNLS" little-endian
	format = 1
)

// Error is the cause of a failed load or save.
type Error uint8

const (
	ErrBuffer Error = iota + 1 // the buffer is shorter than BufferSize
	ErrArea                    // the area is not two sectors
	ErrVerify                  // what was read back is not what was written
	ErrFormat                  // a newer format than this code knows
)

func (e Error) Error() string {
	switch e {
	case ErrBuffer:
		return "state: buffer too short"
	case ErrArea:
		return "state: area is not two sectors"
	case ErrVerify:
		return "state: read back wrong"
	case ErrFormat:
		return "state: newer format"
	}
	return "state: unknown error"
}

// Image names an image: its digest, length and the stamp under which it was
// offered (v1: uploaded_at in Unix seconds; native: the sequence).
type Image struct {
	Digest [32]byte // SHA-256 of the whole image
	Size   uint32   // bytes
	Stamp  uint32
	// Version is text for people, VersionLen bytes of it.
	Version    [VersionBytes]byte
	VersionLen uint8
}

// Outcome is how the last trial ended, until a report of it was acknowledged.
type Outcome uint8

const (
	OutcomeNone Outcome = iota
	OutcomeConfirmed
	OutcomeConfirmedElsewhere
	OutcomeCrashed      // bad: panic or watchdog during the trial
	OutcomeNotVerified  // bad: the bootloader refused the image
	OutcomeSelfTest     // bad: its self-test failed
	OutcomeBootsSpent   // bad: too many boots without a confirm, no rollback in the bootloader
	OutcomeUnproven     // no contact in time; never bad
	OutcomeGaveUp       // staged again as often as allowed, still inconclusive
	OutcomeRevertedByOp // an operator asked for the way back
)

// Trial is the staged image.
type Trial struct {
	Open       bool
	Confirming bool      // confirm was decided; a cut may come before the record says so
	Rejected   bool      // the image decided to go back; Outcome says why
	Slot       boot.Slot //
	Stagings   uint8     // how often it was staged, the first time included
	Boots      uint8     // boots on trial, counted where the bootloader has no rollback
	Image      Image
}

// Confirmed names the image last confirmed; Stamp 0 and a zero digest: none yet.
type Confirmed struct {
	Digest [32]byte
	Stamp  uint32
}

// BadImage is remembered by the head of its digest and its stamp.
type BadImage struct {
	DigestHead [16]byte
	Stamp      uint32
}

// Record is everything that is kept. The zero Record is that of a new board.
type Record struct {
	Trial   Trial
	Outcome Outcome
	// Confirmed is the image that this device last confirmed. Its version is the
	// last trial's.
	Confirmed Confirmed
	// NonceLimit: nonces up to it may have been used. They are reserved in blocks.
	NonceLimit uint64
	// BootCount counts starts of the updater, for reports.
	BootCount uint32
	Bad       [BadImages]BadImage
	BadNext   uint8 // where the next bad image goes
}

// MarkBad remembers an image as bad. It never forgets a newer stamp of the same image.
func (r *Record) MarkBad(digest *[32]byte, stamp uint32) {
	for i := range r.Bad {
		b := &r.Bad[i]
		if b.used() && b.is(digest) {
			if stamp > b.Stamp {
				b.Stamp = stamp
			}
			return
		}
	}
	b := &r.Bad[r.BadNext%BadImages]
	copy(b.DigestHead[:], digest[:16])
	b.Stamp = stamp
	r.BadNext = (r.BadNext + 1) % BadImages
}

// IsBad says whether the image was found bad under this stamp or a newer one. A
// newer stamp is an operator's word to try it again.
func (r *Record) IsBad(digest *[32]byte, stamp uint32) bool {
	for i := range r.Bad {
		if b := &r.Bad[i]; b.used() && b.is(digest) && stamp <= b.Stamp {
			return true
		}
	}
	return false
}

func (b *BadImage) used() bool {
	var any byte
	for _, c := range b.DigestHead {
		any |= c
	}
	return any != 0
}

func (b *BadImage) is(digest *[32]byte) bool {
	for i, c := range b.DigestHead {
		if c != digest[i] {
			return false
		}
	}
	return true
}

// encode writes r with its sequence number into p (Size bytes).
func (r *Record) encode(p []byte, seq uint32) {
	le := binary.LittleEndian
	for i := range p {
		p[i] = 0
	}
	le.PutUint32(p[0:], magic)
	p[4] = format
	p[5] = byte(r.Outcome)
	p[6] = r.BadNext
	le.PutUint32(p[8:], seq)
	le.PutUint64(p[12:], r.NonceLimit)
	le.PutUint32(p[20:], r.BootCount)
	p[24] = flag(r.Trial.Open, 1) | flag(r.Trial.Confirming, 2) | flag(r.Trial.Rejected, 4)
	p[25] = byte(r.Trial.Slot)
	p[26] = r.Trial.Stagings
	p[27] = r.Trial.Boots
	r.Trial.Image.encode(p[28:])
	at := 28 + imageSize
	copy(p[at:], r.Confirmed.Digest[:])
	le.PutUint32(p[at+32:], r.Confirmed.Stamp)
	at += 36
	for i := range r.Bad {
		copy(p[at:], r.Bad[i].DigestHead[:])
		le.PutUint32(p[at+16:], r.Bad[i].Stamp)
		at += 20
	}
	le.PutUint32(p[Size-4:], digest.CRC32(0, p[:Size-4]))
}

// decode reads p (Size bytes); ok is false where it is no whole record.
func (r *Record) decode(p []byte) (seq uint32, ok bool, err error) {
	le := binary.LittleEndian
	if le.Uint32(p[0:]) != magic || le.Uint32(p[Size-4:]) != digest.CRC32(0, p[:Size-4]) {
		return 0, false, nil
	}
	if p[4] != format {
		return 0, false, ErrFormat
	}
	r.Outcome = Outcome(p[5])
	r.BadNext = p[6] % BadImages
	seq = le.Uint32(p[8:])
	r.NonceLimit = le.Uint64(p[12:])
	r.BootCount = le.Uint32(p[20:])
	r.Trial.Open = p[24]&1 != 0
	r.Trial.Confirming = p[24]&2 != 0
	r.Trial.Rejected = p[24]&4 != 0
	r.Trial.Slot = boot.Slot(p[25])
	r.Trial.Stagings = p[26]
	r.Trial.Boots = p[27]
	r.Trial.Image.decode(p[28:])
	at := 28 + imageSize
	copy(r.Confirmed.Digest[:], p[at:at+32])
	r.Confirmed.Stamp = le.Uint32(p[at+32:])
	at += 36
	for i := range r.Bad {
		copy(r.Bad[i].DigestHead[:], p[at:at+16])
		r.Bad[i].Stamp = le.Uint32(p[at+16:])
		at += 20
	}
	return seq, true, nil
}

// imageSize is the length of an encoded Image: digest 32, size 4, stamp 4, version 32, its length 1, zero 3.
const imageSize = 76

func (im *Image) encode(p []byte) {
	copy(p, im.Digest[:])
	binary.LittleEndian.PutUint32(p[32:], im.Size)
	binary.LittleEndian.PutUint32(p[36:], im.Stamp)
	copy(p[40:], im.Version[:])
	p[72] = im.VersionLen
}

func (im *Image) decode(p []byte) {
	copy(im.Digest[:], p[:32])
	im.Size = binary.LittleEndian.Uint32(p[32:])
	im.Stamp = binary.LittleEndian.Uint32(p[36:])
	copy(im.Version[:], p[40:72])
	im.VersionLen = p[72]
	if im.VersionLen > VersionBytes {
		im.VersionLen = VersionBytes
	}
}

func flag(b bool, v byte) byte {
	if b {
		return v
	}
	return 0
}

// Sectors keeps the record in an area of two sectors. It is the store of a board
// that has a partition for it; a port may bring another (NVS).
type Sectors struct {
	area flash.Area
	seq  uint32 // of the newest whole copy; 0: none
	at   uint8  // the sector that holds it
	step uint8  // of the save in progress: 0 erase, 1 program, 2 read back
}

// NewSectors wants an area of two sectors.
func NewSectors(area flash.Area) (Sectors, error) {
	g := area.Geometry()
	if g.EraseSize < BufferSize || area.Size() != 2*g.EraseSize {
		return Sectors{}, ErrArea
	}
	return Sectors{area: area}, nil
}

// Load reads the newest whole copy into r; r is zero where there is none. buf is
// at least BufferSize bytes and holds nothing of worth afterwards.
func (s *Sectors) Load(r *Record, buf []byte) error {
	if len(buf) < BufferSize {
		return ErrBuffer
	}
	*r = Record{}
	s.seq, s.at, s.step = 0, 1, 0
	buf = buf[:Size]
	sector := s.area.Geometry().EraseSize
	for i := uint8(0); i < 2; i++ {
		if err := s.area.ReadAt(buf, uint32(i)*sector); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(buf[8:]) <= s.seq {
			continue // older than what we have; 0 is never written
		}
		seq, ok, err := r.decode(buf)
		if err != nil {
			return err
		}
		if ok {
			s.seq, s.at = seq, i
		}
	}
	return nil
}

// Save does one flash operation towards writing r into the sector that does not
// hold the newest copy, and says whether it is done: erase, program, read back.
// r must not change between the first call and done. After an error the next
// call starts again. buf is as for Load.
func (s *Sectors) Save(r *Record, buf []byte) (done bool, err error) {
	if len(buf) < BufferSize {
		return false, ErrBuffer
	}
	g := s.area.Geometry()
	n := (Size + g.ProgramSize - 1) / g.ProgramSize * g.ProgramSize
	at := uint32(1-s.at) * g.EraseSize
	switch s.step {
	case 0:
		// Always erased: what a cut left there may look blank and not be.
		err = s.area.Erase(at, g.EraseSize)
	case 1:
		r.encode(buf[:Size], s.seq+1)
		for i := uint32(Size); i < n; i++ {
			buf[i] = g.ErasedByte
		}
		err = s.area.Program(buf[:n], at)
	case 2:
		if err = s.area.ReadAt(buf[:Size], at); err != nil {
			break
		}
		got := digest.CRC32(0, buf[:Size-4])
		stored := binary.LittleEndian.Uint32(buf[Size-4:])
		r.encode(buf[:Size], s.seq+1)
		if want := binary.LittleEndian.Uint32(buf[Size-4:]); got != want || stored != want {
			err = ErrVerify
			break
		}
		s.seq, s.at, s.step = s.seq+1, 1-s.at, 0
		return true, nil
	}
	if err != nil {
		s.step = 0
		return false, err
	}
	s.step++
	return false, nil
}
