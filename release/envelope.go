package release

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/manifest"
)

// MaxEnvelope is the largest envelope that is read here, in bytes. What is
// written here stays far below; unprotected headers of others may add to it.
const MaxEnvelope = 16 << 10

// DeviceEnvelope is what a device takes that has said nothing else, in bytes:
// three signatures around a payload of 1,024 have 1,279.
const DeviceEnvelope = 1280

// Signer signs with one key. Sign gets a whole Sig_structure (RFC 9052, 4.4) and
// answers the 64 bytes of its Ed25519 signature.
type Signer interface {
	Public() ed25519.PublicKey
	Sign(ctx context.Context, message []byte) ([]byte, error)
}

// sigStructure is what a key signs.
func sigStructure(kind manifest.Kind, payload []byte, public ed25519.PublicKey) []byte {
	var head [manifest.HeadSize]byte
	id := KeyID(public)
	return append(bytes.Clone(manifest.Head(&head, kind, manifest.AlgEdDSA, id[:], len(payload))), payload...)
}

// sign makes one signature and checks it: a signer that is broken, or holds
// another key, is found here and not on a device.
func sign(ctx context.Context, kind manifest.Kind, payload []byte, s Signer) (manifest.Signature, error) {
	public := s.Public()
	if err := fault(manifest.CheckKey(public)); err != nil {
		return manifest.Signature{}, fmt.Errorf("key %s: %w", KeyName(public), err)
	}
	message := sigStructure(kind, payload, public)
	sig, err := s.Sign(ctx, message)
	if err != nil {
		return manifest.Signature{}, fmt.Errorf("signing with key %s: %w", KeyName(public), err)
	}
	if !ed25519.Verify(public, message, sig) {
		return manifest.Signature{}, fmt.Errorf("the signer's signature is not one by key %s", KeyName(public))
	}
	id := KeyID(public)
	return manifest.Signature{Alg: manifest.AlgEdDSA, KeyID: id[:], Sig: sig}, nil
}

// Sign makes an envelope around payload with a signature by each signer, in
// their order.
func Sign(ctx context.Context, kind manifest.Kind, payload []byte, signers ...Signer) ([]byte, error) {
	e := manifest.Envelope{Payload: payload}
	for _, s := range signers {
		if err := add(ctx, &e, kind, s); err != nil {
			return nil, err
		}
	}
	return encodeEnvelope(&e)
}

// AddSignature adds a signature to an envelope, behind those that it has.
func AddSignature(ctx context.Context, kind manifest.Kind, envelope []byte, s Signer) ([]byte, error) {
	e, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, err
	}
	if err := add(ctx, e, kind, s); err != nil {
		return nil, err
	}
	return encodeEnvelope(e)
}

var errSigned = errors.New("has signed already: a second signature by the same key counts nothing")

func add(ctx context.Context, e *manifest.Envelope, kind manifest.Kind, s Signer) error {
	id := KeyID(s.Public())
	for i := range e.N {
		if bytes.Equal(e.Sigs[i].KeyID, id[:]) {
			return fmt.Errorf("key %s %w", KeyName(s.Public()), errSigned)
		}
	}
	if e.N == manifest.MaxSignatures {
		return fmt.Errorf("an envelope has %d signatures at most", manifest.MaxSignatures)
	}
	sig, err := sign(ctx, kind, e.Payload, s)
	if err != nil {
		return err
	}
	e.Sigs[e.N] = sig
	e.N++
	return nil
}

// ParseEnvelope reads an envelope; its signatures are not checked by that.
func ParseEnvelope(p []byte) (*manifest.Envelope, error) {
	if len(p) > MaxEnvelope {
		return nil, fmt.Errorf("envelope has %d bytes, more than %d", len(p), MaxEnvelope)
	}
	e := new(manifest.Envelope)
	if err := e.Parse(p); err != 0 {
		return nil, refused("envelope", err, e.Offset)
	}
	return e, nil
}

// encodeEnvelope writes e with empty unprotected headers.
func encodeEnvelope(e *manifest.Envelope) ([]byte, error) {
	buf := make([]byte, 256+manifest.MaxPayload+manifest.MaxSignatures*128)
	var w cbor.Writer
	w.Begin(buf)
	w.Tag(98)
	w.Array(4)
	w.Bytes(nil)
	w.Map(0)
	w.Bytes(e.Payload)
	w.Array(e.N)
	for _, s := range e.Sigs[:e.N] {
		w.Array(3)
		w.Bytes(append([]byte{0xA2, 1, 0x20 + byte(-1-s.Alg), 4, 0x40 | manifest.KeyIDSize}, s.KeyID...))
		w.Map(0)
		w.Bytes(s.Sig)
	}
	p, err := w.Done()
	if err != 0 {
		return nil, err
	}
	var check manifest.Envelope
	if err := check.Parse(p); err != 0 {
		return nil, refused("envelope", err, check.Offset)
	}
	return bytes.Clone(p), nil
}
