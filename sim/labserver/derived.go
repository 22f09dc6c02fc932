package labserver

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/release"
)

// derived is a derived stream of a release, and its sheet.
type derived struct {
	profile, chunk int
	envelope, file [32]byte
	sheet, stream  []byte
	path, sheets   string
}

// Derive has release i offered by a derived stream, to devices that can take it. s
// says all but what follows from the payload and the release.
func (b *Book) Derive(i int, payload []byte, s release.Sheet) error {
	r := b.Releases[i]
	var out bytes.Buffer
	root, file, _, err := release.BuildStream(&out, bytes.NewReader(payload), uint32(len(payload)), s.Chunk)
	if err != nil {
		return err
	}
	s.Length, s.Root = uint32(len(payload)), root
	if s.ImageRoot == [32]byte{} {
		if s.ImageRoot, err = release.StreamRoot(bytes.NewReader(r.Image), uint32(len(r.Image)), uint32(r.chunk)); err != nil {
			return err
		}
	}
	d := &derived{profile: int(s.Profile), chunk: int(s.Chunk), file: file, stream: out.Bytes()}
	signer := b.signer
	if b.seed != 0 {
		signer = key(b.seed)
	}
	if d.sheet, err = sign(manifest.KindSheet, s.Encode, signer); err != nil {
		return err
	}
	d.envelope = sha256.Sum256(d.sheet)
	d.path, d.sheets = streamPath+hex.EncodeToString(file[:]), sheetPath+hex.EncodeToString(d.envelope[:])
	r.derived = d
	return nil
}

// DerivedPath is where the file of its derived stream is.
func (r *Release) DerivedPath() string { return r.derived.path }

// DerivedBytes is how long the file of a release's derived stream is; 0: it has none.
func (r *Release) DerivedBytes() int64 {
	if r.derived == nil {
		return 0
	}
	return int64(len(r.derived.stream))
}

// Interval is what a device fetches again of a derived stream at most, after a cut at
// any time: the bytes between two places where it goes on, with what is read ahead, the
// stream's beginning and the record that it goes on in.
func Interval(old, img, payload []byte, chunk int) (int64, error) {
	var a patch.Applier
	c := patch.Config{OldSize: uint32(len(old)), Old: bytesOf(old), New: bytesOf(img), NewSize: uint32(len(img)), Out: make([]byte, 256), Memory: make([]uint16, patch.LargeWords)}
	if err := a.Begin(c); err != 0 {
		return 0, err
	}
	longest, last := 0, 0
	for at := 0; ; {
		switch a.Step() {
		case patch.Hungry:
			n := a.Feed(payload[at:])
			if at += n; n == 0 {
				a.End()
			}
		case patch.Full:
			a.Wrote()
		case patch.Restart:
			longest, last = max(longest, int(a.LinkAt())-last), int(a.LinkAt())
		case patch.Done:
			longest = max(longest, len(payload)-last)
			records := (longest+chunk-1)/chunk + 4
			return int64(records) * int64(chunk+digest.Size), nil
		default:
			return 0, fmt.Errorf("labserver: a derived stream that makes nothing: %w", a.Err())
		}
	}
}

// bytesOf is an image in memory.
type bytesOf []byte

// ReadAt is patch.Source's.
func (b bytesOf) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(b)) {
		return flash.ErrRange
	}
	copy(p, b[off:])
	return nil
}
