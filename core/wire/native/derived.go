package native

import "github.com/runnel-fota/runnel/core/cbor"

// Derived is which streams beside the raw ones a device takes: compressed ones and
// patches (docs/format/sheet.md). The zero one is none.
type Derived struct {
	Version  uint8  // of the patch format, from 1; 0: it takes none
	Profiles uint8  // of the coder, as bits: 1 << profile
	RAM      uint32 // bytes that it has set aside for them
}

// Takes reports whether a device can apply a stream of a profile, 0 to 7.
func (d *Derived) Takes(profile uint8) bool {
	return d.Version != 0 && profile < 8 && d.Profiles>>profile&1 != 0
}

// write is the field of a poll.
func (d Derived) write(w *cbor.Writer) {
	w.Key(derivedKey)
	w.Map(3)
	field(w, 0, uint32(d.Version))
	field(w, 1, uint32(d.Profiles))
	field(w, 2, d.RAM)
}

// derivedKey is negative: a server that knows no such streams passes it over.
const derivedKey = -2

// read is the answer's side: which derived stream an offer names, beside the raw one.
func (o *Offer) readDerived(r *cbor.Reader, k int) bool {
	switch k {
	case 7:
		o.Sheet = r.Fixed(DigestSize)
	case 8:
		o.SheetLength = some(r)
	case 9:
		o.Derived = r.Fixed(DigestSize)
	default:
		return false
	}
	return true
}

// decode reads the field of a poll. A poll does not fail for it: what can't be read is
// no word on derived streams, and raw ones every device takes.
func (d *Derived) decode(p []byte) {
	*d = Derived{}
	var r cbor.Reader
	r.Begin(p)
	var seen uint32
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			d.Version = uint8(r.Uint32(0xFF))
		case 1:
			d.Profiles = uint8(r.Uint32(0xFF))
		case 2:
			d.RAM = u32(&r)
		default:
			r.Unknown(k)
			continue
		}
		seen |= 1 << k
	}
	if end(&r, seen, 0b111) != 0 {
		*d = Derived{}
	}
}
