package main

import (
	"context"
	"path/filepath"
	"time"

	"github.com/runnel-fota/runnel/internal/blob/bucket"
	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/datadir"
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

type folderBlobs struct{ *dir.Dir }

func (folderBlobs) kept(context.Context, fleet.Digest) (bool, error) { return false, nil }
func (b folderBlobs) removeUnfinished() error                        { return b.RemoveUnfinished() }

type bucketBlobs struct{ *bucket.Bucket }

func (b bucketBlobs) kept(ctx context.Context, d fleet.Digest) (bool, error) {
	return b.Fresh(ctx, d, freshFor, time.Now())
}

// removeUnfinished: an object is whole or not there.
func (bucketBlobs) removeUnfinished() error { return nil }

// openBlobs opens what is to be checked, and notes what lies there and is no blob;
// nil where there is nothing to open, which is noted too.
func (c *folderCheck) openBlobs(ctx context.Context, d *datadir.Dir, secret [32]byte, secretKnown bool) (fsckBlobs, error) {
	if c.bucket != "" {
		return c.openBucket(ctx, secret, secretKnown)
	}
	blobs, err := dir.OpenAsIs(dir.Options{Path: d.Blobs()})
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		c.add(fsck.File, &fleet.Error{Message: "there is no folder " + d.Blobs(), Hint: "bring a backup of it back; or name the bucket that the server was given, with --blobs"})
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
		c.harmless(fsck.Unfinished, filepath.Join("blobs", name)+" was being written when a crash came")
	}
	c.strangers("blobs"+string(filepath.Separator), strangers)
	return folderBlobs{blobs}, nil
}

func (c *folderCheck) openBucket(ctx context.Context, secret [32]byte, secretKnown bool) (fsckBlobs, error) {
	b, err := bucket.Open(ctx, bucket.Options{URL: c.bucket})
	if err != nil {
		return nil, err
	}
	owner, err := b.Owner(ctx)
	if err != nil {
		return nil, err
	}
	if secretKnown && owner != "" && owner != ownerOf(secret) {
		return nil, &fleet.Error{Code: fleet.CodeConflict, Message: "the bucket " + b.String() + " is another installation's", Hint: "name the one that this data folder's server is started with"}
	}
	_, strangers, err := b.Look(ctx)
	if err != nil {
		return nil, err
	}
	c.strangers(b.String()+"/", strangers)
	return bucketBlobs{b}, nil
}

func (c *folderCheck) strangers(where string, names []string) {
	for _, name := range names {
		c.faults = append(c.faults, fsck.Finding{What: fsck.Unknown, Message: where + name + " is none of this program's files",
			Hint: "look what it is, and put it elsewhere"})
	}
}
