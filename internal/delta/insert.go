package delta

import (
	"encoding/binary"
	"math"
	"math/bits"

	"github.com/runnel-fota/runnel/core/patch"
)

// token is a literal (n 1, copy false) or a copy in an insertion: of n bytes, from a place
// in the old image or the new.
type token struct {
	n, from   int32
	copy, old bool
}

// finder knows where four bytes occur in both images, and three in the new one: the last
// place of each, and of each place the one before.
type finder struct {
	old, new          []byte
	headOld, chainOld []int32
	headNew, chainNew []int32
	head3, chain3     []int32
	filled            int // bytes of the new image that are known
	prices            *prices
	nodes             [parseBlock + 1]node
}

// shortest is the shortest copy from a new place, bytes; longCopy one that is taken as it
// is, so that long stretches of one byte take no time.
const (
	finderBits = 17
	shortest   = 3
	longCopy   = 192
	parseBlock = 1 << 14 // bytes that are weighed at once
)

func hash4(p []byte) uint32 {
	return binary.LittleEndian.Uint32(p) * 0x9E3779B1 >> (32 - finderBits)
}

func hash3(p []byte) uint32 {
	return (uint32(p[0])<<8 | uint32(p[1])<<16 | uint32(p[2])<<24) * 0x9E3779B1 >> (32 - finderBits)
}

func newFinder(old, new []byte) *finder {
	f := &finder{old: old, new: new, prices: firstPrices()}
	f.headOld, f.chainOld = make([]int32, 1<<finderBits), make([]int32, len(old))
	f.headNew, f.chainNew = make([]int32, 1<<finderBits), make([]int32, len(new))
	f.head3, f.chain3 = make([]int32, 1<<finderBits), make([]int32, len(new))
	for i := range f.headOld {
		f.headOld[i], f.headNew[i], f.head3[i] = -1, -1, -1
	}
	for i := 0; i+4 <= len(old); i++ {
		h := hash4(old[i:])
		f.chainOld[i] = f.headOld[h]
		f.headOld[h] = int32(i)
	}
	return f
}

// forget makes nothing of the new image known.
func (f *finder) forget() {
	for i := range f.headNew {
		f.headNew[i], f.head3[i] = -1, -1
	}
	f.filled = 0
}

// fill makes what lies before at of the new image known.
func (f *finder) fill(at int) {
	for ; f.filled < at && f.filled+4 <= len(f.new); f.filled++ {
		h := hash4(f.new[f.filled:])
		f.chainNew[f.filled] = f.headNew[h]
		f.headNew[h] = int32(f.filled)
		h = hash3(f.new[f.filled:])
		f.chain3[f.filled] = f.head3[h]
		f.head3[h] = int32(f.filled)
	}
}

type match struct {
	n    int
	old  bool
	from int
	cost float32
}

// matches appends the longest copies to be had at i, the nearer the better.
func (f *finder) matches(i, most, expect int, out []match) []match {
	if i+4 > len(f.new) || most < 4 {
		return out
	}
	for o, k := f.head3[hash3(f.new[i:])], 0; o >= 0 && k < 4; o, k = f.chain3[o], k+1 {
		if p := int(o); common(f.new[p:p+3], f.new[i:]) == 3 {
			out = append(out, match{3, false, p, f.prices.near[bits.Len(uint(i-p))]})
			break
		}
	}
	h := hash4(f.new[i:])
	best := 3
	for o, k := f.headNew[h], 0; o >= 0 && k < depth; o, k = f.chainNew[o], k+1 {
		p := int(o)
		if best < most && f.new[p+best] != f.new[i+best] {
			continue
		}
		n := common(f.new[p:], f.new[i:i+most])
		if n > best {
			best = n
			out = append(out, match{n, false, p, f.prices.near[bits.Len(uint(i-p))]})
			if n >= longCopy {
				return out
			}
		}
	}
	bestOld := 3
	for o, k := f.headOld[h], 0; o >= 0 && k < depth; o, k = f.chainOld[o], k+1 {
		p := int(o)
		if end := p + bestOld - 1; end >= len(f.old) || f.old[end] != f.new[i+bestOld-1] {
			continue // shorter than what there is
		}
		n := common(f.old[p:], f.new[i:i+most])
		if n > bestOld || n == bestOld && n > 3 && abs(p-expect) < abs(out[len(out)-1].from-expect) {
			bestOld = n
			out = append(out, match{n, true, p, f.prices.old[bits.Len(uint(2*abs(p-expect)+1))]})
			if n >= longCopy {
				return out
			}
		}
	}
	return out
}

func abs(x int) int {
	if x < 0 {
		return -x
	}
	return x
}

func common(a, b []byte) int {
	n := min(len(a), len(b))
	i := 0
	for i+8 <= n {
		if x := binary.LittleEndian.Uint64(a[i:]) ^ binary.LittleEndian.Uint64(b[i:]); x != 0 {
			return i + bits.TrailingZeros64(x)/8
		}
		i += 8
	}
	for i < n && a[i] == b[i] {
		i++
	}
	return i
}

// parse tells new[at:at+n] by literals and copies, as cheaply as the costs say. expect
// is where the old image is expected to go on.
func (f *finder) parse(at, n, expect int) []token {
	var out []token
	for n > 0 {
		m := min(n, parseBlock)
		out = f.weighBlock(at, m, expect, out)
		at += m
		n -= m
	}
	return out
}

type node struct {
	cost float32
	n    int32 // of the token that ends here
	from int32
	back [4]int32 // how far back the last copies lay, twice, and 1 for the old image
	copy bool
	old  bool
}

func (f *finder) weighBlock(at, n, expect int, out []token) []token {
	nodes := f.nodes[:n+1]
	for i := range nodes {
		nodes[i] = node{cost: math.MaxFloat32}
	}
	nodes[0].cost = 0
	var ms []match
	skip := 0 // what a long copy covers is not looked into
	for i := range n {
		nd := &nodes[i]
		p := at + i
		f.fill(p)
		if i < skip {
			continue
		}
		if c := nd.cost + f.prices.literal[f.new[p]] + f.prices.token[0]; c < nodes[i+1].cost {
			nodes[i+1] = node{cost: c, n: 1, back: nd.back}
		}
		relax := func(l int, old bool, from int, c float32) {
			if c < nodes[i+l].cost {
				back := int32(p-from) << 1
				if old {
					back |= 1
				}
				nodes[i+l] = node{cost: c, n: int32(l), copy: true, old: old, from: int32(from), back: front(nd.back, back)}
			}
		}
		for k, back := range nd.back {
			if back == 0 {
				break
			}
			src := p - int(back>>1)
			var data []byte
			if back&1 == 0 {
				data = f.new[src:]
			} else if src >= 0 && src < len(f.old) {
				data = f.old[src:]
			}
			l, most := patch.MinCopy, common(data, f.new[p:at+n])
			if most >= longCopy {
				l, skip = most, max(skip, i+most)
			}
			for ; l <= most; l++ {
				relax(l, back&1 != 0, src, nd.cost+f.prices.token[1]+f.prices.back[k]+f.prices.length[1][lengthClass(l)])
			}
		}
		if i < skip {
			continue
		}
		ms = f.matches(p, n-i, expect, ms[:0])
		for _, m := range ms {
			base := nd.cost + f.prices.token[1] + m.cost
			k := shortest
			if m.n >= longCopy {
				k, skip = m.n, max(skip, i+m.n)
			}
			for ; k <= m.n; k++ {
				relax(k, m.old, m.from, base+f.prices.length[0][lengthClass(k)])
			}
		}
	}
	start := len(out)
	for i := n; i > 0; {
		nd := nodes[i]
		out = append(out, token{nd.n, nd.from, nd.copy, nd.old})
		i -= int(nd.n)
	}
	for i, j := start, len(out)-1; i < j; i, j = i+1, j-1 {
		out[i], out[j] = out[j], out[i]
	}
	return out
}

// front is b with x at its front.
func front(b [4]int32, x int32) [4]int32 {
	k := 0
	for k < 3 && b[k] != x {
		k++
	}
	copy(b[1:k+1], b[:k])
	b[0] = x
	return b
}
