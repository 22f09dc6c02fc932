package release

import (
	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/manifest"
)

// Sheet is a stream sheet (docs/format/sheet.md).
type Sheet struct {
	ImageRoot  Hash   // root of the manifest's first raw stream
	Kind       uint8  // manifest.StreamCompressed or StreamPatch
	Profile    uint8  // of the coder
	RAM        uint32 // bytes that the decoder needs
	BaseDigest Hash   // of a patch
	BaseSize   uint32 // bytes; of a patch
	Length     uint32 // of the payload in bytes
	Chunk      uint32 // bytes
	Root       Hash
}

// Encode is the payload. It is refused where a device would refuse it.
func (s *Sheet) Encode() ([]byte, error) {
	var w cbor.Writer
	w.Begin(make([]byte, 1<<10))
	patch := s.Kind == manifest.StreamPatch
	w.Map(7 + 2*int(bit(patch)))
	w.Key(0)
	w.Bytes(s.ImageRoot[:])
	w.Key(1)
	w.Uint(uint64(s.Kind))
	w.Key(2)
	w.Uint(uint64(s.Profile))
	w.Key(3)
	w.Uint(uint64(s.RAM))
	if patch {
		w.Key(4)
		w.Bytes(s.BaseDigest[:])
		w.Key(5)
		w.Uint(uint64(s.BaseSize))
	}
	w.Key(6)
	w.Uint(uint64(s.Length))
	w.Key(7)
	w.Uint(uint64(s.Chunk))
	w.Key(8)
	w.Bytes(s.Root[:])
	p, err := payload("stream sheet", &w)
	if err != nil {
		return nil, err
	}
	var check manifest.Sheet
	e := check.Parse(p)
	return p, refused("stream sheet", e, check.Offset)
}

// DecodeSheet reads a payload; Trust.Sheet checks the signature first.
func DecodeSheet(p []byte) (*Sheet, error) {
	var v manifest.Sheet
	if err := v.Parse(p); err != 0 {
		return nil, refused("stream sheet", err, v.Offset)
	}
	s := &Sheet{ImageRoot: Hash(v.ImageRoot), Kind: v.Kind, Profile: v.Profile, RAM: v.RAM, BaseSize: v.BaseSize,
		Length: v.Length, Chunk: v.Chunk, Root: Hash(v.Root)}
	if v.BaseDigest != nil {
		s.BaseDigest = Hash(v.BaseDigest)
	}
	return s, nil
}
