package state

import (
	"errors"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/flash"
)

// memory is a chip of two sectors that erases and programs, and can lose its power
// before an operation.
type memory struct {
	cells [8192]byte
	left  int // operations until the power fails; below 0: never
}

func (m *memory) Geometry() flash.Geometry {
	return flash.Geometry{Size: uint32(len(m.cells)), EraseSize: 4096, ProgramSize: 1, ErasedByte: 0xFF, ErasedReadable: true}
}
func (m *memory) ReadAt(p []byte, off uint32) error { copy(p, m.cells[off:]); return nil }
func (m *memory) Sync() error                       { return nil }
func (m *memory) Program(p []byte, off uint32) error {
	if m.left == 0 {
		for i := range p[:len(p)/2] { // torn in the middle
			m.cells[off+uint32(i)] &= p[i]
		}
		return flash.ErrPower
	}
	m.left--
	for i := range p {
		m.cells[off+uint32(i)] &= p[i]
	}
	return nil
}
func (m *memory) Erase(off, n uint32) error {
	if m.left == 0 {
		for i := off; i < off+n; i += 2 {
			m.cells[i] = 0xFF
		}
		return flash.ErrPower
	}
	m.left--
	for i := off; i < off+n; i++ {
		m.cells[i] = 0xFF
	}
	return nil
}

func open(t testing.TB, m *memory) *Sectors {
	t.Helper()
	a, err := flash.NewArea(m, 0, 8192)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSectors(a)
	if err != nil {
		t.Fatal(err)
	}
	return &s
}

func save(s *Sectors, r *Record) error {
	buf := make([]byte, BufferSize)
	for {
		if done, err := s.Save(r, buf); done || err != nil {
			return err
		}
	}
}

func full() Record {
	r := Record{Outcome: OutcomeCrashed, NonceLimit: 1 << 40, BootCount: 7, BadNext: 3, Spent: 5, SpentStamp: 0x01020304}
	r.Trial = Trial{Open: true, Confirming: true, Rejected: true, Slot: 1, Stagings: 2, Boots: 3}
	r.Trial.Image = Image{Digest: [32]byte{1, 2}, Size: 9, Stamp: 8, Version: [32]byte{'v'}, VersionLen: 1}
	r.Trial.Image.Epoch, r.Trial.Image.Security, r.Trial.Image.TrialSeconds, r.Trial.Image.NoContact = 2, 3, 600, true
	r.Confirmed = Confirmed{Digest: [32]byte{3}, Size: 5, Stamp: 4, Epoch: 6, Security: 7, Slot: 1}
	r.Previous = Confirmed{Digest: [32]byte{4}, Size: 6, Stamp: 3, Epoch: 5, Security: 6, Slot: boot.Factory}
	r.Floors = Floors{Epoch: 6, Stamp: 4, Security: 7}
	r.Bad[2] = BadImage{DigestHead: [8]byte{5}, Stamp: 6}
	return r
}

func TestSaveLoad(t *testing.T) {
	m := &memory{left: -1}
	want := full()
	for n := range 5 { // over both sectors and back
		want.BootCount++
		if err := save(open2(t, m), &want); err != nil {
			t.Fatal(err)
		}
		var got Record
		if err := open(t, m).Load(&got, make([]byte, BufferSize)); err != nil || got != want {
			t.Fatalf("save %d: %+v, %v", n, got, err)
		}
	}
}

// open2 is a store that has read what is there, as after a reset.
func open2(t testing.TB, m *memory) *Sectors {
	s := open(t, m)
	var r Record
	if err := s.Load(&r, make([]byte, BufferSize)); err != nil {
		t.Fatal(err)
	}
	return s
}

// A cut at any operation of a save leaves the old record or the new one.
func TestCutSave(t *testing.T) {
	old, next := full(), full()
	next.BootCount, next.Outcome = 100, OutcomeConfirmed
	for k := range 2 {
		m := &memory{left: -1}
		if err := save(open2(t, m), &old); err != nil {
			t.Fatal(err)
		}
		m.left = k
		if err := save(open2(t, m), &next); !errors.Is(err, flash.ErrPower) {
			t.Fatalf("operation %d: no cut: %v", k, err)
		}
		m.left = -1
		var got Record
		if err := open(t, m).Load(&got, make([]byte, BufferSize)); err != nil || got != old {
			t.Errorf("operation %d: %+v, %v", k, got, err)
		}
		if err := save(open2(t, m), &next); err != nil {
			t.Fatal(err)
		}
		if err := open(t, m).Load(&got, make([]byte, BufferSize)); err != nil || got != next {
			t.Errorf("operation %d, saved again: %v", k, err)
		}
	}
}

func TestBad(t *testing.T) {
	var r Record
	d := func(i byte) *[32]byte { return &[32]byte{i + 1} }
	r.MarkBad(d(0), 10)
	r.MarkBad(d(0), 5) // never back to an older stamp
	if !r.IsBad(d(0), 10) || r.IsBad(d(0), 11) || r.IsBad(d(1), 1) {
		t.Error("a bad image is bad up to its stamp")
	}
	for i := range byte(BadImages) {
		r.MarkBad(d(i+1), 1)
	}
	if r.IsBad(d(0), 1) || !r.IsBad(d(BadImages), 1) {
		t.Error("the oldest is forgotten, the newest kept")
	}
}

func TestNewerFormatIsRefused(t *testing.T) {
	m := &memory{left: -1}
	r := full()
	if err := save(open2(t, m), &r); err != nil {
		t.Fatal(err)
	}
	p := m.cells[:Size]
	if m.cells[0] != 'R' {
		p = m.cells[4096 : 4096+Size]
	}
	p[4] = format + 1
	fix(p)
	if err := open(t, m).Load(&r, make([]byte, BufferSize)); !errors.Is(err, ErrFormat) {
		t.Errorf("%v", err)
	}
}

// FuzzLoad: whatever stands in flash, Load ends with a record within its bounds,
// and a record that is accepted is written the same again.
func FuzzLoad(f *testing.F) {
	r := full()
	var p [Size]byte
	r.encode(p[:], 3, &extent{})
	f.Add(p[:])
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &memory{left: -1}
		n := copy(m.cells[:Size], data)
		if n == Size {
			fix(m.cells[:Size])
		}
		var got Record
		if err := open(t, m).Load(&got, make([]byte, BufferSize)); err != nil {
			return
		}
		if got.BadNext >= BadImages || got.Trial.Image.VersionLen > VersionBytes {
			t.Fatalf("out of bounds: %+v", got)
		}
		if err := save(open2(t, m), &got); err != nil {
			t.Fatal(err)
		}
		var again Record
		if err := open(t, m).Load(&again, make([]byte, BufferSize)); err != nil || again != got {
			t.Fatalf("written again: %v", err)
		}
	})
}
