package state

// Fields goes over encoded bytes and reads or writes one field after the other,
// little-endian. What is encoded and what is decoded is then said once, and takes its
// code once.
type Fields struct {
	P    []byte // what is left
	Read bool   // into the fields; else they are written
}

// U8 is one byte.
func (f *Fields) U8(v *uint8) {
	if f.Read {
		*v = f.P[0]
	} else {
		f.P[0] = *v
	}
	f.Skip(1)
}

// U16 is two bytes.
func (f *Fields) U16(v *uint16) {
	w := uint32(*v)
	f.word(&w, 2)
	*v = uint16(w)
}

// U32 is four bytes.
func (f *Fields) U32(v *uint32) { f.word(v, 4) }

//go:noinline
func (f *Fields) word(v *uint32, n int) {
	p := f.P[:n]
	var w uint32
	for i := range p {
		if !f.Read {
			p[i] = byte(*v >> (8 * i))
		}
		w |= uint32(p[i]) << (8 * i)
	}
	*v = w
	f.Skip(n)
}

// U64 is eight bytes.
func (f *Fields) U64(v *uint64) {
	low, high := uint32(*v), uint32(*v>>32)
	f.word(&low, 4)
	f.word(&high, 4)
	*v = uint64(high)<<32 | uint64(low)
}

// Flag is a bit of a byte that is passed with Skip. Where it is written the byte was 0.
func (f *Fields) Flag(v *bool, bit uint8) {
	switch {
	case f.Read:
		*v = f.P[0]&bit != 0
	case *v:
		f.P[0] |= bit
	}
}

// Bytes are as long as v.
func (f *Fields) Bytes(v []byte) {
	if f.Read {
		copy(v, f.P[:len(v)])
	} else {
		copy(f.P[:len(v)], v)
	}
	f.Skip(len(v))
}

// Skip passes n bytes.
//
//go:noinline
func (f *Fields) Skip(n int) { f.P = f.P[n:] }
