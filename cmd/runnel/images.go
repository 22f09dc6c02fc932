package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
)

// maxImage is the largest flash that an ESP32 maps, in bytes.
const maxImage = 16 << 20

// images keeps images and takes them in: it refuses what the bootloader would.
type images struct {
	blobs  *dir.Dir
	intake *ingest.Service
}

// openImages opens the folder and sweeps what a crash left between a blob and its release.
func openImages(ctx context.Context, path string, releases fleet.Releases, log *slog.Logger) (*images, error) {
	d, err := dir.Open(dir.Options{Path: path})
	if err != nil {
		return nil, err
	}
	i := &images{blobs: d, intake: ingest.New(ingest.Options{Blobs: d, Releases: releases, MaxImage: maxImage, Now: time.Now})}
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
