package delta

import (
	"math"
	"math/bits"

	"github.com/runnel-fota/runnel/core/patch"
)

// script answers the applier's questions from a plan, and codes its decisions.
type script struct {
	rangeEncoder
	new        []byte
	preamble   []uint32
	plan       []op // as it was made
	ops        []op // the same; a restart point cuts one
	every      int  // bytes of the patch between restart points, negative: none
	links      [][patch.LinkSize]byte
	imageChunk uint32
	applier    patch.Applier

	i        int // the operation in hand
	source   int // of its run
	tok      int // the token of its insertion
	runLeft  int // bytes of its run
	lastLink int // where in the patch the last restart point was
	restarts int

	tallies tallies
	sym     patch.Symbol
	value   uint32
	made    int      // bytes of the image when sym was asked for
	spent   float64  // bits, on sym
	again   bool     // the copy lies where one of the last ones would go on
	fromOld bool     // the copy is from the old image
	backs   [4]int32 // as the applier's: how far back the last copies lay, doubled, and 1 for the old image
	kind    int      // of a run's byte: how it was predicted; negative: of none
	moved   bool     // and whether that differs from the old image
	flag    bool     // the byte's first decision is next
	flagged float64  // bits, on that decision
	report  Report
}

// Want is what the applier asks for.
func (s *script) Want(sym patch.Symbol) uint32 {
	s.book()
	s.sym = sym
	s.made = int(s.applier.Made())
	s.value = s.answer(sym)
	return s.value
}

func (s *script) answer(sym patch.Symbol) uint32 {
	switch sym {
	case patch.SymPreamble:
		v := s.preamble[0]
		s.preamble = s.preamble[1:]
		return v
	case patch.SymRun:
		o := &s.ops[s.i]
		s.tok, s.runLeft, s.source = 0, o.run, o.from
		return uint32(o.run)
	case patch.SymInsert:
		n := s.ops[s.i].n
		if n == 0 {
			s.i++
		}
		return uint32(n)
	case patch.SymSource:
		return uint32(s.source)
	case patch.SymByte:
		if s.runLeft > 0 {
			s.runLeft--
			s.kind, s.moved = s.applier.Guessed()
			s.flag = true
		} else {
			s.kind = -1
			s.took()
		}
		return uint32(s.new[s.applier.Made()])
	case patch.SymToken:
		return one(s.ops[s.i].insert[s.tok].copy)
	case patch.SymOld:
		s.fromOld = s.ops[s.i].insert[s.tok].old
		return one(s.fromOld)
	case patch.SymFrom:
		return uint32(s.ops[s.i].insert[s.tok].from)
	case patch.SymLength:
		n := s.ops[s.i].insert[s.tok].n
		s.took()
		return uint32(n)
	case patch.SymRestart:
		return one(s.every >= 0 && len(s.out)-s.lastLink >= s.every)
	}
	panic("delta: a symbol that is not known")
}

func one(b bool) uint32 {
	if b {
		return 1
	}
	return 0
}

// took goes on behind a token.
func (s *script) took() {
	s.tok++
	if s.tok == len(s.ops[s.i].insert) {
		s.i++
	}
}

// Bit codes a decision.
func (s *script) Bit(p, bit uint32) {
	q := p
	if bit == 0 {
		q = 65536 - p
	}
	b := bitsOf[q>>4]
	s.spent += b
	s.report.Updates += s.inputs(p)
	if s.flag {
		s.flag = false
		s.flagged = b
		s.report.flag(s.kind, s.moved, bit == 0, b)
	}
	s.bit(p, bit)
}

// inputs is how many counters a decision of the symbol in hand moves.
func (s *script) inputs(p uint32) int {
	switch {
	case s.sym == patch.SymByte && s.kind < 0:
		return 5
	case s.sym == patch.SymByte && s.flag:
		return 6
	case s.sym == patch.SymByte, s.sym == patch.SymToken:
		return 4
	case p == 1<<15:
		return 0 // not modelled
	}
	return 1
}

// bitsOf[p/16] is what a decision of probability p takes.
var bitsOf = func() (t [4097]float64) {
	for i := range t {
		t[i] = -math.Log2((float64(i) + 0.5) / 4096.5)
	}
	return t
}()

// Restart cuts the operation in hand, ends the coder's block and writes the link.
func (s *script) Restart(pos uint32) {
	s.end(false)
	s.lastLink = len(s.out)
	s.restarts++
	s.out = append(s.out, s.links[pos/s.imageChunk][:]...)
	s.begin()
	// The operation in hand may have been taken to its end already, but for a copy or a
	// run that is still being made.
	i := min(s.i, len(s.ops)-1)
	for s.ops[i].at > int(pos) {
		i--
	}
	s.i = i
	s.ops[i] = s.ops[i].rest(int(pos))
	s.backs = [4]int32{}
}

// book puts what the last symbol took where it belongs.
func (s *script) book() {
	if s.spent == 0 {
		return
	}
	v, t := s.value, &s.tallies
	var to *tally
	switch s.sym {
	case patch.SymByte:
		if s.kind < 0 {
			to = &t.literal[v]
		}
	case patch.SymToken:
		to = &t.token[v]
	case patch.SymFrom:
		// The old image's flag, which is asked for first, is coded behind it.
		back := int32(s.made-int(v)) << 1
		back |= int32(one(s.fromOld))
		s.again = false
		for i, b := range s.backs {
			if b == back && b != 0 {
				s.again, to = true, &t.back[i]
			}
		}
		switch {
		case s.again:
		case s.fromOld:
			to = &t.old[bits.Len(uint(2*abs(int(v)-s.applier.Expect())+1))]
		default:
			to = &t.near[bits.Len(uint(s.made-int(v)))]
		}
		s.backs = front(s.backs, back)
	case patch.SymLength:
		to = &t.length[one(s.again)][lengthClass(int(v))]
	}
	if to != nil {
		to.sum += s.spent
		to.n++
	}
	s.report.symbol(s.sym, s.kind, s.spent, s.flagged)
	s.spent = 0
}
