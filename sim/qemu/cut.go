package qemu

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
)

// Cut is a power cut in a flash operation of the chip's program. The emulator stops
// before the operation, and what it would have left half done is put into the flash
// that is taken out.
type Cut struct {
	// Erase is the page's erase of this start from which on operations are counted, the
	// boot stage's included; 0: from the start. Op is the operation, from 0.
	Erase, Op int
	Tear      Tear
	Seed      uint64 // of a torn operation's bits
}

// Tear is what a cut leaves of an operation.
type Tear uint8

const (
	Before Tear = iota // nothing of it
	Inside             // some bits of it: each bit that would change may have
	After              // all of it
	tears
)

func (t Tear) String() string { return [...]string{"before", "inside", "after"}[t] }

// Op is a flash operation that the chip was about to do.
type Op struct {
	Erase   bool
	Address uint32 // of the page, or the word
	Word    uint32 // to be programmed
}

func (o Op) String() string {
	if o.Erase {
		return fmt.Sprintf("erase of the page at 0x%05x", o.Address)
	}
	return fmt.Sprintf("program of 0x%08x at 0x%05x", o.Word, o.Address)
}

// ErrCut: the power was cut, as planned.
var ErrCut = errors.New("power cut")

// symbols of the flash driver's two operations (firmware/nrf51/flash.go).
const eraseSymbol, programSymbol = "flash_erase_page", "flash_program_word"

// operations are the entries of the driver's two functions in all of the kit's
// programs.
func (k *Kit) operations() (erases, programs []uint32) {
	for _, f := range []*Firmware{k.Boot, k.App[0], k.App[1]} {
		erases = append(erases, f.Symbols[eraseSymbol]&^1)
		programs = append(programs, f.Symbols[programSymbol]&^1)
	}
	return erases, programs
}

// secondInstruction is where a stop at an entry goes on to: both of the driver's
// functions begin with an instruction of two bytes that is no branch.
const secondInstruction = 2

// RunToCut is one start of the lab's chip, which ends in the cut (ErrCut), or before it:
// in a reset (ErrReset), or where stop said so (nil). look sees each operation that is
// counted, before it happens, with the flash word that stands there.
func (l *Lab) RunToCut(ctx context.Context, k *Kit, c Cut, look func(op Op, stands uint32) error, stop func(*Lab) bool) (Op, error) {
	l.Starts++
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	l.mu.Lock()
	l.stop, l.cancel = stop, cancel
	l.mu.Unlock()
	r, err := l.Chip.Start(run, true)
	if err != nil {
		return Op{}, err
	}
	defer r.Kill()
	served := make(chan struct{})
	go func() {
		defer close(served)
		l.Line.Serve(r.Serial)
	}()
	op, end := r.toCut(run, k, c, look)
	if errors.Is(end, context.Canceled) && ctx.Err() == nil {
		end = nil // what was waited for came before the cut
	}
	if end == nil || errors.Is(end, ErrCut) || errors.Is(end, ErrReset) || errors.Is(end, context.DeadlineExceeded) {
		if err := r.Off(); err != nil {
			return op, err
		}
	}
	r.Kill()
	<-served
	if !errors.Is(end, ErrReset) {
		l.Chip.PowerCut()
	}
	if errors.Is(end, ErrCut) {
		c.apply(l.Chip.Flash, op)
	}
	return op, end
}

func (r *Run) toCut(ctx context.Context, k *Kit, c Cut, look func(Op, uint32) error) (Op, error) {
	erases, programs := k.operations()
	at := erases
	if c.Erase == 0 {
		at = append(append([]uint32(nil), erases...), programs...)
	}
	for _, addr := range at {
		if err := r.Break(addr); err != nil {
			return Op{}, err
		}
	}
	for erased, n := 0, 0; ; {
		pc, err := r.Continue(ctx)
		if err != nil {
			return Op{}, err
		}
		op := Op{Erase: slices.Contains(erases, pc)}
		if !op.Erase && !slices.Contains(programs, pc) {
			return op, fmt.Errorf("stopped at 0x%x, where no flash operation is", pc)
		}
		stands, err := r.operation(&op)
		if err != nil {
			return op, err
		}
		if err := look(op, stands); err != nil {
			return op, err
		}
		if op.Erase {
			if erased++; erased == c.Erase { // from here on each operation counts
				for _, addr := range programs {
					if err := r.Break(addr); err != nil {
						return op, err
					}
				}
			}
		}
		if erased >= c.Erase {
			if n == c.Op {
				return op, ErrCut
			}
			n++
		}
		if err := r.pass(ctx, pc); err != nil {
			return op, err
		}
	}
}

// operation reads what the chip is about to do, and what stands in flash there.
func (r *Run) operation(op *Op) (stands uint32, err error) {
	if op.Address, err = r.Register(0); err != nil {
		return 0, err
	}
	if op.Word, err = r.Register(1); err != nil {
		return 0, err
	}
	return r.Word(op.Address)
}

// pass goes past the breakpoint that the chip stands at.
func (r *Run) pass(ctx context.Context, pc uint32) error {
	next := pc + secondInstruction
	for _, do := range []func() error{
		func() error { return r.Delete(pc) },
		func() error { return r.Break(next) },
		func() error {
			got, err := r.Continue(ctx)
			if err == nil && got != next {
				err = fmt.Errorf("stopped at 0x%x behind 0x%x", got, pc)
			}
			return err
		},
		func() error { return r.Delete(next) },
		func() error { return r.Break(pc) },
	} {
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}

// apply puts into flash what the cut left of an operation.
func (c Cut) apply(flash []byte, op Op) {
	if c.Tear == Before {
		return
	}
	rng := rand.New(rand.NewPCG(c.Seed, uint64(op.Address)))
	byteOf := func(all byte) byte {
		if c.Tear == After {
			return all
		}
		return all & byte(rng.Uint32())
	}
	if op.Erase {
		for i := op.Address; i < op.Address+PageSize; i++ {
			flash[i] |= byteOf(0xFF)
		}
		return
	}
	for i := range uint32(ProgramSize) {
		flash[op.Address+i] &^= byteOf(^byte(op.Word >> (8 * i)))
	}
}
