package state

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
)

// Sectors keeps the record, and the trust store behind it, in an area of two
// sectors. It is the store of a board that has a partition for it; a port may bring
// another (NVS).
//
// The trust store is what a device keeps of an accepted key list: bytes that mean
// nothing here. It stays in flash, is read in pieces with ReadAt, and moves along
// with each save: the record is programmed last, so that a copy is whole or none.
type Sectors struct {
	area  flash.Area
	seq   uint32 // of the newest whole copy; 0: none
	at    uint8  // the sector that holds it
	step  uint8  // of the save in progress
	trust extent // of the newest copy
	want  extent // of the copy that is written
	next  uint32 // length of a trust store that begins the buffer of the save to come; 0: it stays
	pos   uint32 // of the trust store that is written or read back
	crc   uint32 // of the pos bytes before
}

// NewSectors wants an area of two sectors.
func NewSectors(area flash.Area) (Sectors, error) {
	if area.Size() == 0 {
		return Sectors{}, ErrArea
	}
	if sector := area.EraseSize(); sector < BufferSize || area.Size() != 2*sector {
		return Sectors{}, ErrArea
	}
	return Sectors{area: area}, nil
}

// trustAt is where the trust store begins in a sector.
func (s *Sectors) trustAt() uint32 { return s.padded(Size) }

func (s *Sectors) padded(n uint32) uint32 {
	u := s.area.ProgramSize()
	return (n + u - 1) / u * u
}

// TrustRoom is how large the trust store may be, in bytes.
func (s *Sectors) TrustRoom() uint32 { return s.area.EraseSize() - s.trustAt() }

// TrustLen is the length of the trust store in bytes, 0: none.
func (s *Sectors) TrustLen() uint32 { return s.trust.n }

// ReadAt reads from the trust store; off and len(p) lie within TrustLen.
func (s *Sectors) ReadAt(p []byte, off uint32) error {
	if off > s.trust.n || uint32(len(p)) > s.trust.n-off {
		return flash.ErrRange
	}
	return s.area.ReadAt(p, uint32(s.at)*s.area.EraseSize()+s.trustAt()+off)
}

// SetTrust has the next save replace the trust store by the first n bytes of its
// buffer.
func (s *Sectors) SetTrust(n uint32) error {
	if n > s.TrustRoom() {
		return ErrBuffer
	}
	makesTrust()
	s.next, s.step = n, saveErase
	return nil
}

// Load reads the newest whole copy into r; r is zero where there is none. buf is
// at least BufferSize bytes and holds nothing of worth afterwards.
//
//go:noinline
func (s *Sectors) Load(r *Record, buf []byte) error {
	if len(buf) < BufferSize {
		return ErrBuffer
	}
	*r = Record{}
	s.seq, s.at, s.step, s.trust, s.next = 0, 1, 0, extent{}, 0
	sector := s.area.EraseSize()
	for i := uint8(0); i < 2; i++ {
		if err := s.area.ReadAt(buf[:Size], uint32(i)*sector); err != nil {
			return err
		}
		if binary.LittleEndian.Uint32(buf[8:]) <= s.seq {
			continue // older than what we have; 0 is never written
		}
		var seq uint32
		var trust extent
		ok, err := r.decode(buf[:Size], &seq, &trust)
		if err != nil {
			return err
		}
		if !ok || trust.n > s.TrustRoom() {
			continue
		}
		s.seq, s.at, s.trust = seq, i, trust
	}
	return s.checkTrust(buf)
}

// checkTrust drops a trust store that flash lost: the device is left with the
// roots that were baked in.
func (s *Sectors) checkTrust(buf []byte) error {
	s.pos, s.crc = 0, 0
	for s.pos < s.trust.n {
		if err := s.piece(s.at, s.trust.n, buf); err != nil {
			return err
		}
	}
	if s.crc != s.trust.crc {
		s.trust = extent{}
	}
	return nil
}

// piece reads the next piece of a sector's trust store into buf and adds it to the CRC.
func (s *Sectors) piece(sector uint8, n uint32, buf []byte) error {
	p := buf[:pieceLen(n-s.pos)]
	if err := s.area.ReadAt(p, uint32(sector)*s.area.EraseSize()+s.trustAt()+s.pos); err != nil {
		return err
	}
	s.crc = digest.CRC32(s.crc, p)
	s.pos += uint32(len(p))
	return nil
}

// pieceBytes is how much of the trust store moves in one step: a multiple of every
// program unit, and not more than a buffer has.
const pieceBytes = BufferSize

func pieceLen(left uint32) uint32 {
	if left > pieceBytes {
		return pieceBytes
	}
	return left
}

// Steps of a save: one flash operation each.
const (
	saveErase = iota
	saveTrust
	saveRecord
	saveCheckTrust
	saveCheckRecord
)

// Save does one flash operation towards writing r into the sector that does not
// hold the newest copy, and says whether it is done. r must not change between the
// first call and done. After an error the next call starts again; a trust store
// that was set is then forgotten. buf is as for Load.
//
//go:noinline
func (s *Sectors) Save(r *Record, buf []byte) (done bool, err error) {
	if len(buf) < BufferSize || s.replaces() && uint32(len(buf)) < s.next {
		return false, ErrBuffer
	}
	switch s.step {
	case saveErase:
		s.want = s.trust
		if s.replaces() {
			s.want = extent{s.next, digest.CRC32(0, buf[:s.next])}
		}
		s.pos, s.crc = 0, 0
		// Always erased: what a cut left there may look blank and not be.
		err = s.area.Erase(s.base(), s.area.EraseSize())
		if err == nil && s.want.n == 0 {
			s.step++ // no trust store to move
		}
	case saveTrust:
		if err = s.moveTrust(buf); err == nil && s.pos < s.want.n {
			return false, nil
		}
	case saveRecord:
		// Last: a cut before this leaves the older copy in force.
		s.next, s.pos, s.crc = 0, 0, 0
		n := s.padded(Size)
		r.encode(buf[:Size], s.seq+1, &s.want)
		s.area.Blank(buf[Size:n])
		err = s.area.Program(buf[:n], s.base())
		if err == nil && s.want.n == 0 {
			s.step++
		}
	case saveCheckTrust:
		err = s.piece(1-s.at, s.want.n, buf)
		if err == nil && s.pos < s.want.n {
			return false, nil
		}
		if err == nil && s.crc != s.want.crc {
			err = ErrVerify
		}
	case saveCheckRecord:
		if err = s.area.ReadAt(buf[:Size], s.base()); err != nil {
			break
		}
		got := digest.CRC32(0, buf[:Size-4])
		stored := binary.LittleEndian.Uint32(buf[Size-4:])
		r.encode(buf[:Size], s.seq+1, &s.want)
		if want := binary.LittleEndian.Uint32(buf[Size-4:]); got != want || stored != want {
			err = ErrVerify
			break
		}
		s.seq, s.at, s.trust, s.step = s.seq+1, 1-s.at, s.want, saveErase
		return true, nil
	}
	if err != nil {
		s.step, s.next = saveErase, 0
		return false, err
	}
	s.step++
	return false, nil
}

// replaces: the save in progress brings a new trust store, in the buffer's front.
func (s *Sectors) replaces() bool { return trustMade && s.next != 0 }

// base is where the sector that a save writes begins.
func (s *Sectors) base() uint32 { return uint32(1-s.at) * s.area.EraseSize() }

// moveTrust programs the next piece of the trust store: of the new one, or of the
// one that the newest copy has.
func (s *Sectors) moveTrust(buf []byte) error {
	n := pieceLen(s.want.n - s.pos)
	to := s.padded(n)
	p := buf[:to]
	switch {
	case !s.replaces():
		if err := s.area.ReadAt(p[:n], uint32(s.at)*s.area.EraseSize()+s.trustAt()+s.pos); err != nil {
			return err
		}
		s.crc = digest.CRC32(s.crc, p[:n])
		if s.pos+n == s.want.n && s.crc != s.want.crc {
			// Flash lost it: what is left must not get a new CRC. The next save does without.
			s.trust = extent{}
			return ErrVerify
		}
	case to == n:
		p = buf[s.pos : s.pos+n] // whole units go from where they are
	default:
		copy(p, buf[s.pos:s.pos+n]) // the last piece: nothing before it is needed any more
	}
	s.area.Blank(p[n:])
	if err := s.area.Program(p, s.base()+s.trustAt()+s.pos); err != nil {
		return err
	}
	s.pos += n
	return nil
}
