package oracletest

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/internal/testenv"
)

// TestOtherBinary: addresses are of one binary; any other is refused.
func TestOtherBinary(t *testing.T) {
	if _, err := New([]byte{0xE9, 1}); err == nil || !strings.Contains(err.Error(), "SHA-256") {
		t.Errorf("%v", err)
	}
	raw, err := os.ReadFile(testenv.Shared(t, fileName))
	if err != nil {
		t.Fatal(err)
	}
	raw[5000] ^= 1
	if _, err := New(raw); err == nil {
		t.Error("one bit more or less was not noticed")
	}
	if _, err := segments(raw); !errors.Is(err, esp32.ErrChecksum) {
		t.Errorf("a flipped bit in a segment: %v", err)
	}
}

// failing is records whose n-th operation fails, as a broken chip's.
type failing struct {
	records
	n int
}

func (f *failing) Erase(off, n uint32) error {
	if f.n--; f.n == 0 {
		return flash.ErrPower
	}
	return f.records.Erase(off, n)
}

func (f *failing) Program(p []byte, off uint32) error {
	if f.n--; f.n == 0 {
		return flash.ErrPower
	}
	return f.records.Program(p, off)
}

// TestFlashOperations: what is seen of an operation. write_otadata itself is
// executed: it does not write where its erase failed, and goes on.
func TestFlashOperations(t *testing.T) {
	b := Open(t)
	pending := [2]esp32.Entry{esp32.NewEntry(1, esp32.StatePending), esp32.NewEntry(2, esp32.StatePending)}
	s := State{OTAData: Place{otadataOff, esp32.OTADataSize}, AppCount: 2}
	ops := func(encrypted bool) []Op {
		return []Op{
			{Erase: true, Off: otadataOff, Len: 4096}, {Encrypted: encrypted, Off: otadataOff, Len: 32},
			{Erase: true, Off: otadataOff + 4096, Len: 4096}, {Encrypted: encrypted, Off: otadataOff + 4096, Len: 32},
		}
	}
	for _, encrypted := range []bool{false, true} {
		b.Encrypted = encrypted
		if _, _, err := b.Select(&records{e: pending}, &s); err != nil || !slices.Equal(b.Ops, ops(encrypted)) {
			t.Errorf("encrypted %v: %v, %v", encrypted, b.Ops, err)
		}
	}
	b.Encrypted = false
	for n, want := range map[int][]Op{1: slices.Delete(ops(false), 1, 2), 2: ops(false), 3: ops(false)[:3], 4: ops(false)} {
		if _, _, err := b.Select(&failing{records{e: pending}, n}, &s); err != nil || !slices.Equal(b.Ops, want) {
			t.Errorf("operation %d fails: %v, %v", n, b.Ops, err)
		}
	}
	// Otadata that is missing, or too small to be believed.
	for _, c := range []struct {
		place Place
		want  int32
	}{{Place{}, esp32.FactoryIndex}, {Place{otadataOff, 0x1000}, InvalidIndex}, {Place{otadataOff, esp32.OTADataSize}, 0}} {
		s := State{OTAData: c.place, AppCount: 2}
		f := &records{e: [2]esp32.Entry{esp32.NewEntry(1, esp32.StateValid), esp32.BlankEntry()}}
		if got, _, err := b.Select(f, &s); err != nil || got != c.want || len(b.Ops) != 0 {
			t.Errorf("otadata %+v: index %d, %v, %v", c.place, got, b.Ops, err)
		}
	}
}

// TestNothingStays: a run finds the machine as a power-on does, whatever was before.
func TestNothingStays(t *testing.T) {
	b := Open(t)
	b.m.reset(&records{})
	fresh := slices.Clone(b.m.sram)
	q := question{[2]esp32.Entry{esp32.NewEntry(1, esp32.StatePending), esp32.NewEntry(2, esp32.StateNew)}, 2, false}
	first, err := real(b, q)
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Equal(b.m.sram, fresh) {
		t.Fatal("nothing was written to memory")
	}
	if _, _, err := b.Load(&records{}, &State{AppCount: 1}, 0, true, func(uint32) bool { return false }); err != nil {
		t.Fatal(err)
	}
	b.m.reset(&records{})
	if !bytes.Equal(b.m.sram, fresh) {
		t.Error("memory is not as after the first reset")
	}
	if again, err := real(b, q); err != nil || !again.equal(first) {
		t.Errorf("asked again: %v, %v; first %v", again, err, first)
	}
}

// TestOutOfBounds: what the code must not touch ends the run, with the place.
func TestOutOfBounds(t *testing.T) {
	b := Open(t)
	b.begin(&records{})
	for _, addr := range []uint32{0, windowBase, windowBase + windowSize, 0x60000000, sramData + sramSize} {
		if _, err := b.m.Load(addr, 4); err == nil {
			t.Errorf("load at 0x%08x", addr)
		}
		if err := b.m.Store(addr, 4, 0); err == nil {
			t.Errorf("store at 0x%08x", addr)
		}
		if _, err := b.m.Fetch(addr); err == nil {
			t.Errorf("fetch at 0x%08x", addr)
		}
	}
	if _, err := b.m.cpu.Call(10, addrAssert); !errors.Is(err, errAssert) {
		t.Errorf("an assertion: %v", err)
	}
	// Flash that is too short for a boot's partition table: an access, not a guess.
	if _, _, err := b.Boot(&records{}, 4<<20); !errors.Is(err, flash.ErrRange) || !strings.Contains(err.Error(), "flash at 0x8000") {
		t.Errorf("flash without a partition table: %v", err)
	}
}

func BenchmarkSelect(b *testing.B) {
	o := Open(b)
	q := question{[2]esp32.Entry{esp32.NewEntry(1, esp32.StateValid), esp32.NewEntry(2, esp32.StateNew)}, 2, true}
	steps := uint64(0)
	for b.Loop() {
		if _, err := real(o, q); err != nil {
			b.Fatal(err)
		}
		steps += o.Steps
	}
	b.ReportMetric(float64(steps)/b.Elapsed().Seconds()/1e6, "Minstr/s")
}
