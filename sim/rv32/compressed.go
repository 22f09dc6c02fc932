package rv32

import "fmt"

// Expand gives the 32-bit instruction that a compressed one stands for ('"C"
// Extension for Compressed Instructions', "RVC Instruction Set Listings"). HINTs
// come out as instructions that change nothing; reserved code points, those of
// RV64 and those of floating point are illegal.
func Expand(h uint16) (uint32, error) {
	w := uint32(h)
	var x uint32
	switch w & 3 {
	case 0:
		x = quadrant0(w)
	case 1:
		x = quadrant1(w)
	case 2:
		x = quadrant2(w)
	}
	if x == 0 { // the all-zero word is defined to be illegal
		return 0, fmt.Errorf("%w: 0x%04x", ErrIllegal, h)
	}
	return x, nil
}

// bits takes w's bits from hi down to lo and puts them at position to.
func bits(w uint32, hi, lo, to uint) uint32 {
	return w >> lo & (1<<(hi-lo+1) - 1) << to
}

// signed extends a value whose sign is in bit n.
func signed(v uint32, n uint) uint32 {
	return uint32(int32(v<<(31-n)) >> (31 - n))
}

// Registers: the wide fields, and the narrow ones that reach x8 to x15.
func regWide(w uint32) uint32 { return bits(w, 11, 7, 0) }
func regLow(w uint32) uint32  { return bits(w, 6, 2, 0) }
func reg9(w uint32) uint32    { return 8 + bits(w, 9, 7, 0) }
func reg4(w uint32) uint32    { return 8 + bits(w, 4, 2, 0) }

// Instructions of each format, "Base Instruction Formats".

func typeR(f7, f3, rd, rs1, rs2 uint32) uint32 {
	return f7<<25 | rs2<<20 | rs1<<15 | f3<<12 | rd<<7 | opReg
}

func typeI(op, f3, rd, rs1, imm uint32) uint32 {
	return imm<<20 | rs1<<15 | f3<<12 | rd<<7 | op
}

func typeS(f3, rs1, rs2, imm uint32) uint32 {
	return imm>>5<<25 | rs2<<20 | rs1<<15 | f3<<12 | imm&31<<7 | opStore
}

func typeB(f3, rs1, rs2, imm uint32) uint32 {
	return bits(imm, 12, 12, 31) | bits(imm, 10, 5, 25) | rs2<<20 | rs1<<15 | f3<<12 |
		bits(imm, 4, 1, 8) | bits(imm, 11, 11, 7) | opBranch
}

func typeJ(rd, imm uint32) uint32 {
	return bits(imm, 20, 20, 31) | bits(imm, 10, 1, 21) | bits(imm, 11, 11, 20) |
		bits(imm, 19, 12, 12) | rd<<7 | opJAL
}

// imm6 is the signed immediate of C.ADDI, C.LI and C.ANDI; unsigned and below 32 it
// is a shift amount.
func imm6(w uint32) uint32 { return signed(bits(w, 12, 12, 5)|bits(w, 6, 2, 0), 5) }

func immCJ(w uint32) uint32 {
	return signed(bits(w, 12, 12, 11)|bits(w, 11, 11, 4)|bits(w, 10, 9, 8)|bits(w, 8, 8, 10)|
		bits(w, 7, 7, 6)|bits(w, 6, 6, 7)|bits(w, 5, 3, 1)|bits(w, 2, 2, 5), 11)
}

func immCB(w uint32) uint32 {
	return signed(bits(w, 12, 12, 8)|bits(w, 11, 10, 3)|bits(w, 6, 5, 6)|bits(w, 4, 3, 1)|bits(w, 2, 2, 5), 8)
}

// immCL is the offset of C.LW and C.SW.
func immCL(w uint32) uint32 { return bits(w, 12, 10, 3) | bits(w, 6, 6, 2) | bits(w, 5, 5, 6) }

// The quadrants return 0 for what is illegal.

func quadrant0(w uint32) uint32 {
	switch w >> 13 {
	case 0: // C.ADDI4SPN
		imm := bits(w, 12, 11, 4) | bits(w, 10, 7, 6) | bits(w, 6, 6, 2) | bits(w, 5, 5, 3)
		if imm == 0 {
			return 0
		}
		return typeI(opImm, 0, reg4(w), SP, imm)
	case 2: // C.LW
		return typeI(opLoad, 2, reg4(w), reg9(w), immCL(w))
	case 6: // C.SW
		return typeS(2, reg9(w), reg4(w), immCL(w))
	}
	return 0
}

func quadrant1(w uint32) uint32 {
	rd := regWide(w)
	switch w >> 13 {
	case 0: // C.ADDI; C.NOP with x0
		return typeI(opImm, 0, rd, rd, imm6(w))
	case 1: // C.JAL, on RV32 only
		return typeJ(RA, immCJ(w))
	case 2: // C.LI
		return typeI(opImm, 0, rd, 0, imm6(w))
	case 3:
		if imm6(w) == 0 {
			return 0
		}
		if rd == SP { // C.ADDI16SP
			imm := bits(w, 12, 12, 9) | bits(w, 6, 6, 4) | bits(w, 5, 5, 6) | bits(w, 4, 3, 7) | bits(w, 2, 2, 5)
			return typeI(opImm, 0, SP, SP, signed(imm, 9))
		}
		return imm6(w)<<12 | rd<<7 | opLUI // C.LUI
	case 4:
		return quadrant1ALU(w)
	case 5: // C.J
		return typeJ(0, immCJ(w))
	case 6: // C.BEQZ
		return typeB(0, reg9(w), 0, immCB(w))
	}
	return typeB(1, reg9(w), 0, immCB(w)) // C.BNEZ
}

func quadrant1ALU(w uint32) uint32 {
	rd, rs2, high := reg9(w), reg4(w), w>>12&1 == 1
	switch w >> 10 & 3 {
	case 0, 1: // C.SRLI, C.SRAI: a shift of 32 and more is for custom extensions
		if high {
			return 0
		}
		return typeI(opImm, 5, rd, rd, bits(w, 10, 10, 10)|bits(w, 6, 2, 0))
	case 2: // C.ANDI
		return typeI(opImm, 7, rd, rd, imm6(w))
	}
	if high { // C.SUBW and C.ADDW of RV64, and reserved ones
		return 0
	}
	switch w >> 5 & 3 {
	case 0: // C.SUB
		return typeR(0x20, 0, rd, rd, rs2)
	case 1: // C.XOR
		return typeR(0, 4, rd, rd, rs2)
	case 2: // C.OR
		return typeR(0, 6, rd, rd, rs2)
	}
	return typeR(0, 7, rd, rd, rs2) // C.AND
}

func quadrant2(w uint32) uint32 {
	rd, rs2, high := regWide(w), regLow(w), w>>12&1 == 1
	switch w >> 13 {
	case 0: // C.SLLI
		if high {
			return 0
		}
		return typeI(opImm, 1, rd, rd, rs2)
	case 2: // C.LWSP
		if rd == 0 {
			return 0
		}
		return typeI(opLoad, 2, rd, SP, bits(w, 12, 12, 5)|bits(w, 6, 4, 2)|bits(w, 3, 2, 6))
	case 4:
		switch {
		case !high && rs2 != 0: // C.MV
			return typeR(0, 0, rd, 0, rs2)
		case rs2 != 0: // C.ADD
			return typeR(0, 0, rd, rd, rs2)
		case high && rd == 0: // C.EBREAK
			return 0x00100073
		case high: // C.JALR
			return typeI(opJALR, 0, RA, rd, 0)
		case rd != 0: // C.JR
			return typeI(opJALR, 0, 0, rd, 0)
		}
	case 6: // C.SWSP
		return typeS(2, SP, rs2, bits(w, 12, 9, 2)|bits(w, 8, 7, 6))
	}
	return 0
}
