package adminapi

import (
	"bytes"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// Manifest is what a release's manifest says, field by field (docs/format/manifest.md).
type Manifest struct {
	Product         string     `json:"product"`
	Hardware        []string   `json:"hardware" doc:"as text where it is text, else hex digits"`
	Version         string     `json:"version"`
	Epoch           uint32     `json:"epoch"`
	Sequence        uint32     `json:"sequence"`
	SecurityVersion uint32     `json:"security_version"`
	Component       string     `json:"component"`
	Format          string     `json:"format" enum:"esp,raw"`
	Chip            *uint16    `json:"chip,omitempty" doc:"chip id of the image header; format esp only"`
	ImageDigest     string     `json:"image_digest"`
	ImageSize       uint32     `json:"image_size" doc:"bytes"`
	Slot            *uint8     `json:"slot,omitempty" doc:"absent: any"`
	Address         *uint32    `json:"address,omitempty" doc:"absent: any"`
	ConfirmContact  bool       `json:"confirm_contact" doc:"the image wants an answer of the server before it is confirmed"`
	ConfirmSeconds  uint32     `json:"confirm_seconds" doc:"how long a trial may take"`
	SignedAt        *time.Time `json:"signed_at,omitempty" doc:"says the signer, and decides nothing"`
}

// Signer is who signed a manifest.
type Signer struct {
	Key    string `json:"key" doc:"the key's name: 16 hex digits"`
	Listed bool   `json:"listed" doc:"the newest key list lets it release for this product; false: it was revoked, or never could"`
}

// Detail is a release with what was signed.
type Detail struct {
	Release
	Hardware string    `json:"hardware,omitempty" doc:"for people"`
	Manifest *Manifest `json:"manifest,omitempty" doc:"absent: unsigned"`
	Signers  []Signer  `json:"signers"`
	Streams  []Stream  `json:"streams"`
	Derived  *Derived  `json:"derived,omitempty" doc:"what the server makes of it by itself; absent: unsigned"`
	Builds   []Build   `json:"builds,omitempty" doc:"all builds of the release, this one too, by their slots; absent: it is for any slot"`
}

// Build is one of the builds of a release that is linked once a slot.
type Build struct {
	Slot   uint8  `json:"slot"`
	ID     int64  `json:"id" doc:"the release's"`
	Digest string `json:"digest" doc:"SHA-256 of the image, 64 hex digits"`
}

type detailOutput struct{ Body Detail }

func (s *server) detail(ctx context.Context, id int64) (d Detail, err error) {
	r, err := s.Releases.Release(ctx, id)
	if err != nil {
		return d, err
	}
	d = Detail{Release: releaseOf(r), Hardware: r.Hardware, Signers: []Signer{}, Streams: []Stream{}}
	if !r.Signed() {
		return d, nil
	}
	if d.Builds, err = s.builds(ctx, r); err != nil {
		return d, err
	}
	m, err := s.Signed.Manifest(ctx, r.ManifestDigest)
	if err != nil {
		return d, err
	}
	list, err := s.keyList(ctx)
	if err != nil {
		return d, err
	}
	if err := d.signed(m.Envelope, list); err != nil {
		return d, &fleet.Error{Code: fleet.CodeInternal, Message: "the stored manifest is damaged", Err: err}
	}
	if err := s.streams(ctx, &d, r, list); err != nil {
		return d, err
	}
	d.Derived, err = s.derivations(ctx, r, list)
	return d, err
}

// builds are those of r's release, by their slots; nil where r is for any slot.
func (s *server) builds(ctx context.Context, r fleet.Release) (builds []Build, err error) {
	if !r.HasSlot {
		return nil, nil
	}
	list, err := s.Releases.ListReleases(ctx, r.Product)
	if err != nil {
		return nil, err
	}
	for _, b := range list {
		if b.SameRelease(r) {
			builds = append(builds, Build{Slot: b.Slot, ID: b.ID, Digest: b.Image.Digest.String()})
		}
	}
	slices.SortFunc(builds, func(a, b Build) int { return int(a.Slot) - int(b.Slot) })
	return builds, nil
}

// keyList is the newest; nil where there is none.
func (s *server) keyList(ctx context.Context) (*release.KeyList, error) {
	l, err := s.KeyLists.NewestKeyList(ctx)
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	e, err := release.ParseEnvelope(l.Envelope)
	if err != nil {
		return nil, err
	}
	return release.DecodeKeyList(e.Payload)
}

// signed fills in what the envelope says. Its signatures were checked when it was
// taken in; here the newest list says what they are worth today.
func (d *Detail) signed(envelope []byte, list *release.KeyList) error {
	e, err := release.ParseEnvelope(envelope)
	if err != nil {
		return err
	}
	m, err := release.DecodeManifest(e.Payload)
	if err != nil {
		return err
	}
	d.Manifest = manifestOf(m)
	for i := range e.N {
		id := e.Sigs[i].KeyID
		s := Signer{Key: hex.EncodeToString(id)}
		for k := 0; list != nil && k < len(list.Keys); k++ {
			key := &list.Keys[k]
			if kid := release.KeyID(key.Public); bytes.Equal(kid[:], id) {
				s.Listed = key.Roles&manifest.RoleRelease != 0 && key.SignsFor(m.Product)
			}
		}
		d.Signers = append(d.Signers, s)
	}
	return nil
}

func manifestOf(m *release.Manifest) *Manifest {
	im := &m.Image
	o := &Manifest{Product: m.Product, Version: m.Version, Epoch: m.Epoch, Sequence: m.Sequence, SecurityVersion: m.SecurityVersion,
		Component: im.Component, Format: "raw", ImageDigest: im.Digest.String(), ImageSize: im.Size, Slot: im.Slot, Address: im.Address,
		ConfirmContact: m.Confirm.Contact, ConfirmSeconds: m.Confirm.Seconds}
	if im.Format == manifest.FormatESP {
		o.Format, o.Chip = "esp", &im.Chip
	}
	for _, h := range m.Hardware {
		text := string(h)
		if fleet.CleanText(text, len(text)) != text {
			text = fmt.Sprintf("%x", h)
		}
		o.Hardware = append(o.Hardware, text)
	}
	// A year of four digits: what is behind it has no form in JSON.
	if s := m.SignedAt; s > 0 && s < 1<<37 {
		t := time.Unix(int64(s), 0).UTC()
		o.SignedAt = &t
	}
	return o
}
