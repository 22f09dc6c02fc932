package rv32

import (
	"encoding/binary"
	"fmt"
)

// Memory is a Bus of plain memory. Regions must not overlap; what lies in none is
// not there. Two may share their bytes, as a RAM on two buses does.
type Memory struct {
	regions []region
}

type region struct {
	base uint32
	data []byte
	rom  bool
}

var _ Bus = (*Memory)(nil)

// Map adds data at base; the caller keeps it, and may change it between runs. rom:
// stores are refused.
func (m *Memory) Map(base uint32, data []byte, rom bool) {
	m.regions = append(m.regions, region{base, data, rom})
}

// Slice is the memory from addr on, n bytes, or nil if it is not all in one region.
func (m *Memory) Slice(addr, n uint32) []byte {
	for i := range m.regions {
		r := &m.regions[i]
		if off := addr - r.base; uint64(off)+uint64(n) <= uint64(len(r.data)) {
			return r.data[off : off+n]
		}
	}
	return nil
}

// Load reads a value.
func (m *Memory) Load(addr, size uint32) (uint32, error) {
	p := m.Slice(addr, size)
	if p == nil {
		return 0, fmt.Errorf("%w: load at 0x%08x", ErrAccess, addr)
	}
	switch size {
	case 1:
		return uint32(p[0]), nil
	case 2:
		return uint32(binary.LittleEndian.Uint16(p)), nil
	}
	return binary.LittleEndian.Uint32(p), nil
}

// Store writes a value.
func (m *Memory) Store(addr, size, value uint32) error {
	for i := range m.regions {
		r := &m.regions[i]
		off := addr - r.base
		if uint64(off)+uint64(size) > uint64(len(r.data)) {
			continue
		}
		if r.rom {
			break
		}
		switch p := r.data[off:]; size {
		case 1:
			p[0] = byte(value)
		case 2:
			binary.LittleEndian.PutUint16(p, uint16(value))
		default:
			binary.LittleEndian.PutUint32(p, value)
		}
		return nil
	}
	return fmt.Errorf("%w: store at 0x%08x", ErrAccess, addr)
}

// Fetch reads a parcel of an instruction.
func (m *Memory) Fetch(addr uint32) (uint16, error) {
	p := m.Slice(addr, 2)
	if p == nil {
		return 0, fmt.Errorf("%w: fetch at 0x%08x", ErrAccess, addr)
	}
	return binary.LittleEndian.Uint16(p), nil
}
