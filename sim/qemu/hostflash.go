package qemu

import (
	"encoding/binary"
	"math/rand/v2"

	"github.com/runnel-fota/runnel/core/wire/serial"
	"github.com/runnel-fota/runnel/sim/nor"
)

// HostFlash is a NOR chip at the other end of a board's serial line, for a board whose
// own flash the emulator does not model writes to (docs/design/netduino.md).
type HostFlash struct {
	NOR  *nor.Chip
	Seed *rand.Rand // of the random bits that the board asks for
	// Calls is how many there were, of each kind.
	Reads, Programs, Erases, Seeds int
}

// Calls of the host's own.
const (
	opFlashRead    = serial.OpHost + iota // offset u32, length u16: so many bytes
	opFlashProgram                        // offset u32, data
	opFlashErase                          // offset u32, length u32
	opSeed                                // seedSize random bytes
)

const seedSize = 32

// Call does one; false: it was malformed, or the chip failed.
func (f *HostFlash) Call(op byte, p []byte) (answer []byte, ok bool) {
	le := binary.LittleEndian
	switch {
	case op == opFlashRead && len(p) == 6:
		f.Reads++
		n := le.Uint16(p[4:])
		if n > serial.MaxPayload {
			return nil, false
		}
		answer = make([]byte, n)
		return answer, f.NOR.ReadAt(answer, le.Uint32(p)) == nil
	case op == opFlashProgram && len(p) >= 4:
		f.Programs++
		return nil, f.NOR.Program(p[4:], le.Uint32(p)) == nil
	case op == opFlashErase && len(p) == 8:
		f.Erases++
		return nil, f.NOR.Erase(le.Uint32(p), le.Uint32(p[4:])) == nil
	case op == opSeed && len(p) == 0:
		f.Seeds++
		for range seedSize {
			answer = append(answer, byte(f.Seed.Uint32()))
		}
		return answer, true
	}
	return nil, false
}
