package delta

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/runnel-fota/runnel/core/patch"
)

// A synthetic program: functions that call each other and hold addresses of each other
// and of texts, laid out and encoded for one architecture. A second version of it has
// some functions changed, one more and one less, so that everything moves.

type synthIns struct {
	raw  []byte
	call int // function, -1: none
	addr int // function whose address is loaded, -1: none
}

type synthProgram struct {
	arch  patch.Arch
	funcs [][]synthIns
}

func newSynth(arch patch.Arch, seed uint64, functions int) *synthProgram {
	r := rand.New(rand.NewPCG(seed, 0))
	p := &synthProgram{arch: arch}
	for range functions {
		p.funcs = append(p.funcs, p.function(r, functions))
	}
	return p
}

func (p *synthProgram) function(r *rand.Rand, functions int) []synthIns {
	var body []synthIns
	for range 15 + r.IntN(40) {
		in := synthIns{call: -1, addr: -1}
		switch n := r.IntN(10); {
		case n == 0:
			in.call = r.IntN(functions)
		case n == 1:
			in.addr = r.IntN(functions)
		default:
			in.raw = p.plain(r)
		}
		body = append(body, in)
	}
	return body
}

// plain is an instruction that refers to nothing.
func (p *synthProgram) plain(r *rand.Rand) []byte {
	// Few different ones, as in real code.
	v := uint32(r.IntN(24)) * 0x01234567
	switch p.arch {
	case patch.ArchXtensa:
		if v&16 != 0 {
			return []byte{byte(v)&0xF0 | 0x0D, byte(v >> 8)}
		}
		return []byte{byte(v)&0xF0 | 2, byte(v >> 8), byte(v >> 16)}
	case patch.ArchRISCV:
		if v&16 != 0 {
			return []byte{byte(v)&0xFC | 1, byte(v >> 8)}
		}
		return binary.LittleEndian.AppendUint32(nil, v&^0x7F|0x33)
	default:
		return []byte{byte(v), byte(v>>8) & 0x7F}
	}
}

// changed is the next version.
func (p *synthProgram) changed(seed uint64) *synthProgram {
	r := rand.New(rand.NewPCG(seed, 0))
	q := &synthProgram{arch: p.arch}
	for i, f := range p.funcs {
		f = append([]synthIns(nil), f...)
		if r.IntN(8) == 0 {
			at := r.IntN(len(f))
			f = append(f[:at:at], append([]synthIns{{raw: p.plain(r), call: -1, addr: -1}, {raw: p.plain(r), call: -1, addr: -1}}, f[at:]...)...)
		}
		if i == len(p.funcs)/3 {
			q.funcs = append(q.funcs, p.function(r, len(p.funcs)))
		}
		if i != 2*len(p.funcs)/3 {
			q.funcs = append(q.funcs, f)
		}
	}
	return q
}

// image lays it out: for ESP chips a segment of data and one of code, else a vector
// table and code.
func (p *synthProgram) image() []byte {
	le := binary.LittleEndian
	esp := p.arch != patch.ArchThumb
	codeAddr, dataAddr, chip := uint32(0x08008000), uint32(0), uint16(0)
	switch p.arch {
	case patch.ArchXtensa:
		codeAddr, dataAddr = 0x400D0020, 0x3F400020
	case patch.ArchRISCV:
		codeAddr, dataAddr, chip = 0x42000020, 0x3C0A0020, 5
	}
	n := len(p.funcs)
	var code []byte
	var at []uint32
	for pass := range 2 {
		where := at
		if pass == 0 {
			where = make([]uint32, n)
		}
		code, at = p.code(codeAddr, where)
	}
	if !esp {
		return code
	}
	var data []byte
	for i := range 3 * n {
		data = le.AppendUint32(data, at[i*7%n])
		data = append(data, "text "...)
		data = append(data, byte('a'+i%26), 0, 0)
	}
	img := make([]byte, 24)
	img[0], img[1] = 0xE9, 2
	le.PutUint16(img[12:], chip)
	for _, s := range []struct {
		addr uint32
		data []byte
	}{{dataAddr, data}, {codeAddr, code}} {
		img = le.AppendUint32(img, s.addr)
		img = le.AppendUint32(img, uint32(len(s.data)))
		img = append(img, s.data...)
	}
	return append(img, make([]byte, 16)...)
}

// code encodes all functions; where is where they are, as far as it is known.
func (p *synthProgram) code(base uint32, where []uint32) (code []byte, at []uint32) {
	le := binary.LittleEndian
	if p.arch == patch.ArchThumb {
		code = le.AppendUint32(code, 0x20002000)
		for i := range 64 {
			code = le.AppendUint32(code, where[i%len(where)]|1)
		}
	}
	for _, f := range p.funcs {
		f = append([]synthIns(nil), f...)
		for i := range f { // the removed function's callers call another
			f[i].call = min(f[i].call, len(where)-1)
			f[i].addr = min(f[i].addr, len(where)-1)
		}
		pad := func() {
			for len(code)%4 != 0 {
				code = append(code, 0)
			}
		}
		pad()
		var pool []uint32 // Xtensa's literals, before the function
		if p.arch == patch.ArchXtensa {
			for _, in := range f {
				if in.addr >= 0 {
					pool = append(pool, base+uint32(len(code)))
					code = le.AppendUint32(code, where[in.addr])
				}
			}
		}
		at = append(at, base+uint32(len(code)))
		var tail []uint32 // Thumb's literals, behind it
		switch p.arch {
		case patch.ArchXtensa:
			code = append(code, 0x36, 0x41, 0)
		case patch.ArchThumb:
			code = append(code, 0xF0, 0xB5)
		}
		for _, in := range f {
			pc := base + uint32(len(code))
			switch {
			case in.call >= 0:
				t := where[in.call]
				switch p.arch {
				case patch.ArchXtensa:
					w := 0x25 | (t-(pc&^3+4))>>2<<6
					code = append(code, byte(w), byte(w>>8), byte(w>>16))
				case patch.ArchRISCV:
					off := t - pc
					hi := (off + 0x800) &^ 0xFFF
					code = le.AppendUint32(code, 0x97|hi)
					code = le.AppendUint32(code, 0x80E7|(off-hi)<<20)
				default:
					off := t - pc - 4
					s := off >> 31
					j1, j2 := ^(off>>23^s)&1, ^(off>>22^s)&1
					code = le.AppendUint16(code, uint16(0xF000|s<<10|off>>12&0x3FF))
					code = le.AppendUint16(code, uint16(0xD000|j1<<13|j2<<11|off>>1&0x7FF))
				}
			case in.addr >= 0:
				t := where[in.addr]
				switch p.arch {
				case patch.ArchXtensa:
					w := 0x81 | (pool[0]-(pc+3)&^3)>>2<<8
					pool = pool[1:]
					code = append(code, byte(w), byte(w>>8), byte(w>>16))
				case patch.ArchRISCV:
					hi := (t + 0x800) &^ 0xFFF
					code = le.AppendUint32(code, 0x537|hi)
					code = le.AppendUint32(code, 0x50513|(t-hi)<<20)
				default:
					tail = append(tail, t|1)
					code = append(code, 0, 0x4B)
				}
			default:
				code = append(code, in.raw...)
			}
		}
		if p.arch != patch.ArchXtensa {
			pad()
		}
		for _, w := range tail {
			code = le.AppendUint32(code, w)
		}
	}
	return code, at
}
