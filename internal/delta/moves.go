package delta

import (
	"math"
	"slices"

	"github.com/runnel-fota/runnel/core/patch"
)

func preamble(g geometry, old, new []byte, moves []move) []uint32 {
	pre := []uint32{uint32(g.arch), 0, uint32(len(new))}
	if g.raw {
		pre[1] = patch.FlagRaw
	}
	switch {
	case g.arch == patch.ArchNone:
	case g.raw:
		pre = append(pre, g.oldBase, g.newBase)
	default:
		so, sn := espSegments(old), espSegments(new)
		pre = append(pre, uint32(len(sn)))
		for i, s := range sn {
			var o segment
			if i < len(so) {
				o = so[i]
			}
			pre = append(pre, zigzag(s.Addr-o.Addr), zigzag(s.Size-o.Size))
		}
	}
	if g.arch == patch.ArchNone {
		return append(pre, 0)[:3]
	}
	pre = append(pre, uint32(len(moves)))
	at, sh := 0, 0
	for _, m := range moves {
		pre = append(pre, uint32(m.start-at), zigzag(uint32(m.shift-sh)))
		at, sh = m.start, m.shift
	}
	return pre
}

func zigzag(d uint32) uint32 { return d<<1 ^ uint32(int32(d)>>31) }

type move struct{ start, shift int }

// mapMoves tells where what lies in the old image went, in at most most entries.
func mapMoves(g geometry, old, new []byte, runs []run, most int) []move {
	if most == 0 || g.arch == patch.ArchNone {
		return nil
	}
	so, sn := g.with(old, g.oldBase).segments(old), g.with(new, g.newBase).segments(new)
	const none = math.MinInt32
	sh := make([]int32, len(old))
	for i := range sh {
		sh[i] = none
	}
	// Longer runs say more.
	long := append([]run(nil), runs...)
	slices.SortStableFunc(long, func(a, b run) int { return a.n - b.n })
	for _, r := range long {
		for k := 0; k < r.n; {
			a, la := addressOf(so, r.from+k)
			b, lb := addressOf(sn, r.at+k)
			n := min(la, lb, r.n-k)
			if n <= 0 {
				k++
				continue
			}
			if a != 0 && b != 0 {
				for j := range n {
					sh[r.from+k+j] = int32(b - a)
				}
			}
			k += n
		}
	}
	type span struct {
		start, end int
		shift      int32
	}
	var spans []span
	for i := 0; i < len(sh); {
		if sh[i] == none {
			i++
			continue
		}
		j := i
		for j < len(sh) && sh[j] == sh[i] {
			j++
		}
		spans = append(spans, span{i, j, sh[i]})
		i = j
	}
	merge := func() {
		out := spans[:0]
		for _, s := range spans {
			if len(out) > 0 && out[len(out)-1].shift == s.shift {
				out[len(out)-1].end = s.end
				continue
			}
			out = append(out, s)
		}
		spans = out
	}
	merge()
	for limit := 8; len(spans) > most; limit = limit*5/4 + 1 {
		out := spans[:0]
		for _, s := range spans {
			if s.end-s.start > limit {
				out = append(out, s)
			}
		}
		spans = out
		merge()
	}
	var moves []move
	for _, s := range spans {
		if s.shift < 1<<23 && s.shift > -1<<23 && s.start < 1<<24 {
			moves = append(moves, move{s.start, int(s.shift)})
		}
	}
	return moves
}

func addressOf(segs []segment, off int) (addr int64, left int) {
	for _, s := range segs {
		if off < int(s.Off) {
			return 0, int(s.Off) - off
		}
		if off < int(s.Off+s.Size) {
			return int64(s.Addr) + int64(off) - int64(s.Off), int(s.Off+s.Size) - off
		}
	}
	return 0, 1 << 30
}
