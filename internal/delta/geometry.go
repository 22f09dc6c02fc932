package delta

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/patch"
)

// geometry is whose code the images hold, and where it runs.
type geometry struct {
	arch    patch.Arch
	raw     bool
	oldBase uint32
	newBase uint32
	base    uint32 // of the image in hand, raw ones
	size    uint32
}

type segment struct{ Off, Size, Addr uint32 }

// espSegments are the parts of an ESP image, nil where it is none.
func espSegments(img []byte) []segment {
	if len(img) < 24 || img[0] != 0xE9 || img[1] == 0 || img[1] > 16 {
		return nil
	}
	var s []segment
	at := 24
	for range int(img[1]) {
		if at+8 > len(img) {
			return nil
		}
		addr, size := binary.LittleEndian.Uint32(img[at:]), binary.LittleEndian.Uint32(img[at+4:])
		if int64(at)+8+int64(size) > int64(len(img)) {
			return nil
		}
		s = append(s, segment{uint32(at + 8), size, addr})
		at += 8 + int(size)
	}
	return s
}

func (g *geometry) segments(img []byte) []segment {
	if g.arch == patch.ArchNone {
		return nil
	}
	if g.raw {
		return []segment{{0, uint32(len(img)), g.base}}
	}
	return espSegments(img)
}

func (g *geometry) pointer(v uint32) bool {
	return patch.Pointer(g.raw, g.base, g.size, v)
}

func (g *geometry) code(addr uint32) bool { return patch.Code(g.raw, addr) }

// guess finds out what both images are.
func guess(old, new []byte) geometry {
	so, sn := espSegments(old), espSegments(new)
	if so != nil && sn != nil && len(so) <= 16 && len(sn) <= 16 && len(new) > 24 {
		switch chip := binary.LittleEndian.Uint16(new[12:]); chip {
		case 0, 2, 9, 0xFFFF:
			return geometry{arch: patch.ArchXtensa}
		case 5, 12, 13, 16, 18, 20, 23:
			return geometry{arch: patch.ArchRISCV}
		}
		return geometry{arch: patch.ArchXtensa}
	}
	bo, ok1 := thumbBase(old)
	bn, ok2 := thumbBase(new)
	if ok1 && ok2 {
		return geometry{arch: patch.ArchThumb, raw: true, oldBase: bo, newBase: bn}
	}
	return geometry{}
}

// thumbBase finds where a Cortex-M image runs: at the base from which the most of its
// odd words point at a PUSH.
func thumbBase(img []byte) (uint32, bool) {
	if len(img) < 1024 {
		return 0, false
	}
	le := binary.LittleEndian
	var odd []uint32
	for i := 0; i+4 <= len(img); i += 4 {
		if v := le.Uint32(img[i:]); v&1 == 1 && v < 0x20000000 {
			odd = append(odd, v&^1)
		}
	}
	push := make([]bool, len(img))
	for i := 0; i+2 <= len(img); i += 2 {
		h := le.Uint16(img[i:])
		push[i] = h&0xFF00 == 0xB500 || h == 0xE92D
	}
	reset := le.Uint32(img[4:])
	best, most := uint32(0), 0
	lo := uint32(0)
	if reset > uint32(len(img)) {
		lo = (reset - uint32(len(img))) &^ 0x3FF
	}
	for b := uint64(lo); b <= uint64(reset); b += 0x400 {
		base := uint32(b)
		n := 0
		for _, v := range odd {
			if o := v - base; o < uint32(len(img)) && push[o] {
				n++
			}
		}
		if n > most {
			best, most = base, n
		}
	}
	return best, most >= 16
}

// with is g for the image in hand.
func (g geometry) with(img []byte, base uint32) *geometry {
	g.base, g.size = base, uint32(len(img))
	return &g
}
