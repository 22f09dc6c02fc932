// Command patch counts what applying a patch costs on an emulated Cortex-M0: a golden
// one for the small profile, from a program of Thumb code to its next version.
package main

import (
	_ "embed"

	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/tools/tinygo/check/board"
)

// Copies of golden files (testdata/vectors/patch); internal/delta's tests hold them against
// those.
var (
	//go:embed old.bin
	oldImage string
	//go:embed new.bin
	newImage string
	//go:embed small.patch
	patchFile string
)

// fileHead is the header of a patch file, bytes (docs/format/patch.md).
const fileHead = 84

// slot is an image in flash.
type slot struct{ image *string }

func (s *slot) ReadAt(p []byte, off uint32) error {
	copy(p, (*s.image)[off:])
	return nil
}

var (
	old, new = slot{&oldImage}, slot{&newImage}
	applier  patch.Applier
	memory   [patch.SmallWords]uint16
	out      [256]byte
	in       [128]byte
)

func main() {
	payload := patchFile[fileHead:]
	board.PaintStack()
	board.StartClock()
	start := board.Instructions()
	applier.Begin(patch.Config{Old: &old, OldSize: uint32(len(oldImage)), New: &new, NewSize: uint32(len(newImage)), Out: out[:], Memory: memory[:]})
	made, wrong := 0, uint32(0)
	longest := uint32(0)
	for run := true; run; {
		began := board.Instructions()
		status := applier.Step()
		if n := board.Instructions() - began; n > longest {
			longest = n
		}
		switch status {
		case patch.Hungry:
			n := applier.Feed(in[:copy(in[:], payload)])
			payload = payload[n:]
			if len(payload) == 0 {
				applier.End()
			}
			continue
		case patch.Full, patch.Done:
			for _, b := range applier.Output() {
				if b != newImage[made] {
					wrong++
				}
				made++
			}
			applier.Wrote()
			run = status == patch.Full
		default:
			run = false
		}
	}
	took := board.Instructions() - start
	board.Print("bytes made", uint32(made))
	board.Print("of those wrong", wrong)
	board.Print("bytes missing", uint32(len(newImage)-made))
	board.Print("bytes of the patch", uint32(len(patchFile)-fileHead))
	board.Print("instructions for a byte", took/uint32(made+1))
	board.Print("longest Step, with an output of 256 bytes", longest)
	board.Print("stack", board.StackUsed())
}
