// Package derive makes the derived streams of a release: patches from images that
// devices may run, and the image compressed, each with the stream sheet that announces
// it (docs/format/sheet.md), and proves such as others made. Runner does so for what a
// fleet runs, in the background.
//
// It knows the domain, the coder (internal/delta, core/patch) and the signed formats
// (release); no database, no disk and no wire.
package derive

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

// DefaultMinSaving is the share of a raw stream that a derived one saves at least, or it
// is dropped: what saves less is not worth a device's RAM and the risk of another way.
const DefaultMinSaving = 0.20

// Options say what is made.
type Options struct {
	Profile uint8 // of the coder: patch.ProfileLarge or ProfileSmall
	// MinSaving is the least share of the raw stream that is saved, 0 to 1.
	MinSaving float64
	// Snapshots has the coder's model go on over restart points: a device without scratch
	// sectors begins such a stream anew after a power cut.
	Snapshots bool
	// Signer signs the sheet: with a release key, or one with the role stream.
	Signer release.Signer
	// Progress, where it is set, hears how much is done, 0 to 1, and what of it.
	Progress func(done float64, what string)
}

// Made is a derived stream.
type Made struct {
	Sheet    *release.Sheet
	Envelope []byte // the sheet, signed
	File     []byte // the stream's
	Variant  string // of the coder
	Raw      int64  // bytes that the raw stream has
}

// Sent is what a device is sent for it, sheet included, bytes.
func (m *Made) Sent() int64 { return int64(len(m.File) + len(m.Envelope)) }

// SavingError says that a derived stream was dropped: it saves too little.
type SavingError struct {
	Sent, Raw int64 // bytes
	Min       float64
}

func (e *SavingError) Error() string {
	return fmt.Sprintf("%d of the raw stream's %d bytes (%.1f %%): it saves less than %.0f %%", e.Sent, e.Raw, 100*float64(e.Sent)/float64(e.Raw), 100*e.Min)
}

// Profile is the coder's of that name; 0: there is none.
func Profile(name string) uint8 {
	for p, n := range fleet.ProfileNames {
		if n == name {
			return p
		}
	}
	return 0
}

// Make makes the smallest stream that turns old into image, which m is the manifest of;
// an empty old makes the compressed image. *SavingError: it was dropped.
func Make(ctx context.Context, old, image []byte, m *release.Manifest, o Options) (*Made, error) {
	im := &m.Image
	switch {
	case len(im.Streams) == 0:
		return nil, errors.New("the manifest has no raw stream")
	case uint64(len(image)) != uint64(im.Size) || sha256.Sum256(image) != [32]byte(im.Digest):
		return nil, errors.New("the image is not the manifest's")
	case bytes.Equal(old, image):
		return nil, errors.New("old image and new image are the same")
	}
	first := im.Streams[0]
	r, err := delta.Make(ctx, old, image, delta.Options{Profile: o.Profile, ImageChunk: first.Chunk, Keep: o.Snapshots, Progress: o.Progress})
	if err != nil {
		return nil, err
	}
	made := &Made{Variant: r.Variant, Raw: int64(stream.Shape{Size: im.Size, Chunk: first.Chunk}.FileLen())}
	made.Sheet = &release.Sheet{ImageRoot: first.Root, Kind: manifest.StreamCompressed, Profile: r.Profile, RAM: uint32(delta.RAM(r.Profile)),
		Length: uint32(len(r.Payload)), Chunk: delta.Chunk(r.Profile)}
	if len(old) > 0 {
		made.Sheet.Kind, made.Sheet.BaseDigest, made.Sheet.BaseSize = manifest.StreamPatch, sha256.Sum256(old), uint32(len(old))
	}
	var file bytes.Buffer
	root, _, _, err := release.BuildStream(&file, bytes.NewReader(r.Payload), made.Sheet.Length, made.Sheet.Chunk)
	if err != nil {
		return nil, err
	}
	made.Sheet.Root, made.File = root, file.Bytes()
	payload, err := made.Sheet.Encode()
	if err != nil {
		return nil, err
	}
	// One signature has the same length whatever it signs, but it may cost a person a
	// touch on a key: what is dropped for sure is dropped before.
	if e := o.judge(int64(len(made.File)+len(payload)), made.Raw); e != nil {
		return nil, e
	}
	if made.Envelope, err = release.Sign(ctx, manifest.KindSheet, payload, o.Signer); err != nil {
		return nil, err
	}
	if e := o.judge(made.Sent(), made.Raw); e != nil {
		return nil, e
	}
	return made, nil
}

func (o *Options) judge(sent, raw int64) error {
	if float64(sent) > (1-o.MinSaving)*float64(raw) || sent >= raw {
		return &SavingError{Sent: sent, Raw: raw, Min: o.MinSaving}
	}
	return nil
}

// Stream is how the domain has it.
func (m *Made) Stream() fleet.Stream {
	kind := fleet.StreamCompressed
	if m.Sheet.Kind == manifest.StreamPatch {
		kind = fleet.StreamPatch
	}
	return fleet.Stream{Digest: sha256.Sum256(m.File), Kind: kind, Chunk: m.Sheet.Chunk, Length: int64(len(m.File)), Root: fleet.Digest(m.Sheet.Root), Sheet: m.Envelope}
}
