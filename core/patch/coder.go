package patch

// The range coder: LZMA's, with probabilities of 16 bits. One decision takes at
// most two bytes of input, and a block of decisions ends at a byte.

// probBits is the precision of a probability; 1 << probBits is certainty.
const probBits = 16

// minRange is where the coder takes another byte.
const minRange = 1 << 24

// coderLead is how many bytes the coder reads before its first decision.
const coderLead = 4

// input is what is left of what Feed was handed, and the coder's state on it.
type input struct {
	code, width uint32
	over        uint32 // bytes that were wanted behind the end
	r, w        uint8  // buf[r:w] is unread
	ended       bool
	buf         [inputSize]byte
}

// inputSize is what the applier holds of its input. unitInput is what one unit of
// work takes at most: a number of 63 decisions, or a byte and its flags.
const (
	inputSize = 192
	unitInput = 136
)

func (in *input) fill(p []byte) int {
	if in.r > 0 {
		copy(in.buf[:], in.buf[in.r:in.w])
		in.w -= in.r
		in.r = 0
	}
	n := copy(in.buf[in.w:], p)
	in.w += uint8(n)
	return n
}

func (in *input) next() uint32 {
	if in.r == in.w {
		in.over++ // only behind the end: Step waits until it has a unit's input
		return 0
	}
	b := in.buf[in.r]
	in.r++
	return uint32(b)
}

func (in *input) begin() {
	in.width = 1<<32 - 1
	in.code = 0
	for i := 0; i < coderLead; i++ {
		in.code = in.code<<8 | in.next()
	}
}

// bit codes one decision; p is the probability of a 1. want is the decision where an
// Encoder drives, else it is not looked at.
func (a *Applier) bit(p, want uint32) uint32 {
	if a.enc != nil {
		a.enc.Bit(p, want)
		return want
	}
	in := &a.in
	bound := (in.width >> probBits) * p
	bit := uint32(0)
	if in.code < bound {
		in.width = bound
		bit = 1
	} else {
		in.code -= bound
		in.width -= bound
	}
	for in.width < minRange {
		in.width <<= 8
		in.code = in.code<<8 | in.next()
	}
	return bit
}
