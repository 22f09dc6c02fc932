package delta

import (
	"context"
	"fmt"
	"slices"

	"github.com/runnel-fota/runnel/core/digest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/core/stream"
)

// maker makes variants of one patch and keeps the smallest.
type maker struct {
	ctx      context.Context
	old, new []byte
	o        Options
	g        geometry
	chain    [][patch.LinkSize]byte // of the image, by chunk
	finder   *finder
	best     *script
	last     *script // that was coded
	bestName string
	done     int
}

// depth is how many places of the same four bytes are looked at for a copy.
const depth = 32

// Layouts of core/patch, from the profile's first.
const (
	layoutNear = iota // the images resemble each other
	layoutFar
	layoutAlone // there is no old one
)

func (m *maker) layout(i uint8) uint8 {
	if m.o.Profile == patch.ProfileSmall {
		i += patch.SmallLayouts
	}
	return i
}

// alignment is one way to see the old image in the new.
type alignment struct {
	name    string
	g       geometry
	runs    []run
	gaps    [][2]int
	covered int // bytes of the new image in runs
}

// alignments are those worth coding. Which is the best, no measure short of coding tells.
func (m *maker) alignments() []alignment {
	found := []alignment{{name: "plain", g: m.g, runs: align(m.old, m.new, m.old, m.new, plainCosts)}}
	if m.g.arch != patch.ArchNone {
		m.progress(0.05, "aligning")
		a, b := masked(m.old, m.g.with(m.old, m.g.oldBase)), masked(m.new, m.g.with(m.new, m.g.newBase))
		found = append(found, alignment{name: "masked", g: m.g, runs: align(m.old, m.new, a, b, maskedCosts)})
	}
	for i := range found {
		a := &found[i]
		a.gaps = gapsOf(a.runs, len(m.new))
		for _, r := range a.runs {
			a.covered += r.n
		}
	}
	return found
}

// search tries what is worth trying: each alignment once, with prices that are guessed;
// the best of them again, with those that this showed, in both layouts where the images
// differ much, and without what may not pay.
func (m *maker) search() error {
	alone := alignment{name: "alone", gaps: gapsOf(nil, len(m.new))}
	if len(m.old) == 0 {
		return m.refine(alone, nil, layoutAlone)
	}
	m.progress(0, "aligning")
	all := m.alignments()
	// Images that have nearly nothing in common are told by copies.
	if most := slices.MaxFunc(all, func(a, b alignment) int { return a.covered - b.covered }); most.covered < unrepeated(m.new)/8 {
		return m.refine(alone, nil, layoutAlone)
	}
	var best alignment
	var prices *prices
	for _, a := range all {
		before := m.best
		p, err := m.try(a, nil, layoutNear)
		if err != nil {
			return err
		}
		if m.best != before {
			best, prices = a, p
		}
	}
	if err := m.refine(best, prices, layoutNear); err != nil {
		return err
	}
	if len(m.best.out) > len(m.new)/20 {
		if err := m.refine(best, prices, layoutFar); err != nil {
			return err
		}
	}
	// Without prediction: for images whose instructions are none of those that we know,
	// whatever their header says, and for changes so small that a preamble is dear.
	if m.g.arch != patch.ArchNone && (len(m.best.out) < 1024 || len(m.best.out) > len(m.new)/2) {
		blind := all[0]
		blind.name, blind.g = "unpredicted", geometry{}
		if _, err := m.try(blind, prices, layoutNear); err != nil {
			return err
		}
	}
	if len(m.best.out) > len(m.new)/2 {
		return m.refine(alone, nil, layoutAlone)
	}
	return nil
}

// unrepeated is how many bytes of an image are not those of a word before: padding does
// not count.
func unrepeated(img []byte) int {
	n := min(period, len(img))
	for i := period; i < len(img); i++ {
		if img[i] != img[i-period] {
			n++
		}
	}
	return n
}

func (m *maker) progress(done float64, what string) {
	if m.o.Progress != nil {
		m.o.Progress(done, what)
	}
}

// try codes an alignment, and measures prices by it. Without any it guesses.
func (m *maker) try(a alignment, p *prices, layout uint8) (*prices, error) {
	if err := m.ctx.Err(); err != nil {
		return nil, err
	}
	if m.finder == nil {
		m.finder = newFinder(m.old, m.new)
	}
	f := m.finder
	if f.prices = p; p == nil {
		f.prices = firstPrices()
		f.weigh(a.gaps)
	}
	lay := m.layout(layout)
	moves := mapMoves(a.g, m.old, m.new, a.runs, patch.MapLen(lay))
	s, err := m.encode(preamble(a.g, m.old, m.new, moves), f.plan(a.runs, a.gaps), lay)
	if err != nil {
		return nil, err
	}
	m.keep(a.name, s)
	return s.tallies.prices(f.prices), nil
}

// refine tries an alignment with measured prices; and where a map was sent, without it.
func (m *maker) refine(a alignment, p *prices, layout uint8) error {
	if p == nil {
		var err error
		if p, err = m.try(a, nil, layout); err != nil {
			return err
		}
	}
	if _, err := m.try(a, p, layout); err != nil {
		return err
	}
	lay := m.layout(layout)
	if a.g.arch == patch.ArchNone || patch.MapLen(lay) == 0 {
		return nil
	}
	bare, err := m.encode(preamble(a.g, m.old, m.new, nil), m.last.plan, lay)
	if err != nil {
		return err
	}
	m.keep(a.name+", no map", bare)
	return nil
}

// keep keeps s if it is the smallest.
func (m *maker) keep(name string, s *script) {
	m.done++
	m.last = s
	m.progress(min(0.95, 0.1+float64(m.done)/7), name)
	if m.best == nil || len(s.out) < len(m.best.out) {
		m.best, m.bestName = s, name
	}
}

// encode drives the applier over a plan.
func (m *maker) encode(pre []uint32, ops []op, layout uint8) (*script, error) {
	s := &script{new: m.new, preamble: pre, plan: ops, ops: append([]op(nil), ops...), every: m.o.RestartEvery, links: m.chain, imageChunk: m.o.ImageChunk}
	s.out = append(s.out, patch.Version, layout)
	s.begin()
	c := patch.Config{Old: image(m.old), OldSize: uint32(len(m.old)), New: image(m.new), NewSize: uint32(len(m.new)), Out: make([]byte, 4096), Memory: make([]uint16, patch.LargeWords)}
	if m.o.Keep {
		pre[1] |= patch.FlagKeep
	}
	a := &s.applier
	if err := a.Begin(c); err != 0 {
		return nil, err
	}
	if err := a.Encode(s, layout); err != 0 {
		return nil, err
	}
	for {
		switch a.Step() {
		case patch.Full:
			a.Wrote()
		case patch.Done:
			s.Want(patch.SymRestart) // books what the last symbol took
			s.end(true)
			return s, nil
		case patch.Failed:
			return nil, a.Err()
		}
	}
}

// links makes the hashes of the image's chain (docs/format/stream.md).
func (m *maker) links() error {
	if len(m.new) == 0 {
		return nil
	}
	shape := stream.Shape{Size: uint32(len(m.new)), Chunk: m.o.ImageChunk}
	if !shape.Valid() {
		return fmt.Errorf("chunks of %d bytes: %w", m.o.ImageChunk, stream.ErrShape)
	}
	m.chain = make([][patch.LinkSize]byte, shape.Records())
	var h digest.SHA256
	var next []byte
	for i := shape.Records(); i > 0; {
		i--
		stream.Hash(&h, shape, i, m.new[i*shape.Chunk:][:shape.ChunkLen(i)], next, &m.chain[i])
		next = m.chain[i][:]
	}
	return nil
}
