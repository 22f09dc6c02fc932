// Package labserver answers v1 and native devices from memory, for sweeps that run
// an update a hundred thousand times: no sockets, no clock of its own, and a Server
// is a value, so that a copy is the server as it was when the power failed.
//
// It is honest. Networks and servers that are not are sim/link's and the tests'.
package labserver

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"strconv"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/wire/native"
	"github.com/runnel-fota/runnel/release"
)

// Names under which the lab's devices are built.
const (
	Product  = "lab/board"
	Hardware = "esp32"
	Device   = "board-1"
)

// MaxReleases of a Book: what a Server has heard of each is kept in an array.
const MaxReleases = 6

// Book is what is signed and served: made once, shared by any number of Servers, and
// not changed while one is in use. Its keys come from fixed seeds and guard nothing.
type Book struct {
	Secret   [native.SecretSize]byte // of the device on the native wire
	Raw      bool                    // images are no ESP-IDF images
	Key      []byte                  // and on v1
	Releases []*Release
	Lists    []List
	Format   uint8 // of the images, as in a manifest; 0: ESP-IDF's

	generation  uint32
	root        ed25519.PrivateKey
	signer      ed25519.PrivateKey
	seed        byte // of another key that signs, 0: none
	list        *release.KeyList
	trust       *release.Trust
	first       []byte // the trust store that boards are built with
	native      native.Keys
	generations map[uint32][]byte // the list that began each
}

// List is a published key list.
type List struct {
	Envelope            []byte
	Version, Generation uint32
}

// Release is an image that can be offered.
type Release struct {
	Name     string
	Sequence uint32 // the stamp on v1
	Security uint32 // version
	Image    []byte
	Digest   [32]byte
	Envelope []byte // of its manifest
	Stream   []byte

	derived *derived // stream, on offer to who takes it; nil: none

	slot      int // that the image is linked for, -1: any
	chunk     int
	envelope  [32]byte
	file      [32]byte
	manifest  string   // v1's, as text
	chunks    []string // v1's answers
	path      string   // of the stream
	manifests string   // path of the envelope
}

func key(seed byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{seed}, ed25519.SeedSize))
}

func public(k ed25519.PrivateKey) ed25519.PublicKey { return k.Public().(ed25519.PublicKey) }

// NewBook has one root key, one release key, and a first key list.
func NewBook() (*Book, error) {
	b := &Book{Key: bytes.Repeat([]byte{0x42}, 32), generations: map[uint32][]byte{}, root: key(0x10), signer: key(0x40), generation: 1}
	copy(b.Secret[:], bytes.Repeat([]byte{0x77}, len(b.Secret)))
	var run digest.SHA256
	b.native.Derive(&b.Secret, &run)
	var err error
	if b.trust, err = release.TrustRoots(1, 1, public(b.root)); err != nil {
		return nil, err
	}
	b.first = b.trust.Baked()
	b.list = &release.KeyList{Version: 1, Generation: 1, M: 1, Roots: []ed25519.PublicKey{public(b.root)},
		Products: []release.Product{{Name: Product, Threshold: 1}},
		Keys:     []release.Key{{Public: public(b.signer), Roles: manifest.RoleRelease}}}
	return b, b.publish(b.root)
}

// Baked is the trust store that a board is built with.
func (b *Book) Baked() []byte { return b.first }

// Rotate publishes the next generation of roots, and with it another release key,
// which signs from now on.
func (b *Book) Rotate() error {
	old := b.root
	b.generation++
	b.root, b.signer = key(0x10*byte(b.generation)), key(0x40+byte(b.generation))
	b.list.Version++
	b.list.Generation = b.generation
	b.list.Roots = []ed25519.PublicKey{public(b.root)}
	b.list.Keys[0].Public = public(b.signer)
	return b.publish(old, b.root)
}

// SignWith has what is added from now on signed by the key of a seed; 0: by the newest
// release key. That of the first list has the seed 0x40.
func (b *Book) SignWith(seed byte) { b.seed = seed }

func (b *Book) publish(signers ...ed25519.PrivateKey) error {
	env, err := sign(manifest.KindKeys, b.list.Encode, signers...)
	if err != nil {
		return err
	}
	if b.trust, err = b.trust.Accept(env); err != nil {
		return err
	}
	b.Lists = append(b.Lists, List{env, b.trust.Version, b.trust.Generation})
	if b.generations[b.trust.Generation] == nil {
		b.generations[b.trust.Generation] = env
	}
	return nil
}

func sign(kind manifest.Kind, encode func() ([]byte, error), signers ...ed25519.PrivateKey) ([]byte, error) {
	payload, err := encode()
	if err != nil {
		return nil, err
	}
	var s []release.Signer
	for _, k := range signers {
		s = append(s, release.NewKeySigner(k))
	}
	return release.Sign(context.Background(), kind, payload, s...)
}

// Add signs an image with the newest release key, cuts it into chunks, and returns
// its number.
func (b *Book) Add(name string, img []byte, sequence, security uint32, chunk int) (int, error) {
	return b.add(name, img, sequence, security, chunk, -1)
}

// AddBuild adds an image that is linked for a slot. Builds of one sequence are one
// release: what is on offer is the one for the slot that the device does not run.
func (b *Book) AddBuild(name string, img []byte, sequence, security uint32, chunk, slot int) (int, error) {
	return b.add(name, img, sequence, security, chunk, slot)
}

func (b *Book) add(name string, img []byte, sequence, security uint32, chunk, slot int) (int, error) {
	if len(b.Releases) == MaxReleases {
		return 0, fmt.Errorf("labserver: more than %d releases", MaxReleases)
	}
	r := &Release{Name: name, Sequence: sequence, Security: security, Image: img, Digest: sha256.Sum256(img), chunk: chunk, slot: slot}
	for at := 0; at < len(img); at += chunk {
		data := img[at:min(at+chunk, len(img))]
		m := hmac.New(sha256.New, b.Key)
		m.Write(data)
		r.chunks = append(r.chunks, fmt.Sprintf(`{"chunk_number":%d,"data":"%s","mac":"%s","size":%d}`,
			at/chunk, base64.StdEncoding.EncodeToString(data), hex.EncodeToString(m.Sum(nil)), len(data)))
	}
	r.manifest = fmt.Sprintf(`{"fota":{"manifest":{"version":%s,"size":%d,"hash":"%x","chunk_size":%d,"uploaded_at":%d}}}`,
		strconv.Quote(name), len(img), r.Digest, chunk, sequence)
	b.Releases = append(b.Releases, r)
	if chunk&(chunk-1) != 0 {
		return len(b.Releases) - 1, nil // v1 alone has such chunks
	}
	var out bytes.Buffer
	root, file, _, err := release.BuildStream(&out, bytes.NewReader(img), uint32(len(img)), uint32(chunk))
	if err != nil {
		return 0, err
	}
	r.Stream, r.file = out.Bytes(), file
	m := release.Manifest{Product: Product, Hardware: [][]byte{[]byte(Hardware)}, Version: name, Sequence: sequence,
		SecurityVersion: security,
		Image: release.Image{Format: max(b.Format, manifest.FormatESP), Digest: r.Digest, Size: uint32(len(img)),
			Streams: []release.Raw{{Chunk: uint32(chunk), Root: root}}},
		Confirm: release.Confirm{Contact: true, Seconds: TrialSeconds}}
	if b.Raw {
		m.Image.Format = manifest.FormatRaw
	}
	if slot >= 0 {
		n := uint8(slot)
		m.Image.Slot = &n
	}
	signer := b.signer
	if b.seed != 0 {
		signer = key(b.seed)
	}
	if r.Envelope, err = sign(manifest.KindManifest, m.Encode, signer); err != nil {
		return 0, err
	}
	r.envelope = sha256.Sum256(r.Envelope)
	r.path, r.manifests = streamPath+hex.EncodeToString(r.file[:]), manifestPath+hex.EncodeToString(r.envelope[:])
	return len(b.Releases) - 1, nil
}

// TrialSeconds is how long a manifest gives the new image to reach the server.
const TrialSeconds = 60

// Served is how many bytes a device takes for a whole release, on a wire.
func (r *Release) Served(overNative bool) int64 {
	if overNative {
		return int64(len(r.Stream))
	}
	return int64(len(r.Image))
}
