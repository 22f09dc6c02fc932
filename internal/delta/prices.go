package delta

import (
	"math"
	"math/bits"
)

// prices are what the coder takes for the parts of an insertion, in bits: guessed at
// first, measured then.
type prices struct {
	literal [256]float32
	token   [2]float32     // a literal, a copy
	back    [4]float32     // at the place of one of the last copies
	near    [33]float32    // from the new image, by the bits of the distance
	old     [33]float32    // from the old one, by the bits of twice the distance from where it is expected
	length  [2][64]float32 // elsewhere; at the place of one of the last copies
}

// lengthClass is a length's index in prices.
func lengthClass(n int) int {
	if n < 32 {
		return n
	}
	return 27 + bits.Len(uint(n))
}

func firstPrices() *prices {
	p := &prices{token: [2]float32{0.4, 1.2}, back: [4]float32{1.5, 3, 4, 5}}
	for i := range p.near {
		p.near[i] = 3.5 + float32(i)
		p.old[i] = 3.5 + float32(i)
	}
	for i := range p.length[0] {
		n := i
		if i >= 32 {
			n = 1 << (i - 28)
		}
		w := float32(bits.Len(uint(max(n-1, 1))))
		p.length[0][i] = 1.55*w - 0.35
		p.length[1][i] = p.length[0][i]
	}
	return p
}

// weigh measures what a literal costs.
func (f *finder) weigh(gaps [][2]int) {
	var count [256]float64
	total := 256.0
	for i := range count {
		count[i] = 1
	}
	for _, g := range gaps {
		for _, b := range f.new[g[0]:g[1]] {
			count[b]++
			total++
		}
	}
	for i := range count {
		f.prices.literal[i] = float32(-math.Log2(count[i]/total) * 0.93)
	}
}

// tally adds up what symbols of one kind took, bits.
type tally struct{ sum, n float64 }

// tallies are prices that are being measured.
type tallies struct {
	literal [256]tally
	token   [2]tally
	back    [4]tally
	near    [33]tally
	old     [33]tally
	length  [2][64]tally
}

// prices are those that were measured; where little was, those before count.
func (t *tallies) prices(before *prices) *prices {
	p := *before
	mix := func(to []float32, from []tally) {
		for i, f := range from {
			to[i] = float32((float64(to[i])*6 + f.sum) / (6 + f.n))
		}
	}
	mix(p.literal[:], t.literal[:])
	mix(p.token[:], t.token[:])
	mix(p.back[:], t.back[:])
	mix(p.near[:], t.near[:])
	mix(p.old[:], t.old[:])
	mix(p.length[0][:], t.length[0][:])
	mix(p.length[1][:], t.length[1][:])
	return &p
}
