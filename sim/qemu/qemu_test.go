package qemu

import (
	"bytes"
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/internal/tinygo"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// limit bounds a test's emulators; an update takes seconds.
const limit = 4 * time.Minute

var built struct {
	once sync.Once
	b    *Builder
	err  error
	kits map[string]*Kit
}

// builder builds firmware, once for all tests.
func builder(t *testing.T) *Builder {
	t.Helper()
	testenv.Tool(t, Program)
	for _, p := range tinygo.Programs {
		testenv.Tool(t, p)
	}
	built.once.Do(func() {
		built.b, built.err = NewBuilder(context.Background(), testenv.Root())
		built.kits = map[string]*Kit{}
	})
	if built.err != nil {
		t.Fatal(built.err)
	}
	return built.b
}

// microbit is its firmware, for a profile: "" or "signed".
func microbit(t *testing.T, profile string) *Kit {
	t.Helper()
	b := builder(t)
	if k := built.kits[profile]; k != nil {
		return k
	}
	var tags []string
	if profile != "" {
		tags = []string{profile}
	}
	k, err := BuildKit(t.Context(), b, tags...)
	if err != nil {
		t.Fatal(err)
	}
	built.kits[profile] = k
	return k
}

// rig is a lab in a test.
type rig struct {
	*Lab
	t    *testing.T
	book *labserver.Book
}

// bench is a board with version 1 in slot 0, and a server that has releases.
type bench struct {
	rig
	kit    *Kit
	start  []byte               // flash as it left the factory
	images map[string][2][]byte // by version
}

func newBench(t *testing.T, k *Kit) *bench {
	t.Helper()
	b := &bench{rig: rig{t: t}, kit: k, images: map[string][2][]byte{}}
	var first [2][]byte
	var err error
	for slot := range first {
		if first[slot], err = k.Image(slot, "1.0.0", Healthy); err != nil {
			t.Fatal(err)
		}
	}
	b.images["1.0.0"] = first
	if b.Lab, b.book, err = k.NewMicrobit(first[0]); err != nil {
		t.Fatal(err)
	}
	b.start = bytes.Clone(b.Chip.Flash)
	return b
}

// release signs both builds of a version, and returns the number of that for slot 0;
// the other one follows.
func (b *bench) release(version string, sequence uint32, f Fault) int {
	b.t.Helper()
	n, images, err := b.kit.Release(b.book, version, sequence, f)
	if err != nil {
		b.t.Fatal(err)
	}
	b.images[version] = images
	return n
}

// run lets the board run until stop says so.
func (b *rig) run(stop func(*Lab) bool) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), limit)
	defer cancel()
	if err := b.Run(ctx, stop); err != nil {
		for _, e := range b.Events[max(0, len(b.Events)-12):] {
			b.t.Logf("event %d, reason %v, slot %d, %d bytes", e.Kind, e.Reason, e.Slot, e.Bytes)
		}
		b.t.Fatalf("after %d starts, %d calls, %d polls: %v", b.Starts, b.Line.Calls, b.Server.Polls, err)
	}
}

// more stops after n polls from now.
func (b *rig) more(n int) func(*Lab) bool {
	until := b.Server.Polls + n
	return func(l *Lab) bool { return l.Server.Polls >= until }
}

// heard is what the server has heard of the builds of a release.
func (b *bench) heard(release int) labserver.Heard {
	a, c := b.Server.Heard[release], b.Server.Heard[release+1]
	a.Confirmed, a.Ended = a.Confirmed || c.Confirmed, a.Ended || c.Ended
	for i := range a.Reasons {
		a.Reasons[i] |= c.Reasons[i]
	}
	return a
}

// record is what the boot records say, read as the boot stage does.
func (b *bench) record() boot.Record {
	b.t.Helper()
	chip, err := nor.New(nor.Config{Size: 2 * PageSize, EraseSize: PageSize, BlockEraseSize: nor.NoBlocks, ProgramSize: ProgramSize})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := chip.Load(0, b.Chip.Flash[RecordsAt:RecordsAt+2*PageSize]); err != nil {
		b.t.Fatal(err)
	}
	area, err := flash.NewArea(chip, 0, 2*PageSize)
	if err != nil {
		b.t.Fatal(err)
	}
	var r boot.Record
	if _, ok, err := boot.ReadRecord(&area, &r, make([]byte, boot.RecordBuffer)); !ok || err != nil {
		b.t.Fatalf("no boot record in force: %v", err)
	}
	return r
}

// starts checks which slot starts next, and that it holds a version byte for byte.
func (b *bench) starts(slot boot.Slot, version string) {
	b.t.Helper()
	r := b.record()
	if r.Active != slot || r.States[slot] != boot.RecordValid {
		b.t.Errorf("the record says %+v, want slot %d VALID", r, slot)
	}
	want := b.images[version][slot]
	if got := b.Chip.Flash[SlotAt[slot]:]; string(got[:len(want)]) != string(want) {
		b.t.Errorf("slot %d does not hold %s", slot, version)
	}
	for _, keep := range [][2]uint32{{0, SlotAt[0]}, {FactoryAt, Microbit.Flash.Size}} {
		if string(b.Chip.Flash[keep[0]:keep[1]]) != string(b.start[keep[0]:keep[1]]) {
			b.t.Errorf("flash from 0x%x to 0x%x was changed", keep[0], keep[1])
		}
	}
}

func (b *rig) said(k device.EventKind) bool { return b.Heard(k) }

// refused says whether the chip said that it failed for a reason.
func (b *rig) refused(why device.Reason) bool {
	return slices.ContainsFunc(b.Events, func(e device.Event) bool { return e.Kind == device.EventFailed && e.Reason == why })
}
