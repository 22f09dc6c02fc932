package ed25519

// reduceOrder puts n modulo L into out: 16 words, the lowest first. The upper 252
// bits are below L; the others follow bit by bit, 260 times. That is slow, but a
// fiftieth of the verification, and small.
func reduceOrder(out *element, n *[16]uint32) {
	for i := range out {
		high := uint32(0)
		if i < 7 {
			high = n[i+9]
		}
		out[i] = n[i+8]>>4 | high<<28
	}
	var t, l element
	l.constant(order)
	for i := 259; i >= 0; i-- {
		plus(out, out, out)
		out[0] |= n[i>>5&15] >> (i & 31) & 1
		if minus(&t, out, &l) == 0 {
			copy(out[:], t[:])
		}
	}
}

const (
	window    = 4                 // bits: five would save 17 additions of 101, for twice the table
	tableSize = 1 << (window - 2) // odd multiples of a point
	topBit    = 253               // of a recoded scalar, which is below 2^253
)

// digits recodes a scalar n, from the highest bit down: digits are odd, at most 7
// either way, and on average every fifth bit has one. They are windows of 2n-n,
// subtracted bit by bit without a carry (Okeya, Schmidt-Samoa, Spahn, Takagi:
// Signed binary representations revisited), so that nothing has to be stored, as
// a recoding from the lowest bit up would.
type digits struct {
	n     element
	digit int8
	at    int16 // bit that has it
	below int16 // bits from this one down are in no window yet
}

func (d *digits) begin() { d.at, d.below = topBit+1, topBit }

// bits are those of n from bit i up, of which there are zeros below bit 0.
func (d *digits) bits(i, count int) int8 {
	v := int8(0)
	for count--; count >= 0; count-- {
		j := i + count
		v <<= 1
		if j >= 0 {
			v |= int8(d.n[j>>5&7] >> (j & 31) & 1)
		}
	}
	return v
}

// next is the digit at bit i, mostly 0. Call it for every bit from topBit down.
func (d *digits) next(i int) int8 {
	if i <= int(d.below) && d.bits(i, 1) != d.bits(i-1, 1) {
		low := i - window + 1
		d.digit = d.bits(low-1, window) - d.bits(low, window)
		d.below = int16(low - 1)
		for d.digit&1 == 0 {
			d.digit >>= 1
			low++
		}
		d.at = int16(low)
	}
	if i != int(d.at) {
		return 0
	}
	return d.digit
}
