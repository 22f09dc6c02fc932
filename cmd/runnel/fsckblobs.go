package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/bucket"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/fsck"
)

// fsckBlobs is what a check needs of a folder of blobs, or of a bucket.
type fsckBlobs interface {
	fsck.Blobs
	Delete(ctx context.Context, d fleet.Digest) error
	// kept: it stays, although nobody refers to it.
	kept(ctx context.Context, d fleet.Digest) (bool, error)
	removeUnfinished() error
}

type folderBlobs struct {
	*dir.Dir
	shared bool // servers that run may be about to publish what is new
}

func (b folderBlobs) kept(_ context.Context, d fleet.Digest) (bool, error) {
	if !b.shared {
		return false, nil
	}
	return b.Fresh(d, freshFor, time.Now())
}

func (b folderBlobs) removeUnfinished() error { return b.RemoveUnfinished() }

type bucketBlobs struct{ *bucket.Bucket }

func (b bucketBlobs) kept(ctx context.Context, d fleet.Digest) (bool, error) {
	return b.Fresh(ctx, d, freshFor, time.Now())
}

// removeUnfinished: an object is whole or not there.
func (bucketBlobs) removeUnfinished() error { return nil }

// openBlobs opens what is to be checked, and notes what lies there and is no blob;
// nil where there is nothing to open, which is noted too.
func (c *fleetCheck) openBlobs(ctx context.Context, folder string, secret [32]byte, secretKnown bool) (fsckBlobs, error) {
	if inBucket(c.blobs) {
		return c.openBucket(ctx, secret, secretKnown)
	}
	shared := c.url != ""
	blobs, err := dir.OpenAsIs(dir.Options{Path: folder, Shared: shared})
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		c.add(fsck.File, &fleet.Error{Code: fleet.CodeNotFound, Message: "there is no folder " + folder, Hint: "bring a backup of it back; or name the bucket that the server was given, with --blobs"})
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	unfinished, strangers, err := blobs.Rest()
	if err != nil {
		return nil, err
	}
	for _, name := range unfinished {
		c.harmless(fsck.Unfinished, filepath.Join(filepath.Base(folder), name)+" was being written when a crash came")
	}
	c.strangers(filepath.Base(folder)+string(filepath.Separator), strangers)
	return folderBlobs{blobs, shared}, nil
}

func (c *fleetCheck) openBucket(ctx context.Context, secret [32]byte, secretKnown bool) (fsckBlobs, error) {
	b, err := bucket.Open(ctx, bucket.Options{URL: c.blobs})
	if err != nil {
		return nil, err
	}
	owner, err := b.Owner(ctx)
	if err != nil {
		return nil, err
	}
	if secretKnown && owner != "" && owner != ownerOf(secret) {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: "the bucket " + b.String() + " is another installation's", Hint: "name the one that this fleet's servers are started with"}
	}
	_, strangers, err := b.Look(ctx)
	if err != nil {
		return nil, err
	}
	c.strangers(b.String()+"/", strangers)
	return bucketBlobs{b}, nil
}

func (c *fleetCheck) strangers(where string, names []string) {
	for _, name := range names {
		c.faults = append(c.faults, fsck.Finding{What: fsck.Unknown, Message: where + name + " is none of this program's files",
			Hint: "look what it is, and put it elsewhere"})
	}
}
