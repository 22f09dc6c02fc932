package cbor

// MaxDepth is how deep maps and arrays may nest: a bound on the reader's state,
// which is not recursive (docs/format/encoding.md).
const MaxDepth = 4

// Map keys are integers from minKey to maxKey: an argument of 16 bits at most,
// an int on every chip.
const (
	minKey = -1 << 16
	maxKey = 1<<16 - 1
)

// nest knows where in an object the next item stands. Reader and Writer share
// it, so that nothing is written that would not be read.
//
//	N1 left[d] counts the items to come in the open map or array at depth d; a
//	   pair of a map is two, so that a key is due exactly while it is even
//	N2 no open map or array has left 0: what ends is closed at once, and counts
//	   as an item of the one around it
type nest struct {
	left  [MaxDepth]uint32
	least [MaxDepth]uint32 // the rank that the next key must have at least
	depth uint8
	maps  uint8 // bit d: a map is open at depth d, else an array
	done  bool  // the outermost item is complete
}

// keyDue: the next item is the key of a map.
func (n *nest) keyDue() bool {
	d := n.depth
	return d > 0 && n.maps>>(d-1)&1 != 0 && n.left[d-1]&1 == 0
}

// valueDue: the next item is a value: of a map, of an array, or the outermost.
func (n *nest) valueDue() bool { return !n.done && !n.keyDue() }

// key takes a key; valueDue after it.
func (n *nest) key(k int) Error {
	if !n.keyDue() {
		return ErrUse
	}
	r := rank(k)
	if r < n.least[n.depth-1] {
		return ErrOrder
	}
	n.least[n.depth-1] = r + 1
	n.left[n.depth-1]--
	return 0
}

// rank orders keys as their encodings order bytewise (RFC 8949, 4.2.1): 0, 1,
// 2 and so on, then -1, -2 and so on.
func rank(k int) uint32 {
	if k < 0 {
		return uint32(maxKey - k)
	}
	return uint32(k)
}

// open begins a map (of items/2 pairs) or an array.
func (n *nest) open(isMap bool, items uint32) Error {
	if n.depth == MaxDepth {
		return ErrDepth
	}
	if items == 0 {
		n.close()
		return 0
	}
	d := n.depth
	n.left[d], n.least[d] = items, 0
	n.maps &^= 1 << d
	if isMap {
		n.maps |= 1 << d
	}
	n.depth++
	return 0
}

// close counts a complete item, and what is complete with it.
func (n *nest) close() {
	for n.depth > 0 {
		n.left[n.depth-1]--
		if n.left[n.depth-1] > 0 {
			return
		}
		n.depth--
	}
	n.done = true
}

// validText reports whether p is UTF-8 as RFC 3629 has it: shortest forms, no
// surrogates, nothing above U+10FFFF. unicode/utf8 is not for core.
func validText(p []byte) bool {
	for len(p) > 0 {
		b := p[0]
		if b < 0x80 {
			p = p[1:]
			continue
		}
		// The range of the second byte excludes what the first one alone allows.
		n, lo, hi := 0, byte(0x80), byte(0xBF)
		switch {
		case b >= 0xC2 && b <= 0xDF:
			n = 2
		case b >= 0xE0 && b <= 0xEF:
			n = 3
			if b == 0xE0 {
				lo = 0xA0
			} else if b == 0xED {
				hi = 0x9F
			}
		case b >= 0xF0 && b <= 0xF4:
			n = 4
			if b == 0xF0 {
				lo = 0x90
			} else if b == 0xF4 {
				hi = 0x8F
			}
		}
		if n == 0 || len(p) < n || p[1] < lo || p[1] > hi {
			return false
		}
		for _, c := range p[2:n] {
			if c&0xC0 != 0x80 {
				return false
			}
		}
		p = p[n:]
	}
	return true
}
