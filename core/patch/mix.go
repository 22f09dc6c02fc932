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

// stretchTable[32(e-1) + m] is 256 ln((65536 - q) / q) for the q whose highest bit is e and
// whose next five bits are m, in their middle.
var stretchTable = [14 * 32]int16{
	2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662, 2662,
	2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558, 2558,
	2484, 2484, 2484, 2484, 2484, 2484, 2484, 2484, 2427, 2427, 2427, 2427, 2427, 2427, 2427, 2427,
	2380, 2380, 2380, 2380, 2380, 2380, 2380, 2380, 2341, 2341, 2341, 2341, 2341, 2341, 2341, 2341,
	2307, 2307, 2307, 2307, 2277, 2277, 2277, 2277, 2250, 2250, 2250, 2250, 2225, 2225, 2225, 2225,
	2203, 2203, 2203, 2203, 2182, 2182, 2182, 2182, 2163, 2163, 2163, 2163, 2146, 2146, 2146, 2146,
	2129, 2129, 2114, 2114, 2099, 2099, 2085, 2085, 2072, 2072, 2060, 2060, 2048, 2048, 2036, 2036,
	2025, 2025, 2015, 2015, 2005, 2005, 1995, 1995, 1986, 1986, 1977, 1977, 1968, 1968, 1960, 1960,
	1952, 1944, 1936, 1929, 1922, 1915, 1908, 1901, 1895, 1888, 1882, 1876, 1870, 1864, 1859, 1853,
	1848, 1843, 1837, 1832, 1827, 1823, 1818, 1813, 1808, 1804, 1799, 1795, 1791, 1787, 1782, 1778,
	1770, 1762, 1755, 1748, 1740, 1734, 1727, 1720, 1714, 1708, 1701, 1696, 1690, 1684, 1678, 1673,
	1668, 1662, 1657, 1652, 1647, 1642, 1638, 1633, 1628, 1624, 1620, 1615, 1611, 1607, 1603, 1599,
	1593, 1585, 1577, 1570, 1563, 1556, 1549, 1542, 1536, 1530, 1524, 1518, 1512, 1506, 1501, 1495,
	1490, 1485, 1479, 1474, 1469, 1465, 1460, 1455, 1451, 1446, 1442, 1437, 1433, 1429, 1425, 1421,
	1415, 1407, 1399, 1392, 1385, 1378, 1371, 1364, 1358, 1352, 1346, 1340, 1334, 1328, 1322, 1317,
	1312, 1306, 1301, 1296, 1291, 1286, 1282, 1277, 1272, 1268, 1263, 1259, 1255, 1250, 1246, 1242,
	1236, 1228, 1221, 1213, 1206, 1199, 1192, 1186, 1179, 1173, 1167, 1161, 1155, 1149, 1144, 1138,
	1133, 1127, 1122, 1117, 1112, 1107, 1102, 1098, 1093, 1088, 1084, 1080, 1075, 1071, 1067, 1063,
	1057, 1049, 1041, 1034, 1026, 1019, 1012, 1006, 999, 993, 987, 981, 975, 969, 963, 958,
	952, 947, 941, 936, 931, 926, 921, 917, 912, 907, 903, 898, 894, 890, 885, 881,
	875, 867, 859, 852, 844, 837, 830, 823, 817, 810, 804, 798, 791, 785, 780, 774,
	768, 763, 757, 752, 747, 742, 737, 732, 727, 722, 718, 713, 709, 704, 700, 695,
	689, 681, 673, 665, 657, 650, 642, 635, 628, 622, 615, 608, 602, 596, 590, 584,
	578, 572, 566, 561, 555, 550, 545, 539, 534, 529, 524, 519, 515, 510, 505, 500,
	494, 485, 476, 468, 459, 451, 443, 436, 428, 421, 413, 406, 399, 392, 385, 379,
	372, 366, 359, 353, 347, 341, 335, 329, 323, 317, 311, 306, 300, 295, 289, 284,
	276, 265, 255, 245, 235, 226, 216, 207, 197, 188, 179, 170, 161, 152, 144, 135,
	127, 118, 110, 101, 93, 85, 77, 68, 60, 52, 44, 36, 28, 20, 12, 4,
}

// stretch is ln(p/(1-p)) in 1/256; p is a counter's, 2 to 65,534 of 65,536.
func stretch(p uint32) int32 {
	q := p
	if p >= 1<<15 {
		q = 1<<probBits - p
	}
	e := uint32(bits.Len32(q)) - 1
	v := int32(stretchTable[(e-2)<<5+q<<5>>e])
	if p < 1<<15 {
		return -v
	}
	return v
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
	for i := range ix {
		c := &a.words[ix[i]]
		*c = counterMove(*c, limit, bit)
	}
	// An x is below 2,663: no weight moves for an error this small, as most are in runs.
	err := int32(bit<<probBits) - int32(p)
	if least := int32(1) << (rate - 2); err > -least && err < least {
		return bit
	}
	// x is in 1/256, err in 1/65536, a weight in 1/8192: 2^11 is a rate of 1.
	half := int32(1) << (10 + rate)
	for i := range ws {
		v := int32(ws[i]) + (x[i]*err+half)>>(11+rate)
		if v > 32767 {
			v = 32767
		} else if v < -32768 {
			v = -32768
		}
		ws[i] = int16(v)
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
