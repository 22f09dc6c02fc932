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
)

// Size is the length of an encoded record in bytes, before it is padded to the
// chip's program unit.
const Size = 320

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
	Size  uint32 // bytes
	Stamp uint32
	// Epoch is compared before the stamp; Security is the security version. Both 0 over v1.
	Epoch, Security uint32
	// TrialSeconds is how long the trial may take, 0: as the device was built.
	// NoContact: it is confirmed on its self-test alone.
	TrialSeconds uint16
	NoContact    bool
	// Version is text for people, VersionLen bytes of it.
	VersionLen uint8
	Digest     [32]byte // SHA-256 of the whole image
	Version    [VersionBytes]byte
}

// Set makes im another. (By assignment every byte would be one load and one store.)
func (im *Image) Set(to *Image) {
	im.Size, im.Stamp, im.Epoch, im.Security = to.Size, to.Stamp, to.Epoch, to.Security
	im.TrialSeconds, im.NoContact, im.VersionLen = to.TrialSeconds, to.NoContact, to.VersionLen
	copy(im.Digest[:], to.Digest[:])
	copy(im.Version[:], to.Version[:])
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

// Confirmed names an image that was confirmed and the slot that it stands in; a
// zero digest: none.
type Confirmed struct {
	Slot            boot.Slot
	Size, Stamp     uint32
	Epoch, Security uint32
	Digest          [32]byte
}

// Set names im, in slot.
func (c *Confirmed) Set(im *Image, slot boot.Slot) {
	c.Slot, c.Size, c.Stamp, c.Epoch, c.Security = slot, im.Size, im.Stamp, im.Epoch, im.Security
	copy(c.Digest[:], im.Digest[:])
}

// Copy makes c another.
func (c *Confirmed) Copy(of *Confirmed) {
	c.Slot, c.Size, c.Stamp, c.Epoch, c.Security = of.Slot, of.Size, of.Stamp, of.Epoch, of.Security
	copy(c.Digest[:], of.Digest[:])
}

// None reports whether it names nothing.
func (c *Confirmed) None() bool {
	var any byte
	for i := range c.Digest { // by index: by value it would be copied first
		any |= c.Digest[i]
	}
	return any == 0
}

// Floors are numbers that only rise, and only when an image is confirmed: what is
// below is not taken. Over v1 all stay 0.
type Floors struct{ Epoch, Stamp, Security uint32 }

// Raise lifts the floors to those of an image that is confirmed.
func (f *Floors) Raise(im *Image) {
	if im.Epoch > f.Epoch {
		f.Epoch, f.Stamp = im.Epoch, im.Stamp
	} else if im.Epoch == f.Epoch && im.Stamp > f.Stamp {
		f.Stamp = im.Stamp
	}
	if im.Security > f.Security {
		f.Security = im.Security
	}
}

// Newer says whether im was published after the other: epoch first, then stamp.
func (im *Image) Newer(than *Image) bool {
	if im.Epoch != than.Epoch {
		return im.Epoch > than.Epoch
	}
	return im.Stamp > than.Stamp
}

// BadImage is remembered by the head of its digest and its stamp: who makes two
// images with one head has the second refused, and harms nobody else.
type BadImage struct {
	DigestHead [8]byte
	Stamp      uint32
}

// Record is everything that is kept. The zero Record is that of a new board. (What is
// small comes first: a small chip reaches it in one instruction.)
type Record struct {
	Outcome Outcome
	BadNext uint8 // where the next bad image goes
	Spent   uint8 // see SpentStamp
	// SpentStamp and Spent bound what a server may cost in flash by offering releases
	// in turn: how often one was given up after it was begun, counted for all releases
	// up to the highest of them.
	SpentStamp uint32
	// BootCount counts starts of the updater, for reports.
	BootCount uint32
	// NonceLimit: nonces up to it may have been used. They are reserved in blocks.
	NonceLimit uint64
	Floors     Floors
	Trial      Trial
	// Confirmed is the image that this device last confirmed, Previous the one
	// before it: the way back, as long as its slot still holds it.
	Confirmed, Previous Confirmed
	Bad                 [BadImages]BadImage
}

// Spend counts that a release with this stamp was begun and given up. Only a higher
// stamp begins the count anew, which takes somebody who can sign.
//
//go:noinline
func (r *Record) Spend(stamp uint32) {
	if stamp > r.SpentStamp {
		r.SpentStamp, r.Spent = stamp, 0
	}
	if r.Spent < 255 {
		r.Spent++
	}
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
	copy(b.DigestHead[:], digest[:])
	b.Stamp = stamp
	r.BadNext = (r.BadNext + 1) % BadImages
}

// ForgetBad takes an operator's word that an image may be tried again: one that was
// found bad, or that was staged as often as allowed. It says whether it was either.
func (r *Record) ForgetBad(digest *[32]byte) (known bool) {
	for i := range r.Bad {
		if b := &r.Bad[i]; b.used() && b.is(digest) {
			*b = BadImage{}
			known = true
		}
	}
	if t := &r.Trial; !t.Open && t.Stagings > 0 && equalHead(t.Image.Digest[:], digest) {
		t.Stagings, known = 0, true
	}
	return known
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
	for i := range b.DigestHead {
		any |= b.DigestHead[i]
	}
	return any != 0
}

func (b *BadImage) is(digest *[32]byte) bool { return equalHead(b.DigestHead[:], digest) }

// equalHead says whether a digest begins with head.
func equalHead(head []byte, digest *[32]byte) bool {
	for i, c := range head {
		if c != digest[i] {
			return false
		}
	}
	return true
}

// extent is how much of the trust store there is, and its CRC-32.
type extent struct{ n, crc uint32 }

// encode writes r with its sequence number into p (Size bytes).
func (r *Record) encode(p []byte, seq uint32, trust *extent) {
	le := binary.LittleEndian
	for i := range p {
		p[i] = 0
	}
	le.PutUint32(p[0:], magic)
	p[4] = format
	f := Fields{P: p[5:]}
	r.fields(&f, &seq, trust)
	le.PutUint32(p[Size-4:], digest.CRC32(0, p[:Size-4]))
}

// decode reads p (Size bytes); ok is false where it is no whole record.
func (r *Record) decode(p []byte, seq *uint32, trust *extent) (ok bool, err error) {
	le := binary.LittleEndian
	if le.Uint32(p[0:]) != magic || le.Uint32(p[Size-4:]) != digest.CRC32(0, p[:Size-4]) {
		return false, nil
	}
	if p[4] != format {
		return false, ErrFormat
	}
	f := Fields{P: p[5:], Read: true}
	r.fields(&f, seq, trust)
	r.BadNext %= BadImages
	if im := &r.Trial.Image; im.VersionLen > VersionBytes {
		im.VersionLen = VersionBytes
	}
	return true, nil
}

// fields are those of docs/format/state.md behind the format's number.
func (r *Record) fields(f *Fields, seq *uint32, trust *extent) {
	f.U8((*uint8)(&r.Outcome))
	f.U8(&r.BadNext)
	f.U8(&r.Spent)
	f.U32(seq)
	f.U64(&r.NonceLimit)
	f.U32(&r.BootCount)
	t := &r.Trial
	f.Flag(&t.Open, 1)
	f.Flag(&t.Confirming, 2)
	f.Flag(&t.Rejected, 4)
	f.Skip(1)
	f.U8((*uint8)(&t.Slot))
	f.U8(&t.Stagings)
	f.U8(&t.Boots)
	t.Image.fields(f)
	r.Confirmed.fields(f)
	r.Previous.fields(f)
	f.U32(&r.Floors.Epoch)
	f.U32(&r.Floors.Stamp)
	f.U32(&r.Floors.Security)
	for i := range r.Bad {
		b := &r.Bad[i]
		f.Bytes(b.DigestHead[:])
		f.U32(&b.Stamp)
	}
	f.U32(&r.SpentStamp)
	f.U32(&trust.n)
	f.U32(&trust.crc)
}

func (im *Image) fields(f *Fields) {
	f.Bytes(im.Digest[:])
	f.U32(&im.Size)
	f.U32(&im.Stamp)
	f.U32(&im.Epoch)
	f.U32(&im.Security)
	f.U16(&im.TrialSeconds)
	f.Skip(2)
	f.Flag(&im.NoContact, 1)
	f.Skip(1)
	f.U8(&im.VersionLen)
	f.Skip(2)
	f.Bytes(im.Version[:])
}

func (c *Confirmed) fields(f *Fields) {
	f.Bytes(c.Digest[:])
	f.U32(&c.Size)
	f.U32(&c.Stamp)
	f.U32(&c.Epoch)
	f.U32(&c.Security)
	f.U8((*uint8)(&c.Slot))
	f.Skip(3)
}
