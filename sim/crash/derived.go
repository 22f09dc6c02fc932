package crash

import (
	"context"
	"crypto/sha256"

	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/release"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/labserver"
)

// derivedStory is a release that a board is offered by a derived stream.
type derivedStory struct {
	base   string        // the image that a patch starts from; "": it is compressed
	cut    bool          // the stream lacks its second half
	reason device.Reason // why the raw one is taken
}

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
		s("compressed", "An update by a compressed stream.", derivedStory{}),
		s("compressed-resume", "The same, of an image that is long enough for restart points.", derivedStory{}),
	}
}

// derive puts the derived stream on offer, and notes what a cut may cost.
func (k *kit) derive(d *derivedStory, g *Geometry) error {
	old, img := k.images[d.base], k.images["B"]
	o := delta.Options{Profile: patch.ProfileSmall, ImageChunk: uint32(g.Chunk), RestartEvery: restartEvery}
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
