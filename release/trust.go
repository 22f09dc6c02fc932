package release

import (
	"bytes"
	"crypto/ed25519"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/runnel-fota/runnel/core/manifest"
)

// Trust is what is believed about keys: the roots, and the newest list that they
// signed. It does not change; Accept returns the next. The rules are those of a
// device, by the same code.
type Trust struct {
	Version, Generation uint32 // Version 0: roots only
	M                   int
	Roots               []ed25519.PublicKey
	// List and Envelope are the accepted list, nil with roots only.
	List     *KeyList
	Envelope []byte
	// ThrowAway: lists with the mark of a demo's keys are taken. Whoever sets it knows
	// that what they sign is worth nothing.
	ThrowAway bool

	payload []byte // of the list
}

// TrustRoots is where trust begins: roots that came by a way that is trusted
// already. m of them must sign a list. Generation 0 is not known: then the list
// may be of any, if it has these roots or is signed by m of them and by its own.
func TrustRoots(generation uint32, m int, roots ...ed25519.PublicKey) (*Trust, error) {
	t := &Trust{Generation: generation, M: m, Roots: slices.Clone(roots)}
	if len(roots) == 0 || len(roots) > manifest.MaxRoots {
		return nil, fmt.Errorf("there are 1 to %d roots, not %d", manifest.MaxRoots, len(roots))
	}
	if m < 1 || m > len(roots) || m > manifest.MaxSignatures {
		return nil, fmt.Errorf("of %d roots %d can't be asked to sign: 1 to %d can", len(roots), m, min(len(roots), manifest.MaxSignatures))
	}
	for i, r := range roots {
		if err := fault(manifest.CheckKey(r)); err != nil {
			return nil, fmt.Errorf("root %s: %w", KeyName(r), err)
		}
		if slices.ContainsFunc(roots[:i], func(q ed25519.PublicKey) bool { return q.Equal(r) }) {
			return nil, fmt.Errorf("root %s is there twice", KeyName(r))
		}
	}
	return t, nil
}

func (t *Trust) baked(generation uint32) []byte {
	h := manifest.Trust{Generation: generation, M: uint8(t.M), Roots: uint8(len(t.Roots))}
	p := make([]byte, h.Size())
	h.Put(p)
	for i, r := range t.Roots {
		k := manifest.Key{Alg: manifest.AlgEdDSA, Public: r}
		k.PutRecord(p[manifest.TrustHeaderSize+i*manifest.RecordSize:])
	}
	return p
}

// Baked is the trust store of a device that is built with these roots and has
// no list yet.
func (t *Trust) Baked() []byte { return t.baked(t.Generation) }

// Store is the trust store that a device of the product keeps
// (docs/format/keylist.md).
func (t *Trust) Store(product string) ([]byte, error) {
	if t.payload == nil {
		return t.Baked(), nil
	}
	var l manifest.KeyList
	if err := l.Parse(t.payload); err != 0 {
		return nil, refused("key list", err, l.Offset)
	}
	p := make([]byte, manifest.MaxTrust)
	n, err := manifest.Compact(p, &l, []byte(product))
	return p[:n], fault(err)
}

// memory is a trust store in RAM.
type memory []byte

func (m memory) ReadAt(p []byte, off uint32) error {
	if uint64(off)+uint64(len(p)) > uint64(len(m)) {
		return errShort
	}
	copy(p, m[off:])
	return nil
}

var errShort = errors.New("the trust store ends early")

// Accept takes a key list if it follows what is held, by rules 1 to 4 of
// docs/format/keylist.md. The list that is held already gives t back.
func (t *Trust) Accept(envelope []byte) (*Trust, error) {
	e, err := ParseEnvelope(bytes.Clone(envelope))
	if err != nil {
		return nil, fmt.Errorf("key list: %w", err)
	}
	store, err := t.held(e)
	if err != nil {
		return nil, err
	}
	var a manifest.Acceptance
	var l manifest.KeyList
	if err := a.Begin(e, &l, store); err != 0 {
		return nil, t.listRefused(err, &l)
	}
	for done := false; !done; {
		var err manifest.Error
		if done, err = a.Step(Verifier{}); err != 0 {
			return nil, t.listRefused(err, &l)
		}
	}
	if a.Same {
		return t, nil
	}
	list, err := DecodeKeyList(e.Payload)
	if err != nil {
		return nil, err
	}
	if list.ThrowAway && !t.ThrowAway {
		return nil, ErrThrowAway
	}
	return &Trust{ThrowAway: t.ThrowAway, Version: list.Version, Generation: list.Generation, M: list.M, Roots: list.Roots,
		List: list, Envelope: bytes.Clone(envelope), payload: e.Payload}, nil
}

// held is the store that the list is held against. Where the generation of the
// roots is not known, it is the list's, if the list has the same roots and m,
// else the one before: then both quorums must have signed.
func (t *Trust) held(e *manifest.Envelope) (memory, error) {
	if t.payload != nil {
		p, err := t.Store("")
		return p, err
	}
	g := t.Generation
	if g == 0 {
		l, err := DecodeKeyList(e.Payload)
		if err != nil {
			return nil, err
		}
		same := l.M == t.M && len(l.Roots) == len(t.Roots)
		for _, r := range t.Roots {
			same = same && l.IsRoot(r)
		}
		if g = l.Generation; !same {
			g--
		}
	}
	return t.baked(g), nil
}

// ErrThrowAway: the keys of a demo were readable by everybody and signed anything.
var ErrThrowAway = errors.New("this key list is a demo's: its keys were made to be thrown away, and nothing that they sign counts")

func (t *Trust) listRefused(e manifest.Error, l *manifest.KeyList) error {
	switch e {
	case manifest.ErrOldList, manifest.ErrOtherList:
		return fmt.Errorf("%w (version %d, held is %d)", e, l.Version, t.Version)
	case manifest.ErrGeneration:
		return fmt.Errorf("%w (generation %d, held is %d)", e, l.Generation, t.Generation)
	case manifest.ErrOldQuorum:
		return fmt.Errorf("%w: %d are needed", e, t.M)
	case manifest.ErrNewQuorum:
		return fmt.Errorf("%w: %d are needed", e, l.M)
	}
	return refused("key list", e, l.Offset)
}

// Manifest checks the signatures of a manifest by the product's threshold, then
// reads it. signers are the release keys that counted. A manifest's epoch and
// security version are held against the list.
func (t *Trust) Manifest(envelope []byte) (m *Manifest, signers []ed25519.PublicKey, err error) {
	e, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	// A device knows its product and takes its keys from the store of that. Here
	// the product is read out first, to know whose threshold it is; nothing else
	// of the payload is used before the signatures are good.
	m, err = DecodeManifest(e.Payload)
	if err != nil {
		return nil, nil, err
	}
	signers, err = t.count(e, m.Product, manifest.KindManifest)
	if err != nil {
		return nil, nil, fmt.Errorf("manifest: %w", err)
	}
	p := t.List.Product(m.Product)
	if m.Epoch != p.Epoch {
		return nil, nil, fmt.Errorf("manifest: %w: %d, the key list says %d", manifest.ErrEpoch, m.Epoch, p.Epoch)
	}
	if m.SecurityVersion < p.Floor {
		return nil, nil, fmt.Errorf("manifest: %w: %d, the key list asks for %d", manifest.ErrSecurity, m.SecurityVersion, p.Floor)
	}
	return m, signers, nil
}

// Sheet checks the signature of a sheet of a product's stream, then reads it.
func (t *Trust) Sheet(envelope []byte, product string) (*Sheet, error) {
	e, err := ParseEnvelope(envelope)
	if err != nil {
		return nil, fmt.Errorf("stream sheet: %w", err)
	}
	if _, err := t.count(e, product, manifest.KindSheet); err != nil {
		return nil, fmt.Errorf("stream sheet: %w", err)
	}
	return DecodeSheet(e.Payload)
}

// Signers are the names of the release keys whose good signatures a manifest bears,
// each once, and how many it needs: Manifest stops looking at as many as that.
// None where there is no list, or the list does not name the product.
func (t *Trust) Signers(envelope []byte, product string) (names []string, threshold int) {
	e, err := ParseEnvelope(envelope)
	if err != nil || t.List == nil || t.List.Product(product) == nil {
		return nil, 0
	}
	for i := range t.List.Keys {
		k := &t.List.Keys[i]
		if k.Roles&manifest.RoleRelease == 0 || !k.SignsFor(product) {
			continue
		}
		id := KeyID(k.Public)
		for _, s := range e.Sigs[:e.N] {
			if bytes.Equal(id[:], s.KeyID) && ed25519.Verify(k.Public, sigStructure(manifest.KindManifest, e.Payload, k.Public), s.Sig) {
				names = append(names, KeyName(k.Public))
				break
			}
		}
	}
	return names, t.List.Product(product).Threshold
}

// ErrNoList: roots alone say nothing about releases.
var ErrNoList = errors.New("there is no key list")

// count runs the device's Verification, and says more than it does where it fails.
func (t *Trust) count(e *manifest.Envelope, product string, kind manifest.Kind) ([]ed25519.PublicKey, error) {
	if t.List == nil {
		return nil, ErrNoList
	}
	store, err := t.Store(product)
	if err != nil {
		return nil, err
	}
	var v manifest.Verification
	begin := v.BeginManifest
	if kind == manifest.KindSheet {
		begin = v.BeginSheet
	}
	err = fault(begin(e, memory(store)))
	for done := false; err == nil && !done; {
		var e manifest.Error
		done, e = v.Step(Verifier{})
		err = fault(e)
	}
	var signers []ed25519.PublicKey
	for i := range int(v.Trust.Keys) {
		if v.Signers>>i&1 != 0 {
			at := manifest.TrustHeaderSize + (int(v.Trust.Roots)+i)*manifest.RecordSize
			signers = append(signers, bytes.Clone(store[at+4:at+manifest.RecordSize]))
		}
	}
	switch {
	case err == manifest.ErrNoProduct:
		return nil, fmt.Errorf("%w: %q", err, product)
	case err == manifest.ErrThreshold:
		need := 1
		if kind == manifest.KindManifest {
			need = int(v.Trust.Threshold)
		}
		return nil, &ThresholdError{Have: len(signers), Need: need, Why: t.why(e, product, kind)}
	}
	return signers, err
}

// ThresholdError: fewer keys than needed signed.
type ThresholdError struct {
	Have, Need int
	Why        string // about the signatures that did not count, may be empty
}

func (e *ThresholdError) Error() string {
	s := fmt.Sprintf("%v: %d of %d", manifest.ErrThreshold, e.Have, e.Need)
	if e.Why != "" {
		s += "; " + e.Why
	}
	return s
}

func (e *ThresholdError) Unwrap() error { return manifest.ErrThreshold }

// why explains the signatures of e that did not count.
func (t *Trust) why(e *manifest.Envelope, product string, kind manifest.Kind) string {
	var out []string
	for i := range e.N {
		out = append(out, t.whyOne(&e.Sigs[i], e.Payload, product, kind)...)
	}
	return strings.Join(out, "; ")
}

func (t *Trust) whyOne(s *manifest.Signature, payload []byte, product string, kind manifest.Kind) []string {
	for i := range t.List.Keys {
		k := &t.List.Keys[i]
		id := KeyID(k.Public)
		if !bytes.Equal(id[:], s.KeyID) {
			continue
		}
		switch {
		case !ed25519.Verify(k.Public, sigStructure(kind, payload, k.Public), s.Sig):
			return []string{fmt.Sprintf("the signature by key %x is wrong", s.KeyID)}
		case !k.SignsFor(product):
			return []string{fmt.Sprintf("key %x may not sign for %s", s.KeyID, product)}
		case k.Roles&manifest.RoleRelease == 0 && kind == manifest.KindManifest:
			return []string{fmt.Sprintf("key %x may sign stream sheets only", s.KeyID)}
		}
		return nil
	}
	return []string{fmt.Sprintf("key %x is not in the key list (version %d): never was, or is revoked", s.KeyID, t.Version)}
}
