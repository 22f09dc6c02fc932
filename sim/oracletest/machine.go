package oracletest

import (
	"crypto/md5"
	"encoding/binary"
	"fmt"

	"github.com/runnel-fota/runnel/sim/rv32"
)

// The ESP32-C3's memory, as far as the bootloader uses it (ESP32-C3 Technical
// Reference Manual, "System and Memory").
const (
	sramSize = 384 << 10 // on two buses: for data and for instructions
	sramData = 0x3FC80000
	sramCode = 0x40380000
	rtcBase  = 0x50000000 // RTC fast memory, where the next boot is remembered
	rtcSize  = 8 << 10

	windowBase = 0x3C000000 // flash through the cache, data bus
	windowPage = 64 << 10
	windowSize = 8 << 20

	stackTop = 0x3FCDE710 // of the bootloader

	// rom_spiflash_legacy_data points to esp_rom_spiflash_chip_t: device id, size, ...
	romFlashChipPtr = 0x3FCDFFF0
	romFlashChip    = 0x3FCDFF00
	// What the chip is; a make whose write protection needs no special treatment.
	romFlashDevice = 0x001640EF
)

// Registers that the code reads outside of the functions that are replaced.
const (
	regEfuseCrypt    = 0x60008834 // bits 18 to 20: SPI_BOOT_CRYPT_CNT
	regEfuseRevision = 0x60008850 // bits 18 to 20: revision, minor; 0x60008858: major, block
	regEfuseMajor    = 0x60008858
	regEfuseFlags    = 0x60008840 // bit 0: revision limits are ignored
	regRandom        = 0x600260B0 // random numbers
	regDebugger      = 0x600CE098 // bit 1: a debugger is attached
	csrCycles        = 0x7E2      // mpccr: cycles
)

const notMapped = 0xFFFFFFFF

type outcome uint8

const (
	outcomeNone outcome = iota
	outcomeStarts
	outcomeResets
)

// machine is the hart with its memory, the cache's map, and ROM.
type machine struct {
	cpu  rv32.CPU
	mem  rv32.Memory
	sram []byte
	rtc  []byte
	boot []segment
	// What of sram was written since the reset: clearing all of it would take longer
	// than a selection.
	dirtyFrom, dirtyTo uint32

	pages [windowSize / windowPage]uint32 // flash offset of each, or notMapped
	flash Flash
	word  [4]byte // on its way from flash
	ops   []Op

	encrypted bool
	reason    uint32
	random    uint32
	cycles    uint32
	md5       map[uint32][]byte // by context, what was fed
	sha       shaContexts

	outcome outcome
	started uint32
}

var _ rv32.Bus = (*machine)(nil)

func (m *machine) init(segs []segment) {
	m.boot = segs
	m.sram, m.rtc = make([]byte, sramSize), make([]byte, rtcSize)
	m.dirtyFrom = sramSize
	m.mem.Map(sramCode, m.sram, false)
	m.mem.Map(sramData, m.sram, false)
	m.mem.Map(rtcBase, m.rtc, false)
	m.cpu.Bus = m
	m.cpu.CSR = func(n uint32) (uint32, bool) {
		// Read in a loop that waits for time to pass between two random numbers.
		m.cycles += 8192
		return m.cycles, n == csrCycles
	}
	m.hookROM()
}

// reset is a power-on, as the bootloader's code finds it.
func (m *machine) reset(f Flash) {
	if m.dirtyFrom < m.dirtyTo {
		clear(m.sram[m.dirtyFrom:m.dirtyTo])
	}
	m.dirtyFrom, m.dirtyTo = sramSize, 0
	clear(m.rtc)
	for _, s := range m.boot {
		// Not noted as written: it is here that it is written again.
		copy(m.mem.Slice(s.addr, uint32(len(s.data))), s.data)
	}
	for i := range m.pages {
		m.pages[i] = notMapped
	}
	m.flash, m.ops = f, nil
	m.random, m.cycles = 1, 0
	m.md5, m.sha = map[uint32][]byte{}, shaContexts{}
	m.outcome, m.started = outcomeNone, 0
	m.checkWith(nil)
	m.cpu.X = [32]uint32{rv32.SP: stackTop}
	m.cpu.Steps = 0
	m.setFlashSize(4 << 20)
}

func (m *machine) setFlashSize(n uint32) {
	put := func(addr, v uint32) { binary.LittleEndian.PutUint32(m.slice(addr, 4), v) }
	put(romFlashChipPtr, romFlashChip)
	put(romFlashChip, romFlashDevice)
	put(romFlashChip+4, n)
}

// Load is of memory, of flash through the cache, or of a register.
func (m *machine) Load(addr, size uint32) (uint32, error) {
	switch {
	case addr-windowBase < windowSize:
		p := m.word[:size]
		if err := m.readWindow(p, addr); err != nil {
			return 0, err
		}
		v := uint32(0)
		for i, b := range p {
			v |= uint32(b) << (8 * i)
		}
		return v, nil
	case addr>>28 == 6 && size == 4:
		return m.register(addr)
	}
	return m.mem.Load(addr, size)
}

// Store is to memory only: no function that writes registers is executed.
func (m *machine) Store(addr, size, value uint32) error {
	m.written(addr, size)
	return m.mem.Store(addr, size, value)
}

// written notes what the next reset has to clear.
func (m *machine) written(addr, n uint32) {
	for _, base := range [...]uint32{sramData, sramCode} {
		if off := addr - base; off < sramSize {
			m.dirtyFrom = min(m.dirtyFrom, off)
			m.dirtyTo = min(max(m.dirtyTo, off+n), sramSize)
		}
	}
}

// slice is memory to write to, nil if it is not all there.
func (m *machine) slice(addr, n uint32) []byte {
	m.written(addr, n)
	return m.mem.Slice(addr, n)
}

// Fetch is from memory only: no application is executed.
func (m *machine) Fetch(addr uint32) (uint16, error) { return m.mem.Fetch(addr) }

func (m *machine) readWindow(p []byte, addr uint32) error {
	for len(p) > 0 {
		in := addr % windowPage
		page := m.pages[(addr-windowBase)/windowPage]
		if page == notMapped {
			return fmt.Errorf("%w: no flash is mapped at 0x%08x", rv32.ErrAccess, addr)
		}
		n := min(windowPage-in, uint32(len(p)))
		if err := m.flash.ReadAt(p[:n], page+in); err != nil {
			return fmt.Errorf("flash at 0x%x: %w", page+in, err)
		}
		p, addr = p[n:], addr+n
	}
	return nil
}

// read takes bytes out of memory or the flash window, for ROM functions.
func (m *machine) read(addr, n uint32) ([]byte, error) {
	if addr-windowBase < windowSize && n <= windowSize-(addr-windowBase) {
		p := make([]byte, n)
		return p, m.readWindow(p, addr)
	}
	if p := m.mem.Slice(addr, n); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %d bytes at 0x%08x", rv32.ErrAccess, n, addr)
}

// writable is memory that a ROM function writes.
func (m *machine) writable(addr, n uint32) ([]byte, error) {
	if p := m.slice(addr, n); p != nil {
		return p, nil
	}
	return nil, fmt.Errorf("%w: %d bytes at 0x%08x", rv32.ErrAccess, n, addr)
}

func (m *machine) register(addr uint32) (uint32, error) {
	switch addr {
	case regEfuseCrypt:
		if m.encrypted {
			return 1 << 18, nil // an odd number of bits: encryption is on
		}
		return 0, nil
	case regEfuseRevision:
		return 4 << 18, nil // revision 0.4, the usual one
	case regEfuseMajor, regEfuseFlags, regDebugger:
		return 0, nil
	case regRandom:
		// Must not repeat: the code waits until the numbers differ.
		m.random = m.random*1664525 + 1013904223
		return m.random, nil
	}
	return 0, fmt.Errorf("%w: register 0x%08x", rv32.ErrAccess, addr)
}

// md5Sum is the digest of what a context was fed.
func (m *machine) md5Sum(ctx uint32) [md5.Size]byte { return md5.Sum(m.md5[ctx]) }
