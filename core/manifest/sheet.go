package manifest

import "github.com/runnel-fota/runnel/core/cbor"

// Kinds of a stream. A raw one has no sheet.
const (
	StreamRaw        uint8 = 1
	StreamCompressed uint8 = 2
	StreamPatch      uint8 = 3
)

// Sheet is a stream sheet whose payload was read; slices are views into it.
type Sheet struct {
	ImageRoot  []byte // root of the manifest's first raw stream, 32 bytes
	Kind       uint8  // StreamCompressed or StreamPatch
	Profile    uint8  // of the coder
	RAM        uint32 // bytes that the decoder needs
	BaseDigest []byte // SHA-256 of the image that a patch starts from, else nil
	BaseSize   uint32 // bytes; of a patch
	Length     uint32 // of the payload in bytes
	Chunk      uint32 // bytes
	Root       []byte // hash of record 0, 32 bytes
	Offset     int    // of the defect, where Parse found one
}

// Parse reads and checks a payload. Check its signature first: Verification.
func (s *Sheet) Parse(p []byte) Error {
	*s = Sheet{}
	var r cbor.Reader
	r.Begin(p)
	var have fields
	for n := r.Map(); n > 0; n-- {
		k := r.Key()
		switch k {
		case 0:
			s.ImageRoot = r.Fixed(32)
		case 1:
			s.Kind = uint8(r.Uint32(uint32(StreamPatch)))
			if s.Kind < StreamCompressed {
				r.Fail(cbor.ErrValue)
			}
		case 2:
			s.Profile = uint8(r.Uint32(255))
		case 3:
			s.RAM = r.Uint32(1<<32 - 1)
		case 4:
			s.BaseDigest = r.Fixed(32)
		case 5:
			s.BaseSize = positive(&r)
		case 6:
			s.Length = positive(&r)
		case 7:
			s.Chunk = chunk(&r)
		case 8:
			s.Root = r.Fixed(32)
		default:
			r.Unknown(k)
			continue
		}
		have.saw(k)
	}
	have.need(&r, 0b1_1100_1111)
	switch {
	case s.Kind == StreamPatch:
		have.need(&r, 1<<4|1<<5)
	case have&(1<<4|1<<5) != 0:
		r.Fail(cbor.ErrValue)
	}
	r.End()
	s.Offset = r.Offset()
	return fromCBOR(r.Err())
}
