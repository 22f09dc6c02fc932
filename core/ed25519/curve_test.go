package ed25519

import (
	"math/big"
	"math/rand"
)

// The curve in plain arithmetic, by which the tests judge: affine coordinates,
// the addition law of RFC 8032, section 5.1, no trick.

var (
	bigP = number("7fffffffffffffffffffffffffffffffffffffffffffffffffffffffffffffed")
	bigL = number("1000000000000000000000000000000014def9dea2f79cd65812631a5cf5d3ed")
	bigD = mod(new(big.Int).Mul(big.NewInt(-121665), inverse(big.NewInt(121666))))
)

type bigPoint struct{ x, y *big.Int }

var (
	bigNeutral = bigPoint{big.NewInt(0), big.NewInt(1)}
	bigBase    = lift(mod(new(big.Int).Mul(big.NewInt(4), inverse(big.NewInt(5)))), 0)
)

func number(hex string) *big.Int {
	n, ok := new(big.Int).SetString(hex, 16)
	if !ok {
		panic("not a number: " + hex)
	}
	return n
}

func mod(a *big.Int) *big.Int            { return new(big.Int).Mod(a, bigP) }
func inverse(a *big.Int) *big.Int        { return new(big.Int).ModInverse(mod(a), bigP) }
func times(a, b *big.Int) *big.Int       { return mod(new(big.Int).Mul(a, b)) }
func plusBig(a, b *big.Int) *big.Int     { return mod(new(big.Int).Add(a, b)) }
func minusBig(a, b *big.Int) *big.Int    { return mod(new(big.Int).Sub(a, b)) }
func (p bigPoint) equal(q bigPoint) bool { return p.x.Cmp(q.x) == 0 && p.y.Cmp(q.y) == 0 }
func (p bigPoint) negative() bigPoint    { return bigPoint{minusBig(big.NewInt(0), p.x), p.y} }

// lift is the point with the given y, whose x is even or odd; x is nil if there is none.
func lift(y *big.Int, odd uint) bigPoint {
	yy := times(y, y)
	xx := times(minusBig(yy, big.NewInt(1)), inverse(plusBig(times(bigD, yy), big.NewInt(1))))
	x := new(big.Int).ModSqrt(xx, bigP)
	if x != nil && x.Bit(0) != odd {
		x = minusBig(big.NewInt(0), x)
	}
	return bigPoint{x, mod(y)}
}

func (p bigPoint) add(q bigPoint) bigPoint {
	k := times(bigD, times(times(p.x, q.x), times(p.y, q.y)))
	x := plusBig(times(p.x, q.y), times(q.x, p.y))
	y := plusBig(times(p.y, q.y), times(p.x, q.x))
	return bigPoint{times(x, inverse(plusBig(big.NewInt(1), k))), times(y, inverse(minusBig(big.NewInt(1), k)))}
}

func (p bigPoint) times(n *big.Int) bigPoint {
	r := bigNeutral
	for i := n.BitLen() - 1; i >= 0; i-- {
		r = r.add(r)
		if n.Bit(i) != 0 {
			r = r.add(p)
		}
	}
	return r
}

func (p bigPoint) encode() []byte { return encode(p.y, p.x.Bit(0)) }

// encode takes a y that may be 2^255-19 or more.
func encode(y *big.Int, sign uint) []byte {
	p := little(y)
	p[31] |= byte(sign << 7)
	return p
}

func little(n *big.Int) []byte {
	p := make([]byte, 32)
	n.FillBytes(p)
	for i, j := 0, 31; i < j; i, j = i+1, j-1 {
		p[i], p[j] = p[j], p[i]
	}
	return p
}

func bigOf(a *element) *big.Int {
	n := new(big.Int)
	for i := len(a) - 1; i >= 0; i-- {
		n.Lsh(n, 32).Or(n, big.NewInt(int64(a[i])))
	}
	return n
}

func elementOf(n *big.Int) *element {
	a := new(element)
	load(a, little(n))
	return a
}

// torsion is the eight points whose order divides 8: the multiples of one of
// order 8, which L times a point is for half of all points.
func torsion(r *rand.Rand) []bigPoint {
	for {
		p := lift(new(big.Int).Rand(r, bigP), 0)
		if p.x == nil {
			continue
		}
		t := p.times(bigL)
		if t.times(big.NewInt(4)).equal(bigNeutral) {
			continue
		}
		list := []bigPoint{bigNeutral}
		for range 7 {
			list = append(list, list[len(list)-1].add(t))
		}
		return list
	}
}

// encodings are all 32-byte strings that Go decodes as one of the points: y may be
// not reduced, and the sign of x = 0 may be set.
func encodings(points []bigPoint) [][]byte {
	var list [][]byte
	for _, p := range points {
		for _, y := range []*big.Int{p.y, new(big.Int).Add(p.y, bigP)} {
			if y.BitLen() > 255 {
				continue
			}
			list = append(list, encode(y, p.x.Bit(0)))
			if p.x.Sign() == 0 {
				list = append(list, encode(y, 1))
			}
		}
	}
	return list
}
