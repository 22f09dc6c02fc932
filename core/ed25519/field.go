package ed25519

// element is a number modulo p = 2^255-19: eight words, the lowest first, of any
// value below 2^256. Only reduce makes it the one below p.
//
// A Cortex-M0 multiplies 32 by 32 bits to 32. A full word by a full word is four
// such products of halves, added up in registers; limbs of 16 bits need the same
// four with four times the loads, stores and carries, and limbs of 25 or 26 bits
// need a call that does what row does, for fewer bits (docs/design/ed25519.md has
// the figures).
type element [8]uint32

// Constants are words that are copied to where they are needed: a table whose
// address is handed on would be kept in RAM.
var constants = [...]element{
	// d of -x^2 + y^2 = 1 + d x^2 y^2: -121665/121666.
	{0x135978a3, 0x75eb4dca, 0x4141d8ab, 0x00700a4d, 0x7779e898, 0x8cc74079, 0x2b6ffe73, 0x52036cee},
	// 2^((p-1)/4), a square root of -1.
	{0x4a0ea0b0, 0xc4ee1b27, 0xad2fe478, 0x2f431806, 0x3dfbd7a7, 0x2b4d0099, 0x4fc1df0b, 0x2b832480},
	// L = 2^252 + 27742317777372353535851937790883648493, the order of the base point.
	{0x5cf5d3ed, 0x5812631a, 0xa2f79cd6, 0x14def9de, 0, 0, 0, 0x10000000},
}

const (
	curveD = iota
	rootMinusOne
	order
)

func (a *element) constant(c int) {
	for i := range a {
		a[i] = constants[c][i]
	}
}

// plus puts a+b into out and returns the carry. The arguments may be the same.
func plus(out, a, b *element) (carry int32) {
	// As slices of known length they are looked at once, not at every word.
	o, x, y := out[:], a[:], b[:]
	for i := range o {
		s := uint64(x[i]) + uint64(y[i]) + uint64(carry)
		o[i], carry = uint32(s), int32(s>>32)
	}
	return carry
}

// minus puts a-b into out and returns what is carried, 0 or -1. The arguments may
// be the same.
func minus(out, a, b *element) (carry int32) {
	o, x, y := out[:], a[:], b[:]
	for i := range o {
		s := int64(x[i]) - int64(y[i]) + int64(carry)
		o[i], carry = uint32(s), int32(s>>32)
	}
	return carry
}

// wrap adds n times 2^256, which counts 38. n is from -1 to 38.
func wrap(a *element, n int32) {
	n *= 38
	for i := 0; n != 0; i = (i + 1) & 7 {
		s := int64(a[i]) + int64(n)
		a[i], n = uint32(s), int32(s>>32)
		if i == 7 {
			n *= 38
		}
	}
}

func add(out, a, b *element) { wrap(out, plus(out, a, b)) }

func sub(out, a, b *element) { wrap(out, minus(out, a, b)) }

// row adds a*m to t, from the given word on, and returns the carry. A step is
// four products of halves: mid is at most (2^16-1)^2 + 2^16-1 and s at most
// 2^64-1, so that neither overflows. Written out it takes 29 instructions on a
// Cortex-M0, as a loop 35; and a square enters in the middle.
func row(t, a *[8]uint32, m uint32, from int) (carry uint32) {
	ml, mh := m&0xFFFF, m>>16
	var l, h, low, mid, mid2 uint32
	var s uint64
	switch from {
	case 0:
		l, h = a[0]&0xFFFF, a[0]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[0]) + uint64(carry)
		t[0], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 1:
		l, h = a[1]&0xFFFF, a[1]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[1]) + uint64(carry)
		t[1], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 2:
		l, h = a[2]&0xFFFF, a[2]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[2]) + uint64(carry)
		t[2], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 3:
		l, h = a[3]&0xFFFF, a[3]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[3]) + uint64(carry)
		t[3], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 4:
		l, h = a[4]&0xFFFF, a[4]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[4]) + uint64(carry)
		t[4], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 5:
		l, h = a[5]&0xFFFF, a[5]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[5]) + uint64(carry)
		t[5], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 6:
		l, h = a[6]&0xFFFF, a[6]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[6]) + uint64(carry)
		t[6], carry = uint32(s), uint32(s>>32)
		fallthrough
	case 7:
		l, h = a[7]&0xFFFF, a[7]>>16
		low = l * ml
		mid = h*ml + low>>16
		mid2 = l*mh + mid&0xFFFF
		s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[7]) + uint64(carry)
		t[7], carry = uint32(s), uint32(s>>32)
	}
	return carry
}

// mul puts a*b into out. The arguments may be the same.
func mul(out, a, b *element) {
	var t [16]uint32
	for i := range b {
		t[i+8] = row((*[8]uint32)(t[i:i+8]), (*[8]uint32)(a), b[i], 0)
	}
	fold(out, &t)
}

// square puts a*a into out, which may be a. A product of different words counts
// twice: 36 products, not 64.
func square(out, a *element) {
	var t [16]uint32
	for i := 0; i < 7; i++ {
		t[i+8] = row((*[8]uint32)(t[i:i+8]), (*[8]uint32)(a), a[i], i+1)
	}
	var top, carry uint32 // from one pair of words to the next
	for i := range a {
		p := t[2*i : 2*i+2]
		l, h := a[i]&0xFFFF, a[i]>>16
		s := (uint64(h*h)<<32 | uint64(l*l)) + uint64(l*h)<<17 // a[i]^2: no carry
		low := uint64(uint32(s)) + uint64(p[0]<<1|top) + uint64(carry)
		high := s>>32 + uint64(p[1]<<1|p[0]>>31) + low>>32
		top = p[1] >> 31
		p[0], p[1], carry = uint32(low), uint32(high), uint32(high>>32)
	}
	fold(out, &t)
}

// fold brings 16 words back to eight: the upper half counts 2^256, which is 38.
func fold(out *element, t *[16]uint32) {
	const m = 38
	var carry uint32 // at most 38
	o, x, y := out[:], t[:8], t[8:]
	for i := range o {
		s := uint64(x[i]) + uint64(y[i]&0xFFFF*m) + uint64(y[i]>>16*m)<<16 + uint64(carry)
		o[i], carry = uint32(s), uint32(s>>32)
	}
	wrap(out, int32(carry))
}

// reduce makes a the number below p: twice at most.
func reduce(a *element) {
	var b element
	for {
		carry := uint64(19)
		for i, w := range a {
			carry += uint64(w)
			b[i] = uint32(carry)
			carry >>= 32
		}
		if carry == 0 && b[7]>>31 == 0 {
			return
		}
		// a+19 reaches 2^255, so a reaches p. With the carry bit 255 is 0 and
		// stands for 2^256-2^255.
		b[7] ^= 1 << 31
		copy(a[:], b[:])
	}
}

// isZero reduces a.
func isZero(a *element) bool {
	reduce(a)
	var x uint32
	for _, w := range a {
		x |= w
	}
	return x == 0
}

// power puts z^e into out, where e has 250 ones in binary and then the n bits of
// tail. out and z must not be the same.
//
// z^(2^k-1) for k = 1, 3, 7, 15, 31, 62, 125, 250: the bits of 250, where each
// doubles k and a one adds 1. 249 squares and 12 products.
func power(out, z *element, tail uint32, n int) {
	const ones = 250
	var x element
	k := 1
	*out = *z
	for bit := 6; bit >= 0; bit-- {
		x = *out
		for i := 0; i < k; i++ {
			square(out, out)
		}
		mul(out, out, &x)
		if k *= 2; ones>>bit&1 != 0 {
			square(out, out)
			mul(out, out, z)
			k++
		}
	}
	for n--; n >= 0; n-- {
		square(out, out)
		if tail>>n&1 != 0 {
			mul(out, out, z)
		}
	}
}

// invert puts z^(p-2) into out, 1/z: p-2 = 2^255-21 ends in 01011.
func invert(out, z *element) { power(out, z, 0b01011, 5) }

// root puts a square root of u/v into out, and says whether there is one. v must
// not be 0. It uses t, and all of out, u, v, t must be different.
//
// x = u v^3 (u v^7)^((p-5)/8) is one of u/v, or of -u/v, or of neither times a
// root of -1 (RFC 8032, section 5.1.3); (p-5)/8 = 2^252-3 ends in 01.
func root(out, u, v, t *element) bool {
	var w element
	square(t, v)
	mul(t, t, v)  // v^3
	square(&w, t) // v^6
	mul(&w, &w, v)
	mul(&w, &w, u) // u v^7
	power(out, &w, 0b01, 2)
	mul(out, out, t)
	mul(out, out, u)
	square(&w, out)
	mul(&w, &w, v) // u or -u
	sub(t, &w, u)
	if isZero(t) {
		return true
	}
	add(t, &w, u)
	w.constant(rootMinusOne)
	mul(out, out, &w)
	return isZero(t)
}
