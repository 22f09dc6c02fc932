package delta

// rangeEncoder is the other end of core/patch's coder: LZMA's, with probabilities of
// 16 bits and without the first byte, which is always 0.
type rangeEncoder struct {
	out     []byte
	low     uint64
	width   uint32
	cache   byte
	pending int // bytes that a carry may still change, cache included
	first   bool
}

func (r *rangeEncoder) begin() {
	r.low, r.width, r.cache, r.pending, r.first = 0, 1<<32-1, 0, 1, true
}

func (r *rangeEncoder) bit(p, bit uint32) {
	bound := (r.width >> 16) * p
	if bit != 0 {
		r.width = bound
	} else {
		r.low += uint64(bound)
		r.width -= bound
	}
	for r.width < 1<<24 {
		r.shift()
		r.width <<= 8
	}
}

func (r *rangeEncoder) shift() {
	if r.low < 0xFF000000 || r.low >= 1<<32 {
		carry := byte(r.low >> 32)
		b := r.cache
		for ; r.pending > 0; r.pending-- {
			if !r.first {
				r.out = append(r.out, b+carry)
			}
			r.first = false
			b = 0xFF
		}
		r.cache = byte(r.low >> 24)
	}
	r.pending++
	r.low = r.low << 8 & 0xFFFFFFFF
}

// end finishes a block. The decoder reads as many bytes behind its last decision as it
// read before its first, so that the next block begins at a byte; only at the end of
// all they may be left out where they are zeros.
func (r *rangeEncoder) end(last bool) {
	if last {
		// The value with the most zeros at its end that is still within the width.
		for _, n := range []uint{24, 16, 8} {
			m := uint64(1)<<n - 1
			if v := (r.low + m) &^ m; v < r.low+uint64(r.width) {
				r.low = v
				break
			}
		}
	}
	for range 5 {
		r.shift()
	}
	if last {
		for n := 0; n < 4 && len(r.out) > 0 && r.out[len(r.out)-1] == 0; n++ {
			r.out = r.out[:len(r.out)-1]
		}
	}
}
