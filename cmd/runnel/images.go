package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/checked"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
)

// maxImage is the largest flash that an ESP32 maps, in bytes.
const maxImage = 16 << 20

// images keeps images and takes them in: it refuses what the bootloader would.
type images struct {
	blobs  *checked.Store
	intake *ingest.Service
	store  imageStore
}

// imageStore is what taking images and releases in needs of a store.
type imageStore interface {
	fleet.Releases
	ingest.Signed
}

// openImages opens the folder, which other servers write to too if it is shared, and sweeps what a crash left between a blob and its release.
func openImages(ctx context.Context, path string, shared bool, store imageStore, demoKeys bool, log *slog.Logger) (*images, error) {
	d, err := dir.Open(dir.Options{Path: path, Shared: shared})
	if err != nil {
		return nil, err
	}
	blobs := checked.New(d, log)
	i := &images{blobs: blobs, intake: newIntake(blobs, store, demoKeys, shared), store: store}
	removed, faults, err := i.intake.Sweep(ctx)
	if err != nil {
		return nil, err
	}
	if removed > 0 {
		log.Info("removed images and streams without a release", "files", removed)
	}
	for _, f := range faults {
		log.Error("what a release refers to is not there or not whole: nobody can download it", "what", f.What, "sha256", f.Digest, "missing", f.Missing,
			"release", f.Release.ID, "product", f.Release.Product, "version", f.Release.Version,
			"hint", "bring the data folder back from where you keep it, or withdraw the release")
	}
	return i, nil
}

// newIntake takes in what is stored in d and in store.
func newIntake(d *checked.Store, store imageStore, demoKeys, shared bool) *ingest.Service {
	// What no release refers to yet may be on its way to one, on another server: nothing is removed.
	keep := func(context.Context, fleet.Digest) (bool, error) { return shared, nil }
	return ingest.New(ingest.Options{Blobs: d, Releases: store, Signed: store, Keep: keep, MaxImage: maxImage, Now: time.Now, ThrowAway: demoKeys,
		Stage: func(ctx context.Context, room int64) (ingest.Staged, error) { return d.Stage(ctx, room) }})
}

// scrub checks all images and streams now and then; those first that devices are
// offered, the newest first.
func (i *images) scrub(ctx context.Context, rate int64) error {
	err := i.blobs.Scrub(ctx, rate, func(ctx context.Context) (list []fleet.Digest, err error) {
		releases, err := i.store.ListReleases(ctx, "")
		if err != nil {
			return nil, err
		}
		for _, r := range releases {
			if r.State != fleet.ReleasePublished {
				continue
			}
			list = append(list, r.Image.Digest)
			if !r.Signed() {
				continue
			}
			streams, err := i.store.Streams(ctx, r.ID)
			if err != nil {
				return nil, err
			}
			for _, s := range streams {
				list = append(list, s.Digest)
			}
		}
		return list, nil
	})
	if ctx.Err() != nil {
		return nil // it was told to stop
	}
	return err
}

// v1Catalogue is what the v1 wire sees of the releases.
type v1Catalogue struct {
	fleet.Catalogue
	policies fleet.V1Policies
}

// Snapshot leaves out what signed products have. The policies are read after the
// generation: who changes one raises it, and it is all read again.
func (c v1Catalogue) Snapshot(ctx context.Context) (int64, []fleet.Release, error) {
	generation, list, err := c.Catalogue.Snapshot(ctx)
	if err != nil {
		return 0, nil, err
	}
	without, err := c.policies.WithoutV1(ctx)
	if err != nil {
		return 0, nil, err
	}
	return generation, fleet.ForV1(list, without), nil
}
