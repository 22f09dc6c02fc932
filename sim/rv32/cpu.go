// Package rv32 interprets RISC-V machine code: RV32I with the extensions M
// (multiply and divide) and C (compressed instructions), one hart, without
// privilege levels, interrupts or time. It is there to run functions of real
// firmware in tests.
//
// What the ISA leaves open is refused, not guessed: reserved encodings, misaligned
// accesses and addresses where nothing is mapped end the run with an error.
//
// Section names in comments are those of "The RISC-V Instruction Set Manual,
// Volume I: Unprivileged Architecture", version 20240411.
package rv32

import (
	"errors"
	"fmt"
)

// Why a run ended. Run, Call and Step return them wrapped, with the place.
var (
	ErrIllegal = errors.New("illegal instruction")
	ErrAlign   = errors.New("misaligned access")
	ErrAccess  = errors.New("access to unmapped memory")
	ErrBreak   = errors.New("ebreak")
	ErrCall    = errors.New("ecall: there is no environment to call")
	ErrLimit   = errors.New("too many instructions")
	// ErrStop is for hooks: it ends Run without an error.
	ErrStop = errors.New("stopped")
)

// Bus is what the hart is connected to. Addresses are aligned to size, which is 1,
// 2 or 4 bytes; values are little-endian, in the low bits; Store ignores the others.
type Bus interface {
	Load(addr, size uint32) (uint32, error)
	Store(addr, size, value uint32) error
	// Fetch reads a parcel of an instruction: 16 bits at an even address.
	Fetch(addr uint32) (uint16, error)
}

// Numbers of registers by their names in the calling convention.
const (
	RA = 1
	SP = 2
	A0 = 10
	A1 = 11
	A2 = 12
	A3 = 13
	A4 = 14
	A5 = 15
)

// Hook stands for the function at an address: arguments are in A0 and on, a result
// goes into A0. When it returns nil, the hart goes on at RA.
type Hook func(c *CPU) error

// CPU is a hart. X[0] is zero whenever an instruction begins.
type CPU struct {
	X   [32]uint32
	PC  uint32
	Bus Bus
	// CSR reads a control and status register; nil, or false: there is none. Writing
	// one is an illegal instruction.
	CSR func(n uint32) (value uint32, ok bool)
	// Steps counts instructions, and calls of hooks.
	Steps uint64

	hooks map[uint32]Hook
	// A bit for each address modulo 8 KiB that has a hook: the map is asked only
	// there. Bits of hooks that were removed stay.
	hooked [64]uint64
}

// Hook puts h in place of the function at addr, which needs no memory there.
func (c *CPU) Hook(addr uint32, h Hook) {
	if c.hooks == nil {
		c.hooks = map[uint32]Hook{}
	}
	c.hooks[addr] = h
	c.hooked[addr>>7&63] |= 1 << (addr >> 1 & 63)
}

// Unhook lets the code at addr run again.
func (c *CPU) Unhook(addr uint32) { delete(c.hooks, addr) }

// Run executes at most limit instructions from PC on, until a hook says ErrStop.
func (c *CPU) Run(limit uint64) error {
	for n := uint64(0); n < limit; n++ {
		var h Hook
		if c.hooked[c.PC>>7&63]>>(c.PC>>1&63)&1 == 1 {
			h = c.hooks[c.PC]
		}
		if h == nil {
			if err := c.Step(); err != nil {
				return err
			}
			continue
		}
		c.Steps++
		if err := h(c); err != nil {
			if errors.Is(err, ErrStop) {
				return nil
			}
			return fmt.Errorf("function 0x%08x, called before 0x%08x: %w", c.PC, c.X[RA], err)
		}
		c.PC = c.X[RA] &^ 1
	}
	return fmt.Errorf("at 0x%08x: %w", c.PC, ErrLimit)
}

// returnHere is where Call's function returns to: no memory can be mapped there,
// as the address space ends behind its two bytes.
const returnHere = 0xFFFFFFFE

// Call runs the function at addr until it returns, and gives what is in A0 then.
// SP must be set.
func (c *CPU) Call(limit uint64, addr uint32, args ...uint32) (uint32, error) {
	copy(c.X[A0:A0+8], args)
	c.X[RA], c.PC = returnHere, addr
	c.Hook(returnHere, func(*CPU) error { return ErrStop })
	err := c.Run(limit)
	if err == nil && c.PC != returnHere {
		err = fmt.Errorf("function 0x%08x: %w by 0x%08x", addr, ErrStop, c.PC)
	}
	return c.X[A0], err
}

// Step executes one instruction.
func (c *CPU) Step() error {
	c.Steps++
	if err := c.step(); err != nil {
		return fmt.Errorf("at 0x%08x: %w", c.PC, err)
	}
	return nil
}

func (c *CPU) step() error {
	low, err := c.Bus.Fetch(c.PC)
	if err != nil {
		return err
	}
	// "Expanded Instruction-Length Encoding": two bits of ones at the bottom mean 32
	// bits or more. Of the longer ones there are none here: exec refuses them.
	if low&3 != 3 {
		w, err := Expand(low)
		if err != nil {
			return err
		}
		return c.exec(w, 2)
	}
	high, err := c.Bus.Fetch(c.PC + 2)
	if err != nil {
		return err
	}
	return c.exec(uint32(high)<<16|uint32(low), 4)
}

// Major opcodes, "RV32/64G Instruction Set Listings".
const (
	opLoad    = 0x03
	opMiscMem = 0x0F
	opImm     = 0x13
	opAUIPC   = 0x17
	opStore   = 0x23
	opReg     = 0x33
	opLUI     = 0x37
	opBranch  = 0x63
	opJALR    = 0x67
	opJAL     = 0x6F
	opSystem  = 0x73
)

// exec executes a 32-bit instruction that took size bytes.
func (c *CPU) exec(w, size uint32) error {
	var (
		rd  = w >> 7 & 31
		f3  = w >> 12 & 7
		rs1 = c.X[w>>15&31]
		rs2 = c.X[w>>20&31]
		f7  = w >> 25
		imm = uint32(int32(w) >> 20) // of the I format

		next = c.PC + size
		v    uint32
		ok   = true
		err  error
	)
	switch w & 0x7F {
	case opLUI:
		v = w &^ 0xFFF
	case opAUIPC:
		v = c.PC + w&^0xFFF
	case opJAL:
		v, next = next, c.PC+immJ(w)
	case opJALR:
		// The lowest bit of the sum is cleared ("Unconditional Jumps").
		v, next, ok = next, (rs1+imm)&^1, f3 == 0
	case opBranch:
		rd = 0
		var taken bool
		if taken, ok = branch(f3, rs1, rs2); taken {
			next = c.PC + immB(w)
		}
	case opLoad:
		v, ok, err = c.load(f3, rs1+imm)
	case opStore:
		rd = 0
		ok, err = c.store(f3, rs1+immS(w), rs2)
	case opImm:
		v, ok = immediate(f3, f7, rs1, imm)
	case opReg:
		switch f7 {
		case 0, 0x20:
			v, ok = register(f3, f7, rs1, rs2)
		case 1:
			v = multiply(f3, rs1, rs2)
		default:
			ok = false
		}
	case opMiscMem:
		// FENCE orders nothing here. FENCE.I (Zifencei) is another extension.
		rd, ok = 0, f3 == 0
	case opSystem:
		v, ok, err = c.system(w, rd, f3)
	default:
		ok = false
	}
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("%w: 0x%08x", ErrIllegal, w)
	}
	if rd != 0 {
		c.X[rd] = v
	}
	c.PC = next
	return nil
}

// Immediates, "Immediate Encoding Variants".

func immS(w uint32) uint32 {
	return uint32(int32(w)>>25)<<5 | w>>7&0x1F
}

func immB(w uint32) uint32 {
	return uint32(int32(w)>>31)<<12 | w>>7&1<<11 | w>>25&0x3F<<5 | w>>8&0xF<<1
}

func immJ(w uint32) uint32 {
	return uint32(int32(w)>>31)<<20 | w>>12&0xFF<<12 | w>>20&1<<11 | w>>21&0x3FF<<1
}

// "Conditional Branches".
func branch(f3, a, b uint32) (taken, ok bool) {
	switch f3 {
	case 0: // BEQ
		return a == b, true
	case 1: // BNE
		return a != b, true
	case 4: // BLT
		return int32(a) < int32(b), true
	case 5: // BGE
		return int32(a) >= int32(b), true
	case 6: // BLTU
		return a < b, true
	case 7: // BGEU
		return a >= b, true
	}
	return false, false
}

// "Load and Store Instructions". A misaligned access may be done, done in pieces
// or trap; here it always traps.
func (c *CPU) load(f3, addr uint32) (v uint32, ok bool, err error) {
	size := uint32(1) << (f3 & 3)
	if f3 > 5 || f3 == 3 {
		return 0, false, nil
	}
	if addr%size != 0 {
		return 0, true, fmt.Errorf("%w: load of %d bytes at 0x%08x", ErrAlign, size, addr)
	}
	v, err = c.Bus.Load(addr, size)
	switch f3 {
	case 0: // LB
		v = uint32(int32(int8(v)))
	case 1: // LH
		v = uint32(int32(int16(v)))
	}
	return v, true, err // LW, LBU and LHU as they are
}

func (c *CPU) store(f3, addr, v uint32) (ok bool, err error) {
	if f3 > 2 {
		return false, nil
	}
	size := uint32(1) << f3
	if addr%size != 0 {
		return true, fmt.Errorf("%w: store of %d bytes at 0x%08x", ErrAlign, size, addr)
	}
	return true, c.Bus.Store(addr, size, v)
}

// "Integer Register-Immediate Instructions". Shifts are special I formats: the
// upper bits of the immediate say which one.
func immediate(f3, f7, a, imm uint32) (v uint32, ok bool) {
	switch f3 {
	case 1, 5:
		if f7 != 0 && (f7 != 0x20 || f3 != 5) {
			return 0, false
		}
		return register(f3, f7, a, imm&31)
	}
	return register(f3, 0, a, imm)
}

// "Integer Register-Register Operations".
func register(f3, f7, a, b uint32) (v uint32, ok bool) {
	switch f7<<3 | f3 {
	case 0: // ADD
		return a + b, true
	case 0x20 << 3: // SUB
		return a - b, true
	case 1: // SLL: by the low five bits, as all shifts
		return a << (b & 31), true
	case 2: // SLT
		return bit(int32(a) < int32(b)), true
	case 3: // SLTU
		return bit(a < b), true
	case 4: // XOR
		return a ^ b, true
	case 5: // SRL
		return a >> (b & 31), true
	case 0x20<<3 | 5: // SRA
		return uint32(int32(a) >> (b & 31)), true
	case 6: // OR
		return a | b, true
	case 7: // AND
		return a & b, true
	}
	return 0, false
}

func bit(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// "M" Extension. Division never traps: by zero it gives all ones, and the dividend
// as remainder; the one overflow, -2^31 / -1, gives -2^31 and 0 ("Semantics for
// division by zero and division overflow").
func multiply(f3, a, b uint32) uint32 {
	sa, sb := int64(int32(a)), int64(int32(b))
	switch f3 {
	case 0: // MUL
		return a * b
	case 1: // MULH
		return uint32(uint64(sa*sb) >> 32)
	case 2: // MULHSU: b is unsigned
		return uint32(uint64(sa*int64(b)) >> 32)
	case 3: // MULHU
		return uint32(uint64(a) * uint64(b) >> 32)
	case 4: // DIV
		if b == 0 {
			return 0xFFFFFFFF
		}
		return uint32(sa / sb) // in 64 bits nothing overflows
	case 5: // DIVU
		if b == 0 {
			return 0xFFFFFFFF
		}
		return a / b
	case 6: // REM
		if b == 0 {
			return a
		}
		return uint32(sa % sb)
	}
	if b == 0 { // REMU
		return a
	}
	return a % b
}

// system knows ECALL, EBREAK and the reading of a CSR: CSRRS and CSRRC with x0, or
// CSRRSI and CSRRCI with 0, which write nothing ("Zicsr").
func (c *CPU) system(w, rd, f3 uint32) (v uint32, ok bool, err error) {
	switch {
	case w == 0x00000073:
		return 0, true, ErrCall
	case w == 0x00100073:
		return 0, true, ErrBreak
	case f3&2 != 0 && w>>15&31 == 0 && c.CSR != nil:
		v, ok = c.CSR(w >> 20)
	}
	return v, ok, nil
}
