//go:build !tinygo

// Not inside the emulated chip: models of large chips fill its heap, where a
// conservative collector takes their bytes for pointers.

package flashtest

import (
	"fmt"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// geometries are chips of all sorts: small and large sectors, a size that is no
// power of two, units of 1 to 256 bytes, with and without blocks, encrypting, and
// one whose erased bytes read as 0.
func geometries() []flash.Geometry {
	var list []flash.Geometry
	for _, g := range []flash.Geometry{
		{Size: 8 * 256, EraseSize: 256},
		{Size: 4 * 256, EraseSize: 256, BlockEraseSize: 1024},
		{Size: 30 * 512, EraseSize: 512, BlockEraseSize: 2048},
		{Size: 7 * 768, EraseSize: 768, BlockEraseSize: 1536},
		{Size: 40 * 4096, EraseSize: 4096, BlockEraseSize: 65536},
		{Size: 12 * 4096, EraseSize: 4096},
		{Size: 5 * 131072, EraseSize: 131072},
	} {
		for _, unit := range []uint32{1, 4, 16, 256} {
			if unit != 16 && (g.EraseSize > 65536 || testing.Short() && g.EraseSize > 512) {
				continue // the large ones take their time, and say nothing new
			}
			g.ProgramSize, g.ErasedByte, g.ErasedReadable = unit, 0xFF, true
			list = append(list, g)
			if unit == 16 {
				g.ErasedReadable = false
				list = append(list, g)
				g.ErasedReadable, g.ErasedByte = true, 0
				list = append(list, g)
			}
		}
	}
	return list
}

func name(g flash.Geometry) string {
	return fmt.Sprintf("%dx%d,block=%d,unit=%d,erased=%02x,readable=%v",
		g.Size/g.EraseSize, g.EraseSize, g.BlockEraseSize, g.ProgramSize, g.ErasedByte, g.ErasedReadable)
}

func TestSoundDevicesPass(t *testing.T) {
	for _, g := range geometries() {
		t.Run(name(g), func(t *testing.T) {
			Run(t, func(testing.TB) flash.Device { return newRAM(g) })
		})
	}
}

func TestSoundAreasPass(t *testing.T) {
	for _, g := range geometries() {
		if g.Size/g.EraseSize < 6 {
			continue
		}
		t.Run(name(g), func(t *testing.T) {
			Run(t, func(t testing.TB) flash.Device { return newWindow(t, newRAM(g), g.EraseSize, g.Size-2*g.EraseSize) })
		})
	}
}

// A driver of a real chip checks nothing itself and may let a second program pass.
func TestSoundDriversPass(t *testing.T) {
	for _, g := range geometries() {
		t.Run(name(g), func(t *testing.T) {
			RunDriver(t, func(testing.TB) flash.Device {
				m := newRAM(g)
				m.lax = true
				return m
			})
		})
	}
}

// mute is a device with no optional power.
type mute struct{ flash.Device }

func TestOptionalPowersAreOptional(t *testing.T) {
	Run(t, func(testing.TB) flash.Device { return mute{newRAM(plain)} })
}
