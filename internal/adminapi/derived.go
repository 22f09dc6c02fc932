package adminapi

import (
	"context"
	"crypto/ed25519"
	"crypto/rand"
	"encoding/hex"
	"fmt"

	"github.com/danielgtaylor/huma/v2"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// Stream is a stream of a release.
type Stream struct {
	Kind   string `json:"kind" doc:"raw, compressed or patch"`
	Chunk  uint32 `json:"chunk" doc:"bytes"`
	Length int64  `json:"length" doc:"of the file, bytes"`
	Root   string `json:"root" doc:"hash of record 0"`
	Digest string `json:"digest" doc:"SHA-256 of the file: its name below /r1/streams/"`
	// Of a derived stream:
	Base        string  `json:"base,omitempty" doc:"of a patch: SHA-256 of the image that it starts from"`
	BaseVersion string  `json:"base_version,omitempty" doc:"of a patch: the release that has that image; absent: none that is known"`
	Profile     string  `json:"profile,omitempty" doc:"of the coder: large or small"`
	RAM         uint32  `json:"ram,omitempty" doc:"that a device needs for it, bytes"`
	Sent        int64   `json:"sent,omitempty" doc:"what a device is sent for it, its sheet included, bytes"`
	Share       float64 `json:"share,omitempty" doc:"of sent in the smallest raw stream"`
	SignedBy    string  `json:"signed_by,omitempty" doc:"the key of its sheet: 16 hex digits"`
	Listed      bool    `json:"listed,omitempty" doc:"the newest key list lets that key sign streams of the product; false: no device gets it"`
	Proven      bool    `json:"proven,omitempty" doc:"this server made the image out of it; false: it has not the base"`
}

// Derivation is a derived stream that the server makes by itself.
type Derivation struct {
	Kind        string `json:"kind" enum:"compressed,patch"`
	Base        string `json:"base,omitempty" doc:"of a patch: SHA-256 of the image that it starts from"`
	BaseVersion string `json:"base_version,omitempty"`
	Profile     string `json:"profile" doc:"of the coder: large or small"`
	State       string `json:"state" enum:"making,made,dropped,failed"`
	Devices     int    `json:"devices" doc:"that it was of use to, when it was begun"`
	Percent     int    `json:"percent" doc:"done"`
	Sent        int64  `json:"sent,omitempty" doc:"bytes; of a dropped one too"`
	Reason      string `json:"reason,omitempty" doc:"why it was dropped or failed"`
	Stream      string `json:"stream,omitempty" doc:"of a made one: the digest of its stream"`
}

// Derived is what a server does by itself for a release.
type Derived struct {
	Key    string       `json:"key,omitempty" doc:"the server's stream key: 16 hex digits"`
	Listed bool         `json:"listed" doc:"the newest key list lets it sign streams of the product: the server makes patches"`
	Why    string       `json:"why,omitempty" doc:"why it makes none"`
	List   []Derivation `json:"list"`
}

// streams fills in the release's streams.
func (s *server) streams(ctx context.Context, d *Detail, r fleet.Release, list *release.KeyList) error {
	streams, err := s.Signed.Streams(ctx, r.ID)
	if err != nil {
		return err
	}
	versions, err := s.versions(ctx, r.Product)
	if err != nil {
		return err
	}
	raw := int64(0)
	for _, m := range streams {
		if m.Kind == fleet.StreamRaw && (raw == 0 || m.Length < raw) {
			raw = m.Length
		}
	}
	for _, m := range streams {
		o := Stream{Kind: m.Kind, Chunk: m.Chunk, Length: m.Length, Root: m.Root.String(), Digest: m.Digest.String()}
		if m.Kind != fleet.StreamRaw {
			if err := o.derived(&m, r.Product, versions, list); err != nil {
				return &fleet.Error{Code: fleet.CodeInternal, Message: "a stored stream sheet is damaged", Err: err}
			}
			if raw > 0 {
				o.Share = float64(o.Sent) / float64(raw)
			}
		}
		d.Streams = append(d.Streams, o)
	}
	return nil
}

// derived fills in what the sheet says, and what its signature is worth today.
func (o *Stream) derived(m *fleet.Stream, product string, versions map[fleet.Digest]string, list *release.KeyList) error {
	e, err := release.ParseEnvelope(m.Sheet)
	if err != nil {
		return err
	}
	sheet, err := release.DecodeSheet(e.Payload)
	if err != nil {
		return err
	}
	o.Profile, o.RAM, o.Sent, o.Proven = fleet.ProfileName(sheet.Profile), sheet.RAM, m.Sent(), m.Proven
	if sheet.Kind == manifest.StreamPatch {
		o.Base, o.BaseVersion = sheet.BaseDigest.String(), versions[fleet.Digest(sheet.BaseDigest)]
	}
	for i := range e.N {
		o.SignedBy = hex.EncodeToString(e.Sigs[i].KeyID)
		for k := 0; list != nil && k < len(list.Keys); k++ {
			if key := &list.Keys[k]; release.KeyName(key.Public) == o.SignedBy && key.SignsFor(product) {
				o.Listed = true
			}
		}
		if o.Listed {
			break
		}
	}
	return nil
}

// versions names images by the newest release of the product that has them.
func (s *server) versions(ctx context.Context, product string) (map[fleet.Digest]string, error) {
	list, err := s.Releases.ListReleases(ctx, product)
	if err != nil {
		return nil, err
	}
	out := make(map[fleet.Digest]string, len(list))
	for _, r := range list {
		if out[r.Image.Digest] == "" {
			out[r.Image.Digest] = r.Version
		}
	}
	return out, nil
}

// derivations says what the server does by itself for the release.
func (s *server) derivations(ctx context.Context, r fleet.Release, list *release.KeyList) (*Derived, error) {
	out := &Derived{List: []Derivation{}}
	switch public, err := s.streamKey(ctx); {
	case fleet.CodeOf(err) == fleet.CodeNotFound:
	case err != nil:
		return nil, err
	default:
		out.Key = release.KeyName(public)
		if list != nil {
			k := list.Key(public)
			out.Listed = k != nil && k.SignsFor(r.Product)
		}
	}
	switch {
	case !s.Derives:
		out.Why = "the server makes no patches: it was started with --patch-bases 0"
	case out.Key == "":
		out.Why = "the server makes no patches: it has no stream key; a start makes one"
	case !out.Listed:
		out.Why = fmt.Sprintf("the server makes no patches: the key list does not let its stream key %s sign for %s; 'runnel keys server --help' says how", out.Key, r.Product)
	}
	known, err := s.Derivations.ListDerivations(ctx, r.ID)
	if err != nil {
		return nil, err
	}
	versions, err := s.versions(ctx, r.Product)
	if err != nil {
		return nil, err
	}
	for _, d := range known {
		o := Derivation{Kind: fleet.StreamCompressed, Profile: fleet.ProfileName(d.Profile), State: string(d.State), Devices: d.Devices, Percent: d.Percent, Sent: d.Sent, Reason: d.Reason}
		if d.Base != (fleet.Digest{}) {
			o.Kind, o.Base, o.BaseVersion = fleet.StreamPatch, d.Base.String(), versions[d.Base]
		}
		if d.State == fleet.DerivationMade {
			o.Stream = d.Stream.String()
		}
		out.List = append(out.List, o)
	}
	return out, nil
}

// streamKey is the public half of the server's.
func (s *server) streamKey(ctx context.Context) (ed25519.PublicKey, error) {
	seed, err := s.StreamKeys.StreamKey(ctx)
	if err != nil {
		return nil, err
	}
	return publicOf(seed), nil
}

func publicOf(seed fleet.Key) ed25519.PublicKey {
	return ed25519.NewKeyFromSeed(seed[:]).Public().(ed25519.PublicKey)
}

// StreamKey is the server's key for stream sheets, as the API shows it.
type StreamKey struct {
	Key    string `json:"key" doc:"its name: 16 hex digits"`
	Public string `json:"public" doc:"Ed25519, 64 hex digits"`
	// Listed and Products: of the newest key list.
	Listed   bool     `json:"listed" doc:"it may sign streams"`
	Products []string `json:"products" doc:"of these; empty: of none"`
}

func (s *server) streamKeys() {
	type output struct{ Body StreamKey }
	show := func(ctx context.Context, public ed25519.PublicKey) (*output, error) {
		list, err := s.keyList(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		o := &output{StreamKey{Key: release.KeyName(public), Public: hex.EncodeToString(public), Products: []string{}}}
		if list == nil {
			return o, nil
		}
		if k := list.Key(public); k != nil {
			o.Body.Listed = true
			for _, p := range list.Products {
				if k.SignsFor(p.Name) {
					o.Body.Products = append(o.Body.Products, p.Name)
				}
			}
		}
		return o, nil
	}
	huma.Register(s.api, op("show-stream-key", "GET", "/stream-key", "The key with which the server signs the sheets of streams that it makes"), func(ctx context.Context, _ *empty) (*output, error) {
		public, err := s.streamKey(ctx)
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return show(ctx, public)
	})
	huma.Register(s.api, op("renew-stream-key", "POST", "/stream-key/renew", "Make another: what the old one signed is offered until the key list drops it"), func(ctx context.Context, _ *empty) (*output, error) {
		var seed fleet.Key
		rand.Read(seed[:]) // it never fails
		seed, err := s.StreamKeys.AddStreamKey(ctx, seed, true, s.Now())
		if err != nil {
			return nil, s.fail(ctx, err)
		}
		return show(ctx, publicOf(seed))
	})
}
