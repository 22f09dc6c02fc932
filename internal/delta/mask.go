package delta

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/patch"
)

// masked is an image in which everything that says where something is looks the same:
// alignments are sought on it, so that code that moved is found.
func masked(img []byte, g *geometry) []byte {
	out := append([]byte(nil), img...)
	for _, s := range g.segments(img) {
		end := min(int(s.Off+s.Size), len(img))
		maskSegment(out, img, int(s.Off), end, s.Addr, g)
	}
	return out
}

func maskSegment(out, img []byte, start, end int, addr uint32, g *geometry) {
	le := binary.LittleEndian
	word := make([]bool, (end-start+3)/4+1)
	first := start + int(-addr&3)
	for i := first; i+4 <= end; i += 4 {
		if v := le.Uint32(img[i:]); g.pointer(v) {
			le.PutUint32(out[i:], v&0xFFF00000|0x12345)
			word[(i-first)/4] = true
		}
	}
	if !g.code(addr) {
		return
	}
	for i := start; i+4 <= end; {
		if (i-first)&3 == 0 && i >= first && word[(i-first)/4] {
			i += 4
			continue
		}
		switch g.arch {
		case patch.ArchXtensa:
			b := img[i]
			switch b & 15 {
			case 5:
				out[i], out[i+1], out[i+2] = b&0x3F, 0x11, 0x11
			case 1:
				out[i+1], out[i+2] = 0x22, 0x22
			}
			i += 3 - int(b>>3&1)
		case patch.ArchRISCV:
			w := le.Uint32(img[i:])
			switch {
			case w&3 != 3:
				i += 2
				continue
			case w&0x7F == 0x6F:
				le.PutUint32(out[i:], w&0xFFF|0x11100000)
			case (w&0x7F == 0x17 || w&0x7F == 0x37) && i+8 <= end:
				w2 := le.Uint32(img[i+4:])
				if op := w2 & 0x7F; (op == 0x67 || op == 0x13 || op == 0x03 || op == 0x23) && w2>>15&31 == w>>7&31 {
					le.PutUint32(out[i:], w&0xFFF|0x22222000)
					m := uint32(0xFFFFF)
					if op == 0x23 {
						m = 0x01FFF07F
					}
					le.PutUint32(out[i+4:], w2&m)
					i += 4
				}
			}
			i += 4
		case patch.ArchThumb:
			w := le.Uint32(img[i:])
			if h2 := w >> 16; w&0xF800 == 0xF000 && (h2&0xD000 == 0xD000 || h2&0xD000 == 0x9000) {
				le.PutUint32(out[i:], 0xF000|h2&0xD000<<16)
				i += 4
			} else {
				i += 2
			}
		default:
			return
		}
	}
}
