package release

import (
	"bytes"
	"crypto/ed25519"
	"fmt"
	"slices"

	"github.com/runnel-fota/runnel/core/cbor"
	"github.com/runnel-fota/runnel/core/manifest"
)

// KeyList is a key list (docs/format/keylist.md).
type KeyList struct {
	Version, Generation uint32
	M                   int
	Roots               []ed25519.PublicKey
	Keys                []Key
	Products            []Product
	// ThrowAway: its keys were made for one run of a demo. A device passes over the
	// mark; Trust.Accept takes such a list only where Trust.ThrowAway says so.
	ThrowAway bool
}

// Key is one that may sign.
type Key struct {
	Public   ed25519.PublicKey
	Roles    uint8    // manifest.RoleRelease, manifest.RoleStream
	Products []string // that it may sign for; empty: every product of the list
}

// Product is what a key list says about a product.
type Product struct {
	Name         string
	Threshold    int // distinct release keys that must sign a manifest
	Epoch, Floor uint32
}

// Encode is the payload. It is refused where a device would refuse it.
func (l *KeyList) Encode() ([]byte, error) {
	var w cbor.Writer
	w.Begin(make([]byte, 32<<10))
	n := 6
	if l.ThrowAway {
		n++
	}
	w.Map(n)
	w.Key(0)
	w.Uint(uint64(l.Version))
	w.Key(1)
	w.Uint(uint64(l.Generation))
	w.Key(2)
	w.Uint(uint64(max(l.M, 0)))
	w.Key(3)
	w.Array(len(l.Roots))
	for _, r := range l.Roots {
		w.Map(2)
		writeKey(&w, r)
	}
	w.Key(4)
	w.Array(len(l.Keys))
	for _, k := range l.Keys {
		n := 3
		if len(k.Products) > 0 {
			n++
		}
		w.Map(n)
		writeKey(&w, k.Public)
		w.Key(2)
		w.Uint(uint64(k.Roles))
		if len(k.Products) > 0 {
			w.Key(3)
			w.Array(len(k.Products))
			for _, p := range k.Products {
				w.Text(p)
			}
		}
	}
	w.Key(5)
	w.Array(len(l.Products))
	for _, p := range l.Products {
		w.Map(4)
		w.Key(0)
		w.Text(p.Name)
		w.Key(1)
		w.Uint(uint64(max(p.Threshold, 0)))
		w.Key(2)
		w.Uint(uint64(p.Epoch))
		w.Key(3)
		w.Uint(uint64(p.Floor))
	}
	if l.ThrowAway {
		w.Key(noteThrowAway)
		w.Bool(true)
	}
	p, err := payload("key list", &w)
	if err != nil {
		return nil, err
	}
	var check manifest.KeyList
	e := check.Parse(p)
	return p, refused("key list", e, check.Offset)
}

// noteThrowAway is the key of a note: devices skip it (docs/format/keylist.md).
const noteThrowAway = -1

// throwAway reads the note from a payload that was parsed without error.
func throwAway(p []byte) bool {
	var r cbor.Reader
	r.Begin(p)
	found := false
	for n := r.Map(); n > 0 && r.Err() == 0; n-- {
		// Anything but true under this key is somebody else's note.
		if k, at := r.Key(), r.Pos(); k == noteThrowAway {
			r.Skip()
			found = bytes.Equal(r.Raw(at), []byte{0xF5})
			continue
		}
		r.Skip()
	}
	return found && r.Err() == 0
}

func writeKey(w *cbor.Writer, public ed25519.PublicKey) {
	w.Key(0)
	w.Int(int64(manifest.AlgEdDSA))
	w.Key(1)
	w.Bytes(public)
}

// payload is what a writer wrote, if it fits an envelope.
func payload(what string, w *cbor.Writer) ([]byte, error) {
	p, err := w.Done()
	if err != 0 {
		return nil, fmt.Errorf("%s: %w", what, err)
	}
	if len(p) > manifest.MaxPayload {
		return nil, fmt.Errorf("%s has %d bytes, at most %d are allowed", what, len(p), manifest.MaxPayload)
	}
	return bytes.Clone(p), nil
}

// DecodeKeyList reads a payload. Nothing in it is checked against signatures:
// Trust.Accept does that.
func DecodeKeyList(p []byte) (*KeyList, error) {
	var v manifest.KeyList
	if err := v.Parse(p); err != 0 {
		return nil, refused("key list", err, v.Offset)
	}
	l := &KeyList{Version: v.Version, Generation: v.Generation, M: int(v.M), ThrowAway: throwAway(p)}
	var k manifest.Key
	roots := v.Roots()
	for roots.Next(&k) {
		l.Roots = append(l.Roots, bytes.Clone(k.Public))
	}
	keys := v.Keys()
	for keys.Next(&k) {
		key := Key{Public: bytes.Clone(k.Public), Roles: k.Roles}
		names := k.Products()
		for n := names.Next(); n != nil; n = names.Next() {
			key.Products = append(key.Products, string(n))
		}
		l.Keys = append(l.Keys, key)
	}
	var pr manifest.Product
	products := v.Products()
	for products.Next(&pr) {
		l.Products = append(l.Products, Product{Name: string(pr.Name), Threshold: int(pr.Threshold), Epoch: pr.Epoch, Floor: pr.Floor})
	}
	return l, nil
}

// Clone is a copy that shares nothing that is ever written.
func (l *KeyList) Clone() *KeyList {
	c := *l
	c.Roots, c.Keys, c.Products = slices.Clone(l.Roots), slices.Clone(l.Keys), slices.Clone(l.Products)
	return &c
}

// Product finds a product by its name, nil if the list does not name it: it has
// no releases then.
func (l *KeyList) Product(name string) *Product {
	for i := range l.Products {
		if l.Products[i].Name == name {
			return &l.Products[i]
		}
	}
	return nil
}

// Key finds a key, nil if it is not in the list, or no more.
func (l *KeyList) Key(public ed25519.PublicKey) *Key {
	for i := range l.Keys {
		if l.Keys[i].Public.Equal(public) {
			return &l.Keys[i]
		}
	}
	return nil
}

// IsRoot says whether public is a root.
func (l *KeyList) IsRoot(public ed25519.PublicKey) bool {
	return slices.ContainsFunc(l.Roots, func(r ed25519.PublicKey) bool { return r.Equal(public) })
}

// SignsFor says whether the key may sign for a product of the list.
func (k *Key) SignsFor(product string) bool {
	return len(k.Products) == 0 || slices.Contains(k.Products, product)
}
