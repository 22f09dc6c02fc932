package qemu

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
)

// Cut is a power cut in a flash operation of the chip's program. The emulator stops
// before the operation, and what it would have left half done is put into the flash
// that is taken out.
type Cut struct {
	// Call is after how many calls on the line of this start the operations are counted;
	// 0: from the start, the boot stage's included. Op is the operation, from 0.
	Call, Op int
	Tear     Tear
	Seed     uint64 // of a torn operation's bits
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

// breakpoints are the operations in all of the kit's programs.
func (k *Kit) breakpoints() map[uint32]bool {
	at := map[uint32]bool{} // is it an erase
	for _, f := range []*Firmware{k.Boot, k.App[0], k.App[1]} {
		at[f.Symbols[eraseSymbol]&^1] = true
		at[f.Symbols[programSymbol]&^1] = false
	}
	return at
}

// RunToCut is one start of the lab's chip, which ends in the cut (ErrCut), or before it:
// in a reset (ErrReset), or where stop said so (nil). look sees each operation that is
// counted, before it happens, with the flash word that stands there.
func (l *Lab) RunToCut(ctx context.Context, k *Kit, c Cut, look func(op Op, stands uint32) error, stop func(*Lab) bool) (Op, error) {
	l.Starts++
	run, cancel := context.WithCancel(ctx)
	defer cancel()
	interrupt := make(chan struct{}, 1)
	l.mu.Lock()
	until := l.Line.Calls + c.Call
	l.cancel = cancel
	l.stop = func(l *Lab) bool {
		if l.Line.Calls == until {
			interrupt <- struct{}{}
		}
		return stop(l)
	}
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
	op, end := r.toCut(run, k, c, interrupt, look)
	if errors.Is(end, context.Canceled) && ctx.Err() == nil {
		end = nil // what was waited for came before the cut
	}
	if end == nil || errors.Is(end, ErrCut) || errors.Is(end, ErrReset) {
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

func (r *Run) toCut(ctx context.Context, k *Kit, c Cut, interrupt <-chan struct{}, look func(Op, uint32) error) (Op, error) {
	at := k.breakpoints()
	if c.Call > 0 {
		if _, err := r.Continue(ctx, interrupt); err != nil {
			return Op{}, err
		}
	}
	for addr := range at {
		if err := r.Break(addr); err != nil {
			return Op{}, err
		}
	}
	for n := 0; ; {
		pc, err := r.Continue(ctx, nil)
		if err != nil {
			return Op{}, err
		}
		erase, ok := at[pc]
		if !ok {
			return Op{}, fmt.Errorf("stopped at 0x%x, where no flash operation is", pc)
		}
		op := Op{Erase: erase}
		if op.Address, err = r.Register(0); err != nil {
			return op, err
		}
		if op.Word, err = r.Register(1); err != nil {
			return op, err
		}
		stands, err := r.Word(op.Address)
		if err != nil {
			return op, err
		}
		if err := look(op, stands); err != nil {
			return op, err
		}
		if n == c.Op {
			return op, ErrCut
		}
		n++
	}
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
