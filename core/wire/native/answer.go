package native

import "github.com/runnel-fota/runnel/core/cbor"

// Answer is what a device is to do now. Whatever is absent is meant: no offer is
// an order to fetch nothing.
type Answer struct {
	Device []byte // of the poll
	Random []byte // of the poll; nil: it had none
	Retry  []byte // SHA-256 of an image that was found bad and may be tried again; nil: none

	Nonce   uint64 // of the poll
	Highest uint64 // the highest nonce that the server knew before: below Nonce, or nothing of this counts

	ComeBack                    uint32 // seconds, as the server says it: the device clamps
	ListVersion, ListGeneration uint32 // of the newest key list
	Time                        uint32 // seconds since 1970; 0: not known
	Cancel                      uint32 // sequence of a release whose progress goes; 0: none
	Revert                      uint32 // number of an order to go back; 0: none

	HasOffer bool
	Offer    Offer
}

// Offer is a release that the device may fetch.
type Offer struct {
	Manifest        []byte // SHA-256 of its envelope
	Stream          []byte // SHA-256 of the stream file
	FileLength      uint64 // of the stream file, bytes
	Epoch, Sequence uint32
	ManifestLength  uint32 // of the envelope, bytes
	Chunk           uint32 // of the stream, bytes

	// A derived stream, in place of the raw one as long as that helps: the SHA-256 of
	// its sheet's envelope, its length in bytes, and the SHA-256 of the stream file.
	// nil, 0 and nil: none.
	Sheet, Derived []byte
	SheetLength    uint32
}

const (
	answerMust = 1<<7 - 1
	offerMust  = 1<<7 - 1
)

func (m *Answer) valid() bool {
	return isName(m.Device) && len(m.Device) <= MaxDevice && sized(m.Random, RandomSize) && sized(m.Retry, DigestSize) &&
		(!m.HasOffer || m.Offer.valid())
}

func (o *Offer) valid() bool {
	return len(o.Manifest) == DigestSize && len(o.Stream) == DigestSize && o.Sequence != 0 &&
		(!derivedMade || sized(o.Sheet, DigestSize) && sized(o.Derived, DigestSize) &&
			(o.Sheet == nil) == (o.Derived == nil) && (o.Sheet == nil) == (o.SheetLength == 0))
}

// Encode puts the body into buf and returns it.
func (m *Answer) Encode(buf []byte, mac MAC) ([]byte, Error) {
	if !m.valid() {
		return nil, ErrField
	}
	var w cbor.Writer
	w.Begin(buf)
	w.Map(7 + count(m.HasOffer) + count(m.Cancel != 0) + count(m.Revert != 0) + count(m.Retry != nil) + count(m.Random != nil))
	fieldText(&w, 0, m.Device)
	field64(&w, 1, m.Nonce)
	field64(&w, 2, m.Highest)
	field(&w, 3, m.ComeBack)
	field(&w, 4, m.ListVersion)
	field(&w, 5, m.ListGeneration)
	field(&w, 6, m.Time)
	if m.HasOffer {
		o := &m.Offer
		w.Key(7)
		w.Map(7 + 3*count(o.Sheet != nil))
		field(&w, 0, o.Epoch)
		field(&w, 1, o.Sequence)
		fieldBytes(&w, 2, o.Manifest)
		field(&w, 3, o.ManifestLength)
		fieldBytes(&w, 4, o.Stream)
		field(&w, 5, o.Chunk)
		field64(&w, 6, o.FileLength)
		if o.Sheet != nil {
			fieldBytes(&w, 7, o.Sheet)
			field(&w, 8, o.SheetLength)
			fieldBytes(&w, 9, o.Derived)
		}
	}
	if m.Cancel != 0 {
		field(&w, 8, m.Cancel)
	}
	if m.Revert != 0 {
		field(&w, 9, m.Revert)
	}
	fieldBytes(&w, 10, m.Retry)
	fieldBytes(&w, 11, m.Random)
	return seal(&w, buf, mac, MessageAnswer)
}

// Decode reads the answer to the poll that device sent with nonce and random, nil
// for none. Another one, though the server made it, is ErrOther: an old answer is
// none, even where a device that lost its state counts nonces again.
//
//go:noinline
func (m *Answer) Decode(body []byte, mac MAC, device []byte, nonce uint64, random []byte) Error {
	*m = Answer{}
	var r cbor.Reader
	err := open(&r, body, mac, MessageAnswer)
	if err == 0 {
		err = m.read(&r)
	}
	if err == 0 && (m.Nonce != nonce || !equal(m.Random, random) || !equal(m.Device, device)) {
		err = ErrOther
	}
	if err != 0 {
		*m = Answer{}
	}
	return err
}

//go:noinline
func (m *Answer) read(r *cbor.Reader) Error {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			m.Device = r.Text(MaxDevice)
		case 1:
			m.Nonce = r.Uint(1<<64 - 1)
		case 2:
			m.Highest = r.Uint(1<<64 - 1)
		case 3:
			m.ComeBack = u32(r)
		case 4:
			m.ListVersion = u32(r)
		case 5:
			m.ListGeneration = u32(r)
		case 6:
			m.Time = u32(r)
		case 7:
			m.Offer.read(r)
			m.HasOffer = true
		case 8:
			m.Cancel = some(r)
		case 9:
			m.Revert = some(r)
		case 10:
			m.Retry = r.Fixed(DigestSize)
		case 11:
			m.Random = r.Fixed(RandomSize)
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if err := end(r, seen, answerMust); err != 0 {
		return err
	}
	if !m.valid() {
		return ErrField
	}
	return 0
}

func (o *Offer) read(r *cbor.Reader) {
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			o.Epoch = u32(r)
		case 1:
			o.Sequence = u32(r)
		case 2:
			o.Manifest = r.Fixed(DigestSize)
		case 3:
			o.ManifestLength = u32(r)
		case 4:
			o.Stream = r.Fixed(DigestSize)
		case 5:
			o.Chunk = u32(r)
		case 6:
			o.FileLength = r.Uint(1<<64 - 1)
		default:
			if !derivedMade || !o.readDerived(r, k) {
				r.Unknown(k)
			}
			continue
		}
		seen |= 1 << k
	}
	if seen&offerMust != offerMust {
		r.Fail(cbor.ErrValue)
	}
}

// some reads a number from 1: 0 stands for an absent one, and is not sent.
func some(r *cbor.Reader) uint32 {
	v := u32(r)
	if v == 0 {
		r.Fail(cbor.ErrValue)
	}
	return v
}
