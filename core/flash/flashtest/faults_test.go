package flashtest

import (
	"fmt"
	"testing"

	"github.com/runnel-fota/runnel/core/flash"
)

// fault is one way to break the contract.
type fault uint8

const (
	none fault = iota
	ors
	wrapsInPage
	shortPrograms
	programsBeside
	fillsThePage
	programsTwice
	programsBlankTwice
	refusesTooLate
	overwrites
	keepsProgramBuffer
	encryptsInPlace
	keepsReadBuffer
	readsAligned
	readsToThePage
	readsBeside
	readDisturbs
	erasesTooMuch
	erasesTooLittle
	erasesNeighbour
	erasesToZero
	marksOnly
	keepsUsed
	blockErasesSector
	blockTooMuch
	neverByBlock
	descends
	readsUnchecked
	programsUnchecked
	erasesUnchecked
	sumRunsOver
	oneTooFar
	wrongError
	sulks
	rounds
	refusesNothing
	refusesTheEnd
	syncFails
	syncSpoils
	buffers
	eraseUndone
	geometryChanges
	faults // how many there are
)

func (m *ram) is(f fault) bool { return m.fault == f && f != none }

// broken says which checks must find each fault; others may find it too.
var broken = map[fault][]string{
	ors:                {"ProgramThenRead", "EraseSector", "Sequence"},
	wrapsInPage:        {"ProgramThenRead"},
	shortPrograms:      {"ProgramThenRead"},
	programsBeside:     {"ProgramThenRead", "ProgramAnyOrder"},
	fillsThePage:       {"ProgramThenRead"},
	programsTwice:      {"ProgramTwice", "Sequence"},
	programsBlankTwice: {"ProgramTwice"},
	refusesTooLate:     {"ProgramTwice", "BitsOneWay"},
	keepsProgramBuffer: {"Buffers"},
	encryptsInPlace:    {"Buffers"},
	keepsReadBuffer:    {"Buffers"},
	readsAligned:       {"ReadAnywhere", "Sequence"},
	readsToThePage:     {"ReadAnywhere"},
	readsBeside:        {"ReadAnywhere"},
	readDisturbs:       {"ReadAnywhere"},
	erasesTooMuch:      {"EraseSector", "EraseRanges", "Sequence"},
	erasesTooLittle:    {"EraseSector", "EraseRanges"},
	erasesNeighbour:    {"EraseSector", "EraseRanges", "Sequence"},
	erasesToZero:       {"EraseSector"},
	marksOnly:          {"EraseSector", "EraseRanges"},
	keepsUsed:          {"EraseSector"},
	blockErasesSector:  {"EraseRanges"},
	blockTooMuch:       {"EraseRanges", "EraseOrder"},
	neverByBlock:       {"EraseOrder"},
	descends:           {"EraseOrder"},
	readsUnchecked:     {"Range"},
	programsUnchecked:  {"Range", "Alignment"},
	erasesUnchecked:    {"Range", "Alignment"},
	sumRunsOver:        {"Range"},
	oneTooFar:          {"Range"},
	wrongError:         {"Range", "Alignment"},
	sulks:              {"Range", "Alignment"},
	rounds:             {"Alignment"},
	refusesNothing:     {"ZeroLength"},
	refusesTheEnd:      {"ZeroLength"},
	syncFails:          {"Sync"},
	syncSpoils:         {"Sync"},
	buffers:            {"Durable"},
	eraseUndone:        {"Durable"},
	geometryChanges:    {"Geometry"},
}

var plain = flash.Geometry{Size: 0x28000, EraseSize: 4096, BlockEraseSize: 65536, ProgramSize: 16, ErasedByte: 0xFF, ErasedReadable: true}

// find runs a check on a device; a panic of the device is a finding.
func find(c check, dev flash.Device, driver bool) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	r, err := newRig(dev, driver)
	if err != nil {
		return err
	}
	return c.run(r)
}

// blind are the faults that nobody can see on a chip that encrypts: no caller
// knows the plain text that leaves cells as an erase does.
var blind = map[fault]bool{programsBlankTwice: true}

func TestEachFaultIsFound(t *testing.T) {
	noise := plain
	noise.ErasedReadable = false
	useful := map[string]bool{}
	for f := none + 1; f < faults; f++ {
		names, ok := broken[f]
		if !ok && f != overwrites { // overwrites: below
			t.Errorf("no check is named for fault %d", f)
		}
		for _, name := range names {
			c := checkNamed(t, name)
			useful[name] = true
			for _, g := range []flash.Geometry{plain, noise} {
				if !g.ErasedReadable && blind[f] {
					continue
				}
				m := newRAM(g)
				m.fault = f
				err := find(c, m, false)
				if err == nil {
					t.Errorf("fault %d passes %s (%+v)", f, name, g)
				}
			}
		}
	}
	for _, c := range checks {
		if !useful[c.name] {
			t.Errorf("nothing shows that %s finds anything", c.name)
		}
	}
}

func checkNamed(t *testing.T, name string) check {
	t.Helper()
	for _, c := range checks {
		if c.name == name {
			return c
		}
	}
	t.Fatalf("no check %s", name)
	return check{}
}

// A driver that programs over what stands there, as RAM does, is no NOR flash.
func TestOverwritingDriverIsFound(t *testing.T) {
	m := newRAM(plain)
	m.lax, m.fault = true, overwrites
	if find(checkNamed(t, "BitsOneWay"), m, true) == nil {
		t.Error("passes")
	}
}

// A driver that takes blocks where its Area has them, not its chip.
func TestWrongBlocksBehindAnAreaAreFound(t *testing.T) {
	chip := newRAM(plain)
	w := newWindow(t, chip, 0x1000, 0x27000)
	if err := find(checkNamed(t, "EraseOrder"), w, false); err != nil {
		t.Fatal(err)
	}
	if find(checkNamed(t, "EraseOrder"), &liar{newWindow(t, newRAM(plain), 0x1000, 0x27000)}, false) == nil {
		t.Error("an area that says it starts elsewhere passes")
	}
}

type liar struct{ *window }

func (l *liar) Base() uint32 { return 0 }

func TestUnsoundGeometryIsFound(t *testing.T) {
	for name, spoil := range map[string]func(*flash.Geometry){
		"no program size":      func(g *flash.Geometry) { g.ProgramSize = 0 },
		"large program size":   func(g *flash.Geometry) { g.ProgramSize = 512 },
		"no erase size":        func(g *flash.Geometry) { g.EraseSize = 0 },
		"units over sectors":   func(g *flash.Geometry) { g.ProgramSize = 48 },
		"block below a sector": func(g *flash.Geometry) { g.BlockEraseSize = 2048 },
		"block of no sectors":  func(g *flash.Geometry) { g.BlockEraseSize = 65536 + 2048 },
		"half a sector":        func(g *flash.Geometry) { g.Size = 0x40000 - 2048 },
		"no size":              func(g *flash.Geometry) { g.Size = 0 },
		"three sectors":        func(g *flash.Geometry) { g.Size = 3 * 4096 },
	} {
		g := plain
		spoil(&g)
		m := newRAM(plain)
		m.geo = g
		if _, err := newRig(m, false); err == nil {
			t.Errorf("%s passes: %+v", name, g)
		}
	}
}
