package fleet

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"fmt"
	"slices"
	"strings"

	"github.com/runnel-fota/runnel/core/manifest"
)

// PatchVersion is the version of the patch format (docs/format/patch.md) that streams are
// made in.
const PatchVersion = 1

// ProfileNames are the patch coder's profiles, by what people call them
// (docs/format/patch.md).
var ProfileNames = map[uint8]string{1: "large", 2: "small"}

// ProfileName is a profile's, or its number.
func ProfileName(profile uint8) string {
	if name := ProfileNames[profile]; name != "" {
		return name
	}
	return fmt.Sprint(profile)
}

// Derived is which streams beside raw ones a device takes, as it says; the zero one is none.
type Derived struct {
	Version  uint8  `json:"version,omitempty"`  // of the patch format, the highest that it knows
	Profiles uint8  `json:"profiles,omitempty"` // of the coder, as bits: 1 << profile
	RAM      uint32 `json:"ram,omitempty"`      // bytes that it has set aside
}

// Takes says whether the device can apply a stream of a profile.
func (d Derived) Takes(profile uint8) bool {
	return d.Version >= PatchVersion && profile < 8 && d.Profiles>>profile&1 != 0
}

// derivedStream is a derived stream of a release, read once for all polls.
type derivedStream struct {
	Stream
	sheet manifest.Sheet // views into Stream.Sheet
	sent  int64          // bytes that a device is sent for it, sheet included
	why   string         // of whoever takes it, for people
}

// SheetDigest is the SHA-256 of the envelope of the stream's sheet.
func (m *Stream) SheetDigest() Digest { return sha256.Sum256(m.Sheet) }

// Sent is what a device is sent for it, sheet included, bytes.
func (m *Stream) Sent() int64 { return m.Length + int64(len(m.Sheet)) }

// readDerived reads the sheets of r's derived streams, and keeps those that a device could
// believe: of this image, by a key that the list still names. Signatures were
// checked when they were taken in. What can't be read is offered to nobody.
func (o *NativeOffers) readDerived(r *nativeRelease) {
	for _, m := range r.Streams {
		if m.Kind == StreamRaw {
			continue
		}
		d := derivedStream{Stream: m, sent: m.Sent()}
		var e manifest.Envelope
		// Parse puts views into what it is given; snapshots are shared.
		if e.Parse(m.Sheet) != 0 || d.sheet.Parse(e.Payload) != 0 || (d.sheet.Kind == manifest.StreamPatch) != (m.Kind == StreamPatch) ||
			string(d.sheet.ImageRoot) != string(r.m.Image.Streams[0].Root) || !o.sheetListed(&e, r.Product) {
			continue
		}
		d.why = "the compressed image"
		if m.Kind == StreamPatch {
			d.why = "a patch from " + o.versionOf(r.Product, d.sheet.BaseDigest)
		}
		d.why += fmt.Sprintf(", %d bytes", d.sent)
		r.derived = append(r.derived, d)
	}
	// The smallest first; of two as small always the same.
	slices.SortFunc(r.derived, func(a, b derivedStream) int {
		return cmp.Or(cmp.Compare(a.sent, b.sent), bytes.Compare(a.Digest[:], b.Digest[:]))
	})
}

// sheetListed says whether one of those who signed the sheet may still do so.
func (o *NativeOffers) sheetListed(e *manifest.Envelope, product string) bool {
	if o.list == nil {
		return false
	}
	keys := o.list.Keys()
	var k manifest.Key
	for keys.Next(&k) {
		var id [manifest.KeyIDSize]byte
		manifest.KeyID(k.Public, &id)
		for i := range e.N {
			if string(e.Sigs[i].KeyID) == string(id[:]) && k.SignsFor([]byte(product)) {
				return true
			}
		}
	}
	return false
}

// versionOf names an image for people: by a release that has it, or by its digest.
func (o *NativeOffers) versionOf(product string, digest []byte) string {
	for _, r := range o.releases[product] {
		if string(r.Image.Digest[:]) == string(digest) {
			return r.Version
		}
	}
	return fmt.Sprintf("%.6x", digest)
}

// keyOf is what the timeline remembers of the stream, behind the rest of
// NativeDecision.Key; nothing for a raw one.
func (m *derivedStream) keyOf() string { return fmt.Sprintf("/s%.4x", m.Digest[:]) }

// derived is the derived stream that the device gets beside the raw one, nil where there is
// none for it. Rules, numbered for the tests:
//
//	D1 of a profile, in RAM and in chunks that it says it has
//	D2 a patch only from the image that it says it runs
//	D3 the smallest that it can apply, if it is smaller than the raw one
//	D4 none where one failed on it, of this release: it goes on with the raw one
//	D5 while it has the release in progress or on trial, the one that it was offered
//	   then, or none: what is half written by one stream is not gone on with by another,
//	   and who runs it already is told nothing new
func (o *NativeOffers) derived(d *NativeDevice, r *nativeRelease, a *NativeAsk, raw *Stream) *derivedStream {
	begun := a.InProgress == r.Sequence
	for i := range d.Deployments {
		p := &d.Deployments[i]
		if !o.isBuild(p.ReleaseID, r) {
			continue
		}
		if p.RawOnly { // D4
			return nil
		}
		begun = begun || p.State == StateVerifying || p.State == StateRebooting || p.State == StateTrial
	}
	begun = begun && decidedOn(d.Verdict, o.name(r)) // D5
	for i := range r.derived {
		m := &r.derived[i]
		s := &m.sheet
		switch {
		case m.sent >= raw.Length: // D3: they come by size
			return nil
		case !a.Derived.Takes(s.Profile), s.RAM > a.Derived.RAM, s.Chunk > a.Chunk, uint64(len(m.Sheet)) > uint64(a.Envelope): // D1
		case begun:
			if strings.Contains(d.Verdict, m.keyOf()) {
				return m
			}
		case m.Kind == StreamPatch && string(s.BaseDigest) != string(a.Image): // D2
		default:
			return m
		}
	}
	return nil
}

// decidedOn says whether a key (NativeDecision.Key) is of a decision on the release of that
// name, which was offered.
func decidedOn(key string, name int64) bool {
	parts := strings.SplitN(key, "/", 3)
	return len(parts) > 1 && parts[1] == fmt.Sprint(name)
}

// carry says by which stream a decision's release comes.
func (o *NativeOffers) carry(out *NativeDecision, d *NativeDevice, r *nativeRelease, a *NativeAsk, raw *Stream) {
	out.Release, out.Stream = &r.SignedRelease, *raw
	out.Known = o.deploymentOf(d, r) != nil
	if out.derived = o.derived(d, r, a, raw); out.derived != nil {
		out.Derived = &out.derived.Stream
		out.Why = CleanText(fmt.Sprintf("%s; as %s of %d", out.Why, out.derived.why, raw.Length), MaxText)
	}
}
