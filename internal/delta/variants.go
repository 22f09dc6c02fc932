package delta

import (
	"context"
	"fmt"

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
	best     *script
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

// search tries what is worth trying. Which alignment is the best, no measure short of
// coding it tells; which layout follows from the sizes but near the border between them.
func (m *maker) search() error {
	if len(m.old) == 0 {
		return m.try("alone", geometry{}, nil, layoutAlone)
	}
	type alignment struct {
		name  string
		g     geometry
		mask  bool
		costs alignCosts
	}
	all := []alignment{{"plain", m.g, false, plainCosts}}
	if m.g.arch != patch.ArchNone {
		all = append(all, alignment{"masked", m.g, true, maskedCosts})
	}
	var bestRuns []run
	var bestAlign alignment
	for _, a := range all {
		m.progress(float64(m.done)/8, a.name+": aligning")
		oldImg, newImg := m.old, m.new
		if a.mask {
			oldImg, newImg = masked(m.old, a.g.with(m.old, a.g.oldBase)), masked(m.new, a.g.with(m.new, a.g.newBase))
		}
		runs := align(m.old, m.new, oldImg, newImg, a.costs)
		before := m.best
		if err := m.try(a.name, a.g, runs, layoutNear); err != nil {
			return err
		}
		if m.best != before {
			bestRuns, bestAlign = runs, a
		}
	}
	// The other layout, where the images differ much.
	if len(m.best.out) > len(m.new)/20 {
		if err := m.try(bestAlign.name, bestAlign.g, bestRuns, layoutFar); err != nil {
			return err
		}
	}
	// Without prediction: for images whose instructions are none of those that we know,
	// whatever their header says, and for changes so small that a map is dear.
	if m.g.arch != patch.ArchNone && (len(m.best.out) < 1024 || len(m.best.out) > len(m.new)/3) {
		plain := align(m.old, m.new, m.old, m.new, plainCosts)
		if err := m.try("unpredicted", geometry{}, plain, layoutNear); err != nil {
			return err
		}
	}
	if len(m.best.out) > len(m.new)/3 {
		return m.try("alone", geometry{}, nil, layoutAlone)
	}
	return nil
}

func (m *maker) progress(done float64, what string) {
	if m.o.Progress != nil {
		m.o.Progress(done, what)
	}
}

// try codes a variant twice: with prices that are guessed, and with those that the
// first time showed. Then, where a map was sent, without it.
func (m *maker) try(name string, g geometry, runs []run, layout uint8) error {
	lay := m.layout(layout)
	gaps := gapsOf(runs, len(m.new))
	f := newFinder(m.old, m.new)
	f.weigh(gaps)
	moves := mapMoves(g, m.old, m.new, runs, patch.MapLen(lay))
	var s *script
	for range 2 {
		if err := m.ctx.Err(); err != nil {
			return err
		}
		ops := f.plan(runs, gaps)
		var err error
		if s, err = m.encode(preamble(g, m.old, m.new, moves), ops, lay); err != nil {
			return err
		}
		m.keep(name, s)
		f.prices = s.tallies.prices(f.prices)
	}
	if len(moves) > 0 {
		bare, err := m.encode(preamble(g, m.old, m.new, nil), s.plan, lay)
		if err != nil {
			return err
		}
		m.keep(name+", no map", bare)
	}
	return nil
}

// keep keeps s if it is the smallest.
func (m *maker) keep(name string, s *script) {
	m.done++
	m.progress(min(0.95, float64(m.done)/8), name)
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
