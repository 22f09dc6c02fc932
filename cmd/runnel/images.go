package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"sync"
	"time"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
)

// maxImage is the largest flash that an ESP32 maps, in bytes.
const maxImage = 16 << 20

// images keeps images and takes them in: it refuses what the bootloader would.
type images struct {
	blobs    *dir.Dir
	intake   *ingest.Service
	releases fleet.Releases
	mu       sync.Mutex // one upload of other bytes at a time
}

// openImages opens the folder and sweeps what a crash left between a blob and its release.
func openImages(ctx context.Context, path string, releases fleet.Releases, log *slog.Logger) (*images, error) {
	d, err := dir.Open(dir.Options{Path: path})
	if err != nil {
		return nil, err
	}
	i := &images{blobs: d, intake: ingest.New(ingest.Options{Blobs: d, Releases: releases, MaxImage: maxImage, Now: time.Now}), releases: releases}
	removed, missing, err := i.intake.Sweep(ctx)
	if err != nil {
		return nil, err
	}
	if removed > 0 {
		log.Info("removed images without a release", "images", removed)
	}
	for _, r := range missing {
		log.Error("the image of a release is missing: nobody can download it", "release", r.ID, "product", r.Product, "version", r.Version,
			"hint", "bring the blobs folder back from where you keep it, or withdraw the release")
	}
	return i, nil
}

// v1Upload is the way of the v1 upload: the original never looked into an image,
// and boards other than the ESP32 live on it. What begins as an ESP32 image is
// checked as one; other bytes are published without a chip's name.
type v1Upload struct{ *images }

func (u v1Upload) PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader) (fleet.Release, bool, error) {
	data, err := io.ReadAll(image) // the wire bounds it, and has it in memory
	if err != nil {
		return fleet.Release{}, false, err
	}
	if len(data) == 0 || data[0] == esp32.ImageMagic {
		return u.intake.PublishImage(ctx, product, version, chunkSize, digest, bytes.NewReader(data))
	}
	if err := errors.Join(fleet.ValidateProduct(product), fleet.ValidateVersion(version)); err != nil {
		return fleet.Release{}, false, err
	}
	if _, err := fleet.CheckChunkSize(chunkSize); err != nil {
		return fleet.Release{}, false, err
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	d, fresh, err := u.blobs.Put(ctx, bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return fleet.Release{}, false, err
	}
	r, created, err := u.releases.Publish(ctx, fleet.Release{Product: product, Version: version, ChunkSize: chunkSize,
		Image: fleet.Image{Digest: d, Size: int64(len(data))}}, time.Now())
	if err != nil && fresh {
		// Nothing else counts on it: bytes that are no image come in here alone.
		err = errors.Join(err, u.blobs.Delete(context.WithoutCancel(ctx), d))
	}
	return r, created, err
}
