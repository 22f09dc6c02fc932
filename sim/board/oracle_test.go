package board

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"slices"
	"testing"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/sim/nor"
	"github.com/runnel-fota/runnel/sim/oracletest"
)

// Boot against the real bootloader: its machine code gets the same flash, partition
// table, records, images and all (docs/design/boot-oracle.md).

// plain is flash as bytes: what a chip reads at one moment. A chip with marginal
// bits would tell two readers different things.
type plain []byte

func (p plain) ReadAt(q []byte, off uint32) error {
	if uint64(off)+uint64(len(q)) > uint64(len(p)) {
		return flash.ErrRange
	}
	copy(q, p[off:])
	return nil
}

func (p plain) Program(q []byte, off uint32) error {
	if uint64(off)+uint64(len(q)) > uint64(len(p)) {
		return flash.ErrRange
	}
	for i := range q {
		p[int(off)+i] &= q[i]
	}
	return nil
}

func (p plain) Erase(off, n uint32) error {
	if uint64(off)+uint64(n) > uint64(len(p)) || off%esp32.SectorSize != 0 || n%esp32.SectorSize != 0 {
		return flash.ErrAlign
	}
	for i := range n {
		p[off+i] = 0xFF
	}
	return nil
}

// oracle compares boots, and counts what it saw.
type oracle struct {
	t       testing.TB
	real    *oracletest.Bootloader
	seen    map[[32]byte]bool
	pairs   map[[2]esp32.Entry]bool
	boots   int
	steps   uint64
	resets  int // of the distinct states: nothing starts
	written int // the bootloader wrote otadata
	found   []string
	// boot is what is judged: Board.Boot, but where a wrong one is to be found out.
	boot func(*Board) (Boot, error)
}

func newOracle(t testing.TB) *oracle {
	return &oracle{t: t, real: oracletest.Open(t), seen: map[[32]byte]bool{}, pairs: map[[2]esp32.Entry]bool{},
		boot: (*Board).Boot}
}

// watch has every boot of a board compared.
func (o *oracle) watch(b *Board, id string) {
	b.OnBoot = func() { o.compare(b, id) }
}

// compare boots a copy of the board, and its flash on the real bootloader.
func (o *oracle) compare(b *Board, id string) {
	o.t.Helper()
	before := make(plain, b.Chip.Geometry().Size)
	if err := b.Chip.ReadAt(before, 0); err != nil {
		o.t.Fatalf("%s: %v", id, err)
	}
	o.boots++
	sum := sha256.Sum256(before)
	if o.seen[sum] {
		return
	}
	o.seen[sum] = true
	chip, err := nor.New(nor.Config{Size: uint32(len(before))})
	if err == nil {
		err = chip.Load(0, before)
	}
	if err != nil {
		o.t.Fatalf("%s: %v", id, err)
	}
	mine := &Board{Chip: chip, ChipID: b.ChipID}
	got, gotErr := o.boot(mine)

	after := slices.Clone(before)
	off, ok, err := o.real.Boot(after, uint32(len(after)))
	if err != nil {
		o.t.Fatalf("%s: the real bootloader: %v", id, err)
	}
	o.steps += o.real.Steps
	if !ok {
		o.resets++
	}
	if len(o.real.Ops) > 0 {
		o.written++
	}
	table, tableErr := mine.Table()
	if d := table.Find(esp32.TypeData, esp32.SubtypeOTA); tableErr == nil && d != nil {
		o.pairs[[2]esp32.Entry{esp32.Entry(before[d.Offset:][:32]), esp32.Entry(before[d.Offset+esp32.SectorSize:][:32])}] = true
	}
	switch {
	case (gotErr == nil) != ok:
		o.disagree(id, "ours %v %v; the real one starts 0x%x, %v", got, gotErr, off, ok)
	case ok && startOf(&table, got) != off:
		o.disagree(id, "ours starts %d at 0x%x, the real one what is at 0x%x; %q", got.Running, startOf(&table, got), off, got.Steps)
	case !bytes.Equal(chip.Raw(), after):
		at := 0
		for chip.Raw()[at] == after[at] {
			at++
		}
		o.disagree(id, "flash differs at 0x%x: ours %d, the real one %d; %q, %v", at, chip.Raw()[at], after[at], got.Steps, o.real.Ops)
	}
}

func (o *oracle) disagree(id, format string, args ...any) {
	o.found = append(o.found, id+": "+fmt.Sprintf(format, args...))
}

// startOf is where the image begins that Boot started: its last step names the
// partition, which of factory and test Running does not tell.
func startOf(t *esp32.Table, bt Boot) uint32 {
	for i := range t.N {
		p := &t.P[i]
		if string(p.Name())+" starts" != bt.Steps[len(bt.Steps)-1] {
			continue
		}
		if slot := p.Subtype - esp32.SubtypeOTA0; slot < maxSlots && boot.Slot(slot) != bt.Running || slot >= maxSlots && bt.Running != boot.Factory {
			return 0
		}
		return p.Offset
	}
	return 0
}

// end reports what was found.
func (o *oracle) end() {
	o.t.Helper()
	for _, f := range o.found[:min(5, len(o.found))] {
		o.t.Error(f)
	}
	o.t.Logf("%d boots, %d distinct states of flash, %d pairs of records; %d reset, %d write otadata; %d instructions",
		o.boots, len(o.seen), len(o.pairs), o.resets, o.written, o.steps)
}

// tiny is a board whose images are verified quickly: a state is dear, not a byte.
func tiny() geometry {
	return geometry{name: "tiny", cfg: nor.Config{Size: 512 << 10}, slotSize: 64 << 10, imgSize: 6 << 10, chunk: 1024}
}

func imageC3(t testing.TB, size int, version string, b Behaviour) []byte {
	t.Helper()
	img, err := BuildImage(ImageSpec{Size: size, Chip: esp32.ChipESP32C3, Project: "test", Version: version, Behave: b, Seed: 1})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

// TestOracleSweep lets boards update themselves, cuts their power at every flash
// operation, and asks the real bootloader at every boot on the way.
func TestOracleSweep(t *testing.T) {
	for _, c := range []struct {
		name    string
		change  func(*geometry)
		release Behaviour
	}{
		{"good release", func(*geometry) {}, BehaveOK},
		{"release that crashes", func(*geometry) {}, BehavePanic},
		{"factory", func(g *geometry) { g.factory = true }, BehaveOK},
		{"encrypted", func(g *geometry) { g.cfg.Encrypt = true }, BehaveSelfTest},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			g := tiny()
			c.change(&g)
			o := newOracle(t)
			o.real.Encrypted = g.cfg.Encrypt
			a, b := imageC3(t, g.imgSize, "A", BehaveOK), imageC3(t, g.imgSize, "B", c.release)
			board := func() *world {
				w := newWorld(t, newBoard(t, g, a), g.chunk)
				w.b.ChipID = esp32.ChipESP32C3
				w.offer(b, "B", 100)
				return w
			}
			var ops []nor.Op
			dry := board()
			dry.b.Chip.SetLog(func(op nor.Op) { ops = append(ops, op) })
			const waits = 40 // a trial, and the polls after it
			run := func(w *world) error { return w.b.Run(context.Background(), boot.ResetPowerOn, w.until(waits)) }
			if err := run(dry); err != nil {
				t.Fatal(err)
			}
			if len(ops) < 20 {
				t.Fatalf("only %d flash operations", len(ops))
			}
			// Every operation on otadata, the bootloader's own ones too, and some of the
			// others.
			step := 5
			if testing.Short() {
				step = 23
			}
			if os.Getenv("RUNNEL_SWEEP") == "full" {
				step = 1
			}
			for k, op := range ops {
				if k%step != 0 && (op.Off < 0xC000 || op.Off >= 0xE000) {
					continue
				}
				for tear := range 6 {
					w := board()
					w.id = fmt.Sprintf("operation %d, tear %d", k, tear)
					o.watch(w.b, w.id)
					n := 0
					w.b.Chip.SetCut(func(op nor.Op) nor.Cut {
						if n++; n-1 != k {
							return nor.Cut{}
						}
						return tearOf(op, tear, g)
					})
					if err := run(w); !errors.Is(err, ErrPowerCut) {
						t.Fatalf("%s: no cut, %v", w.id, err)
					}
					w.b.Chip.PowerOn()
					if err := run(w); err != nil {
						t.Fatalf("%s: %v", w.id, err)
					}
				}
			}
			o.end()
			if len(o.pairs) < 5 || o.written == 0 {
				t.Error("hardly anything was asked")
			}
		})
	}
}

// TestOracleFindsOut: boards that boot wrongly are told from the real one, by what
// they start or by what they write.
func TestOracleFindsOut(t *testing.T) {
	g := tiny()
	img := imageC3(t, g.imgSize, "A", BehaveOK)
	for _, c := range []struct {
		name string
		e    [2]esp32.Entry
		boot func(*Board) (Boot, error)
	}{
		{"no rollback", [2]esp32.Entry{esp32.NewEntry(1, esp32.StateNew), esp32.BlankEntry()},
			func(b *Board) (Boot, error) { b.NoRollback = true; return b.Boot() }},
		{"another chip", [2]esp32.Entry{esp32.NewEntry(1, esp32.StateValid), esp32.BlankEntry()},
			func(b *Board) (Boot, error) { b.ChipID = esp32.ChipESP32S3; return b.Boot() }},
		{"another slot", [2]esp32.Entry{esp32.NewEntry(1, esp32.StateValid), esp32.NewEntry(2, esp32.StateValid)},
			func(b *Board) (Boot, error) { bt, err := b.Boot(); bt.Running = 1 - bt.Running; return bt, err }},
		{"initial contents stay", [2]esp32.Entry{esp32.BlankEntry(), esp32.BlankEntry()},
			func(b *Board) (Boot, error) {
				bt, err := b.Boot()
				return bt, errors.Join(err, b.Chip.Erase(0xC000, esp32.SectorSize))
			}},
	} {
		o := newOracle(t)
		b := newBoard(t, g, img)
		b.ChipID = esp32.ChipESP32C3
		err := b.Chip.Erase(0xC000, esp32.OTADataSize)
		for i := range c.e {
			if c.e[i] != esp32.BlankEntry() {
				err = errors.Join(err, b.Chip.Program(c.e[i][:], 0xC000+uint32(i)*esp32.SectorSize))
			}
		}
		if err != nil {
			t.Fatal(err)
		}
		o.compare(b, c.name)
		if len(o.found) > 0 {
			t.Fatalf("%s: the right one differs: %q", c.name, o.found)
		}
		o.boot, o.seen = c.boot, map[[32]byte]bool{}
		o.compare(b, c.name)
		if len(o.found) == 0 {
			t.Errorf("%s: not noticed", c.name)
		}
	}
}
