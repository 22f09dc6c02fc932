package oracletest

import (
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/esp32"
)

// loadCase is one world for the load: which partitions there are, and which hold an
// image that verifies.
type loadCase struct {
	slots         uint32 // ota entries
	here, good    uint32 // bit i: slot i has a size; its image verifies
	factory, test part
	start         int32
	initial       bool
}

type part uint8

const (
	absent part = iota
	broken
	sound
)

// Offsets of partitions.
const (
	factoryOff = 0x10000
	testOff    = 0x20000
	slotOff    = 0x100000 // and every 0x10000
	partSize   = 0x10000
)

func (c loadCase) state() *State {
	s := &State{OTAData: Place{otadataOff, esp32.OTADataSize}, AppCount: c.slots}
	for i := range c.slots {
		if c.here>>i&1 == 1 {
			s.OTA[i] = Place{slotOff + i*partSize, partSize}
		}
	}
	if c.factory != absent {
		s.Factory = Place{factoryOff, partSize}
	}
	if c.test != absent {
		s.Test = Place{testOff, partSize}
	}
	return s
}

// offset is the partition of an index of core/esp32, false where there is none.
func (c loadCase) offset(index int32) (uint32, bool) {
	switch index {
	case esp32.FactoryIndex:
		return factoryOff, c.factory != absent
	case esp32.TestIndex:
		return testOff, c.test != absent
	}
	return slotOff + uint32(index)*partSize, c.here>>uint32(index)&1 == 1
}

func (c loadCase) verifies(off uint32) bool {
	switch off {
	case factoryOff:
		return c.factory == sound
	case testOff:
		return c.test == sound
	}
	return c.good>>((off-slotOff)/partSize)&1 == 1
}

// loaded is all that can be seen of a load.
type loaded struct {
	tried  []uint32 // offsets
	starts uint32   // the offset; 0: it resets
	after  [2]esp32.Entry
	ops    []string
}

func (l loaded) equal(o loaded) bool {
	return slices.Equal(l.tried, o.tried) && l.starts == o.starts && l.after == o.after && slices.Equal(l.ops, o.ops)
}

type order func(start int32, appCount uint32, i int) (int32, bool)

// oursLoad is what the project's functions say, put together as sim/board does.
func oursLoad(next order, c loadCase, e [2]esp32.Entry) loaded {
	l := loaded{after: e}
	for i := 0; ; i++ {
		k, ok := next(c.start, c.slots, i)
		if !ok {
			return l
		}
		off, ok := c.offset(k)
		if !ok {
			continue
		}
		l.tried = append(l.tried, off)
		if !c.verifies(off) {
			continue
		}
		l.starts = off
		if c.initial && k >= 0 {
			l.after[0] = esp32.InitialEntry(k)
			l.ops = []string{"erase0", "write0"}
		}
		return l
	}
}

func realLoad(b *Bootloader, c loadCase, e [2]esp32.Entry) (loaded, error) {
	f := &records{e: e}
	l := loaded{}
	off, ok, err := b.Load(f, c.state(), c.start, c.initial, func(off uint32) bool {
		l.tried = append(l.tried, off)
		return c.verifies(off)
	})
	if ok {
		l.starts = off
	}
	l.after, l.ops = f.e, f.ops
	return l, err
}

// everyLoad is each start index that the selection can give, for 0 to 4 slots of
// which each is sound, broken or absent, with and without factory and test; with
// -short every seventh of them.
func everyLoad(ask func(loadCase)) (asked int) {
	every, k := 1, 0
	if testing.Short() {
		every = 7
	}
	for slots := range uint32(5) {
		for here := range uint32(1) << slots {
			for good := range uint32(1) << slots {
				if good&^here != 0 {
					continue
				}
				for _, factory := range []part{absent, broken, sound} {
					for _, test := range []part{absent, broken, sound} {
						for start := int32(-1); start < int32(max(slots, 1)); start++ {
							for _, initial := range []bool{false, true} {
								if k++; k%every != 0 {
									continue
								}
								ask(loadCase{slots, here, good, factory, test, start, initial})
								asked++
							}
						}
					}
				}
			}
		}
	}
	return asked
}

// TestLoadOrder: partitions are tried in the order of esp32.LoadOrder, the first
// that verifies starts, and what the records say then is as in esp32.InitialEntry.
func TestLoadOrder(t *testing.T) {
	b := Open(t)
	e := [2]esp32.Entry{esp32.NewEntry(7, esp32.StateAborted), esp32.NewEntry(9, esp32.StateInvalid)}
	starts, resets, writes := 0, 0, 0
	asked := everyLoad(func(c loadCase) {
		want, err := realLoad(b, c, e)
		if err != nil {
			t.Fatalf("%+v: %v", c, err)
		}
		if got := oursLoad(esp32.LoadOrder, c, e); !got.equal(want) {
			t.Errorf("%+v:\nours %+v\nreal %+v", c, got, want)
		}
		if want.starts == 0 {
			resets++
		} else {
			starts++
		}
		writes += len(want.ops) / 2
	})
	if starts == 0 || resets == 0 || writes == 0 {
		t.Error("not everything was seen")
	}
	t.Logf("%d cases: %d start, %d reset, %d records written", asked, starts, resets, writes)
}
