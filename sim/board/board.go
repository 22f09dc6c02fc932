// Package board is a virtual ESP32: its whole flash is one sim/nor chip, byte for
// byte what the real one would hold. Boot does what ESP-IDF's bootloader does with
// it; Run is the application, whose only work is the updater of core/device. With
// Board.Own it is a board whose boot stage is ours.
package board

import (
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/state"
	"github.com/runnel-fota/runnel/sim/nor"
)

// ErrPowerCut: the power failed. What flash holds is what counts now.
var ErrPowerCut = errors.New("power cut")

// Board is a powered-off or running board.
type Board struct {
	Chip *nor.Chip
	// ChipID is the microcontroller's, as in image headers.
	ChipID uint16
	// NoRollback: a bootloader built without CONFIG_BOOTLOADER_APP_ROLLBACK_ENABLE.
	NoRollback bool
	// Own, if not nil, is how the flash of a board is cut up whose boot stage is ours:
	// its records are where an ESP32 has otadata. No partition table is in flash.
	Own *esp32.Table
	// OnBoot, if not nil, is called by Boot before it looks at flash.
	OnBoot func()
}

// Layout is what New puts into a blank chip.
type Layout struct {
	Table esp32.Table
	// Bootloader goes to 0x1000, or 0 on chips after the ESP32 and S2; nil: none,
	// the virtual board needs no code.
	Bootloader []byte
	// App goes into ota_0, or into factory where there is one.
	App []byte
}

// DefaultTable is that of a 4 MiB board: two slots of 1,920 KiB, state, journal, and room
// for two snapshots of the large profile.
func DefaultTable() esp32.Table {
	t := esp32.Table{HasMD5: true}
	add := func(name string, typ, sub uint8, off, size uint32) {
		p := esp32.Partition{Type: typ, Subtype: sub, Offset: off, Size: size}
		copy(p.Label[:], name)
		t.P[t.N] = p
		t.N++
	}
	add("nvs", esp32.TypeData, esp32.SubtypeNVS, 0x9000, 0x3000)
	add("otadata", esp32.TypeData, esp32.SubtypeOTA, 0xC000, 0x2000)
	add("rnl_state", esp32.TypeRunnel, esp32.SubtypeState, 0xE000, 0x2000)
	add("app0", esp32.TypeApp, esp32.SubtypeOTA0, 0x10000, 0x1E0000)
	add("app1", esp32.TypeApp, esp32.SubtypeOTA0+1, 0x1F0000, 0x1E0000)
	add("rnl_journal", esp32.TypeRunnel, esp32.SubtypeJournal, 0x3D0000, 0x2000)
	add("rnl_scratch", esp32.TypeRunnel, esp32.SubtypeScratch, 0x3D2000, 0x6000)
	return t
}

// Write puts a layout into the chip, as a flasher tool would.
func (b *Board) Write(l Layout) error {
	if b.Own != nil {
		return b.writeOwn(l.App)
	}
	var table [esp32.TableSize]byte
	if err := l.Table.Encode(&table); err != nil {
		return err
	}
	var check esp32.Table
	if i, err := check.Parse(table[:], b.Chip.Geometry().Size); err != nil {
		return fmt.Errorf("board: partition %d: %w", i, err)
	}
	if err := b.Chip.Load(esp32.TableOffset, table[:]); err != nil {
		return err
	}
	if len(l.Bootloader) > 0 {
		off := uint32(0)
		if b.ChipID == esp32.ChipESP32 || b.ChipID == esp32.ChipESP32S2 {
			off = 0x1000
		}
		if off+uint32(len(l.Bootloader)) > esp32.TableOffset {
			return fmt.Errorf("board: bootloader of %d bytes reaches into the partition table", len(l.Bootloader))
		}
		if err := b.Chip.Load(off, pad16(l.Bootloader)); err != nil {
			return err
		}
	}
	if len(l.App) == 0 {
		return nil
	}
	p := l.Table.Find(esp32.TypeApp, esp32.SubtypeFactory)
	if p == nil {
		p = l.Table.Find(esp32.TypeApp, esp32.SubtypeOTA0)
	}
	if p == nil {
		return errors.New("board: the partition table has no app partition")
	}
	if uint32(len(l.App)) > p.Size {
		return fmt.Errorf("board: image of %d bytes does not fit partition %s of %d", len(l.App), p.Name(), p.Size)
	}
	if err := b.Chip.Load(p.Offset, pad16(l.App)); err != nil {
		return err
	}
	if d := l.Table.Find(esp32.TypeData, esp32.SubtypeOTA); d != nil && p.Subtype == esp32.SubtypeOTA0 {
		// As every Arduino core's boot_app0.bin: slot 0 is chosen.
		e := esp32.NewEntry(1, esp32.StateUndefined)
		return b.Chip.Load(d.Offset, e[:])
	}
	return nil
}

// pad16 fills the last encryption unit.
func pad16(p []byte) []byte {
	for len(p)%16 != 0 {
		p = append(p[:len(p):len(p)], 0xFF)
	}
	return p
}

// Table reads the partition table.
func (b *Board) Table() (esp32.Table, error) {
	if b.Own != nil {
		return *b.Own, nil
	}
	var raw [esp32.TableSize]byte
	var t esp32.Table
	if err := b.Chip.ReadAt(raw[:], esp32.TableOffset); err != nil {
		return t, err
	}
	i, err := t.Parse(raw[:], b.Chip.Geometry().Size)
	if err != nil {
		return t, fmt.Errorf("partition table at 0x%x, entry %d: %w", esp32.TableOffset, i, err)
	}
	return t, nil
}

// Slots are the ota partitions in order.
func (b *Board) Slots(t *esp32.Table) ([]flash.Area, error) {
	var out []flash.Area
	for i := uint8(0); i < t.Slots(); i++ {
		p := t.Find(esp32.TypeApp, esp32.SubtypeOTA0+i)
		a, err := flash.NewArea(b.Chip, p.Offset, p.Size)
		if err != nil {
			return nil, fmt.Errorf("partition %s: %w", p.Name(), err)
		}
		out = append(out, a)
	}
	return out, nil
}

// area is the partition of a type, or the zero Area.
func (b *Board) area(t *esp32.Table, typ, subtype uint8) (flash.Area, error) {
	p := t.Find(typ, subtype)
	if p == nil {
		return flash.Area{}, nil
	}
	return flash.NewArea(b.Chip, p.Offset, p.Size)
}

// LoadState reads what the updater remembers; false where the board has no store.
func (b *Board) LoadState(t *esp32.Table) (state.Record, bool, error) {
	var r state.Record
	a, err := b.area(t, esp32.TypeRunnel, esp32.SubtypeState)
	if err != nil || a.Size() == 0 {
		return r, false, err
	}
	s, err := state.NewSectors(a)
	if err != nil {
		return r, false, err
	}
	return r, true, s.Load(&r, make([]byte, state.BufferSize))
}

// Boot is what the bootloader did.
type Boot struct {
	// Running is the slot that starts.
	Running boot.Slot
	// Steps tell what was decided and written, and why, for people.
	Steps []string
}

// Why a board can't start; a real one resets for ever.
var (
	ErrNoImage     = errors.New("no bootable app partition: the board resets for ever")
	ErrOTADataSize = errors.New("the otadata partition is too small for two records: the board resets for ever")
)

// Boot does what ESP-IDF's bootloader does, its writes to otadata included; or what our
// boot stage does.
func (b *Board) Boot() (Boot, error) {
	if b.OnBoot != nil {
		b.OnBoot()
	}
	if b.Own != nil {
		return b.bootOwn()
	}
	var out Boot
	say := func(f string, args ...any) { out.Steps = append(out.Steps, fmt.Sprintf(f, args...)) }
	t, err := b.Table()
	if err != nil {
		return out, b.power(err)
	}
	factory := t.Find(esp32.TypeApp, esp32.SubtypeFactory)
	apps := t.AppCount()
	start := esp32.FactoryIndex
	initial := false
	od := t.Find(esp32.TypeData, esp32.SubtypeOTA)
	switch {
	case od == nil || od.Offset == 0:
		say("no otadata partition: factory")
	case od.Size < esp32.OTADataSize:
		return out, ErrOTADataSize
	default:
		var e [2]esp32.Entry
		for i := range e {
			if err := b.Chip.ReadAt(e[i][:], od.Offset+uint32(i)*esp32.SectorSize); err != nil {
				return out, b.power(err)
			}
		}
		s := esp32.Select(e[0], e[1], apps, factory != nil, !b.NoRollback)
		for _, i := range s.Written[:s.Writes] {
			say("otadata sector %d: state %s", i, stateName(s.After[i].State()))
			if err := b.writeEntry(od.Offset, i, s.After[i]); err != nil {
				return out, b.power(err)
			}
		}
		start, initial = s.BootIndex, s.InitialContents
	}
	for i := 0; ; i++ {
		k, ok := esp32.LoadOrder(start, apps, i)
		if !ok {
			return out, ErrNoImage
		}
		p := b.partition(&t, k)
		if p == nil {
			continue
		}
		if err := b.verify(p); err != nil {
			if b.Chip.Dead() {
				return out, ErrPowerCut
			}
			say("%s does not verify: %v", p.Name(), err)
			continue
		}
		if initial && k >= 0 {
			say("otadata says nothing: %s is written into sector 0", p.Name())
			if err := b.writeEntry(od.Offset, 0, esp32.InitialEntry(k)); err != nil {
				return out, b.power(err)
			}
		}
		out.Running = boot.Factory
		if k >= 0 {
			out.Running = boot.Slot(k)
		}
		say("%s starts", p.Name())
		return out, nil
	}
}

// power turns any error of a dead chip into ErrPowerCut.
func (b *Board) power(err error) error {
	if b.Chip.Dead() {
		return ErrPowerCut
	}
	return err
}

func (b *Board) writeEntry(base uint32, i uint8, e esp32.Entry) error {
	off := base + uint32(i)*esp32.SectorSize
	if err := b.Chip.Erase(off, esp32.SectorSize); err != nil {
		return err
	}
	// A unit longer than a record is filled with erased bytes.
	p := e[:]
	for len(p)%int(b.Chip.Geometry().ProgramSize) != 0 {
		p = append(p, b.Chip.Geometry().ErasedByte)
	}
	return b.Chip.Program(p, off)
}

// maxSlots are the subtypes ota_0 to ota_15.
const maxSlots = 16

func (b *Board) partition(t *esp32.Table, index int32) *esp32.Partition {
	var p *esp32.Partition
	switch {
	case index == esp32.FactoryIndex:
		p = t.Find(esp32.TypeApp, esp32.SubtypeFactory)
	case index == esp32.TestIndex:
		p = t.Find(esp32.TypeApp, esp32.SubtypeTest)
	case index < maxSlots: // a table with duplicates counts more, and they lead nowhere
		p = t.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(index))
	}
	if p == nil || p.Size == 0 {
		return nil
	}
	return p
}

// verify is the bootloader's image check of a partition.
func (b *Board) verify(p *esp32.Partition) error {
	var c esp32.ImageCheck
	c.Begin(b.ChipID, p.Size)
	buf := make([]byte, 16<<10)
	for off := uint32(0); off < p.Size && !c.Done(); off += uint32(len(buf)) {
		n := min(uint32(len(buf)), p.Size-off)
		if err := b.Chip.ReadAt(buf[:n], p.Offset+off); err != nil {
			return err
		}
		if err := c.Write(buf[:n]); err != nil {
			return fmt.Errorf("%w at offset 0x%x", err, c.Offset())
		}
		if off == 0 && BehaviourOf(buf[:n]) == BehaveNoBoot {
			return errRefuses
		}
	}
	return c.End()
}

// errRefuses stands for what only a bootloader knows: its own anti-rollback, a secure boot key.
var errRefuses = errors.New("the bootloader refuses this image")

func stateName(s uint32) string {
	switch s {
	case esp32.StateNew:
		return "NEW"
	case esp32.StatePending:
		return "PENDING_VERIFY"
	case esp32.StateValid:
		return "VALID"
	case esp32.StateInvalid:
		return "INVALID"
	case esp32.StateAborted:
		return "ABORTED"
	case esp32.StateUndefined:
		return "UNDEFINED"
	}
	return fmt.Sprintf("0x%08X", s)
}
