package rv32

import (
	"errors"
	"strings"
	"testing"
)

// r is registers by number. Those that a case doesn't name are as before.
type r map[int]uint32

// effect is one instruction with all that it changes.
type effect struct {
	asm    string
	code   uint32 // 16 bits: compressed
	before r
	after  r
	jump   int32 // to the next instruction, from this one; 0: its size
}

// The instructions stand at base; scratch is memory.
const (
	base    = 0x1000
	scratch = 0x2000
)

// memory at scratch: what loads read, little-endian.
var content = []byte{0x80, 0xFF, 0x34, 0x92, 0x78, 0x56, 0x34, 0x12, 1, 2, 3, 4}

func newCPU(t testing.TB, code ...uint32) (*CPU, []byte) {
	t.Helper()
	text := make([]byte, 64)
	at := 0
	for _, w := range code {
		text[at], text[at+1] = byte(w), byte(w>>8)
		at += 2
		if w&3 == 3 {
			text[at], text[at+1] = byte(w>>16), byte(w>>24)
			at += 2
		}
	}
	data := make([]byte, 1024)
	copy(data[512:], content)
	m := &Memory{}
	m.Map(base, text, true)
	m.Map(scratch-512, data, false)
	return &CPU{PC: base, Bus: m}, data[512:]
}

// run executes one case and compares every register and the program counter.
func (e effect) run(t *testing.T) *CPU {
	t.Helper()
	c, _ := newCPU(t, e.code)
	for i := 1; i < 32; i++ {
		c.X[i] = 0xA5000000 + uint32(i) // nothing may change by accident
	}
	for i, v := range e.before {
		c.X[i] = v
	}
	want := c.X
	for i, v := range e.after {
		want[i] = v
	}
	next := e.jump
	if next == 0 {
		next = 2
		if e.code&3 == 3 {
			next = 4
		}
	}
	if err := c.Step(); err != nil {
		t.Errorf("%s: %v", e.asm, err)
		return c
	}
	for i := range want {
		if c.X[i] != want[i] {
			t.Errorf("%s: x%d is 0x%08x, want 0x%08x", e.asm, i, c.X[i], want[i])
		}
	}
	if c.PC != base+uint32(next) {
		t.Errorf("%s: goes to 0x%x, want 0x%x", e.asm, c.PC, base+next)
	}
	return c
}

// Encodings are what an assembler (LLVM 19) makes of the text beside them.

func TestInstructions(t *testing.T) {
	const neg1, min32, max32 = 0xFFFFFFFF, 0x80000000, 0x7FFFFFFF
	cases := []effect{
		{"lui x5, 0xfffff", 0xFFFFF2B7, nil, r{5: 0xFFFFF000}, 0},
		{"lui x5, 1", 0x000012B7, nil, r{5: 0x1000}, 0},
		{"auipc x5, 0x10", 0x00010297, nil, r{5: base + 0x10000}, 0},
		{"auipc x5, 0xfffff", 0xFFFFF297, nil, r{5: 0}, 0},
		{"jal x1, 2048", 0x001000EF, nil, r{1: base + 4}, 2048},
		{"jal x0, -2048", 0x801FF06F, nil, nil, -2048},
		{"jal x5, 1048574", 0x7FFFF2EF, nil, r{5: base + 4}, 1048574},
		{"jalr x1, 8(x6)", 0x008300E7, r{6: base + 0x100}, r{1: base + 4}, 0x108},
		{"jalr x6, -1(x6)", 0xFFF30367, r{6: base + 0x104}, r{6: base + 4}, 0x102}, // reads before it writes; bit 0 is cleared
		{"beq x5, x6, 16", 0x00628863, r{5: 7, 6: 7}, nil, 16},
		{"beq x5, x6, 16", 0x00628863, r{5: 7, 6: 8}, nil, 0},
		{"bne x5, x6, -16", 0xFE6298E3, r{5: 7, 6: 8}, nil, -16},
		{"bne x5, x6, -16", 0xFE6298E3, r{5: 7, 6: 7}, nil, 0},
		{"blt x5, x6, 4094", 0x7E62CFE3, r{5: neg1, 6: 0}, nil, 4094},
		{"blt x5, x6, 16", 0x0062C863, r{5: 0, 6: neg1}, nil, 0},
		{"blt x5, x6, 16", 0x0062C863, r{5: 3, 6: 3}, nil, 0},
		{"bge x5, x6, -4096", 0x8062D063, r{5: 0, 6: neg1}, nil, -4096},
		{"bge x5, x6, 16", 0x0062D863, r{5: 3, 6: 3}, nil, 16},
		{"bge x5, x6, 16", 0x0062D863, r{5: neg1, 6: 0}, nil, 0},
		{"bltu x5, x6, 16", 0x0062E863, r{5: 0, 6: neg1}, nil, 16},
		{"bltu x5, x6, 16", 0x0062E863, r{5: neg1, 6: 0}, nil, 0},
		{"bgeu x5, x6, 16", 0x0062F863, r{5: neg1, 6: 0}, nil, 16},
		{"bgeu x5, x6, 16", 0x0062F863, r{5: 3, 6: 3}, nil, 16},
		{"bgeu x5, x6, 16", 0x0062F863, r{5: 0, 6: neg1}, nil, 0},
		{"lb x5, 0(x6)", 0x00030283, r{6: scratch}, r{5: 0xFFFFFF80}, 0},
		{"lb x5, 4(x6)", 0x00430283, r{6: scratch}, r{5: 0x78}, 0},
		{"lbu x5, 1(x6)", 0x00134283, r{6: scratch}, r{5: 0xFF}, 0},
		{"lh x5, 2(x6)", 0x00231283, r{6: scratch}, r{5: 0xFFFF9234}, 0},
		{"lh x5, -2(x6)", 0xFFE31283, r{6: scratch + 8}, r{5: 0x1234}, 0},
		{"lhu x5, 2(x6)", 0x00235283, r{6: scratch}, r{5: 0x9234}, 0},
		{"lw x6, 4(x6)", 0x00432303, r{6: scratch}, r{6: 0x12345678}, 0},
		{"lw x0, 4(x6)", 0x00432003, r{6: scratch}, nil, 0},
		{"addi x5, x6, 2047", 0x7FF30293, r{6: 1}, r{5: 0x800}, 0},
		{"addi x5, x6, -2048", 0x80030293, r{6: 1}, r{5: 0xFFFFF801}, 0},
		{"addi x0, x6, 1", 0x00130013, nil, nil, 0},
		{"slti x5, x6, -1", 0xFFF32293, r{6: min32}, r{5: 1}, 0},
		{"slti x5, x6, -1", 0xFFF32293, r{6: neg1}, r{5: 0}, 0},
		{"sltiu x5, x6, -1", 0xFFF33293, r{6: 0xFFFFFFFE}, r{5: 1}, 0}, // the immediate is extended, then unsigned
		{"sltiu x5, x6, 1", 0x00133293, r{6: 0}, r{5: 1}, 0},
		{"sltiu x5, x6, 1", 0x00133293, r{6: 1}, r{5: 0}, 0},
		{"xori x5, x6, -1", 0xFFF34293, r{6: 0x0F0F0F0F}, r{5: 0xF0F0F0F0}, 0},
		{"ori x5, x6, 0x70f", 0x70F36293, r{6: 0x80000000}, r{5: 0x8000070F}, 0},
		{"andi x5, x6, -16", 0xFF037293, r{6: 0xFFFF1234}, r{5: 0xFFFF1230}, 0},
		{"slli x5, x6, 31", 0x01F31293, r{6: 3}, r{5: min32}, 0},
		{"srli x5, x6, 31", 0x01F35293, r{6: min32}, r{5: 1}, 0},
		{"srai x5, x6, 31", 0x41F35293, r{6: min32}, r{5: neg1}, 0},
		{"srai x5, x6, 4", 0x40435293, r{6: max32}, r{5: 0x07FFFFFF}, 0},
		{"add x5, x6, x7", 0x007302B3, r{6: neg1, 7: 2}, r{5: 1}, 0},
		{"sub x5, x6, x7", 0x407302B3, r{6: 3, 7: 5}, r{5: 0xFFFFFFFE}, 0},
		{"sll x5, x6, x7", 0x007312B3, r{6: 1, 7: 33}, r{5: 2}, 0},
		{"slt x5, x6, x7", 0x007322B3, r{6: neg1, 7: 0}, r{5: 1}, 0},
		{"slt x5, x6, x7", 0x007322B3, r{6: 0, 7: neg1}, r{5: 0}, 0},
		{"sltu x5, x6, x7", 0x007332B3, r{6: 0, 7: neg1}, r{5: 1}, 0},
		{"sltu x5, x6, x7", 0x007332B3, r{6: neg1, 7: 0}, r{5: 0}, 0},
		{"xor x5, x6, x7", 0x007342B3, r{6: 0xFF00FF00, 7: 0xF0F0F0F0}, r{5: 0x0FF00FF0}, 0},
		{"srl x5, x6, x7", 0x007352B3, r{6: min32, 7: 0xFFFFFFE4}, r{5: 0x08000000}, 0},
		{"sra x5, x6, x7", 0x407352B3, r{6: min32, 7: 36}, r{5: 0xF8000000}, 0},
		{"or x5, x6, x7", 0x007362B3, r{6: 0xFF00FF00, 7: 0xF0F0F0F0}, r{5: 0xFFF0FFF0}, 0},
		{"and x5, x6, x7", 0x007372B3, r{6: 0xFF00FF00, 7: 0xF0F0F0F0}, r{5: 0xF000F000}, 0},
		{"add x0, x6, x7", 0x00730033, nil, nil, 0},
		{"fence", 0x0FF0000F, nil, nil, 0},
		{"fence rw, w", 0x0310000F, nil, nil, 0},

		{"mul x5, x6, x7", 0x027302B3, r{6: 0x12345678, 7: 0xFFFFFFFE}, r{5: 0xDB975310}, 0},
		{"mulh x5, x6, x7", 0x027312B3, r{6: min32, 7: min32}, r{5: 0x40000000}, 0},
		{"mulh x5, x6, x7", 0x027312B3, r{6: neg1, 7: 1}, r{5: neg1}, 0},
		{"mulhu x5, x6, x7", 0x027332B3, r{6: neg1, 7: neg1}, r{5: 0xFFFFFFFE}, 0},
		{"mulhsu x5, x6, x7", 0x027322B3, r{6: neg1, 7: neg1}, r{5: neg1}, 0}, // -1 * 0xFFFFFFFF
		{"mulhsu x5, x6, x7", 0x027322B3, r{6: 2, 7: neg1}, r{5: 1}, 0},
		{"div x5, x6, x7", 0x027342B3, r{6: 0xFFFFFFF9, 7: 2}, r{5: 0xFFFFFFFD}, 0}, // -7 / 2, towards zero
		{"div x5, x6, x7", 0x027342B3, r{6: 7, 7: 0}, r{5: neg1}, 0},
		{"div x5, x6, x7", 0x027342B3, r{6: min32, 7: neg1}, r{5: min32}, 0},
		{"divu x5, x6, x7", 0x027352B3, r{6: 0xFFFFFFF9, 7: 2}, r{5: 0x7FFFFFFC}, 0},
		{"divu x5, x6, x7", 0x027352B3, r{6: 7, 7: 0}, r{5: neg1}, 0},
		{"rem x5, x6, x7", 0x027362B3, r{6: 0xFFFFFFF9, 7: 2}, r{5: neg1}, 0}, // the sign of the dividend
		{"rem x5, x6, x7", 0x027362B3, r{6: 7, 7: 0xFFFFFFFE}, r{5: 1}, 0},
		{"rem x5, x6, x7", 0x027362B3, r{6: 0xFFFFFFF9, 7: 0}, r{5: 0xFFFFFFF9}, 0},
		{"rem x5, x6, x7", 0x027362B3, r{6: min32, 7: neg1}, r{5: 0}, 0},
		{"remu x5, x6, x7", 0x027372B3, r{6: 0xFFFFFFF9, 7: 16}, r{5: 9}, 0},
		{"remu x5, x6, x7", 0x027372B3, r{6: neg1, 7: 0}, r{5: neg1}, 0},
		{"remu x5, x6, x7", 0x027372B3, r{6: 7, 7: neg1}, r{5: 7}, 0},
	}
	for _, c := range cases {
		c.run(t)
	}
}

func TestCompressed(t *testing.T) {
	cases := []effect{
		{"c.addi4spn x8, x2, 4", 0x0040, r{2: 0x1000}, r{8: 0x1004}, 0},
		{"c.addi4spn x8, x2, 64", 0x0080, r{2: 0x1000}, r{8: 0x1040}, 0},
		{"c.addi4spn x15, x2, 1020", 0x1FFC, r{2: 0x1000}, r{15: 0x13FC}, 0},
		{"c.lw x8, 4(x9)", 0x40C0, r{9: scratch}, r{8: 0x12345678}, 0},
		{"c.lw x15, 124(x8)", 0x5C7C, r{8: scratch - 120}, r{15: 0x12345678}, 0},
		{"c.nop", 0x0001, nil, nil, 0},
		{"c.addi x5, -32", 0x1281, r{5: 31}, r{5: 0xFFFFFFFF}, 0},
		{"c.addi x31, 31", 0x0FFD, r{31: 1}, r{31: 32}, 0},
		{"c.jal 2046", 0x2FFD, nil, r{1: base + 2}, 2046},
		{"c.jal -2048", 0x3001, nil, r{1: base + 2}, -2048},
		{"c.li x5, -32", 0x5281, nil, r{5: 0xFFFFFFE0}, 0},
		{"c.li x5, 31", 0x42FD, nil, r{5: 31}, 0},
		{"c.addi16sp x2, 496", 0x617D, r{2: 0x1000}, r{2: 0x11F0}, 0},
		{"c.addi16sp x2, -512", 0x7101, r{2: 0x1000}, r{2: 0xE00}, 0},
		{"c.addi16sp x2, 16", 0x6141, r{2: 0x1000}, r{2: 0x1010}, 0},
		{"c.lui x5, 31", 0x62FD, nil, r{5: 0x1F000}, 0},
		{"c.lui x5, 0xfffe0", 0x7281, nil, r{5: 0xFFFE0000}, 0},
		{"c.srli x8, 31", 0x807D, r{8: 0x80000000}, r{8: 1}, 0},
		{"c.srai x9, 31", 0x84FD, r{9: 0x80000000}, r{9: 0xFFFFFFFF}, 0},
		{"c.andi x10, -32", 0x9901, r{10: 0xFFFF}, r{10: 0xFFE0}, 0},
		{"c.andi x10, 21", 0x8955, r{10: 0xFF}, r{10: 21}, 0},
		{"c.sub x8, x15", 0x8C1D, r{8: 3, 15: 5}, r{8: 0xFFFFFFFE}, 0},
		{"c.xor x8, x9", 0x8C25, r{8: 0xF0, 9: 0xFF}, r{8: 0x0F}, 0},
		{"c.or x8, x9", 0x8C45, r{8: 0xF0, 9: 0x0F}, r{8: 0xFF}, 0},
		{"c.and x8, x9", 0x8C65, r{8: 0xF0, 9: 0x3C}, r{8: 0x30}, 0},
		{"c.j 2046", 0xAFFD, nil, nil, 2046},
		{"c.j -2048", 0xB001, nil, nil, -2048},
		{"c.j 2", 0xA009, nil, nil, 2},
		{"c.j 1366", 0xAB99, nil, nil, 1366},
		{"c.j 680", 0xA465, nil, nil, 680},
		{"c.beqz x8, 254", 0xCC7D, r{8: 0}, nil, 254},
		{"c.beqz x8, -256", 0xD001, r{8: 0}, nil, -256},
		{"c.beqz x8, 170", 0xC44D, r{8: 1}, nil, 0},
		{"c.bnez x15, 170", 0xE7CD, r{15: 1}, nil, 170},
		{"c.bnez x15, 84", 0xEBB1, r{15: 1}, nil, 84},
		{"c.bnez x15, 170", 0xE7CD, r{15: 0}, nil, 0},
		{"c.slli x5, 31", 0x02FE, r{5: 1}, r{5: 0x80000000}, 0},
		{"c.lwsp x5, 4(x2)", 0x4292, r{2: scratch}, r{5: 0x12345678}, 0},
		{"c.lwsp x31, 252(x2)", 0x5FFE, r{2: scratch - 248}, r{31: 0x12345678}, 0},
		{"c.jr x5", 0x8282, r{5: base + 0x101}, nil, 0x100},
		{"c.mv x5, x6", 0x829A, r{6: 7}, r{5: 7}, 0},
		{"c.jalr x5", 0x9282, r{5: base + 0x100}, r{1: base + 2}, 0x100},
		{"c.jalr x1", 0x9082, r{1: base + 0x100}, r{1: base + 2}, 0x100},
		{"c.add x5, x6", 0x929A, r{5: 0xFFFFFFFF, 6: 2}, r{5: 1}, 0},

		// HINTs: code points of x0, and shifts by 0. They change nothing.
		{"c.nop 5", 0x0015, nil, nil, 0},
		{"c.addi x5, 0", 0x0281, nil, nil, 0},
		{"c.li x0, 1", 0x4005, nil, nil, 0},
		{"c.lui x0, 1", 0x6005, nil, nil, 0},
		{"c.srli64 x8", 0x8001, nil, nil, 0},
		{"c.slli x0, 1", 0x0006, nil, nil, 0},
		{"c.slli64 x5", 0x0282, nil, nil, 0},
		{"c.mv x0, x6", 0x801A, nil, nil, 0},
		{"c.add x0, x6", 0x901A, nil, nil, 0},
	}
	for _, c := range cases {
		c.run(t)
	}
}

func TestStores(t *testing.T) {
	for _, c := range []struct {
		asm    string
		code   uint32
		before r
		at     int
		want   []byte
	}{
		{"sb x5, -1(x6)", 0xFE530FA3, r{5: 0x11223344, 6: scratch + 2}, 0, []byte{0x80, 0x44, 0x34}},
		{"sh x5, 2(x6)", 0x00531123, r{5: 0x11223344, 6: scratch}, 0, []byte{0x80, 0xFF, 0x44, 0x33, 0x78}},
		{"sw x5, 100(x6)", 0x06532223, r{5: 0x11223344, 6: scratch}, 99, []byte{0, 0x44, 0x33, 0x22, 0x11, 0}},
		{"sw x0, -2048(x6)", 0x80032023, r{6: scratch + 2052}, 3, []byte{0x92, 0, 0, 0, 0, 1}},
		{"c.sw x8, 124(x9)", 0xDCE0, r{8: 0x11223344, 9: scratch}, 123, []byte{0, 0x44, 0x33, 0x22, 0x11, 0}},
		{"c.sw x15, 68(x9)", 0xC0FC, r{15: 0x11223344, 9: scratch}, 67, []byte{0, 0x44, 0x33, 0x22, 0x11, 0}},
		{"c.swsp x31, 252(x2)", 0xDFFE, r{31: 0x11223344, 2: scratch}, 251, []byte{0, 0x44, 0x33, 0x22, 0x11, 0}},
		{"c.swsp x5, 128(x2)", 0xC116, r{5: 0x11223344, 2: scratch}, 127, []byte{0, 0x44, 0x33, 0x22, 0x11, 0}},
	} {
		cpu, data := newCPU(t, c.code)
		for i := 1; i < 32; i++ {
			cpu.X[i] = 0xA5000000
		}
		for i, v := range c.before {
			cpu.X[i] = v
		}
		before := cpu.X
		if err := cpu.Step(); err != nil {
			t.Errorf("%s: %v", c.asm, err)
			continue
		}
		if got := data[c.at : c.at+len(c.want)]; string(got) != string(c.want) {
			t.Errorf("%s: memory is % x, want % x", c.asm, got, c.want)
		}
		if cpu.X != before {
			t.Errorf("%s: registers changed", c.asm)
		}
	}
}

// TestIllegal: what is not RV32IMC is refused, and leaves the hart as it was.
func TestIllegal(t *testing.T) {
	for _, c := range []struct {
		what string
		code uint32
		want error
	}{
		{"all zeros", 0, ErrIllegal},
		{"all ones", 0xFFFFFFFF, ErrIllegal},
		{"longer than 32 bits", 0x0000001F, ErrIllegal},
		{"jalr, funct3 1", 0x008300E7 | 1<<12, ErrIllegal}, // jalr x1, 8(x6)
		{"branch, funct3 2", 0x00002063, ErrIllegal},
		{"branch, funct3 3", 0x00003063, ErrIllegal},
		{"ld, of RV64", 0x00003003, ErrIllegal},
		{"lwu, of RV64", 0x00006003, ErrIllegal},
		{"load, funct3 7", 0x00007003, ErrIllegal},
		{"sd, of RV64", 0x00003023, ErrIllegal},
		{"store, funct3 4", 0x00004023, ErrIllegal},
		{"slli by 32", 0x02001013, ErrIllegal},
		{"slli, as if arithmetic", 0x40001013, ErrIllegal},
		{"srli by 32", 0x02005013, ErrIllegal},
		{"sll, as if arithmetic", 0x40001033, ErrIllegal},
		{"slt, as if negative", 0x40002033, ErrIllegal},
		{"funct7 2", 0x04000033, ErrIllegal},
		{"addiw, of RV64", 0x0000001B, ErrIllegal},
		{"addw, of RV64", 0x0000003B, ErrIllegal},
		{"fence.i, of Zifencei", 0x0000100F, ErrIllegal},
		{"lr.w, of A", 0x1000202F, ErrIllegal},
		{"flw, of F", 0x00002007, ErrIllegal},
		{"fadd.s, of F", 0x00000053, ErrIllegal},
		{"mret", 0x30200073, ErrIllegal},
		{"wfi", 0x10500073, ErrIllegal},
		{"csrrw", 0x30001073, ErrIllegal},
		{"csrr of a CSR that is not there", 0x300022F3, ErrIllegal},
		{"ecall", 0x00000073, ErrCall},
		{"ebreak", 0x00100073, ErrBreak},
		{"c.ebreak", 0x9002, ErrBreak},
		{"c.addi4spn by 0", 0x0004, ErrIllegal},
		{"c.fld", 0x2000, ErrIllegal},
		{"c.flw", 0x6000, ErrIllegal},
		{"quadrant 0, reserved", 0x8000, ErrIllegal},
		{"c.fsd", 0xA000, ErrIllegal},
		{"c.fsw", 0xE000, ErrIllegal},
		{"c.lui by 0", 0x6281, ErrIllegal},
		{"c.addi16sp by 0", 0x6101, ErrIllegal},
		{"c.srli by 32", 0x9001, ErrIllegal},
		{"c.srai by 32", 0x9401, ErrIllegal},
		{"c.subw, of RV64", 0x9C01, ErrIllegal},
		{"c.addw, of RV64", 0x9C21, ErrIllegal},
		{"c.not, of Zcb", 0x9C75, ErrIllegal},
		{"c.slli by 32", 0x1282, ErrIllegal},
		{"c.fldsp", 0x2002, ErrIllegal},
		{"c.lwsp into x0", 0x4002, ErrIllegal},
		{"c.flwsp", 0x6002, ErrIllegal},
		{"c.jr x0", 0x8002, ErrIllegal},
		{"c.fsdsp", 0xA002, ErrIllegal},
		{"c.fswsp", 0xE002, ErrIllegal},

		{"lw, misaligned", 0x00232283, ErrAlign},          // lw x5, 2(x6)
		{"lh, misaligned", 0x00131283, ErrAlign},          // lh x5, 1(x6)
		{"sw, misaligned", 0x005320A3, ErrAlign},          // sw x5, 1(x6)
		{"sh, misaligned", 0xFE531FA3, ErrAlign},          // sh x5, -1(x6)
		{"lw of nothing", 0x80032283, ErrAccess},          // lw x5, -2048(x6)
		{"sw to nothing", 0x20532023, ErrAccess},          // sw x5, 512(x6)
		{"sb to read-only memory", 0x00538023, ErrAccess}, // sb x5, 0(x7)
	} {
		cpu, _ := newCPU(t, c.code)
		cpu.X[6], cpu.X[7] = scratch, base
		before := cpu.X
		err := cpu.Step()
		if !errors.Is(err, c.want) || !strings.Contains(err.Error(), "0x00001000") {
			t.Errorf("%s: %v, want %v and the place", c.what, err, c.want)
		}
		if cpu.X != before || cpu.PC != base {
			t.Errorf("%s: the hart changed", c.what)
		}
	}
}

func TestCSR(t *testing.T) {
	for _, c := range []struct {
		asm  string
		code uint32
		want uint32
		err  error
	}{
		{"csrr x5, 0x7e2", 0x7E2022F3, 42, nil},
		{"csrrc x5, 0x7e2, x0", 0x7E2032F3, 42, nil},
		{"csrrsi x5, 0x7e2, 0", 0x7E2062F3, 42, nil},
		{"csrr x5, 0x7e1", 0x7E1022F3, 0, ErrIllegal},
		{"csrrs x5, 0x7e2, x6", 0x7E2322F3, 0, ErrIllegal}, // writes
		{"csrrw x5, 0x7e2, x0", 0x7E2012F3, 0, ErrIllegal},
	} {
		cpu, _ := newCPU(t, c.code)
		cpu.CSR = func(n uint32) (uint32, bool) { return 42, n == 0x7E2 }
		if err := cpu.Step(); !errors.Is(err, c.err) || cpu.X[5] != c.want {
			t.Errorf("%s: %v, x5 is %d", c.asm, err, cpu.X[5])
		}
	}
}

// A function with a loop: x10 := 10 * x11, by adding.
var multiplyByTen = []uint32{
	0x4629,     // c.li x12, 10
	0x4501,     // c.li x10, 0
	0x952E,     // c.add x10, x11
	0xFFF60613, // addi x12, x12, -1
	0xFE061DE3, // bne x12, x0, -6
	0x8082,     // c.jr x1
}

func TestCall(t *testing.T) {
	c, _ := newCPU(t, multiplyByTen...)
	got, err := c.Call(100, base, 0, 7)
	if err != nil || got != 70 || c.Steps != 2+10*3+1+1 {
		t.Errorf("%d, %v after %d steps", got, err, c.Steps)
	}
	c, _ = newCPU(t, multiplyByTen...)
	if _, err := c.Call(34, base, 0, 7); err != nil { // 33, and the way back
		t.Errorf("just enough instructions: %v", err)
	}
	if _, err := c.Call(33, base, 0, 7); !errors.Is(err, ErrLimit) {
		t.Errorf("one instruction too few: %v", err)
	}
	c, _ = newCPU(t, multiplyByTen...)
	c.X[RA] = 0x7FFF0000
	c.PC = base
	if err := c.Run(100); !errors.Is(err, ErrAccess) || !strings.Contains(err.Error(), "0x7fff0000") {
		t.Errorf("returned to nowhere: %v", err)
	}
}

func TestHooks(t *testing.T) {
	// call 0x100 bytes on, then return to where x9 says
	code := []uint32{0x8486, 0x100000EF, 0x0505, 0x8482} // c.mv x9, x1; jal x1, 256; c.addi x10, 1; c.jr x9
	c, _ := newCPU(t, code...)
	c.Hook(base+2+256, func(c *CPU) error {
		c.X[A0] *= 2
		return nil
	})
	if got, err := c.Call(100, base, 20); err != nil || got != 41 {
		t.Errorf("%d, %v", got, err)
	}
	broken := errors.New("broken")
	c.Hook(base+2+256, func(*CPU) error { return broken })
	if _, err := c.Call(100, base, 20); !errors.Is(err, broken) || !strings.Contains(err.Error(), "0x00001102") {
		t.Errorf("%v", err)
	}
	c.Hook(base+2+256, func(*CPU) error { return ErrStop })
	c.PC = base
	if err := c.Run(100); err != nil || c.PC != base+2+256 {
		t.Errorf("stopped: %v at 0x%x", err, c.PC)
	}
	if _, err := c.Call(100, base, 20); !errors.Is(err, ErrStop) {
		t.Errorf("stopped before it returned: %v", err)
	}
	c.Unhook(base + 2 + 256)
	if _, err := c.Call(100, base, 20); !errors.Is(err, ErrAccess) {
		t.Errorf("no function, and no memory: %v", err)
	}
}

// An instruction may cross into another region, but not out of memory.
func TestFetch(t *testing.T) {
	m := &Memory{}
	m.Map(0x100, []byte{0x93, 0x02}, true) // the first half of addi x5, x0, 7
	c := CPU{PC: 0x100, Bus: m}
	if err := c.Step(); !errors.Is(err, ErrAccess) {
		t.Errorf("half an instruction: %v", err)
	}
	m.Map(0x102, []byte{0x70, 0x00}, true)
	if err := c.Step(); err != nil || c.X[5] != 7 || c.PC != 0x104 {
		t.Errorf("in two regions: %v, x5 is %d", err, c.X[5])
	}
	if err := c.Step(); !errors.Is(err, ErrAccess) {
		t.Errorf("behind memory: %v", err)
	}
}

func TestMemory(t *testing.T) {
	shared := []byte{1, 2, 3, 4}
	m := &Memory{}
	m.Map(0x1000, shared, false)
	m.Map(0x2000, shared, false)
	m.Map(0xFFFFFFFC, []byte{5, 6, 7, 8}, false)
	if err := m.Store(0x1000, 4, 0xAABBCCDD); err != nil {
		t.Fatal(err)
	}
	if v, err := m.Load(0x2002, 2); err != nil || v != 0xAABB {
		t.Errorf("the other bus reads 0x%x, %v", v, err)
	}
	if v, err := m.Load(0xFFFFFFFC, 4); err != nil || v != 0x08070605 {
		t.Errorf("the end of memory reads 0x%x, %v", v, err)
	}
	for _, addr := range []uint32{0xFFF, 0x1001, 0x1004, 0xFFFFFFFD, 0} {
		if _, err := m.Load(addr, 4); !errors.Is(err, ErrAccess) {
			t.Errorf("load at 0x%x: %v", addr, err)
		}
		if err := m.Store(addr, 4, 0); !errors.Is(err, ErrAccess) {
			t.Errorf("store at 0x%x: %v", addr, err)
		}
	}
	if m.Slice(0x1001, 3) == nil || m.Slice(0x1001, 4) != nil || m.Slice(0x1000, 0xFFFFFFFF) != nil {
		t.Error("slices reach too far, or not far enough")
	}
}

// FuzzStep: no instruction makes the interpreter panic, and x0 stays zero.
func FuzzStep(f *testing.F) {
	f.Add(uint32(0x027342B3), uint32(0x80000000), uint32(0xFFFFFFFF))
	f.Add(uint32(0x00532023), uint32(scratch), uint32(0))
	f.Fuzz(func(t *testing.T, code, a, b uint32) {
		c, _ := newCPU(t, code)
		for i := 1; i < 32; i += 2 {
			c.X[i], c.X[(i+1)&31] = a, b
		}
		c.X[0] = 0
		before := *c
		err := c.Step()
		if c.X[0] != 0 {
			t.Fatalf("0x%08x: x0 is 0x%x", code, c.X[0])
		}
		if err != nil && (c.X != before.X || c.PC != before.PC) {
			t.Fatalf("0x%08x: refused, and the hart changed", code)
		}
	})
}
