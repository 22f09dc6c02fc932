package delta

import "github.com/runnel-fota/runnel/core/patch"

// op is a run of the old image and what is inserted behind it, as core/patch codes them
// in turn.
type op struct {
	at     int // in the new image
	from   int // in the old one
	run    int // bytes
	insert []token
	n      int // bytes inserted
}

// gapsOf is what of the new image no run covers: before the first, and behind each.
func gapsOf(runs []run, size int) [][2]int {
	var gaps [][2]int
	at := 0
	for _, r := range runs {
		gaps = append(gaps, [2]int{at, r.at})
		at = r.at + r.n
	}
	return append(gaps, [2]int{at, size})
}

// plan turns runs and the gaps between them into operations.
func (f *finder) plan(runs []run, gaps [][2]int) []op {
	f.forget()
	var ops []op
	if g := gaps[0]; g[1] > g[0] {
		ops = append(ops, op{insert: f.parse(0, g[1], 0), n: g[1]})
	}
	for i, r := range runs {
		g := gaps[i+1]
		o := op{at: r.at, from: r.from, run: r.n, n: g[1] - g[0]}
		if o.n > 0 {
			o.insert = f.parse(g[0], o.n, r.from+r.n)
		}
		ops = append(ops, o)
	}
	return ops
}

// rest is what of o is left from pos on, which is inside of it.
func (o op) rest(pos int) op {
	if skip := pos - o.at; skip < o.run {
		o.at, o.from, o.run = pos, o.from+skip, o.run-skip
		return o
	}
	at := o.at + o.run
	r := op{at: pos, n: at + o.n - pos}
	for i, t := range o.insert {
		if at+int(t.n) <= pos {
			at += int(t.n)
			continue
		}
		skip := int32(pos - at)
		t.from += skip
		t.n -= skip
		if t.n < patch.MinCopy {
			t = token{n: 1}
		}
		r.insert = append([]token{t}, o.insert[i+1:]...)
		break
	}
	return r
}
