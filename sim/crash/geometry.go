package crash

import (
	"slices"
	"strings"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Geometry is a chip and how it is cut up. Sizes are bytes.
type Geometry struct {
	Name  string
	Says  string
	Chip  nor.Config // its size follows
	Slots [2]uint32
	Image int
	Chunk int

	own                bool // the boot stage is ours
	noState, noJournal bool
	factory            bool
	only, not          []string // stories; nil: all, none
}

// Sizes of the small chip: three sectors of image, the last chunk of a few bytes.
const (
	smallSlot  = 16 << 10
	smallImage = 9<<10 + 16
	smallBlock = 8 << 10
)

// OwnGeometry is that of a board whose boot stage is ours.
const OwnGeometry = "boot-stage"

// DeepGeometry is small enough for two cuts in a row at all places.
const DeepGeometry = "tiny"

// longGeometry has room for restart points.
const longGeometry = "long"

// deepLongGeometry is the smallest with one.
const deepLongGeometry = "scratch-tiny"

// Deep says whether two cuts in a row are tried at all places, and every fault.
func (g *Geometry) Deep() bool {
	return g.Name == DeepGeometry || g.Name == OwnGeometry || g.Name == deepLongGeometry
}

// Geometries are all there are.
func Geometries() []*Geometry {
	// Whatever bootloader it is: but ours has rollback, and no Arduino core knows it.
	own := []string{"update", "over-older", "newer-midway", "taken-back", "no-boot", "crash", "hang", "self-test", "mute", "revert", "reissue", "key-rotation",
		"patch-update", "patch-bad", "patch-other", "compressed"}
	kept := []string{"kept-resume", "kept-rotten-resume", "kept-worn-resume"}
	long := append([]string{"patch-resume", "compressed-resume"}, kept...)
	few := []string{"update", "over-older", "newer-midway", "crash", "revert", "patch-update", "patch-bad"}
	g := func(name, says string, change func(*Geometry)) *Geometry {
		g := &Geometry{Name: name, Says: says, Slots: [2]uint32{smallSlot, smallSlot}, Image: smallImage, Chunk: 1024,
			Chip: nor.Config{BlockEraseSize: smallBlock, ProgramSize: 4}}
		change(g)
		return g
	}
	return []*Geometry{
		g("small", "two slots of 16 KiB, blocks of 8, program unit 4", func(*Geometry) {}),
		g(DeepGeometry, "slots of 8 KiB, three chunks, program unit 16: for two cuts in a row", func(g *Geometry) {
			g.Slots, g.Image, g.Chunk, g.Chip.ProgramSize = [2]uint32{8 << 10, 8 << 10}, 4<<10+16, 2048, 16
		}),
		g("sectors", "no block erase, program unit 1", func(g *Geometry) {
			g.Chip.BlockEraseSize, g.Chip.ProgramSize = nor.NoBlocks, 1
		}),
		g("unit-16", "program unit 16", func(g *Geometry) { g.Chip.ProgramSize = 16 }),
		g("unit-32", "program unit 32", func(g *Geometry) { g.Chip.ProgramSize = 32 }),
		g("unit-256", "program unit 256", func(g *Geometry) { g.Chip.ProgramSize = 256 }),
		g("encrypted", "encrypted flash", func(g *Geometry) { g.Chip.Encrypt = true }),
		g("tail", "the journal in the slot's tail", func(g *Geometry) { g.noJournal, g.Image = true, 8000 }),
		g("bare", "no journal at all", func(g *Geometry) { g.noJournal = true }),
		g("bare-encrypted", "no journal, encrypted flash", func(g *Geometry) {
			g.noJournal, g.Chip.Encrypt, g.only = true, true, few
		}),
		g("unequal", "a slot of 32 KiB and one of 16", func(g *Geometry) { g.Slots[0], g.only = 2*smallSlot, few }),
		g("full", "the slot exactly full", func(g *Geometry) { g.Image = smallSlot }),
		g("one-chunk", "an image of one chunk", func(g *Geometry) {
			g.Image, g.Chunk, g.not = 4080, 4096, []string{"newer-midway", "taken-back"} // there is no half of it
		}),
		g("large-chunks", "chunks of 8 KiB", func(g *Geometry) { g.Chunk, g.only = 8192, few }),
		g("factory", "a factory image beside two slots", func(g *Geometry) {
			g.factory, g.only = true, []string{"update", "over-older", "newer-midway", "crash", "no-boot", "self-test"}
		}),
		g("no-state", "nothing outlives an update but the boot records", func(g *Geometry) {
			g.noState, g.only = true, []string{"update", "over-older", "newer-midway", "taken-back"}
		}),
		g(OwnGeometry, "a boot stage of ours, raw images, sectors of 1 KiB, program unit 4, no block erase", func(g *Geometry) {
			g.own, g.only = true, own
			g.Slots, g.Image, g.Chip.EraseSize, g.Chip.BlockEraseSize = [2]uint32{4 << 10, 4 << 10}, 2<<10+20, 1<<10, nor.NoBlocks
		}),
		g("boot-stage-unit-256", "a boot stage of ours, sectors of 4 KiB, program unit 256", func(g *Geometry) {
			g.own, g.only, g.Chip.ProgramSize = true, own, 256
		}),
		g("boot-stage-bare", "a boot stage of ours, no journal, 16 sectors of 1 KiB exactly full", func(g *Geometry) {
			g.own, g.only, g.noJournal = true, few, true
			g.Image, g.Chip.EraseSize, g.Chip.BlockEraseSize = smallSlot, 1<<10, nor.NoBlocks
		}),
		g("blocks-64k", "slots of 192 KiB, blocks of 64", func(g *Geometry) {
			g.Chip.BlockEraseSize, g.Slots = 64<<10, [2]uint32{192 << 10, 192 << 10}
			g.Image, g.Chunk, g.only = 100<<10+512, 4096, []string{"update", "patch-resume", "kept-resume"}
		}),
		g(deepLongGeometry, "slots of 20 KiB, one restart point, program unit 16: for two cuts in a row with snapshots", func(g *Geometry) {
			g.Slots, g.Image, g.Chunk, g.Chip.ProgramSize = [2]uint32{20 << 10, 20 << 10}, 16<<10+1024, 2048, 16
			g.only = kept
		}),
		g(longGeometry, "slots of 64 KiB, for restart points", func(g *Geometry) {
			g.Slots, g.Image, g.only = [2]uint32{64 << 10, 64 << 10}, 36<<10+16, long
		}),
		g("long-tail", "the same, program unit 256, the journal in the slot's tail", func(g *Geometry) {
			g.Slots, g.Image, g.only, g.noJournal, g.Chip.ProgramSize = [2]uint32{64 << 10, 64 << 10}, 36<<10+16, long, true, 256
		}),
		g("long-boot-stage", "the same with a boot stage of ours, sectors of 1 KiB", func(g *Geometry) {
			g.own, g.only = true, long
			g.Slots, g.Image, g.Chip.EraseSize, g.Chip.BlockEraseSize = [2]uint32{40 << 10, 40 << 10}, 36<<10+20, 1<<10, nor.NoBlocks
		}),
	}
}

// FindGeometry returns the one of a name, or nil.
func FindGeometry(name string) *Geometry {
	for _, g := range Geometries() {
		if g.Name == name {
			return g
		}
	}
	return nil
}

// Fits says whether a scenario can be played on a geometry.
func Fits(s *Scenario, g *Geometry) bool {
	if g.noState && s.native() {
		return false // a list of keys needs a place
	}
	if g.own && !s.native() {
		return false // boards in the field that speak v1 have ESP-IDF's bootloader
	}
	resumes := strings.HasSuffix(s.Name, "-resume")
	if resumes && g.Image <= restartGrain {
		return false // there is no restart point in it
	}
	story := s.Name[len(wireName(s.Wire))+1:]
	return (g.only == nil || slices.Contains(g.only, story)) && !slices.Contains(g.not, story)
}

// restartGrain in bytes: restart points stand at its multiples in an image.
const restartGrain = 16 << 10

// Where the partitions of the lab's boards begin.
// Those of a board whose boot stage is ours begin right behind it.
const (
	ownAt     = 4 << 10
	otadataAt = 0xC000
	stateAt   = 0xE000
	appsAt    = 0x10000
)

// table lays the partitions out. Slots begin where an ESP32's can: at 64 KiB.
func (g *Geometry) table(scratch bool) (t esp32.Table, size uint32) {
	t.HasMD5 = true
	add := func(name string, typ, sub uint8, off, size uint32) {
		p := esp32.Partition{Type: typ, Subtype: sub, Offset: off, Size: size}
		copy(p.Label[:], name)
		t.P[t.N] = p
		t.N++
	}
	sector, page := g.sector(), uint32(64<<10)
	if g.own {
		return g.ownTable(scratch)
	}
	add("otadata", esp32.TypeData, esp32.SubtypeOTA, otadataAt, 2*sector)
	if !g.noState {
		add("rnl_state", esp32.TypeRunnel, esp32.SubtypeState, stateAt, 2*sector)
	}
	at := uint32(appsAt)
	app := func(name string, sub uint8, size uint32) {
		at = (at + page - 1) / page * page
		add(name, esp32.TypeApp, sub, at, size)
		at += size
	}
	if g.factory {
		app("factory", esp32.SubtypeFactory, g.Slots[0])
	}
	app("app0", esp32.SubtypeOTA0, g.Slots[0])
	app("app1", esp32.SubtypeOTA0+1, g.Slots[1])
	if !g.noJournal {
		add("rnl_journal", esp32.TypeRunnel, esp32.SubtypeJournal, at, 2*sector)
		at += 2 * sector
	}
	if scratch {
		add(scratchName, esp32.TypeRunnel, esp32.SubtypeScratch, at, g.scratchSize())
		at += g.scratchSize()
	}
	return t, at
}

// sector in bytes.
func (g *Geometry) sector() uint32 {
	if g.Chip.EraseSize == 0 {
		return esp32.SectorSize
	}
	return g.Chip.EraseSize
}

// scratchSize is two halves in whole sectors, bytes.
func (g *Geometry) scratchSize() uint32 {
	return 2 * ((scratchHalf + g.sector() - 1) / g.sector() * g.sector())
}

// ownTable lays out a board whose boot stage is ours, without a gap.
func (g *Geometry) ownTable(scratch bool) (t esp32.Table, size uint32) {
	at := uint32(ownAt)
	add := func(name string, typ, sub uint8, size uint32) {
		p := esp32.Partition{Type: typ, Subtype: sub, Offset: at, Size: size}
		copy(p.Label[:], name)
		t.P[t.N] = p
		t.N++
		at += size
	}
	add("boot", esp32.TypeData, esp32.SubtypeOTA, 2*g.sector())
	if !g.noState {
		add("rnl_state", esp32.TypeRunnel, esp32.SubtypeState, 2*g.sector())
	}
	add("app0", esp32.TypeApp, esp32.SubtypeOTA0, g.Slots[0])
	add("app1", esp32.TypeApp, esp32.SubtypeOTA0+1, g.Slots[1])
	if !g.noJournal {
		add("rnl_journal", esp32.TypeRunnel, esp32.SubtypeJournal, 2*g.sector())
	}
	if scratch {
		add(scratchName, esp32.TypeRunnel, esp32.SubtypeScratch, g.scratchSize())
	}
	return t, (at + chipUnit - 1) / chipUnit * chipUnit
}

// chipUnit in bytes: a chip of any whole number of these will do.
const chipUnit = 4 << 10

// stepsBack is how many sectors, without a journal, an updater looks behind its guess.
const stepsBack = 4

// promise is how many bytes may be fetched again after a cut: docs/design/journal.md.
func (g *Geometry) promise(k board.Kind, whole int64) int64 {
	step := int64(max(int(g.sector()), g.Chunk))
	if k == board.V1 {
		if g.noJournal && g.Image > int(g.Slots[1])-2*int(g.sector()) {
			return whole // nothing says how far it was
		}
		return step
	}
	records := step/int64(g.Chunk)*int64(g.Chunk+32) + 32 // what resumes begins with a hash
	switch {
	case !g.noJournal || g.Image <= int(g.Slots[1])-2*int(g.sector()):
		return records
	case g.Chip.Encrypt:
		return whole // blank can't be told there
	case g.Image > stepsBack*int(g.sector()):
		return whole // in a slot full of an older image nothing is blank: the guess may be too far off
	}
	return 2 * records // a guess, a sector early
}
