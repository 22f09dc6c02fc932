package patch

// Arch is whose instructions the images hold.
type Arch uint8

const (
	ArchNone   Arch = iota // nothing is predicted
	ArchXtensa             // ESP32, S2, S3, ESP8266
	ArchRISCV              // RV32IMC
	ArchThumb              // Thumb-2
	archEnd
)

// segment is a part of an image that has an address.
type segment struct {
	off, size, addr uint32 // in the image, bytes; where it runs
}

// space is where an image's bytes run: at most maxSegments parts, in the order of the
// image.
type space struct {
	n    uint8
	last uint8 // the segment that was asked for last
	seg  [maxSegments]segment
}

const maxSegments = 16

// address is where the byte at off runs.
func (s *space) address(off uint32) (addr uint32, ok bool) {
	if g := &s.seg[s.last&(maxSegments-1)]; off-g.off < g.size {
		return g.addr + (off - g.off), true
	}
	for i := uint8(0); i < s.n; i++ {
		if g := &s.seg[i]; off-g.off < g.size {
			s.last = i
			return g.addr + (off - g.off), true
		}
	}
	return 0, false
}

// offset is where the byte with this address lies.
func (s *space) offset(addr uint32) (off uint32, ok bool) {
	for i := uint8(0); i < s.n; i++ {
		if g := &s.seg[i]; addr-g.addr < g.size {
			return g.off + (addr - g.addr), true
		}
	}
	return 0, false
}

// within reports whether v lies in one of the ranges: pairs of a first address and one
// behind the last.
func within(ranges []uint32, v uint32) bool {
	for i := 0; i+1 < len(ranges); i += 2 {
		if v-ranges[i] < ranges[i+1]-ranges[i] {
			return true
		}
	}
	return false
}

// Where ESP chips have code, and all that a pointer may point at: flash mapped for
// data and for code, RAM of both kinds, ROM (the technical reference manuals).
var (
	espCode = [...]uint32{
		0x40080000, 0x400C0000, 0x400D0000, 0x40C00000, // ESP32: IRAM, IROM
		0x42000000, 0x44000000, 0x40370000, 0x403E0000, // C3, S3
		0x40200000, 0x40300000, 0x40100000, 0x4010C000, // ESP8266 (within the above)
	}
	espPointer = [...]uint32{
		0x3F400000, 0x3F800000, 0x3FF80000, 0x40000000, 0x40070000, 0x40C00000, // ESP32, ESP8266
		0x3C000000, 0x3E000000, 0x3FC80000, 0x3FD00000, 0x42000000, 0x42800000, // C3, S3
	}
	thumbRAM = [...]uint32{0x20000000, 0x20080000, 0x10000000, 0x10010000}
)

// code reports whether instructions may lie at an address.
func (a *Applier) code(addr uint32) bool {
	if a.arch == ArchThumb || a.raw {
		return true
	}
	return within(espCode[:], addr)
}

// rawPointer is pointer for a raw image: where the image is, and a quarter of it behind,
// since the next one may be larger. Its first 1,024 bytes are vectors, and where it is at
// 0, numbers: nobody points at them.
func rawPointer(base, size, v uint32) bool {
	return size > 1024 && v-base-1024 < size+size/4-1024 || within(thumbRAM[:], v)
}

// pointer reports whether a word looks like an address.
func (a *Applier) pointer(v uint32) bool {
	if a.arch == ArchThumb || a.raw {
		g := &a.old.seg[0]
		return rawPointer(g.addr, g.size, v)
	}
	return within(espPointer[:], v)
}
