package release

import (
	"bytes"
	"fmt"

	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/manifest"
)

// Manifest is a manifest (docs/format/manifest.md).
type Manifest struct {
	Product         string
	Hardware        [][]byte
	Version         string
	Epoch           uint32
	Sequence        uint32
	SecurityVersion uint32
	Image           Image
	Confirm         Confirm
	SignedAt        uint64 // seconds since 1970; 0: not said
}

// Image is the image of a manifest.
type Image struct {
	Component string // "" is written as the one that there is
	Format    uint8  // manifest.FormatESP or FormatRaw
	Chip      uint16 // with FormatESP
	Digest    Hash
	Size      uint32  // bytes
	Slot      *uint8  // nil: any
	Address   *uint32 // nil: any
	Streams   []Raw   // one or two
}

// Raw is a raw stream of an image.
type Raw struct {
	Chunk uint32 // bytes
	Root  Hash
}

// Confirm is when a device may make an image permanent.
type Confirm struct {
	Contact bool   // after an authenticated answer of the server
	Seconds uint32 // that the trial may take
}

// Encode is the payload. It is refused where a device would refuse it.
func (m *Manifest) Encode() ([]byte, error) {
	var w cbor.Writer
	w.Begin(make([]byte, 4<<10))
	n := 8
	if m.SignedAt != 0 {
		n++
	}
	w.Map(n)
	w.Key(0)
	w.Text(m.Product)
	w.Key(1)
	w.Array(len(m.Hardware))
	for _, h := range m.Hardware {
		w.Bytes(h)
	}
	w.Key(2)
	w.Text(m.Version)
	w.Key(3)
	w.Uint(uint64(m.Epoch))
	w.Key(4)
	w.Uint(uint64(m.Sequence))
	w.Key(5)
	w.Uint(uint64(m.SecurityVersion))
	w.Key(6)
	w.Array(1)
	if err := m.Image.write(&w); err != nil {
		return nil, err
	}
	w.Key(7)
	w.Map(2)
	w.Key(0)
	w.Uint(bit(m.Confirm.Contact))
	w.Key(1)
	w.Uint(uint64(m.Confirm.Seconds))
	if m.SignedAt != 0 {
		w.Key(-1)
		w.Uint(m.SignedAt)
	}
	p, err := payload("manifest", &w)
	if err != nil {
		return nil, err
	}
	var check manifest.Manifest
	e := check.Parse(p)
	return p, refused("manifest", e, check.Offset)
}

func bit(b bool) uint64 {
	if b {
		return 1
	}
	return 0
}

func (im *Image) write(w *cbor.Writer) error {
	if len(im.Streams) < 1 || len(im.Streams) > 2 {
		return fmt.Errorf("manifest: an image has one or two raw streams, not %d", len(im.Streams))
	}
	n := 6 + 2*(len(im.Streams)-1)
	for _, there := range []bool{im.Format == manifest.FormatESP, im.Slot != nil, im.Address != nil} {
		n += int(bit(there))
	}
	w.Map(n)
	w.Key(0)
	if im.Component == "" {
		w.Text(manifest.Component)
	} else {
		w.Text(im.Component)
	}
	w.Key(1)
	w.Uint(uint64(im.Format))
	if im.Format == manifest.FormatESP {
		w.Key(2)
		w.Uint(uint64(im.Chip))
	}
	w.Key(3)
	w.Bytes(im.Digest[:])
	w.Key(4)
	w.Uint(uint64(im.Size))
	if im.Slot != nil {
		w.Key(5)
		w.Uint(uint64(*im.Slot))
	}
	if im.Address != nil {
		w.Key(6)
		w.Uint(uint64(*im.Address))
	}
	for i := range im.Streams {
		s := &im.Streams[i]
		w.Key(7 + 2*i)
		w.Uint(uint64(s.Chunk))
		w.Key(8 + 2*i)
		w.Bytes(s.Root[:])
	}
	return nil
}

// DecodeManifest reads a payload; Trust.Manifest checks the signatures first.
func DecodeManifest(p []byte) (*Manifest, error) {
	var v manifest.Manifest
	if err := v.Parse(p); err != 0 {
		return nil, refused("manifest", err, v.Offset)
	}
	m := &Manifest{
		Product: string(v.Product), Version: string(v.Version), Epoch: v.Epoch, Sequence: v.Sequence,
		SecurityVersion: v.SecurityVersion, SignedAt: v.SignedAt,
		Confirm: Confirm{Contact: v.Contact, Seconds: v.ConfirmSeconds},
		Image: Image{Component: string(v.Image.Component), Format: v.Image.Format, Chip: v.Image.Chip,
			Digest: Hash(v.Image.Digest), Size: v.Image.Size},
	}
	all := v.Hardware()
	for h := all.Next(); h != nil; h = all.Next() {
		m.Hardware = append(m.Hardware, bytes.Clone(h))
	}
	if v.Image.HasSlot {
		m.Image.Slot = &v.Image.Slot
	}
	if v.Image.HasAddress {
		m.Image.Address = &v.Image.Address
	}
	for _, s := range v.Image.Streams[:v.Image.NStreams] {
		m.Image.Streams = append(m.Image.Streams, Raw{Chunk: s.Chunk, Root: Hash(s.Root)})
	}
	return m, nil
}
