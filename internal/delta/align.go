package delta

import "encoding/binary"

// run is a stretch of the new image, from at on, that resembles the old from from on.
type run struct{ at, from, n int }

// alignCosts are what the coder takes on the mean, in 1/64 bit.
type alignCosts struct {
	hit     int32 // a byte of a run that is as it was
	soft    int32 // one that differs, in what says where something is: it may be predicted
	miss    int32 // one that differs
	literal int32 // a byte outside of runs
	enter   int32 // to begin a run
	leave   int32 // to end one
}

// What was found to be the best on real images (docs/design/patches.md). Dearer soft
// bytes than they are keep the tables of pointers from being taken for each other.
var (
	maskedCosts = alignCosts{hit: 8, soft: 350, miss: 12 * 64, literal: 290, enter: 37 * 64, leave: 10 * 64}
	plainCosts  = alignCosts{hit: 5, soft: 5, miss: 8 * 64, literal: 350, enter: 28 * 64, leave: 10 * 64}
)

const (
	tracks    = 15 // shifts that are followed at a time
	seed      = 8  // bytes that are equal where a new shift is tried
	seedBits  = 19
	seedPlace = 24      // places of the same seed that are looked at
	seedLook  = 64      // bytes by which they are compared
	seedKeep  = 3       // the best of them are tried
	quietRun  = 16      // bytes of a run without a miss, after which nothing new is tried
	never     = 1 << 29 // a cost
	period    = 4       // bytes after which padding and tables of one word repeat themselves
	repeated  = 1024    // bytes of that, for it to count: less is as well in a run
)

func seedHash(p []byte) uint32 {
	return uint32(binary.LittleEndian.Uint64(p) * 0x9E3779B97F4A7C15 >> (64 - seedBits))
}

// seeds are the places of the old image by their first bytes, the last one first.
type seeds struct{ head, next []int32 }

func newSeeds(img []byte) *seeds {
	s := &seeds{make([]int32, 1<<seedBits), make([]int32, len(img))}
	for i := range s.head {
		s.head[i] = -1
	}
	for i := 0; i+seed <= len(img); i++ {
		h := seedHash(img[i:])
		s.next[i] = s.head[h]
		s.head[h] = int32(i)
	}
	return s
}

// best are the places from which img goes on as p does, the longest first, and as long as
// it does; 0 where there is none.
func (s *seeds) best(img, p []byte) (found [seedKeep]struct{ at, n int }) {
	tries := 0
	for o := s.head[seedHash(p)]; o >= 0 && tries < seedPlace; o = s.next[o] {
		tries++
		k := found[0]
		k.at, k.n = int(o), common(img[o:], p[:min(len(p), seedLook)])
		if k.n < seed {
			continue
		}
		for j := range found {
			if k.n > found[j].n {
				found[j], k = k, found[j]
			}
		}
	}
	return found
}

// tracker follows shifts through the new image (Viterbi): at each byte it knows for each
// of them, and for literals, what the cheapest way costs that ends there.
type tracker struct {
	c     alignCosts
	cost  [tracks + 1]int32 // 0 is for literals
	shift [tracks + 1]int   // at - from
	best  int
	// The way back, by byte: the cheapest track, its shift, and which tracks were
	// entered there from the cheapest before.
	bestTrack []uint8
	bestShift []int32
	entered   []uint16
}

// follow takes up a shift in place of the dearest.
func (t *tracker) follow(shift int) {
	worst := 1
	for s := 1; s <= tracks; s++ {
		if t.cost[s] < never && t.shift[s] == shift {
			return
		}
		if t.cost[s] > t.cost[worst] {
			worst = s
		}
	}
	if worst != t.best {
		t.shift[worst], t.cost[worst] = shift, never-1
	}
}

// step goes on to byte i, which costs literal outside of runs; byteCost is what it costs
// at a place of the old image, negative where there is none.
func (t *tracker) step(i int, literalCost int32, byteCost func(from int) int32) {
	before := t.cost[t.best]
	literal := before
	if t.best != 0 {
		literal += t.c.leave
	}
	var entered uint16
	if t.cost[0] < literal {
		literal = t.cost[0]
	} else {
		entered = 1
	}
	t.cost[0] = literal + literalCost
	best := 0
	for s := 1; s <= tracks; s++ {
		if t.cost[s] >= never {
			continue
		}
		v := t.cost[s]
		if enter := before + t.c.enter; enter < v {
			v = enter
			entered |= 1 << s
		}
		b := byteCost(i - t.shift[s])
		if b < 0 {
			t.cost[s] = never
			continue
		}
		t.cost[s] = v + b
		if t.cost[s] < t.cost[best] {
			best = s
		}
	}
	t.best = best
	t.bestTrack[i], t.bestShift[i], t.entered[i] = uint8(best), int32(t.shift[best]), entered
	if low := t.cost[best]; low > never/4 {
		for s := range t.cost {
			if t.cost[s] < never {
				t.cost[s] -= low
			}
		}
	}
}

// runs goes the cheapest way back.
func (t *tracker) runs() []run {
	n := len(t.bestTrack)
	var back []run
	track, shift, end := t.bestTrack[n-1], t.bestShift[n-1], n
	for i := n - 1; i >= 0; i-- {
		if i > 0 && t.entered[i]>>track&1 == 0 {
			continue
		}
		if track != 0 {
			back = append(back, run{i, i - int(shift), end - i})
		}
		end = i
		if i > 0 {
			track, shift = t.bestTrack[i-1], t.bestShift[i-1]
		}
	}
	// In order, and what touches with one shift as one.
	var runs []run
	for i := len(back) - 1; i >= 0; i-- {
		r := back[i]
		if l := len(runs) - 1; l >= 0 && runs[l].at+runs[l].n == r.at && runs[l].from+runs[l].n == r.from {
			runs[l].n += r.n
			continue
		}
		runs = append(runs, r)
	}
	return runs
}

// align finds the cheapest way to tell new by runs of old. Shifts are sought on masked
// images, which may be the images themselves.
func align(old, new, oldMasked, newMasked []byte, c alignCosts) []run {
	n := len(new)
	if n == 0 || len(old) < seed {
		return nil
	}
	places := newSeeds(oldMasked)
	t := tracker{c: c, bestTrack: make([]uint8, n), bestShift: make([]int32, n), entered: make([]uint16, n)}
	for s := 1; s <= tracks; s++ {
		t.cost[s] = never
	}
	quiet := 0
	from, to := 0, 0 // the stretch that repeats itself, the latest
	for i := range n {
		if i >= to {
			for from, to = i, i; to < n && to >= period && new[to] == new[to-period]; {
				to++
			}
			to = max(to, i+1)
		}
		// What repeats itself is one copy: it must not look dear beside a run.
		literal := c.literal
		if to-from >= repeated {
			literal = c.hit / 2
		}
		if i+seed <= n && quiet < quietRun {
			for _, f := range places.best(oldMasked, newMasked[i:]) {
				if f.n > 0 {
					t.follow(i - f.at)
				}
			}
		}
		b, m := new[i], newMasked[i]
		was := t.best
		t.step(i, literal, func(from int) int32 {
			switch {
			case from < 0 || from >= len(old):
				return -1
			case old[from] == b:
				return c.hit
			case oldMasked[from] == m:
				return c.soft
			}
			return c.miss
		})
		quiet++
		if from := i - t.shift[t.best]; t.best == 0 || t.best != was || old[from] != b {
			quiet = 0
		}
	}
	return t.runs()
}
