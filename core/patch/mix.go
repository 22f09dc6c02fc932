package patch

import "math/bits"

// Counters are 16 bits: a probability of a 1 in the upper 14, and in the lower two
// how often it was seen, up to 3: a young one moves faster.
const counterStart = 1 << 15

// Limits: how far a counter moves that was seen often, as a power of two, and rates:
// how slowly weights learn. Tuned on real images (docs/design/patches.md).
const (
	fastLimit  = 4 // runs: what happens changes from place to place
	slowLimit  = 5
	flagRate   = 7
	deltaRate  = 5
	commonRate = 6
)

func counterP(t uint16) uint32 {
	return uint32(t&^3) + 2
}

func counterMove(t uint16, limit uint, bit uint32) uint16 {
	n := t & 3
	p := t &^ 3
	rate := uint(n) + 1
	if n == 3 {
		rate = limit
	} else {
		n++
	}
	if bit != 0 {
		p += (0xFFFF - p) >> rate
	} else {
		p -= p >> rate
	}
	return p&^3 | n
}

// lnTable[i] is ln(1 + (i+0.5)/64) in 1/16384.
var lnTable = [64]uint16{
	128, 380, 628, 872, 1113, 1351, 1585, 1816, 2043, 2268, 2489, 2707, 2923, 3136, 3346, 3553,
	3758, 3960, 4160, 4358, 4553, 4745, 4936, 5124, 5310, 5494, 5677, 5857, 6035, 6211, 6385, 6558,
	6728, 6897, 7064, 7230, 7394, 7556, 7717, 7876, 8033, 8189, 8344, 8497, 8649, 8799, 8948, 9095,
	9242, 9387, 9530, 9673, 9814, 9954, 10093, 10231, 10367, 10503, 10637, 10770, 10902, 11033, 11163, 11292,
}

// ln is the natural logarithm of v, 1..65536, in 1/16384.
func ln(v uint32) int32 {
	e := uint(bits.Len32(v)) - 1
	m := v << (16 - e) & 0xFFFF
	return int32(e)*11357 + int32(lnTable[m>>10])
}

// stretch is ln(p/(1-p)) in 1/256; p in 1..65535 of 65536.
func stretch(p uint32) int32 {
	return (ln(p) - ln(1<<probBits-p)) >> 6
}

// squashTable[i] is 2^22 / (1 + e^(i/8)).
var squashTable = [97]uint32{
	2097152, 1966250, 1836365, 1708480, 1583520, 1462324, 1345622, 1234027, 1128022, 1027961, 934072, 846466,
	765148, 690032, 620955, 557692, 499973, 447493, 399925, 356931, 318172, 283311, 252022, 223990,
	198919, 176529, 156560, 138773, 122944, 108873, 96374, 85280, 75440, 66716, 58987, 52142,
	46083, 40720, 35977, 31781, 28072, 24793, 21895, 19334, 17071, 15073, 13307, 11748,
	10371, 9155, 8081, 7133, 6296, 5558, 4905, 4329, 3821, 3373, 2977, 2627,
	2319, 2046, 1806, 1594, 1407, 1241, 1096, 967, 853, 753, 665, 586,
	518, 457, 403, 356, 314, 277, 244, 216, 190, 168, 148, 131,
	115, 102, 90, 79, 70, 62, 55, 48, 42, 37, 33, 29,
	26,
}

// squashMax is where squash ends, in 1/256.
const squashMax = 12*256 - 1

// squash is 1/(1+e^-x), x in 1/256, as 1..65535 of 65536.
func squash(x int32) uint32 {
	neg := x < 0
	if neg {
		x = -x
	}
	if x > squashMax {
		x = squashMax
	}
	i, f := uint32(x)>>5, uint32(x)&31
	// The tail of the curve: of 1 - p.
	q := (squashTable[i]*(32-f) + squashTable[i+1]*f) >> 11
	if q == 0 {
		q = 1
	}
	if neg {
		return q
	}
	return 1<<probBits - q
}

// weightOne is a weight of 1.
const weightOne = 1 << 13

// mix codes one decision: the first n counters of a.ix, weighed by weights w..w+n-1.
// rate is how slowly the weights learn, as a power of two.
func (a *Applier) mix(n int, w int, rate, limit uint, want uint32) uint32 {
	var x [maxInputs]int32
	dot := int32(0)
	ws := a.weights[w : w+n]
	ix := a.ix[:n]
	for i := range ix {
		s := stretch(counterP(a.words[ix[i]]))
		x[i] = s
		dot += int32(ws[i]) * s
	}
	p := squash(dot >> 13)
	bit := a.bit(p, want)
	err := int32(bit<<probBits) - int32(p)
	// x is in 1/256, err in 1/65536, a weight in 1/8192: 2^11 is a rate of 1.
	half := int32(1) << (10 + rate)
	for i := range ix {
		d := (x[i]*err + half) >> (11 + rate)
		v := int32(ws[i]) + d
		if v > 32767 {
			v = 32767
		} else if v < -32768 {
			v = -32768
		}
		ws[i] = int16(v)
		c := &a.words[ix[i]]
		*c = counterMove(*c, limit, bit)
	}
	return bit
}

// direct codes one decision by one counter alone.
func (a *Applier) direct(i int, want uint32) uint32 {
	c := &a.words[i]
	bit := a.bit(counterP(*c), want)
	*c = counterMove(*c, slowLimit, bit)
	return bit
}
