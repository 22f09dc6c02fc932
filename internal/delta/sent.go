package delta

import (
	"bytes"
	"context"
	"crypto/ed25519"

	"github.com/runnel-fota/runnel/core/manifest"
	"github.com/runnel-fota/runnel/core/stream"
	"github.com/runnel-fota/runnel/release"
)

// Sent is how many bytes a device is sent for a patch: the stream with its hashes, and
// the stream sheet under one signature. The sheet is made, so that nothing is guessed;
// its key is of no use.
func (f *File) Sent(ctx context.Context) (int, error) {
	shape := stream.Shape{Size: uint32(len(f.Payload)), Chunk: f.Chunk}
	root, err := release.StreamRoot(bytes.NewReader(f.Payload), shape.Size, shape.Chunk)
	if err != nil {
		return 0, err
	}
	s := release.Sheet{Kind: manifest.StreamCompressed, Profile: f.Profile, RAM: uint32(RAM(f.Profile)), Length: shape.Size, Chunk: shape.Chunk, Root: root}
	if f.OldSize > 0 {
		s.Kind, s.BaseDigest, s.BaseSize = manifest.StreamPatch, f.OldDigest, f.OldSize
	}
	payload, err := s.Encode()
	if err != nil {
		return 0, err
	}
	key := ed25519.NewKeyFromSeed(make([]byte, ed25519.SeedSize))
	envelope, err := release.Sign(ctx, manifest.KindSheet, payload, release.NewKeySigner(key))
	if err != nil {
		return 0, err
	}
	return int(shape.FileLen()) + len(envelope), nil
}
