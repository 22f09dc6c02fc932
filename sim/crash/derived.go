package crash

import (
	"context"
	"crypto/sha256"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/core/flash"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/labserver"
	"github.com/runnel-fota/runnel/sim/nor"
)

// derivedStory is a release that a board is offered by a derived stream.
type derivedStory struct {
	base   string        // the image that a patch starts from; "": it is compressed
	kept   scratch       // not noScratch: the model goes on over restart points
	cut    bool          // the stream lacks its second half
	reason device.Reason // why the raw one is taken
}

// scratch is what a board has for snapshots.
type scratch uint8

const (
	noScratch scratch = iota
	goodScratch
	rottenScratch // it holds snapshots of the same stream from an update before, a bit of each wrong
	wornScratch   // no erase comes to its end
)

// scratchName is that of the partition.
const scratchName = "rnl_scratch"

// scratchHalf is enough for a snapshot of the small profile and its seal, on all chips, bytes.
const scratchHalf = 6 << 10

// derivedChunk is the chunk size of derived streams: small boards take no larger one.
const derivedChunk = 1024

// restartEvery in bytes of the stream: at each of core/patch's possible restart points.
const restartEvery = 64

func derivedScenarios() []*Scenario {
	update := []Turn{{Offer: "B", Until: Confirmed, Of: "B", Runs: "B"}}
	s := func(name, says string, d derivedStory) *Scenario {
		return &Scenario{Name: "native-" + name, Says: says, Wire: board.NativeWire, Turns: update, derived: &d}
	}
	return []*Scenario{
		s("patch-update", "An update by a patch.", derivedStory{base: "A"}),
		s("patch-resume", "The same, of an image that is long enough for restart points.", derivedStory{base: "A"}),
		s("patch-bad", "A patch that ends early: the raw stream is taken.", derivedStory{base: "A", cut: true, reason: device.ReasonPatch}),
		s("patch-other", "A patch from an image that the board does not run: the raw stream is taken.", derivedStory{base: "B", reason: device.ReasonBase}),
		s("kept-resume", "The same by a patch whose model goes on over restart points, with snapshots in scratch sectors.", derivedStory{base: "A", kept: goodScratch}),
		s("kept-rotten-resume", "The same, and the scratch sectors hold rotten snapshots of the same stream.", derivedStory{base: "A", kept: rottenScratch}),
		s("kept-worn-resume", "The same, and the scratch sectors are worn out.", derivedStory{base: "A", kept: wornScratch}),
		s("compressed", "An update by a compressed stream.", derivedStory{}),
		s("compressed-resume", "The same, of an image that is long enough for restart points.", derivedStory{}),
	}
}

// derive puts the derived stream on offer, and notes what a cut may cost.
func (k *kit) derive(d *derivedStory, g *Geometry) error {
	old, img := k.images[d.base], k.images["B"]
	o := delta.Options{Profile: patch.ProfileSmall, ImageChunk: uint32(g.Chunk), RestartEvery: restartEvery, Keep: d.kept != noScratch}
	r, err := delta.Make(context.Background(), old, img, o)
	if err != nil {
		return err
	}
	if k.interval, err = labserver.Interval(old, img, r.Payload, derivedChunk); err != nil {
		return err
	}
	if d.cut {
		r.Payload = r.Payload[:len(r.Payload)/2]
	}
	s := release.Sheet{Kind: manifest.StreamCompressed, Profile: r.Profile, RAM: uint32(delta.RAM(r.Profile)), Chunk: derivedChunk}
	if d.base != "" {
		s.Kind, s.BaseDigest, s.BaseSize = manifest.StreamPatch, sha256.Sum256(old), uint32(len(old))
	}
	return k.book.Derive(k.index["B"], r.Payload, s)
}

// promised is how many bytes may be fetched again after a cut.
func (set *Setup) promised() int64 {
	g, d := set.Geometry, set.Scenario.derived
	most := g.promise(set.Scenario.Wire, set.Dry.Fetched)
	switch {
	case d == nil:
		return most
	case g.noJournal && g.Image > int(g.Slots[1])-2*int(g.sector()):
		return set.Dry.Fetched // nothing says how far it was, nor that it failed
	case d.kept == wornScratch:
		return set.Dry.Fetched // it is begun anew
	case d.reason != 0:
		return most + set.kit.interval // it may fail again
	}
	return set.kit.interval
}

// inspectDerived: the board asked for the derived stream, and where that is of no use
// the server heard why.
func (w *world) inspectDerived() {
	d := w.set.Scenario.derived
	if d == nil {
		return
	}
	h := &w.srv.Heard[w.set.kit.index["B"]]
	switch {
	case d.reason != 0 && !h.Said(d.reason):
		w.fail(Stuck, "the server did not hear that %q", d.reason)
	case d.reason != device.ReasonBase && !w.srv.Derived:
		w.fail(Stuck, "the derived stream was not asked for")
	}
}

// seed of a release's content. Where snapshots count, it has little in common with the
// image before: what is fetched again shows.
func (d *derivedStory) seed() uint64 {
	if d != nil && d.kept != noScratch {
		return 2
	}
	return 1
}

// leaveSnapshots puts into the root's scratch sectors what the uncut run left there, rotten.
func (set *Setup) leaveSnapshots(from *nor.Chip) error {
	p := set.kit.table.Find(esp32.TypeRunnel, esp32.SubtypeScratch)
	buf := make([]byte, p.Size)
	if err := from.ReadAt(buf, p.Offset); err != nil {
		return err
	}
	for i := range 2 {
		buf[uint32(i)*p.Size/2+1000] ^= 1
	}
	return set.root.b.Chip.Load(p.Offset, buf)
}

// wornOut fails the erases of the scratch partition.
func (set *Setup) wornOut(op nor.Op) error {
	if r, _ := set.regionOf(op.Off, op.Len); op.Kind == nor.Erase && r.name == scratchName {
		return flash.ErrErase
	}
	return nil
}
