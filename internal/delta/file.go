package delta

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"math/bits"
	"unsafe"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
)

// File is a patch as a file of its own, for people and scripts; in a release its fields
// are those of the stream sheet, and the payload travels as a stream.
// docs/format/patch.md has the bytes.
type File struct {
	Profile   uint8
	Chunk     uint32 // of the stream that it is made for, bytes
	OldSize   uint32
	NewSize   uint32
	OldDigest [sha256.Size]byte
	NewDigest [sha256.Size]byte
	Payload   []byte
}

const (
	fileMagic   = "RNLP"
	fileVersion = 1
	fileHead    = 84
)

// NewFile is a patch with what it was made from.
func NewFile(old, new []byte, r *Result) *File {
	return &File{Profile: r.Profile, Chunk: Chunk(r.Profile), OldSize: uint32(len(old)), NewSize: uint32(len(new)),
		OldDigest: sha256.Sum256(old), NewDigest: sha256.Sum256(new), Payload: r.Payload}
}

// Encode is the file.
func (f *File) Encode() []byte {
	p := append(make([]byte, 0, fileHead+len(f.Payload)), fileMagic...)
	p = append(p, fileVersion, f.Profile, 0, byte(bits.TrailingZeros32(f.Chunk)))
	for _, n := range []uint32{f.OldSize, f.NewSize, uint32(len(f.Payload))} {
		p = binary.LittleEndian.AppendUint32(p, n)
	}
	p = append(append(p, f.OldDigest[:]...), f.NewDigest[:]...)
	return append(p, f.Payload...)
}

// ParseFile reads a file; Payload is a view into it.
func ParseFile(p []byte) (*File, error) {
	switch {
	case len(p) < 4 || string(p[:4]) != fileMagic:
		return nil, fmt.Errorf("not a patch file: it does not begin with %q", fileMagic)
	case len(p) < fileHead:
		return nil, fmt.Errorf("a patch file that ends in its header, after %d of %d bytes", len(p), fileHead)
	case p[4] != fileVersion:
		return nil, fmt.Errorf("a patch file of version %d: this program knows %d", p[4], fileVersion)
	case p[5] < patch.ProfileLarge || p[5] > patch.ProfileSmall || p[6] != 0:
		return nil, fmt.Errorf("a patch file with profile %d and flags %d, which this program does not know", p[5], p[6])
	case p[7] > 31 || 1<<p[7] < stream.MinChunk || 1<<p[7] > stream.MaxChunk:
		return nil, fmt.Errorf("a patch file for chunks of 2^%d bytes", p[7])
	}
	le := binary.LittleEndian
	f := &File{Profile: p[5], Chunk: 1 << p[7], OldSize: le.Uint32(p[8:]), NewSize: le.Uint32(p[12:]), Payload: p[fileHead:]}
	copy(f.OldDigest[:], p[20:])
	copy(f.NewDigest[:], p[52:])
	if n := le.Uint32(p[16:]); uint64(n) != uint64(len(f.Payload)) {
		return nil, fmt.Errorf("a patch of %d bytes in a file that has %d of them", n, len(f.Payload))
	}
	if f.NewSize > patch.MaxImage || f.OldSize > patch.MaxImage {
		return nil, fmt.Errorf("a patch for images of %d and %d bytes: at most %d", f.OldSize, f.NewSize, patch.MaxImage)
	}
	return f, nil
}

// Apply makes the new image, and holds both against the digests.
func (f *File) Apply(old []byte) ([]byte, error) {
	if uint64(len(old)) != uint64(f.OldSize) || sha256.Sum256(old) != f.OldDigest {
		return nil, fmt.Errorf("the old image is not the one that the patch starts from: that has %d bytes and the SHA-256 %x", f.OldSize, f.OldDigest)
	}
	img, err := Apply(old, f.Payload, f.NewSize)
	if err != nil {
		return nil, err
	}
	if d := sha256.Sum256(img); !bytes.Equal(d[:], f.NewDigest[:]) {
		return nil, fmt.Errorf("the patch is damaged: the image that it makes has the SHA-256 %x, not %x", d, f.NewDigest)
	}
	return img, nil
}

// Chunk is the chunk size of the streams of a profile, bytes.
func Chunk(profile uint8) uint32 {
	if profile == patch.ProfileSmall {
		return 1024
	}
	return 2048
}

// RAM is what a device needs for a patch of a profile: the applier, what it learns in,
// its output buffer, and a record with what proves it. Bytes, on a 64-bit machine; on a
// chip pointers are shorter.
func RAM(profile uint8) int {
	words := patch.LargeWords
	if profile == patch.ProfileSmall {
		words = patch.SmallWords
	}
	record := int(Chunk(profile)) + stream.HashSize
	return int(unsafe.Sizeof(patch.Applier{})) + 2*words + outSize + record + int(unsafe.Sizeof(stream.Verifier{})+unsafe.Sizeof(digest.SHA256{}))
}
