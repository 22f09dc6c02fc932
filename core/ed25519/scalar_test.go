package ed25519

import (
	"math/big"
	"math/rand"
	"testing"
)

func TestReduceOrder(t *testing.T) {
	const seed = 5
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	limit := new(big.Int).Lsh(big.NewInt(1), 512)
	list := []*big.Int{big.NewInt(0), big.NewInt(1), new(big.Int).Sub(limit, big.NewInt(1))}
	for range 300 {
		list = append(list, new(big.Int).Rand(r, limit))
		// Around multiples of L, of every length.
		m := new(big.Int).Rand(r, new(big.Int).Lsh(big.NewInt(1), uint(r.Intn(259))))
		m.Mul(m, bigL)
		for d := int64(-1); d <= 1; d++ {
			if n := new(big.Int).Add(m, big.NewInt(d)); n.Sign() >= 0 {
				list = append(list, n)
			}
		}
	}
	for bit := uint(0); bit < 512; bit++ {
		list = append(list, new(big.Int).Lsh(big.NewInt(1), bit))
	}
	for _, n := range list {
		var words [16]uint32
		for i := range words {
			words[i] = uint32(new(big.Int).Rsh(n, uint(32*i)).Uint64())
		}
		var out element
		reduceOrder(&out, &words)
		if want := new(big.Int).Mod(n, bigL); bigOf(&out).Cmp(want) != 0 {
			t.Fatalf("%x: %x, want %x", n, bigOf(&out), want)
		}
	}
}

// TestDigits: the digits are odd, small enough for the table, and sum up to the
// scalar; there are as few as is claimed.
func TestDigits(t *testing.T) {
	const seed = 6
	t.Logf("seed %d", seed)
	r := rand.New(rand.NewSource(seed))
	limit := new(big.Int).Lsh(big.NewInt(1), topBit)
	list := []*big.Int{new(big.Int), new(big.Int).Sub(limit, big.NewInt(1)), new(big.Int).Sub(bigL, big.NewInt(1))}
	for n := int64(1); n < 600; n++ {
		list = append(list, big.NewInt(n))
	}
	small := len(list)
	for range 1000 {
		list = append(list, new(big.Int).Rand(r, limit))
	}
	count := 0
	for i, n := range list {
		var d digits
		copy(d.n[:], elementOf(n)[:])
		d.begin()
		sum := new(big.Int)
		for bit := topBit; bit >= 0; bit-- {
			x := d.next(bit)
			if x == 0 {
				continue
			}
			if x&1 == 0 || x > 2*tableSize-1 || x < -(2*tableSize-1) {
				t.Fatalf("%x: digit %d", n, x)
			}
			if i >= small {
				count++
			}
			sum.Add(sum, new(big.Int).Lsh(big.NewInt(int64(x)), uint(bit)))
		}
		if sum.Cmp(n) != 0 {
			t.Fatalf("digits of %x sum up to %x", n, sum)
		}
	}
	if mean := float64(count) / 1000; mean < 45 || mean > 56 {
		t.Errorf("%.1f digits on average, of 253 bits: not every fifth", mean)
	}
}
