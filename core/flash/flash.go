// Package flash is the contract between the updater and a NOR flash chip: what
// a driver offers (Device), what the chip is like (Geometry), and a bounded
// window on it (Area) that refuses misuse in one place, for every driver.
//
// It imports nothing. The rules behind it are in docs/design/flash.md.
package flash

// Geometry describes a chip. All sizes are in bytes.
type Geometry struct {
	Size           uint32 // of the whole device or area
	EraseSize      uint32 // smallest unit that Erase takes (a sector), e.g. 4096
	BlockEraseSize uint32 // larger unit that erases faster per byte, e.g. 65536; 0: none
	ProgramSize    uint32 // Program's offset and length are multiples of it, 1 to 256
	ErasedByte     byte   // what an erased byte reads as; 0xFF on every NOR chip we drive
	// ErasedReadable is false where flash encryption makes erased bytes read as
	// noise: then no decision may rest on a blank read, and nothing is skipped
	// because it looks blank.
	ErasedReadable bool
}

// Device is a NOR flash chip, or an Area of one. Offsets and lengths are bytes.
//
// Contract:
//   - Erase sets whole sectors to ErasedByte. off and length are multiples of
//     EraseSize. The driver takes block erases where a block is aligned (to the
//     chip, not to an Area) and wholly inside the range, sectors elsewhere, in
//     ascending order.
//   - Program only clears bits. A unit of ProgramSize is programmed at most once
//     between two erases: the model in sim/nor refuses a second time even where
//     the hardware would let it pass.
//   - When Erase or Program returns nil the cells hold the data, power cut or not.
//     Sync is for drivers with a buffer of their own; others return nil.
//   - After an error, or after a power cut inside a call, the units touched hold
//     anything and may read differently later: erase them before use.
//   - ReadAt fills the whole of p, at any alignment, or fails.
//   - A call of length 0 within the device does nothing and returns nil.
//   - p is not kept after a call, and Program does not change it. Calls are not
//     concurrent.
//
// core/flash/flashtest checks a driver against it.
type Device interface {
	ReadAt(p []byte, off uint32) error
	Program(p []byte, off uint32) error
	Erase(off, length uint32) error
	Sync() error
	Geometry() Geometry
}

// Error is the cause of a failed flash operation.
type Error uint8

const (
	ErrRange    Error = iota + 1 // off or length outside the device or area
	ErrAlign                     // not a multiple of EraseSize or ProgramSize
	ErrNotBlank                  // a unit was programmed twice without an erase (models only)
	ErrErase                     // the chip failed to erase
	ErrProgram                   // the chip failed to program
	ErrRead                      // the chip failed to read
	ErrPower                     // the power is gone (models only)
)

func (e Error) Error() string {
	switch e {
	case ErrRange:
		return "flash: out of range"
	case ErrAlign:
		return "flash: unaligned"
	case ErrNotBlank:
		return "flash: programmed twice without an erase"
	case ErrErase:
		return "flash: erase failed"
	case ErrProgram:
		return "flash: program failed"
	case ErrRead:
		return "flash: read failed"
	case ErrPower:
		return "flash: power lost"
	}
	return "flash: unknown error"
}
