package inspect

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/release"
)

// Kinds of what is signed, and of what it signs.
const (
	KindKeyList  = "key-list"
	KindManifest = "manifest"
	KindSheet    = "stream-sheet"
	KindRelease  = "release"
	KindStream   = "stream"
)

// Signed is a signed object, or a release file of them. Signatures are shown, not
// checked: that takes roots, and is `runnel verify`.
type Signed struct {
	SHA256     string      `json:"sha256,omitempty"` // of the envelope; of a release file, the manifest's
	Signatures []Signature `json:"signatures,omitempty"`
	KeyList    *KeyList    `json:"key_list,omitempty"`
	Manifest   *Manifest   `json:"manifest,omitempty"`
	Sheet      *Sheet      `json:"sheet,omitempty"`
	Streams    []Stream    `json:"streams,omitempty"`
}

// Signature of an envelope, not checked.
type Signature struct {
	KID string `json:"kid"`
	Alg string `json:"alg"`
}

// KeyList is a key list.
type KeyList struct {
	Version    uint32       `json:"version"`
	Generation uint32       `json:"generation"`
	M          int          `json:"m"`
	Roots      []Key        `json:"roots"`
	Keys       []Key        `json:"keys"`
	Products   []KeyProduct `json:"products"`
	ThrowAway  bool         `json:"throw_away,omitempty"` // a demo's keys: refused everywhere else
}

// Key of a list.
type Key struct {
	KID      string   `json:"kid"`
	Public   string   `json:"public"`
	Roles    []string `json:"roles,omitempty"`
	Products []string `json:"products,omitempty"` // absent: every product of the list
}

// KeyProduct is what a key list says about a product.
type KeyProduct struct {
	Name      string `json:"name"`
	Threshold int    `json:"threshold"`
	Epoch     uint32 `json:"epoch"`
	Floor     uint32 `json:"floor"`
}

// Manifest is a manifest, by the names of docs/format/manifest.md.
type Manifest struct {
	Product         string        `json:"product"`
	Hardware        []string      `json:"hardware"` // as text, or 0x and hex digits
	Version         string        `json:"version"`
	Epoch           uint32        `json:"epoch"`
	Sequence        uint32        `json:"sequence"`
	SecurityVersion uint32        `json:"security_version"`
	Image           ManifestImage `json:"image"`
	Confirm         Confirm       `json:"confirm"`
	SignedAt        uint64        `json:"signed_at,omitempty"` // seconds since 1970
}

// ManifestImage is the image of a manifest.
type ManifestImage struct {
	Component string      `json:"component"`
	Format    string      `json:"format"` // esp, raw
	Chip      string      `json:"chip,omitempty"`
	ChipID    *uint16     `json:"chip_id,omitempty"`
	Digest    string      `json:"digest"`
	Size      uint32      `json:"size"`
	Slot      *uint8      `json:"slot,omitempty"`
	Address   *uint32     `json:"address,omitempty"`
	Raw       []RawStream `json:"raw_streams"`
}

// RawStream is what a manifest says about one.
type RawStream struct {
	ChunkBytes uint32 `json:"chunk_bytes"`
	Root       string `json:"root"`
}

// Confirm is the confirm policy.
type Confirm struct {
	Contact bool   `json:"contact"`
	Seconds uint32 `json:"seconds"`
}

// Sheet is a stream sheet.
type Sheet struct {
	ImageRoot  string `json:"image_root"`
	Kind       string `json:"kind"`
	Profile    uint8  `json:"profile"`
	RAM        uint32 `json:"ram_bytes"`
	BaseDigest string `json:"base_digest,omitempty"`
	BaseSize   uint32 `json:"base_size,omitempty"`
	Length     uint32 `json:"length"`
	ChunkBytes uint32 `json:"chunk_bytes"`
	Root       string `json:"root"`
}

// Stream is a stream that was computed or checked, record by record.
type Stream struct {
	Kind       string `json:"kind"`   // raw, compressed, patch
	Length     uint32 `json:"length"` // of the payload in bytes
	ChunkBytes uint32 `json:"chunk_bytes"`
	Root       string `json:"root"`
	FileBytes  int64  `json:"file_bytes"`
	FileSHA256 string `json:"file_sha256"`
}

// coseSign is how every envelope begins: tag 98, an array of four.
var coseSign = []byte{0xD8, 0x62, 0x84}

// IsEnvelope says whether data begins as a signed object.
func IsEnvelope(data []byte) bool { return bytes.HasPrefix(data, coseSign) }

// IsRelease says whether a file begins as a release file: a tar archive with one
// of the members that may be first.
func IsRelease(data []byte) bool {
	return len(data) >= 512 && bytes.Equal(data[257:262], []byte("ustar")) &&
		(bytes.HasPrefix(data, []byte("keylist.cose\x00")) || bytes.HasPrefix(data, []byte("manifest.cose\x00")))
}

// envelope reads a signed object. Which of the three it is says its payload: no
// payload of one kind is one of another.
func envelope(data []byte) *Report {
	r := &Report{Kind: KindUnknown, Signed: &Signed{}}
	e, err := release.ParseEnvelope(data)
	if err != nil {
		r.Error = err.Error()
		return r
	}
	r.envelope(data, e)
	// The first byte of field 0's value is a text in a manifest, 32 bytes in a
	// sheet, a number in a key list.
	var first byte
	if len(e.Payload) > 2 {
		first = e.Payload[2] >> 5
	}
	switch first {
	case 0:
		r.Kind = KindKeyList
		var l *release.KeyList
		if l, err = release.DecodeKeyList(e.Payload); err == nil {
			r.KeyList = ViewKeyList(l)
		}
	case 3:
		r.Kind = KindManifest
		var m *release.Manifest
		if m, err = release.DecodeManifest(e.Payload); err == nil {
			r.Manifest = ViewManifest(m)
		}
	default:
		r.Kind = KindSheet
		var s *release.Sheet
		if s, err = release.DecodeSheet(e.Payload); err == nil {
			r.Sheet = ViewSheet(s)
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	return r
}

func (r *Report) envelope(data []byte, e *manifest.Envelope) {
	sum := sha256.Sum256(data)
	r.SHA256 = hex.EncodeToString(sum[:])
	for _, s := range e.Sigs[:e.N] {
		alg := fmt.Sprint(s.Alg)
		if s.Alg == manifest.AlgEdDSA {
			alg = "EdDSA"
		}
		r.Signatures = append(r.Signatures, Signature{KID: hex.EncodeToString(s.KeyID), Alg: alg})
	}
}

// ReleaseFile reads a release file from front to back: what it holds, and whether
// image and streams are what the manifest says. Signatures are not checked.
func ReleaseFile(ctx context.Context, file io.Reader, p release.Progress) *Report {
	r := &Report{Kind: KindRelease, Signed: &Signed{}}
	c, err := release.Verify(ctx, file, nil, release.Options{Unsigned: true, Digests: true, Progress: p})
	if err != nil {
		r.Error = err.Error()
		var at *release.FileError
		if errors.As(err, &at) {
			r.Offset = &at.Offset
		}
		return r
	}
	if e, err := release.ParseEnvelope(c.ManifestEnvelope); err == nil {
		r.envelope(c.ManifestEnvelope, e)
	}
	if c.KeyList != nil {
		if e, err := release.ParseEnvelope(c.KeyList); err == nil {
			if l, err := release.DecodeKeyList(e.Payload); err == nil {
				r.KeyList = ViewKeyList(l)
			}
		}
	}
	r.Manifest, r.Streams = ViewManifest(c.Manifest), ViewStreams(c)
	return r
}

// StreamFile reads a stream file, which says nothing about itself: which of the
// streams of a manifest, a sheet or a release file it is, its length tells.
func StreamFile(ctx context.Context, file io.Reader, length int64, of *Signed, p release.Progress) *Report {
	r := &Report{Kind: KindStream, Signed: &Signed{}}
	var candidates []Stream
	if m := of.Manifest; m != nil {
		for _, s := range m.Image.Raw {
			candidates = append(candidates, Stream{Kind: "raw", Length: m.Image.Size, ChunkBytes: s.ChunkBytes, Root: s.Root})
		}
	}
	if s := of.Sheet; s != nil {
		candidates = append(candidates, Stream{Kind: s.Kind, Length: s.Length, ChunkBytes: s.ChunkBytes, Root: s.Root})
	}
	for _, s := range of.Streams {
		if s.Kind != "raw" {
			candidates = append(candidates, s)
		}
	}
	var lengths []string
	for _, s := range candidates {
		shape := stream.Shape{Size: s.Length, Chunk: s.ChunkBytes}
		if lengths = append(lengths, fmt.Sprint(shape.FileLen())); int64(shape.FileLen()) != length {
			continue
		}
		var root release.Hash
		if err := root.UnmarshalText([]byte(s.Root)); err != nil {
			r.Error = err.Error()
			return r
		}
		sum, err := release.CheckStream(ctx, file, shape, root, p)
		if err != nil {
			r.Error = err.Error()
			return r
		}
		s.FileBytes, s.FileSHA256 = length, sum.String()
		r.Streams = []Stream{s}
		return r
	}
	r.Error = fmt.Sprintf("%d bytes: none of the streams has that length (%s)", length, strings.Join(lengths, ", "))
	return r
}

// ViewKeyList names the fields of a key list.
func ViewKeyList(l *release.KeyList) *KeyList {
	v := &KeyList{Version: l.Version, Generation: l.Generation, M: l.M, Roots: []Key{}, Keys: []Key{}, Products: []KeyProduct{}, ThrowAway: l.ThrowAway}
	for _, r := range l.Roots {
		v.Roots = append(v.Roots, Key{KID: release.KeyName(r), Public: hex.EncodeToString(r)})
	}
	for _, k := range l.Keys {
		v.Keys = append(v.Keys, Key{KID: release.KeyName(k.Public), Public: hex.EncodeToString(k.Public), Roles: RoleNames(k.Roles), Products: k.Products})
	}
	for _, p := range l.Products {
		v.Products = append(v.Products, KeyProduct(p))
	}
	return v
}

// RoleNames are the words for a key's roles.
func RoleNames(roles uint8) []string {
	var names []string
	if roles&manifest.RoleRelease != 0 {
		names = append(names, "release")
	}
	if roles&manifest.RoleStream != 0 {
		names = append(names, "stream")
	}
	return names
}

// ViewManifest names the fields of a manifest.
func ViewManifest(m *release.Manifest) *Manifest {
	v := &Manifest{Product: m.Product, Hardware: []string{}, Version: m.Version, Epoch: m.Epoch, Sequence: m.Sequence,
		SecurityVersion: m.SecurityVersion, Confirm: Confirm(m.Confirm), SignedAt: m.SignedAt,
		Image: ManifestImage{Component: m.Image.Component, Format: "raw", Digest: m.Image.Digest.String(), Size: m.Image.Size,
			Slot: m.Image.Slot, Address: m.Image.Address, Raw: []RawStream{}}}
	for _, h := range m.Hardware {
		v.Hardware = append(v.Hardware, HardwareText(h))
	}
	if m.Image.Format == manifest.FormatESP {
		chip := m.Image.Chip
		v.Image.Format, v.Image.Chip, v.Image.ChipID = "esp", esp32.ChipName(chip), &chip
	}
	for _, s := range m.Image.Streams {
		v.Image.Raw = append(v.Image.Raw, RawStream{ChunkBytes: s.Chunk, Root: s.Root.String()})
	}
	return v
}

// HardwareText is a hardware's name as it is where it can be printed, else as 0x
// and hex digits.
func HardwareText(h []byte) string {
	if bytes.IndexFunc(h, func(r rune) bool { return r <= ' ' || r > '~' }) < 0 {
		return string(h)
	}
	return fmt.Sprintf("0x%x", h)
}

// ViewSheet names the fields of a sheet.
func ViewSheet(s *release.Sheet) *Sheet {
	v := &Sheet{ImageRoot: s.ImageRoot.String(), Kind: streamKind(s.Kind), Profile: s.Profile, RAM: s.RAM, Length: s.Length, ChunkBytes: s.Chunk, Root: s.Root.String()}
	if s.Kind == manifest.StreamPatch {
		v.BaseDigest, v.BaseSize = s.BaseDigest.String(), s.BaseSize
	}
	return v
}

func streamKind(k uint8) string {
	switch k {
	case manifest.StreamRaw:
		return "raw"
	case manifest.StreamCompressed:
		return "compressed"
	}
	return "patch"
}

// ViewStreams lists the streams of a release file: the raw ones, where their
// digests were computed, then those that it carries.
func ViewStreams(c *release.Contents) []Stream {
	list := []Stream{}
	for i, f := range c.Raw {
		list = append(list, Stream{Kind: "raw", Length: c.Manifest.Image.Size, ChunkBytes: c.Manifest.Image.Streams[i].Chunk,
			Root: f.Root.String(), FileBytes: f.Length, FileSHA256: f.Digest.String()})
	}
	for _, d := range c.Derived {
		list = append(list, Stream{Kind: streamKind(d.Sheet.Kind), Length: d.Sheet.Length, ChunkBytes: d.Sheet.Chunk,
			Root: d.Sheet.Root.String(), FileBytes: d.Length, FileSHA256: d.Digest.String()})
	}
	return list
}
