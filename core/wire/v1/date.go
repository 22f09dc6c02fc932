package v1

// isoDate reads "2006-01-02T15:04:05" as it arrives; what stands behind the
// seconds (fraction, zone) is not looked at: stamps are compared, not shown.
type isoDate struct {
	part [6]uint16 // year, month, day, hour, minute, second
	bad  bool
	n    uint8
}

// datePattern: digits count into the part of their column, others must match.
const datePattern = "0000-11-22T33:44:55"

func (d *isoDate) char(n uint32, c byte) {
	if n >= uint32(len(datePattern)) {
		return
	}
	p := datePattern[n]
	if p >= '0' && p <= '5' {
		if c < '0' || c > '9' {
			d.bad = true
			return
		}
		d.part[p-'0'] = d.part[p-'0']*10 + uint16(c-'0')
	} else if c != p && !(p == 'T' && c == ' ') {
		d.bad = true
	}
	d.n++
}

// unix is the date as Unix seconds, 0 where it is none or outside 1970 to 2105.
func (d *isoDate) unix() uint32 {
	y, m, day := int32(d.part[0]), int32(d.part[1]), int32(d.part[2])
	if d.bad || int(d.n) != len(datePattern) || y < 1970 || y > 2105 || m < 1 || m > 12 || day < 1 || day > 31 ||
		d.part[3] > 23 || d.part[4] > 59 || d.part[5] > 60 {
		return 0
	}
	// Days from civil: years begin in March, so that leap days come last.
	if m <= 2 {
		y--
		m += 12
	}
	days := 365*y + y/4 - y/100 + y/400 + (153*(m-3)+2)/5 + day - 1 - 719468
	return uint32(days)*86400 + uint32(d.part[3])*3600 + uint32(d.part[4])*60 + uint32(d.part[5])
}
