package ed25519

import (
	"math/big"
	"math/rand"
	"testing"
)

// edges are numbers at which carries, wraps and reductions change.
func edges() []*big.Int {
	var list []*big.Int
	two := big.NewInt(2)
	near := func(n *big.Int, by int64) {
		for d := -by; d <= by; d++ {
			v := new(big.Int).Add(n, big.NewInt(d))
			if v.Sign() >= 0 && v.BitLen() <= 256 {
				list = append(list, v)
			}
		}
	}
	near(big.NewInt(0), 2)
	near(big.NewInt(19), 1)
	near(big.NewInt(38), 1)
	near(bigP, 2)
	near(new(big.Int).Lsh(bigP, 1), 2)
	for _, bits := range []int64{16, 32, 128, 224, 252, 253, 255, 256} {
		near(new(big.Int).Exp(two, big.NewInt(bits), nil), 1)
	}
	near(new(big.Int).Sub(new(big.Int).Lsh(big.NewInt(1), 256), big.NewInt(38)), 1)
	list = append(list,
		number("ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000"),
		number("0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff0000ffff"),
		number("ffffffff00000000ffffffff00000000ffffffff00000000ffffffff00000000"),
		number("80000000800000008000000080000000800000008000000080000000800000"))
	return list
}

func numbers(t *testing.T, seed int64, more int) []*big.Int {
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	list := edges()
	limit := new(big.Int).Lsh(big.NewInt(1), 256)
	for range more {
		list = append(list, new(big.Int).Rand(r, limit))
	}
	return list
}

// TestFieldPairs: every operation of two, with the result in its own place and in
// that of an argument.
func TestFieldPairs(t *testing.T) {
	ops := []struct {
		name string
		op   func(out, a, b *element)
		want func(a, b *big.Int) *big.Int
	}{
		{"add", add, plusBig},
		{"sub", sub, minusBig},
		{"mul", mul, times},
	}
	list := numbers(t, 1, 60)
	for _, x := range list {
		for _, y := range list {
			for _, o := range ops {
				want := o.want(x, y)
				var out element
				a, b := elementOf(x), elementOf(y)
				o.op(&out, a, b)
				if mod(bigOf(&out)).Cmp(want) != 0 || bigOf(a).Cmp(x) != 0 || bigOf(b).Cmp(y) != 0 {
					t.Fatalf("%s %x %x: %x, want %x", o.name, x, y, bigOf(&out), want)
				}
				if o.op(a, a, b); *a != out {
					t.Fatalf("%s %x %x into the first: %x", o.name, x, y, bigOf(a))
				}
				if a = elementOf(x); true {
					o.op(b, a, b)
				}
				if *b != out {
					t.Fatalf("%s %x %x into the second: %x", o.name, x, y, bigOf(b))
				}
			}
		}
	}
}

func TestFieldSingles(t *testing.T) {
	for _, x := range numbers(t, 2, 2000) {
		a := elementOf(x)
		var out element
		if square(&out, a); mod(bigOf(&out)).Cmp(times(x, x)) != 0 {
			t.Fatalf("square %x: %x", x, bigOf(&out))
		}
		copy(out[:], a[:])
		if square(&out, &out); mod(bigOf(&out)).Cmp(times(x, x)) != 0 {
			t.Fatalf("square %x in place: %x", x, bigOf(&out))
		}
		copy(out[:], a[:])
		if reduce(&out); bigOf(&out).Cmp(mod(x)) != 0 {
			t.Fatalf("reduce %x: %x", x, bigOf(&out))
		}
		copy(out[:], a[:])
		if isZero(&out) != (mod(x).Sign() == 0) {
			t.Fatalf("isZero %x", x)
		}
		for n := int32(-1); n <= 38; n++ {
			copy(out[:], a[:])
			wrap(&out, n)
			if mod(bigOf(&out)).Cmp(plusBig(x, big.NewInt(38*int64(n)))) != 0 {
				t.Fatalf("wrap %x, %d: %x", x, n, bigOf(&out))
			}
		}
	}
}

func TestInvert(t *testing.T) {
	for _, x := range numbers(t, 3, 100) {
		var out element
		invert(&out, elementOf(x))
		want := inverse(x)
		if want == nil {
			want = new(big.Int) // 0^(p-2)
		}
		if mod(bigOf(&out)).Cmp(want) != 0 {
			t.Fatalf("1/%x: %x, want %x", x, bigOf(&out), want)
		}
	}
}

// TestRoot: u/v has a root just where math/big says so, and it is one.
func TestRoot(t *testing.T) {
	list := numbers(t, 4, 40)
	squares, others := 0, 0
	for _, u := range list {
		for _, v := range list {
			if mod(v).Sign() == 0 {
				continue
			}
			q := times(u, inverse(v))
			var out, scratch element
			ok := root(&out, elementOf(u), elementOf(v), &scratch)
			if ok != (big.Jacobi(q, bigP) >= 0) {
				t.Fatalf("root of %x/%x: %v", u, v, ok)
			}
			if x := bigOf(&out); ok && times(x, x).Cmp(q) != 0 {
				t.Fatalf("root of %x/%x: %x", u, v, x)
			}
			if ok {
				squares++
			} else {
				others++
			}
		}
	}
	if squares < 100 || others < 100 {
		t.Errorf("%d squares, %d others: one side is hardly tested", squares, others)
	}
}

// TestConstants computes the constants of the curve anew.
func TestConstants(t *testing.T) {
	i := new(big.Int).Exp(big.NewInt(2), new(big.Int).Rsh(bigP, 2), bigP) // (p-1)/4 = p>>2
	if times(i, i).Cmp(mod(big.NewInt(-1))) != 0 {
		t.Fatal("2^((p-1)/4) is no root of -1: the test is wrong")
	}
	for c, want := range map[int]*big.Int{curveD: bigD, rootMinusOne: i, order: bigL} {
		var a element
		a.constant(c)
		if bigOf(&a).Cmp(want) != 0 {
			t.Errorf("constant %d is %x, want %x", c, bigOf(&a), want)
		}
	}
	if !bigBase.times(bigL).equal(bigNeutral) || bigBase.equal(bigNeutral) {
		t.Fatal("L is not the base point's order: the test is wrong")
	}
	p, twice := bigBase, bigBase.add(bigBase)
	for i := range basePoints {
		var q cached
		q.base(i)
		xy := times(p.x, p.y)
		for _, c := range []struct {
			got  *element
			want *big.Int
		}{
			{&q.sum, plusBig(p.y, p.x)},
			{&q.difference, minusBig(p.y, p.x)},
			{&q.product, times(bigD, plusBig(xy, xy))},
			{&q.z2, big.NewInt(2)},
		} {
			if bigOf(c.got).Cmp(c.want) != 0 {
				t.Errorf("base point %d: %x, want %x", 2*i+1, bigOf(c.got), c.want)
			}
		}
		p = p.add(twice)
	}
}
