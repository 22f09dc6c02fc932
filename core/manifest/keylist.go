package manifest

import "github.com/runnel-fota/runnel/core/cbor"

// Limits of a key list (docs/format/keylist.md).
const (
	MaxRoots       = 8
	MaxKeys        = 16
	MaxProducts    = 16
	MaxKeyProducts = 8
	MaxName        = 64 // bytes of a product's name
)

// Roles of a key, as bits.
const (
	RoleRelease uint8 = 1 << 0 // may sign manifests and sheets
	RoleStream  uint8 = 1 << 1 // may sign sheets

	allRoles = RoleRelease | RoleStream
)

// KeyList is a key list whose payload was read: values, and views that the
// iterators walk over.
type KeyList struct {
	Payload             []byte
	Version, Generation uint32
	M                   uint8 // roots that must sign
	NRoots, NKeys       uint8
	NProducts           uint8
	Offset              int // of the defect, where Parse found one

	roots, keys, products []byte // the encoded arrays
}

// Key of a list: a root (Roles 0), or one that may sign.
type Key struct {
	Alg      int8
	Roles    uint8
	Public   []byte // KeySize bytes
	products []byte // encoded array of names; nil: every product of the list
}

// Product of a list.
type Product struct {
	Name      []byte
	Threshold uint8 // distinct release keys that must sign a manifest
	Epoch     uint32
	Floor     uint32 // lowest security version
}

// Parse reads and checks a payload. Nothing of it is believed before the
// signatures are checked: Acceptance does that.
func (l *KeyList) Parse(p []byte) Error {
	*l = KeyList{Payload: p}
	var r cbor.Reader
	r.Begin(p)
	var have fields
	err := Error(0)
	for n := r.Map(); n > 0 && err == 0; n-- {
		k := r.Key()
		from := r.Pos()
		switch k {
		case 0:
			l.Version = positive(&r)
		case 1:
			l.Generation = positive(&r)
		case 2:
			l.M = uint8(r.Uint32(MaxSignatures))
		case 3:
			l.NRoots, err = readKeys(&r, MaxRoots, true)
			l.roots = r.Raw(from)
		case 4:
			l.NKeys, err = readKeys(&r, MaxKeys, false)
			l.keys = r.Raw(from)
		case 5:
			l.NProducts = readProducts(&r)
			l.products = r.Raw(from)
		default:
			r.Unknown(k)
			continue
		}
		have.saw(k)
	}
	if err == 0 {
		r.End()
		have.need(&r, 0b111111)
		err = fromCBOR(r.Err())
	}
	if err == 0 {
		err = l.check()
	}
	l.Offset = r.Offset()
	return err
}

// positive is a u32 from 1.
func positive(r *cbor.Reader) uint32 {
	v := r.Uint32(1<<32 - 1)
	if v == 0 {
		r.Fail(cbor.ErrValue)
	}
	return v
}

// name is a text of 1 to limit bytes.
func name(r *cbor.Reader, limit int) []byte {
	v := r.Text(limit)
	if len(v) == 0 {
		r.Fail(cbor.ErrValue)
	}
	return v
}

func readKeys(r *cbor.Reader, most int, roots bool) (uint8, Error) {
	n := r.Array()
	if n > most {
		r.Fail(cbor.ErrLimit)
		return 0, 0
	}
	if n == 0 && roots {
		r.Fail(cbor.ErrValue)
	}
	var k Key
	for i := 0; i < n && r.Err() == 0; i++ {
		if err := k.read(r, roots); err != 0 {
			return 0, err
		}
	}
	return uint8(n), 0
}

// read reads one key and checks all of it that needs no other key.
func (k *Key) read(r *cbor.Reader, root bool) Error {
	*k = Key{}
	var have fields
	for n := r.Map(); n > 0; n-- {
		f := r.Key()
		if f > 1 && root {
			r.Unknown(f)
			continue
		}
		switch f {
		case 0:
			if r.Int() != int64(AlgEdDSA) && r.Err() == 0 {
				return ErrAlg
			}
			k.Alg = AlgEdDSA
		case 1:
			k.Public = r.Fixed(KeySize)
			if r.Err() == 0 {
				if err := CheckKey(k.Public); err != 0 {
					return err
				}
			}
		case 2:
			k.Roles = uint8(r.Uint32(uint32(allRoles)))
			if k.Roles == 0 {
				r.Fail(cbor.ErrValue)
			}
		case 3:
			from := r.Pos()
			names := r.Array()
			if names > MaxKeyProducts {
				r.Fail(cbor.ErrLimit)
			}
			if names == 0 {
				r.Fail(cbor.ErrValue)
			}
			for i := 0; i < names && r.Err() == 0; i++ {
				name(r, MaxName)
			}
			k.products = r.Raw(from)
		default:
			r.Unknown(f)
			continue
		}
		have.saw(f)
	}
	if root {
		have.need(r, 0b11)
	} else {
		have.need(r, 0b111)
	}
	return 0
}

func readProducts(r *cbor.Reader) uint8 {
	n := r.Array()
	if n > MaxProducts {
		r.Fail(cbor.ErrLimit)
		return 0
	}
	var p Product
	for i := 0; i < n && r.Err() == 0; i++ {
		p.read(r)
	}
	return uint8(n)
}

func (p *Product) read(r *cbor.Reader) {
	*p = Product{}
	var have fields
	for n := r.Map(); n > 0; n-- {
		f := r.Key()
		switch f {
		case 0:
			p.Name = name(r, MaxName)
		case 1:
			p.Threshold = uint8(r.Uint32(MaxSignatures))
			if p.Threshold == 0 {
				r.Fail(cbor.ErrValue)
			}
		case 2:
			p.Epoch = r.Uint32(1<<32 - 1)
		case 3:
			p.Floor = r.Uint32(1<<32 - 1)
		default:
			r.Unknown(f)
			continue
		}
		have.saw(f)
	}
	have.need(r, 0b1111)
}

// check is what concerns more than one field.
func (l *KeyList) check() Error {
	if l.M == 0 || l.M > l.NRoots {
		return ErrM
	}
	// 24 keys at most: 276 comparisons, in place and without a table.
	var x, y Key
	var outer, inner Keys
	l.all(&outer)
	for i := 0; outer.Next(&x); i++ {
		l.all(&inner)
		for j := 0; j < i && inner.Next(&y); j++ {
			if equal(x.Public, y.Public) {
				return ErrKeyTwice
			}
		}
	}
	var p, q Product
	var products, before Products
	products.begin(l)
	for i := 0; products.Next(&p); i++ {
		before.begin(l)
		for j := 0; j < i && before.Next(&q); j++ {
			if equal(p.Name, q.Name) {
				return ErrProductTwice
			}
		}
	}
	return 0
}

// Keys walks over keys, in the list's order.
type Keys struct {
	r     cbor.Reader
	left  int
	then  []byte // the keys behind the roots, where both are walked over
	roots bool
}

// begin and all are for core: a walk that is returned is copied word by word.
func (k *Keys) begin(p []byte, roots bool) {
	k.r.Begin(p)
	k.left, k.roots = k.r.Array(), roots
}

// Next reads the next key; false at the end.
func (k *Keys) Next(out *Key) bool {
	if k.left == 0 && k.then != nil {
		p := k.then
		k.then = nil
		k.begin(p, false)
	}
	if k.left == 0 {
		return false
	}
	k.left--
	return out.read(&k.r, k.roots) == 0 && k.r.Err() == 0
}

// Roots walks over the root keys.
func (l *KeyList) Roots() Keys {
	var k Keys
	k.begin(l.roots, true)
	return k
}

// Keys walks over the keys that may sign.
func (l *KeyList) Keys() Keys {
	var k Keys
	k.begin(l.keys, false)
	return k
}

func (l *KeyList) all(k *Keys) {
	k.begin(l.roots, true)
	k.then = l.keys
}

// Products walks over products, in the list's order.
type Products struct {
	r    cbor.Reader
	left int
}

// Products walks over the products.
func (l *KeyList) Products() Products {
	var p Products
	p.begin(l)
	return p
}

func (p *Products) begin(l *KeyList) {
	p.r.Begin(l.products)
	p.left = p.r.Array()
}

// Next reads the next product; false at the end.
func (p *Products) Next(out *Product) bool {
	if p.left == 0 {
		return false
	}
	p.left--
	out.read(&p.r)
	return p.r.Err() == 0
}

// Product finds a product by its name. A product that the list does not name
// has no releases.
func (l *KeyList) Product(name []byte, out *Product) bool {
	var all Products
	all.begin(l)
	for all.Next(out) {
		if equal(out.Name, name) {
			return true
		}
	}
	*out = Product{}
	return false
}

// Names walks over texts or byte strings.
type Names struct {
	r     cbor.Reader
	left  int
	bytes bool
}

func (n *Names) begin(p []byte, bytes bool) {
	n.r.Begin(p)
	n.left, n.bytes = n.r.Array(), bytes
}

// Next is the next one, nil at the end.
func (n *Names) Next() []byte {
	if n.left == 0 {
		return nil
	}
	n.left--
	if n.bytes {
		return n.r.Bytes(MaxName)
	}
	return n.r.Text(MaxName)
}

// Limited says whether the key may sign for some products only.
func (k *Key) Limited() bool { return k.products != nil }

// Products walks over the products that a limited key may sign for.
func (k *Key) Products() Names {
	var n Names
	if k.products != nil {
		n.begin(k.products, false)
	}
	return n
}

// SignsFor says whether the key may sign for a product of the list.
func (k *Key) SignsFor(product []byte) bool {
	if k.products == nil {
		return true
	}
	var names Names
	names.begin(k.products, false)
	for n := names.Next(); n != nil; n = names.Next() {
		if equal(n, product) {
			return true
		}
	}
	return false
}
