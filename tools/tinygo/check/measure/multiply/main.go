// Command multiply counts what a product of two numbers of 256 bits costs on an
// emulated Cortex-M0, in the ways that core/ed25519 could have taken, before its
// reduction modulo 2^255-19. All of them must come to the same product.
package main

import "github.com/runnel-fota/runnel/tools/tinygo/check/board"

type product [16]uint32

var (
	a, b    [8]uint32
	results [4]product

	// Limbs of the other ways.
	shortA, shortB, shortOut [32]uint16
	longA, longB             [10]uint32
	longOut                  [20]uint64
)

func main() {
	for i := range a {
		a[i], b[i] = 0xFFFFFFFF-uint32(i)*0x12345678, 0x9E3779B9*uint32(i+1)
	}
	for i := range 16 {
		shortA[i], shortB[i] = uint16(a[i/2]>>(i%2*16)), uint16(b[i/2]>>(i%2*16))
	}
	for i := range longA {
		longA[i], longB[i] = limb(&a, i), limb(&b, i)
	}
	board.StartClock()
	start := board.Instructions()
	looking := board.Instructions() - start
	for i, way := range []struct {
		name string
		mul  func(*product)
	}{
		{"words, written out", writtenOut},
		{"words, in a loop", inLoop},
		{"limbs of 16 bits", short},
		{"limbs of 26 bits, by __aeabi_lmul", long},
	} {
		start = board.Instructions()
		way.mul(&results[i])
		board.Print(way.name, board.Instructions()-start-looking)
	}
	for i := range shortOut {
		results[2][i/2] |= uint32(shortOut[i]) << (i % 2 * 16)
	}
	collect(&results[3])
	for i := range results {
		for j := range results[i] {
			if results[i][j] != results[0][j] {
				panic("the products differ")
			}
		}
	}
}

// limb is 26 bits of n.
func limb(n *[8]uint32, i int) uint32 {
	v := uint32(0)
	for bit := 25; bit >= 0; bit-- {
		v <<= 1
		if at := 26*i + bit; at < 256 {
			v |= n[at/32] >> (at % 32) & 1
		}
	}
	return v
}

// writtenOut is core/ed25519's.
func writtenOut(t *product) {
	for i := range b {
		t[i+8] = row((*[8]uint32)(t[i:i+8]), &a, b[i])
	}
}

//go:noinline
func row(t, a *[8]uint32, m uint32) (carry uint32) {
	ml, mh := m&0xFFFF, m>>16
	var l, h, low, mid, mid2 uint32
	var s uint64
	l, h = a[0]&0xFFFF, a[0]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[0]) + uint64(carry)
	t[0], carry = uint32(s), uint32(s>>32)
	l, h = a[1]&0xFFFF, a[1]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[1]) + uint64(carry)
	t[1], carry = uint32(s), uint32(s>>32)
	l, h = a[2]&0xFFFF, a[2]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[2]) + uint64(carry)
	t[2], carry = uint32(s), uint32(s>>32)
	l, h = a[3]&0xFFFF, a[3]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[3]) + uint64(carry)
	t[3], carry = uint32(s), uint32(s>>32)
	l, h = a[4]&0xFFFF, a[4]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[4]) + uint64(carry)
	t[4], carry = uint32(s), uint32(s>>32)
	l, h = a[5]&0xFFFF, a[5]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[5]) + uint64(carry)
	t[5], carry = uint32(s), uint32(s>>32)
	l, h = a[6]&0xFFFF, a[6]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[6]) + uint64(carry)
	t[6], carry = uint32(s), uint32(s>>32)
	l, h = a[7]&0xFFFF, a[7]>>16
	low = l * ml
	mid = h*ml + low>>16
	mid2 = l*mh + mid&0xFFFF
	s = uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
	s += uint64(t[7]) + uint64(carry)
	t[7], carry = uint32(s), uint32(s>>32)
	return carry
}

func inLoop(t *product) {
	for i := range b {
		t[i+8] = loopRow((*[8]uint32)(t[i:i+8]), &a, b[i])
	}
}

//go:noinline
func loopRow(t, a *[8]uint32, m uint32) (carry uint32) {
	ml, mh := m&0xFFFF, m>>16
	for i := range t {
		l, h := a[i]&0xFFFF, a[i]>>16
		low := l * ml
		mid := h*ml + low>>16
		mid2 := l*mh + mid&0xFFFF
		s := uint64(h*mh+mid>>16+mid2>>16)<<32 | uint64(low&0xFFFF|mid2<<16)
		s += uint64(t[i]) + uint64(carry)
		t[i], carry = uint32(s), uint32(s>>32)
	}
	return carry
}

// short adds up columns: 256 products.
func short(*product) {
	var s uint64
	for k := range 31 {
		from, to := max(0, k-15), min(k, 15)
		x, y := shortA[from:to+1], shortB[k-to:]
		for i := range x {
			s += uint64(uint32(x[i]) * uint32(y[len(x)-1-i]))
		}
		shortOut[k] = uint16(s)
		s >>= 16
	}
	shortOut[31] = uint16(s)
}

// long adds up columns of 100 products of 52 bits, for which the compiler calls
// the 64-bit multiplication.
func long(*product) {
	for i, m := range longB {
		out := longOut[i : i+10]
		for j := range out {
			out[j] += uint64(m) * uint64(longA[j])
		}
	}
}

// collect carries long's columns.
func collect(t *product) {
	var s uint64
	at := 0
	for i := range 20 {
		s += longOut[i]
		word := uint32(s) & (1<<26 - 1)
		s >>= 26
		for bit := range 26 {
			if at < 512 {
				t[at/32] |= word >> bit & 1 << (at % 32)
			}
			at++
		}
	}
}
