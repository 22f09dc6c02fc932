// Package release makes releases: keys, key lists, manifests, stream sheets,
// their signatures, and the release file that carries them; and it checks all
// that, as a server does before it publishes and a person before they trust.
//
// It holds the writers of what core/manifest reads (docs/format/keylist.md,
// manifest.md, sheet.md, release-file.md). Nothing is written that the reader of
// a device would refuse: each writer ends with that reader. It works without a
// server and without a network, and must never import one; secrets go into no
// error and no log.
package release

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"

	"github.com/runnel-fota/runnel/core/manifest"
)

// Hash is a SHA-256; as text, 64 hex digits.
type Hash [32]byte

func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// MarshalText is for JSON.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText takes 64 hex digits.
func (h *Hash) UnmarshalText(p []byte) error {
	if len(p) != 2*len(h) {
		return fmt.Errorf("a SHA-256 has %d hex digits, not %d", 2*len(h), len(p))
	}
	_, err := hex.Decode(h[:], p)
	return err
}

// KeyID is the hint by which a signature names its key.
func KeyID(public ed25519.PublicKey) (id [manifest.KeyIDSize]byte) {
	manifest.KeyID(public, &id)
	return id
}

// KeyName is a key's id for people: 16 hex digits.
func KeyName(public ed25519.PublicKey) string {
	id := KeyID(public)
	return hex.EncodeToString(id[:])
}

// Verifier checks signatures with crypto/ed25519: the verdict that every device
// must come to.
type Verifier struct{}

var _ manifest.Verifier = Verifier{}

// Verify is manifest.Verifier.
func (Verifier) Verify(alg int8, key, sig, head, payload []byte) bool {
	if alg != manifest.AlgEdDSA || len(key) != ed25519.PublicKeySize {
		return false
	}
	message := make([]byte, 0, len(head)+len(payload))
	return ed25519.Verify(key, append(append(message, head...), payload...), sig)
}

// fault turns the core's error, whose zero is none, into one of Go's.
func fault(e manifest.Error) error {
	if e == 0 {
		return nil
	}
	return e
}

// refused says which object a reader refused, and where.
func refused(what string, e manifest.Error, offset int) error {
	if e == 0 {
		return nil
	}
	if e.CBOR() != 0 {
		return fmt.Errorf("%s: %w, at offset %d", what, e, offset)
	}
	return fmt.Errorf("%s: %w", what, e)
}
