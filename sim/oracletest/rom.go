package oracletest

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"

	"github.com/runnel-fota/runnel/sim/rv32"
)

// Functions of the chip's ROM that the bootloader calls (ESP-IDF,
// components/esp_rom/esp32c3/ld/esp32c3.rom.ld).
const (
	romResetReason      = 0x40000018 // rtc_get_reset_reason
	romPrintf           = 0x40000040 // ets_printf
	romWriteEncrypted   = 0x40000110 // esp_rom_spiflash_write_encrypted
	romEraseSector      = 0x40000128 // esp_rom_spiflash_erase_sector
	romWrite            = 0x4000012C // esp_rom_spiflash_write
	romRead             = 0x40000130 // esp_rom_spiflash_read
	romMemset           = 0x40000354
	romMemcpy           = 0x40000358
	romMemcmp           = 0x40000360
	romInvalidateICache = 0x400004D8 // Cache_Invalidate_ICache_All
	romSuspendICache    = 0x40000524 // Cache_Suspend_ICache
	romResumeICache     = 0x40000528 // Cache_Resume_ICache
	romMMUInit          = 0x4000055C // Cache_MMU_Init
	romDbusMMUSet       = 0x40000564 // Cache_Dbus_MMU_Set
	romMD5Init          = 0x40000614
	romMD5Update        = 0x40000618
	romMD5Final         = 0x4000061C
	romCRC32            = 0x40000628 // crc32_le
	romSHAEnable        = 0x40000644 // ets_sha_enable
	romSHAInit          = 0x40000650 // ets_sha_init
	romSHAUpdate        = 0x4000065C // ets_sha_update
	romSHAFinish        = 0x40000660 // ets_sha_finish
)

// Functions of the bootloader that are replaced: they talk to hardware, or are the
// ends of what is asked.
const (
	addrUnlock     = 0x403CE926 // bootloader_flash_unlock: status registers of the chip
	addrReset      = 0x403CF8FE // bootloader_reset
	addrLoadImage  = 0x403CF4DA // load_image(metadata): maps and enters the application
	addrCheckImage = 0x403D0222 // bootloader_load_image(partition, metadata)
	addrAssert     = 0x403CFA82 // __assert_func
)

const (
	romFlashError = 1 // ESP_ROM_SPIFLASH_RESULT_ERR
	sectorSize    = 4096
)

var errAssert = errors.New("an assertion of the bootloader failed")

func (m *machine) hookROM() {
	arg := func(i int) uint32 { return m.cpu.X[rv32.A0+i] }
	// result makes a hook of a function that gives a value.
	hook := func(addr uint32, f func() (uint32, error)) {
		m.cpu.Hook(addr, func(c *rv32.CPU) error {
			v, err := f()
			c.X[rv32.A0] = v
			return err
		})
	}
	nothing := func() (uint32, error) { return 0, nil }
	for _, addr := range []uint32{romPrintf, romInvalidateICache, romSuspendICache, romResumeICache, romSHAEnable, addrUnlock} {
		hook(addr, nothing)
	}
	hook(romResetReason, func() (uint32, error) { return m.reason, nil })

	hook(romMemset, func() (uint32, error) {
		p, err := m.writable(arg(0), arg(2))
		for i := range p {
			p[i] = byte(arg(1))
		}
		return arg(0), err
	})
	hook(romMemcpy, func() (uint32, error) {
		from, err := m.read(arg(1), arg(2))
		if err != nil {
			return 0, err
		}
		to, err := m.writable(arg(0), arg(2))
		copy(to, from)
		return arg(0), err
	})
	hook(romMemcmp, func() (uint32, error) {
		a, err := m.read(arg(0), arg(2))
		if err != nil {
			return 0, err
		}
		b, err := m.read(arg(1), arg(2))
		return uint32(int32(bytes.Compare(a, b))), err
	})
	// The register is inverted before and after, as in hash/crc32.
	hook(romCRC32, func() (uint32, error) {
		p, err := m.read(arg(1), arg(2))
		return crc32.Update(arg(0), crc32.IEEETable, p), err
	})
	m.hookFlash(hook, arg)
	m.hookHashes(hook, arg)
	m.hookEnds(hook, arg)
}

type (
	hooker   = func(addr uint32, f func() (uint32, error))
	argument = func(i int) uint32
)

// flashResult is what a ROM flash function returns. A chip's error is its result:
// what the bootloader makes of it is its business.
func flashResult(err error) (uint32, error) {
	if err != nil {
		return romFlashError, nil
	}
	return 0, nil
}

func (m *machine) hookFlash(hook hooker, arg argument) {
	hook(romEraseSector, func() (uint32, error) {
		off := arg(0) * sectorSize
		m.ops = append(m.ops, Op{Erase: true, Off: off, Len: sectorSize})
		return flashResult(m.flash.Erase(off, sectorSize))
	})
	write := func(encrypted bool) func() (uint32, error) {
		return func() (uint32, error) {
			p, err := m.read(arg(1), arg(2))
			if err != nil {
				return 0, err
			}
			m.ops = append(m.ops, Op{Encrypted: encrypted, Off: arg(0), Len: arg(2)})
			return flashResult(m.flash.Program(p, arg(0)))
		}
	}
	hook(romWrite, write(false))
	hook(romWriteEncrypted, write(true))
	hook(romRead, func() (uint32, error) {
		p, err := m.writable(arg(1), arg(2))
		if err != nil {
			return 0, err
		}
		return flashResult(m.flash.ReadAt(p, arg(0)))
	})
	hook(romMMUInit, func() (uint32, error) {
		for i := range m.pages {
			m.pages[i] = notMapped
		}
		return 0, nil
	})
	// (external RAM, virtual address, physical address, page size in KiB, pages, fixed)
	hook(romDbusMMUSet, func() (uint32, error) {
		at, n := arg(1)-windowBase, arg(4)
		if arg(0) != 0 || arg(3) != windowPage>>10 || at%windowPage != 0 || arg(2)%windowPage != 0 ||
			at >= windowSize || n > (windowSize-at)/windowPage || arg(5) != 0 {
			return 0, fmt.Errorf("map %d pages of %d KiB at 0x%08x", n, arg(3), arg(1))
		}
		for i := range n {
			m.pages[at/windowPage+i] = arg(2) + i*windowPage
		}
		return 0, nil
	})
}

// shaContexts are running SHA-256 hashes, by the address of their context.
type shaContexts map[uint32]hash.Hash

func (m *machine) hookHashes(hook hooker, arg argument) {
	hook(romMD5Init, func() (uint32, error) {
		m.md5[arg(0)] = nil
		return 0, nil
	})
	hook(romMD5Update, func() (uint32, error) {
		p, err := m.read(arg(1), arg(2))
		m.md5[arg(0)] = append(m.md5[arg(0)], p...)
		return 0, err
	})
	hook(romMD5Final, func() (uint32, error) {
		p, err := m.writable(arg(0), 16)
		sum := m.md5Sum(arg(1))
		copy(p, sum[:])
		return 0, err
	})
	const sha2256 = 2 // ets_sha_init's type
	hook(romSHAInit, func() (uint32, error) {
		if arg(1) != sha2256 {
			return 0, fmt.Errorf("hash of type %d", arg(1))
		}
		m.sha[arg(0)] = sha256.New()
		return 0, nil
	})
	running := func() (hash.Hash, error) {
		if h := m.sha[arg(0)]; h != nil {
			return h, nil
		}
		return nil, fmt.Errorf("no hash was begun at 0x%08x", arg(0))
	}
	hook(romSHAUpdate, func() (uint32, error) {
		h, err := running()
		if err != nil {
			return 0, err
		}
		p, err := m.read(arg(1), arg(2))
		h.Write(p)
		return 0, err
	})
	hook(romSHAFinish, func() (uint32, error) {
		h, err := running()
		if err != nil {
			return 0, err
		}
		p, err := m.writable(arg(1), sha256.Size)
		copy(p, h.Sum(nil))
		return 0, err
	})
}

func (m *machine) hookEnds(hook hooker, arg argument) {
	hook(addrAssert, func() (uint32, error) {
		return 0, errAssert
	})
	hook(addrReset, func() (uint32, error) {
		m.outcome = outcomeResets
		return 0, rv32.ErrStop
	})
	hook(addrLoadImage, func() (uint32, error) {
		p, err := m.read(arg(0), 4) // esp_image_metadata_t begins with the image's offset
		if err != nil {
			return 0, err
		}
		m.outcome, m.started = outcomeStarts, binary.LittleEndian.Uint32(p)
		return 0, rv32.ErrStop
	})
}

// checkWith replaces the image check by an answer; nil: the real one is executed.
func (m *machine) checkWith(tried func(off uint32) bool) {
	if tried == nil {
		m.cpu.Unhook(addrCheckImage)
		return
	}
	m.cpu.Hook(addrCheckImage, func(c *rv32.CPU) error {
		p, err := m.read(c.X[rv32.A0], 4) // esp_partition_pos_t begins with the offset
		if err != nil {
			return err
		}
		off := binary.LittleEndian.Uint32(p)
		meta, err := m.writable(c.X[rv32.A1], 4)
		if err != nil {
			return err
		}
		binary.LittleEndian.PutUint32(meta, off)
		c.X[rv32.A0] = 0
		if !tried(off) {
			c.X[rv32.A0] = 0x2002 // ESP_ERR_IMAGE_INVALID
		}
		return nil
	})
}
