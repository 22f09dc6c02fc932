//go:build !tinygo

package patch

// Encode lets e drive the applier, after Begin: e comes to the patch, and the applier
// to the new image. layout divides the memory.
func (a *Applier) Encode(e Encoder, layout uint8) Error {
	a.enc = e
	if err := a.divide(layout); err != 0 {
		return a.fail(err)
	}
	a.phase = phasePreamble
	return 0
}

// Guessed is how the byte that comes next in a run is predicted: the kind of what it
// belongs to, and whether the prediction differs from the old image.
func (a *Applier) Guessed() (kind int, moved bool) {
	i := a.from - a.guess.at
	if i >= uint32(a.guess.n) {
		return kindNone, false
	}
	return int(a.guess.kind), uint32(a.guess.first[i]) != a.oldByte(a.from)
}

// Arch is whose instructions are predicted.
func (a *Applier) Arch() Arch { return a.arch }

// Expect is the old image behind the last run: copies from it are coded from there.
func (a *Applier) Expect() int { return int(a.expect) }

// MinCopy is the shortest copy, bytes.
const MinCopy = minCopy

// MapLen is how many entries a layout's map has.
func MapLen(layout uint8) int { return int(layouts[layout].moves) }

// Code and Pointer are what the applier takes for an address of code, and for an
// address at all. raw images start at base and have size bytes.
func Code(raw bool, addr uint32) bool { return raw || within(espCode[:], addr) }

// Pointer: see Code.
func Pointer(raw bool, base, size, v uint32) bool {
	if raw {
		return rawPointer(base, size, v)
	}
	return within(espPointer[:], v)
}
