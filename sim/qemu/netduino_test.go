package qemu

import (
	"bytes"
	"sync"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
)

var netduinoBuilt struct {
	once sync.Once
	kit  *NetduinoKit
	err  error
}

// netduino is its firmware, built once for all tests.
func netduino(t *testing.T) *NetduinoKit {
	t.Helper()
	b := builder(t)
	netduinoBuilt.once.Do(func() { netduinoBuilt.kit, netduinoBuilt.err = BuildNetduino(t.Context(), b) })
	if netduinoBuilt.err != nil {
		t.Fatal(netduinoBuilt.err)
	}
	return netduinoBuilt.kit
}

// hostBench is a Netduino with version 1 in slot 0, and a server that has releases.
type hostBench struct {
	rig
	kit    *NetduinoKit
	size   int
	page   []byte            // the factory's
	images map[string][]byte // by version
	// Of RAM, bytes: the most that was used of the stack, and all else.
	stack, static int
}

// short is the size of an image where a test has no need of a whole one, bytes.
const short = 16 << 10

// newHostBench makes one whose images have size bytes; 0: all of the program.
func newHostBench(t *testing.T, seed uint64, size int) *hostBench {
	t.Helper()
	t.Logf("seed %d", seed)
	b := &hostBench{rig: rig{t: t}, kit: netduino(t), size: size, images: map[string][]byte{}}
	var err error
	if b.Lab, b.book, err = b.kit.NewNetduino(b.build("1.0.0", Healthy), seed); err != nil {
		t.Fatal(err)
	}
	b.page = bytes.Clone(b.Flash.NOR.Raw()[NetduinoMap.Factory:][:NetduinoMap.Sector])
	b.OnEnd = b.measure
	return b
}

func (b *hostBench) build(version string, f Fault) []byte {
	b.t.Helper()
	img, err := b.kit.Image(version, f, b.size)
	if err != nil {
		b.t.Fatal(err)
	}
	b.images[version] = img
	return img
}

// release signs a version, in records with chunks of that many bytes.
func (b *hostBench) release(version string, sequence uint32, chunk int, f Fault) int {
	b.t.Helper()
	n, err := b.book.Add(version, b.build(version, f), sequence, 0, chunk)
	if err != nil {
		b.t.Fatal(err)
	}
	return n
}

// measure looks at how far down the stack was used: start.s paints it.
func (b *hostBench) measure(c *Chip) {
	s := b.kit.App.Symbols
	bottom, top := s["_stack_bottom"]-c.Board.RAM.Base, s["_stack_top"]-c.Board.RAM.Base
	b.stack = max(b.stack, HighWater(c.RAM[bottom:top]))
	b.static = int(s["_ebss"] - s["_stack_top"])
}

// spare is how much of the stack is to stay unused, bytes.
const spare = 512

// end judges what holds after every test.
func (b *hostBench) end() {
	b.t.Helper()
	room := int(b.kit.App.Symbols["_stack_top"] - b.kit.App.Symbols["_stack_bottom"])
	f := b.Flash
	b.t.Logf("%d starts, %d calls on the line (of flash: %d reads, %d programs, %d erases); stack %d of %d bytes, %d of other RAM, flash %d",
		b.Starts, b.Line.Calls, f.Reads, f.Programs, f.Erases, b.stack, room, b.static, len(b.kit.App.Image))
	if b.stack > room-spare {
		b.t.Errorf("%d of %d bytes of stack were used, %d are to be spared", b.stack, room, spare)
	}
	if n := f.NOR.Misuses(); n != 0 {
		b.t.Errorf("flash was misused %d times", n)
	}
	if !bytes.Equal(f.NOR.Raw()[NetduinoMap.Factory:][:NetduinoMap.Sector], b.page) {
		b.t.Error("the factory page was changed")
	}
}

func (b *hostBench) record() boot.Record {
	b.t.Helper()
	var r boot.Record
	a := NetduinoMap.area(b.Flash.NOR, NetduinoMap.Records, 2*NetduinoMap.Sector)
	if _, ok, err := boot.ReadRecord(a, &r, make([]byte, boot.RecordBuffer)); !ok || err != nil {
		b.t.Fatalf("no boot record in force: %v", err)
	}
	return r
}

func (b *hostBench) holds(slot boot.Slot, version string) bool {
	img := b.images[version]
	return bytes.Equal(b.Flash.NOR.Raw()[NetduinoMap.Slots[slot]:][:len(img)], img)
}

// starts checks which slot starts next, and that it holds a version byte for byte.
func (b *hostBench) starts(slot boot.Slot, version string) {
	b.t.Helper()
	if r := b.record(); r.Active != slot || r.States[slot] != boot.RecordValid {
		b.t.Errorf("the record says %+v, want slot %d VALID", r, slot)
	}
	if !b.holds(slot, version) {
		b.t.Errorf("slot %d does not hold %s", slot, version)
	}
}
