package crash

import (
	"fmt"
	"slices"
	"sync"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// Setup is a scenario on a geometry, ready to be played from the end of Before on.
// It is not changed afterwards, and any number of goroutines may play from it.
type Setup struct {
	Scenario *Scenario
	Geometry *Geometry
	Seed     uint64
	// Dry is what the turns took without a cut.
	Dry Dry

	kit     *kit
	slots   []flash.Area // of no chip: their places
	regions []region
	root    *world
	change  func(*device.Config)        // of tests: an updater that is broken on purpose
	forget  func(flash.Area) flash.Area // or a scratch partition that is
}

// Dry is an uncut run.
type Dry struct {
	Ops     int   // flash operations
	Fetched int64 // bytes
	Boots   int
	Erases  uint64 // of sectors, a block counted as its sectors
	// MinErases is how many sectors the images that were fetched need at least.
	MinErases uint64
	wear      []uint32
}

// kit is what a scenario on a geometry needs, whatever the seed.
type kit struct {
	book   *labserver.Book
	images map[string][]byte // by name; also A
	names  []string
	index  map[string]int // of releases in the book
	table  esp32.Table
	size   uint32
	// interval is what a cut may cost of the derived stream, bytes; 0: there is none.
	interval int64
}

// kits are made once: signing and building images takes longer than a run.
var kits sync.Map // by scenario and geometry

func kitOf(s *Scenario, g *Geometry) (*kit, error) {
	key := s.Name + "/" + g.Name
	if k, ok := kits.Load(key); ok {
		return k.(*kit), nil
	}
	k, err := newKit(s, g)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, err)
	}
	v, _ := kits.LoadOrStore(key, k)
	return v.(*kit), nil
}

func newKit(s *Scenario, g *Geometry) (*kit, error) {
	k := &kit{images: map[string][]byte{}, index: map[string]int{}}
	k.table, k.size = g.table(s.derived != nil && s.derived.kept != noScratch)
	var err error
	if k.book, err = labserver.NewBook(); err != nil {
		return nil, err
	}
	if g.own {
		k.book.Format = manifest.FormatRaw
	}
	build := func(name string, seed uint64) error {
		if _, ok := k.images[name]; ok {
			return nil
		}
		img, err := board.BuildImage(board.ImageSpec{Size: g.Image, Project: "lab", Version: name, Behave: s.behave[name], Raw: g.own, Seed: seed})
		k.images[name] = img
		k.names = append(k.names, name)
		return err
	}
	if err := build("A", 1); err != nil {
		return nil, err
	}
	for i, name := range s.releases() {
		if i == 1 {
			for range s.rotate {
				if err := k.book.Rotate(); err != nil {
					return nil, err
				}
			}
		}
		if err := build(s.image(name), s.derived.seed()); err != nil {
			return nil, err
		}
		if k.index[name], err = k.book.Add(name, k.images[s.image(name)], uint32(10*(i+1)), uint32(1+i/2), g.Chunk); err != nil {
			return nil, err
		}
	}
	if s.derived != nil {
		return k, k.derive(s.derived, g)
	}
	return k, nil
}

// region is a part of flash and who may change it.
type region struct {
	name     string
	from, to uint32
	slot     int // its number; noSlot: none
}

const noSlot = -1

// NewSetup plays Before and one uncut run of Turns. It fails where that does not go
// as the scenario says: then there is nothing to sweep.
func NewSetup(s *Scenario, g *Geometry, seed uint64) (*Setup, error) {
	k, err := kitOf(s, g)
	if err != nil {
		return nil, err
	}
	set := &Setup{Scenario: s, Geometry: g, Seed: seed, kit: k}
	cfg := g.Chip
	cfg.Size, cfg.Seed = k.size, seed
	chip, err := nor.New(cfg)
	if err != nil {
		return nil, err
	}
	b := &board.Board{Chip: chip, NoRollback: s.noRollback}
	if g.own {
		b.Own = &k.table
	}
	if err := b.Write(board.Layout{Table: k.table, App: k.images["A"]}); err != nil {
		return nil, err
	}
	if set.slots, err = b.Slots(&k.table); err != nil {
		return nil, err
	}
	for i := range k.table.N {
		p := &k.table.P[i]
		r := region{string(p.Name()), p.Offset, p.Offset + p.Size, noSlot}
		if p.Type == esp32.TypeApp && p.Subtype >= esp32.SubtypeOTA0 && p.Subtype < esp32.SubtypeOTA0+16 {
			r.slot = int(p.Subtype - esp32.SubtypeOTA0)
		}
		if p.Type != esp32.TypeApp || r.slot != noSlot {
			set.regions = append(set.regions, r)
		}
	}
	w := &world{set: set, b: b, srv: labserver.New(k.book), turns: s.Before}
	if len(s.Before) > 0 {
		w.clock.Now = 1000
		w.power(nil)
		if w.failure != nil {
			return nil, fmt.Errorf("%s/%s: before: %w", s.Name, g.Name, w.failure)
		}
	}
	w.turns, w.turn, w.began = s.Turns, 0, false
	w.b.NoRollback = s.noRollback
	w.base = w.srv.Total()
	set.root = w
	return set, set.dryRun()
}

func (set *Setup) dryRun() error {
	w := set.root.clone(set.root.b.Chip.Clone())
	ops := w.b.Chip.Stats().Ops()
	wear := set.wear(w.b.Chip)
	w.dry = true
	w.power(nil)
	if w.failure != nil {
		return fmt.Errorf("%s/%s: without a cut: %w", set.Scenario.Name, set.Geometry.Name, w.failure)
	}
	d := &set.Dry
	d.Ops = int(w.b.Chip.Stats().Ops() - ops)
	d.Fetched, d.Boots = w.srv.Total()-w.base, w.boots
	d.wear = set.wear(w.b.Chip)
	for i := range wear {
		d.wear[i] -= wear[i]
	}
	d.Erases = set.slotErases(d.wear)
	d.MinErases = set.minErases()
	if s := set.Scenario.derived; s != nil && s.kept == rottenScratch {
		if err := set.leaveSnapshots(w.b.Chip); err != nil {
			return err
		}
	}
	if d.Ops == 0 {
		return fmt.Errorf("%s/%s: no flash operation: there is nothing to cut", set.Scenario.Name, set.Geometry.Name)
	}
	return nil
}

// minErases is how many sectors the turns' downloads can't do without.
func (set *Setup) minErases() (n uint64) {
	size := uint64(set.Geometry.Image)
	for i, t := range set.Scenario.Turns {
		if t.Offer == "" || i > 0 && t.Offer == set.Scenario.Turns[i-1].Offer {
			continue
		}
		bytes := size
		if t.Until == Half {
			bytes = size / 2
		}
		sector := uint64(set.Geometry.sector())
		n += (bytes + sector - 1) / sector
	}
	return n
}

// wear of every sector.
func (set *Setup) wear(c *nor.Chip) []uint32 {
	out := make([]uint32, set.kit.size/set.Geometry.sector())
	for i := range out {
		out[i] = c.Wear(uint32(i) * set.Geometry.sector())
	}
	return out
}

func (set *Setup) slotErases(wear []uint32) (n uint64) {
	for _, r := range set.regions {
		if r.slot == noSlot {
			continue
		}
		for s := r.from / set.Geometry.sector(); s < r.to/set.Geometry.sector(); s++ {
			n += uint64(wear[s])
		}
	}
	return n
}

// regionOf is the region that holds a range; ok is false where none holds all of it.
func (set *Setup) regionOf(off, n uint32) (region, bool) {
	i := slices.IndexFunc(set.regions, func(r region) bool { return off >= r.from && off+n <= r.to })
	if i < 0 {
		return region{slot: noSlot}, false
	}
	return set.regions[i], true
}
