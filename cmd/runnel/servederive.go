package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"log/slog"
	"time"

	"github.com/spf13/pflag"

	"github.com/runnel-fota/runnel/internal/derive"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// Patches and compressed images that a server makes by itself.

// deriveFlags say which.
type deriveFlags struct {
	bases     int
	minSaving float64 // percent
	maxImage  int64   // MiB
}

// maxBases: each takes seconds of a core and a blob, for each release.
const maxBases = 64

func (d *deriveFlags) flags(f *pflag.FlagSet) {
	f.IntVar(&d.bases, "patch-bases", derive.DefaultBases, "make patches of each release from so `many` of the images that most devices run; 0: make none")
	f.Float64Var(&d.minSaving, "patch-min-saving", 100*derive.DefaultMinSaving, "`percent` of the raw stream that a patch or the compressed image saves, or it is dropped")
	f.Int64Var(&d.maxImage, "patch-max-image", derive.DefaultMaxImage>>20, "largest image, in `MiB`, that the server makes patches of: making one takes some 120 times its size of memory")
}

func (d *deriveFlags) validate() error {
	switch {
	case d.bases < 0 || d.bases > maxBases:
		return usagef("--patch-bases %d: it is 0 to %d", d.bases, maxBases)
	case !(d.minSaving >= 0 && d.minSaving < 100):
		return usagef("--patch-min-saving %g: it is 0 or more, and below 100", d.minSaving)
	case d.maxImage < 1 || d.maxImage > maxImage>>20:
		return usagef("--patch-max-image %d: it is 1 to %d", d.maxImage, maxImage>>20)
	}
	return nil
}

// run makes them until ctx ends.
func (d *deriveFlags) run(ctx context.Context, store derive.Store, i *images, log *slog.Logger) error {
	if d.bases == 0 {
		return nil
	}
	var name [8]byte
	rand.Read(name[:]) // it never fails
	r := &derive.Runner{Store: store, Open: i.blobs.Open, Publish: i.intake.AddDerived, Log: log, Now: time.Now, Machine: time.Now, Maker: hex.EncodeToString(name[:]),
		Bases: d.bases, MinSaving: d.minSaving / 100, MaxImage: d.maxImage << 20}
	return r.Run(ctx)
}

// ensureStreamKey makes the key with which the server signs what it makes, where there is
// none. It counts nothing until a key list names it. One that is damaged keeps nothing but
// patches from being made.
func ensureStreamKey(ctx context.Context, store fleet.StreamKeys, log *slog.Logger) error {
	_, err := store.StreamKey(ctx)
	if damaged := (*fleet.Error)(nil); errors.As(err, &damaged) && damaged.Code == fleet.CodeInternal && damaged.Hint != "" {
		log.Error("no patches are made", "error", err, "hint", damaged.Hint)
		return nil
	}
	if fleet.CodeOf(err) != fleet.CodeNotFound {
		return err
	}
	var seed fleet.Key
	rand.Read(seed[:]) // it never fails
	_, err = store.AddStreamKey(ctx, seed, false, time.Now())
	return err
}
