//go:build tinygo

package netduinoplus2

import (
	"encoding/binary"

	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/wire/serial"
)

// Calls of the host's own (docs/design/netduino.md).
const (
	opRead    = serial.OpHost + iota // offset u32, length u16: so many bytes
	opProgram                        // offset u32, data
	opErase                          // offset u32, length u32
	opSeed                           // SeedSize random bytes
)

// SeedSize, bytes: what the host gives once a start.
const SeedSize = 32

// piece is how many bytes of flash pass in one call.
const piece = 1024

// Flash is the chip at the other end of the line. It has no fields: an interface holds
// it. Areas check ranges; the host checks them again.
type Flash struct{}

var _ flash.Device = Flash{}

var (
	line *serial.Client
	head [8]byte
)

// Open gives flash its line, and makes the Slots.
func Open(l *serial.Client) {
	line = l
	Slots[0], Slots[1] = Area(Slot0, SlotSize), Area(Slot1, SlotSize)
}

// Seed fetches what the host gives for random bits.
func Seed(p *[SeedSize]byte) bool {
	n, ok := line.Call(opSeed, nil, nil, nil, p[:])
	return ok && n == SeedSize
}

// Geometry of the chip: blocks of 64 KiB, bytes one by one.
func (Flash) Geometry() flash.Geometry {
	return flash.Geometry{Size: Size, EraseSize: Sector, BlockEraseSize: 65536, ProgramSize: 1, ErasedByte: 0xFF, ErasedReadable: true}
}

// ReadAt reads by pieces.
func (Flash) ReadAt(p []byte, off uint32) error {
	for len(p) > 0 {
		q := p
		if len(q) > piece {
			q = q[:piece]
		}
		binary.LittleEndian.PutUint32(head[:], off)
		binary.LittleEndian.PutUint16(head[4:], uint16(len(q)))
		if n, ok := line.Call(opRead, head[:6], nil, nil, q); !ok || n != len(q) {
			return flash.ErrRead
		}
		p, off = p[len(q):], off+uint32(len(q))
	}
	return nil
}

// Program programs by pieces, in ascending order.
func (Flash) Program(p []byte, off uint32) error {
	for len(p) > 0 {
		q := p
		if len(q) > piece {
			q = q[:piece]
		}
		binary.LittleEndian.PutUint32(head[:], off)
		if _, ok := line.Call(opProgram, head[:4], q, nil, nil); !ok {
			return flash.ErrProgram
		}
		p, off = p[len(q):], off+uint32(len(q))
	}
	return nil
}

// Erase is one call.
func (Flash) Erase(off, length uint32) error {
	binary.LittleEndian.PutUint32(head[:], off)
	binary.LittleEndian.PutUint32(head[4:], length)
	if _, ok := line.Call(opErase, head[:8], nil, nil, nil); !ok {
		return flash.ErrErase
	}
	return nil
}

// Sync has nothing to do: the host answers when it is done.
func (Flash) Sync() error { return nil }
