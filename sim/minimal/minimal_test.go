// Package minimal runs firmware/examples/minimal, the program that docs/porting.md
// explains, through an update inside the emulated chip.
package minimal

import (
	"bytes"
	"context"
	"testing"
	"time"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/factory"
	"github.com/runnel-fota/runnel/internal/testenv"
	"github.com/runnel-fota/runnel/internal/tinygo"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/qemu"
)

// limit bounds the emulators; an update takes seconds.
const limit = 4 * time.Minute

// build is the example, linked for a slot and sealed.
func build(t *testing.T, b *qemu.Builder, slot int) []byte {
	t.Helper()
	f, err := b.Build(t.Context(), "microbit", "../examples/minimal", []string{"slot0", "slot1"}[slot])
	if err != nil {
		t.Fatal(err)
	}
	img := bytes.Clone(f.Image)
	if err := boot.SealRaw(img); err != nil {
		t.Fatal(err)
	}
	t.Logf("slot %d: %d bytes", slot, len(img))
	return img
}

// The example takes a build of itself for the other slot, starts it and confirms it;
// and the one after that, back into its first slot.
func TestUpdate(t *testing.T) {
	testenv.Tool(t, qemu.Program)
	for _, p := range tinygo.Programs {
		testenv.Tool(t, p)
	}
	b, err := qemu.NewBuilder(t.Context(), testenv.Root())
	if err != nil {
		t.Fatal(err)
	}
	kit, err := qemu.BuildKit(t.Context(), b) // of it only the boot stage
	if err != nil {
		t.Fatal(err)
	}
	book, err := labserver.NewBook()
	if err != nil {
		t.Fatal(err)
	}
	book.Raw = true
	images := [2][]byte{build(t, b, 0), build(t, b, 1)}
	page := factory.Page{Device: []byte(labserver.Device), Product: []byte(labserver.Product), Hardware: []byte(labserver.Hardware),
		Secret: &book.Secret, Roots: book.Baked()}
	flash, err := kit.Flash(images[0], &page)
	if err != nil {
		t.Fatal(err)
	}
	lab := qemu.NewLab(&qemu.Chip{Board: qemu.Microbit, Flash: flash}, labserver.New(book))
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	for n, target := range []int{1, 0} {
		// What tells the builds of a release apart is behind the code: the digest differs.
		var built [2][]byte
		for slot := range built {
			built[slot] = append(bytes.Clone(images[slot]), byte(n+1), 0, 0, 0)
			if err := boot.SealRaw(built[slot]); err != nil {
				t.Fatal(err)
			}
		}
		first := -1
		for slot, img := range built {
			i, err := book.AddBuild([]string{"2.0.0", "3.0.0"}[n], img, uint32(n+2), 0, 1024, slot)
			if err != nil {
				t.Fatal(err)
			}
			if first < 0 {
				first = i
			}
		}
		lab.Server.Offer = first
		confirmed := func(l *qemu.Lab) bool { return l.Server.Heard[first].Confirmed || l.Server.Heard[first+1].Confirmed }
		if err := lab.Run(ctx, confirmed); err != nil {
			t.Fatalf("update %d: %v after %d starts, %d calls, %d polls", n, err, lab.Starts, lab.Line.Calls, lab.Server.Polls)
		}
		if got := lab.Chip.Flash[qemu.SlotAt[target]:][:len(built[target])]; !bytes.Equal(got, built[target]) {
			t.Errorf("update %d: slot %d does not hold the build for it", n, target)
		}
	}
	t.Logf("%d starts, %d calls on the line", lab.Starts, lab.Line.Calls)
}
