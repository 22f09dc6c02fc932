package main

import (
	"context"
	"log/slog"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/ingest"
)

// maxImage is the largest flash that an ESP32 maps, in bytes.
const maxImage = 16 << 20

// images keeps images and takes them in: it refuses what the bootloader would.
type images struct {
	blobs  *blobs
	intake *ingest.Service
	store  imageStore
}

// imageStore is what taking images and releases in needs of a store.
type imageStore interface {
	fleet.Releases
	ingest.Signed
	fleet.Derivations
}

// openImages sweeps what a crash left between a blob and its release.
func openImages(ctx context.Context, b *blobs, store imageStore, demoKeys bool, log *slog.Logger) (*images, error) {
	i := &images{blobs: b, intake: newIntake(b, store, demoKeys), store: store}
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

// newIntake takes in what is stored in b and in store.
func newIntake(b *blobs, store imageStore, demoKeys bool) *ingest.Service {
	return ingest.New(ingest.Options{Blobs: b, Releases: store, Signed: store, Derivations: store, Keep: b.keep, MaxImage: maxImage, Now: time.Now, ThrowAway: demoKeys,
		Stage: func(ctx context.Context, room int64) (ingest.Staged, error) { return b.Stage(ctx, room) }})
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
