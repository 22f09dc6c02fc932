// Package delta makes patches for core/patch: it finds out whose code two images hold,
// aligns them, tells the new one by runs of the old, literals and copies, and has
// core/patch's own state machine code that, in several variants of which the smallest
// is kept. docs/design/patches.md says why each step is as it is, docs/format/patch.md
// what comes out.
//
// It reads no file and keeps nothing. Images are whole in memory, and it takes up to about
// a hundred bytes for each of the larger one.
package delta

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"

	"github.com/runnel-fota/runnel/core/patch"
)

// Options say what a patch is to be like. The zero value is a patch for the large
// profile, in a stream of 2,048 bytes a chunk.
type Options struct {
	Profile uint8 // patch.ProfileLarge or ProfileSmall; 0: large
	// ImageChunk is the chunk size of the image's own chain, whose hashes restart
	// points carry; bytes. 0: 1,024.
	ImageChunk uint32
	// RestartEvery is how many bytes of the patch lie between restart points, at least;
	// 0: 32 KiB. Negative: there are none.
	RestartEvery int
	// Keep has the model go on over restart points, for devices that take snapshots.
	Keep bool
	// Unpredicted has the images taken for such of an architecture that is not known.
	Unpredicted bool
	// Progress, where it is set, hears what is being done: how much of all, 0 to 1.
	Progress func(done float64, what string)
}

// Result is a patch and what is to be told of it.
type Result struct {
	Payload  []byte // what travels in a stream
	Profile  uint8
	Variant  string // which one was the smallest
	Restarts int    // points where a device can go on
	Report   Report
}

// Make makes the smallest patch that turns old into new. An empty old makes a
// compressed image. What it returns was applied, and came to new.
func Make(ctx context.Context, old, new []byte, o Options) (*Result, error) {
	if len(old) > patch.MaxImage || len(new) > patch.MaxImage {
		return nil, fmt.Errorf("an image of %d bytes: at most %d", max(len(old), len(new)), patch.MaxImage)
	}
	if o.Profile == 0 {
		o.Profile = patch.ProfileLarge
	}
	if o.Profile > patch.ProfileSmall {
		return nil, fmt.Errorf("no profile %d: %d is large, %d is small", o.Profile, patch.ProfileLarge, patch.ProfileSmall)
	}
	if o.ImageChunk == 0 {
		o.ImageChunk = 1024
	}
	if o.RestartEvery == 0 {
		o.RestartEvery = 32 << 10
	}
	m := maker{ctx: ctx, old: old, new: new, o: o, g: guess(old, new)}
	if o.Unpredicted {
		m.g = geometry{}
	}
	if err := m.links(); err != nil {
		return nil, err
	}
	if err := m.search(); err != nil {
		return nil, err
	}
	m.progress(1, "proving")
	got, err := Apply(old, m.best.out, uint32(len(new)))
	if err != nil || !bytes.Equal(got, new) {
		return nil, fmt.Errorf("a patch does not make what it was made from (%v): this is a bug in runnel; the images' SHA-256 are %x and %x", err, sha256.Sum256(old), sha256.Sum256(new))
	}
	return &Result{Payload: m.best.out, Profile: o.Profile, Variant: m.bestName, Restarts: m.best.restarts, Report: m.report()}, nil
}
