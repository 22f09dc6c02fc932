package main

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/blob/bucket"
	"github.com/runnel-fota/runnel/internal/blob/cache"
	"github.com/runnel-fota/runnel/internal/blob/checked"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const (
	// redirectSigned is the word in the place of a URL.
	redirectSigned = "signed"
	// signedFor is how long a signed URL holds: as long as a stream may take.
	signedFor = time.Hour
	// freshFor is how long a blob in a bucket that no release refers to is left alone: another
	// replica may be about to publish it. It is far longer than an upload and two clocks' difference.
	freshFor = 24 * time.Hour
)

// blobFlags say where images and streams are kept.
type blobFlags struct {
	where     string // a bucket's URL, or a folder; "": in the data folder
	cache     string // folder; "": in the data folder
	cacheSize byteSize
}

func (b *blobFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	b.cacheSize = byteSize(cache.DefaultLimit)
	f.StringVar(&b.where, "blobs", "", "`where` images and streams are: s3://BUCKET[/PREFIX][?endpoint=URL&region=NAME]; or, with --database, a folder that all its servers see")
	f.StringVar(&b.cache, "blob-cache", "", "the `folder` for copies of what is in the bucket; default: cache in the data folder")
	f.Var(&b.cacheSize, "blob-cache-size", "what these copies may take, e.g. 512MiB or 20GiB")
}

func (b *blobFlags) inBucket() bool { return inBucket(b.where) }

// inBucket: a folder's name has no scheme.
func inBucket(where string) bool { return strings.Contains(where, "://") }

func (b *blobFlags) validate(database bool, redirect string) error {
	switch {
	case !b.inBucket() && b.cache != "":
		return usagef("--blob-cache goes with a bucket: --blobs s3://my-bucket/fleet")
	case !b.inBucket() && redirect == redirectSigned:
		return usagef("--stream-redirect signed goes with a bucket: only that signs URLs")
	case b.inBucket() && database && b.cache == "":
		return usagef("--blob-cache is missing").withHint("name a folder on this machine for copies of what is in the bucket: each server has its own")
	case int64(b.cacheSize) < cache.MinLimit:
		return usagef("--blob-cache-size is below %s, which a few streams at once take", byteSize(cache.MinLimit))
	}
	if b.inBucket() {
		return checkBucket(b.where)
	}
	return nil
}

func checkBucket(url string) error {
	err := bucket.Check(url)
	var e *fleet.Error
	if errors.As(err, &e) {
		return usagef("--blobs: %s", e.Message).withHint("%s", e.Hint)
	}
	return err
}

// blobs is an open store of images and streams.
type blobs struct {
	*checked.Store
	keep  func(ctx context.Context, d fleet.Digest) (bool, error)   // of ingest.Options
	sign  func(ctx context.Context, d fleet.Digest) (string, error) // of native.ObjectsConfig; nil: nothing signs
	close func() error
}

// open opens the folder, or the bucket with its cache.
func (b *blobFlags) open(ctx context.Context, h *home, log *slog.Logger) (*blobs, error) {
	if !b.inBucket() {
		shared := h.replicas != nil
		d, err := dir.Open(dir.Options{Path: h.blobs, Shared: shared})
		if err != nil {
			return nil, err
		}
		// What no release refers to yet may be on its way to one, on another server: nothing is removed.
		keep := func(context.Context, fleet.Digest) (bool, error) { return shared, nil }
		return &blobs{Store: checked.New(d, log), keep: keep, close: func() error { return nil }}, nil
	}
	remote, err := bucket.Open(ctx, bucket.Options{URL: b.where})
	if err != nil {
		return nil, err
	}
	// Before anything is removed from it. It is also where a wrong name or key is told.
	if err := remote.Claim(ctx, ownerOf(h.secret)); err != nil {
		return nil, err
	}
	folder := b.cache
	if folder == "" {
		folder = h.cache
	}
	c, err := cache.Open(cache.Options{Remote: remote, Path: folder, Limit: int64(b.cacheSize), Log: log})
	if err != nil {
		return nil, err
	}
	copies, bytes := c.Usage()
	log.Info("images and streams are in a bucket", "bucket", remote.String(), "cache", folder, "copies", copies, "copied_bytes", bytes)
	return &blobs{Store: checked.NewProven(c, log), close: c.Close,
		keep: func(ctx context.Context, d fleet.Digest) (bool, error) {
			return remote.Fresh(ctx, d, freshFor, time.Now())
		},
		sign: func(ctx context.Context, d fleet.Digest) (string, error) {
			return remote.SignedURL(ctx, d, signedFor)
		}}, nil
}

// ownerOf names an installation in its bucket: who knows the secret makes the same
// name, and nobody makes the secret of it. Replicas have the same secret.
func ownerOf(secret [32]byte) string {
	m := hmac.New(sha256.New, secret[:])
	m.Write([]byte("runnel/bucket-owner/1"))
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// byteSize is a flag: bytes, or a number with KiB, MiB, GiB or TiB.
type byteSize int64

var byteUnits = []struct {
	name  string
	bytes int64
}{{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}}

func (b byteSize) String() string {
	for _, u := range byteUnits {
		if b > 0 && int64(b)%u.bytes == 0 {
			return fmt.Sprintf("%d%s", int64(b)/u.bytes, u.name)
		}
	}
	return strconv.FormatInt(int64(b), 10)
}

// Set implements pflag.Value.
func (b *byteSize) Set(s string) error {
	digits, unit := s, int64(1)
	for _, u := range byteUnits {
		if text, ok := strings.CutSuffix(s, u.name); ok {
			digits, unit = text, u.bytes
		}
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n < 0 || n > math.MaxInt64/unit {
		return fmt.Errorf("not a size: write it like 512MiB or 20GiB")
	}
	*b = byteSize(n * unit)
	return nil
}

// Type implements pflag.Value.
func (*byteSize) Type() string { return "size" }
