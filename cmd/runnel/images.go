package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
)

// images takes images in and keeps them, one file each, named by its digest. A
// file that has its name is whole and durable: it is written under another,
// synced, and renamed.
type images struct {
	dir   string
	store fleet.Releases
	// anyBytes takes what is no ESP32 image too: the v1 upload never looked into one, and other
	// boards than the ESP32 may live on it.
	anyBytes bool
	mu       *sync.Mutex // one publisher at a time: none removes what another counts on
}

// openImages makes the folder if need be and sweeps what a crash left behind.
func openImages(dir string, store fleet.Releases) (*images, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	left, err := filepath.Glob(filepath.Join(dir, ".new-*"))
	if err != nil {
		return nil, err
	}
	for _, path := range left {
		if err := os.Remove(path); err != nil {
			return nil, err
		}
	}
	return &images{dir: dir, store: store, mu: &sync.Mutex{}}, nil
}

// forV1 is the same for the v1 upload.
func (i *images) forV1() *images {
	v := *i
	v.anyBytes = true
	return &v
}

func (i *images) path(d fleet.Digest) string { return filepath.Join(i.dir, d.String()) }

// OpenBlob opens an image; CodeNotFound where there is none.
func (i *images) OpenBlob(_ context.Context, d fleet.Digest) (io.ReadCloser, error) {
	f, err := os.Open(i.path(d))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &fleet.Error{Code: fleet.CodeNotFound, Message: "no such image", Err: err}
	}
	return f, err
}

// PublishImage checks an image, stores and publishes it. Where it returns an
// error it has left nothing behind.
func (i *images) PublishImage(ctx context.Context, product, version string, chunkSize int, digest *fleet.Digest, image io.Reader) (fleet.Release, bool, error) {
	var none fleet.Release
	if err := errors.Join(fleet.ValidateProduct(product), fleet.ValidateVersion(version)); err != nil {
		return none, false, err
	}
	if _, err := fleet.CheckChunkSize(chunkSize); err != nil {
		return none, false, err
	}
	data, err := io.ReadAll(io.LimitReader(image, maxImage+1))
	if err != nil {
		return none, false, err
	}
	switch {
	case len(data) == 0:
		return none, false, fleet.Errorf(fleet.CodeInvalid, "the image is empty")
	case len(data) > maxImage:
		return none, false, fleet.Errorf(fleet.CodeTooLarge, "the image is larger than %d bytes", maxImage)
	}
	rel := fleet.Release{Product: product, Version: version, ChunkSize: chunkSize,
		Image: fleet.Image{Digest: sha256.Sum256(data), Size: int64(len(data))}}
	if digest != nil && rel.Image.Digest != *digest {
		return none, false, fleet.Errorf(fleet.CodeInvalid, "the image's SHA-256 is %s, not %s as announced", rel.Image.Digest, digest)
	}
	im, err, at := inspect.ReadImage(data)
	switch {
	case err == nil:
		rel.Image.Chip, rel.Image.Project, rel.Image.AppVersion, rel.Image.IDFVersion = im.Chip, im.Project, im.Version, im.IDFVersion
	case !i.anyBytes:
		return none, false, &fleet.Error{Code: fleet.CodeInvalid, Message: fmt.Sprintf("the image is bad: %v, at offset %d", err, at),
			Hint: "push the .bin that the build made for the app"}
	}
	i.mu.Lock()
	defer i.mu.Unlock()
	fresh, err := i.keep(rel.Image.Digest, data)
	if err != nil {
		return none, false, err
	}
	stored, created, err := i.store.Publish(ctx, rel, time.Now())
	if err != nil && fresh {
		err = errors.Join(err, os.Remove(i.path(rel.Image.Digest)))
	}
	return stored, created, err
}

// keep stores an image durably; fresh: it was not there.
func (i *images) keep(d fleet.Digest, data []byte) (fresh bool, err error) {
	if old, err := os.ReadFile(i.path(d)); err == nil && bytes.Equal(old, data) {
		return false, nil
	}
	defer func() {
		if errors.Is(err, syscall.ENOSPC) {
			err = &fleet.Error{Code: fleet.CodeNoSpace, Message: "the server's disk is full", Err: err, Hint: "make room and push again: nothing was published"}
		}
	}()
	f, err := os.CreateTemp(i.dir, ".new-*")
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if _, err = f.Write(data); err != nil {
		return false, err
	}
	if err = f.Sync(); err != nil {
		return false, err
	}
	if err = f.Close(); err != nil {
		return false, err
	}
	if err = os.Rename(f.Name(), i.path(d)); err != nil {
		return false, err
	}
	if runtime.GOOS == "windows" { // folders can't be synced there
		return true, nil
	}
	dir, err := os.Open(i.dir)
	if err != nil {
		return true, err
	}
	defer dir.Close()
	return true, dir.Sync()
}
