package main

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/fsck"
	"github.com/runnel-fota/runnel/internal/store/postgres"
)

// What of a shared database was not looked at, by its name in JSON.
const (
	uncheckedKeys  = "keys"
	uncheckedBlobs = "blobs"
)

var uncheckedTexts = map[string]string{
	uncheckedKeys:  "whether the device keys can be opened was not looked at: name the secret with --secret-file",
	uncheckedBlobs: "images and streams were not looked at: name where they are with --blobs",
}

func (c *fleetCheck) validateDatabase() error {
	switch {
	case !postgres.IsURL(c.url):
		return usagef("--database is no postgres:// URL").withHint("write it like postgres://runnel@db.example.com/runnel?sslmode=verify-full")
	case c.remove && !inBucket(c.blobs):
		// A server that runs may be pushing again what is there already, and is not asked.
		return usagef("with --database, --remove-orphans goes with a bucket: --blobs s3://my-bucket/fleet").
			withHint("of a folder that servers share nothing is removed: delete by hand what fsck names, while no server runs")
	case c.remove && c.secretFile == "":
		return usagef("--remove-orphans needs --secret-file: it says whether the bucket is this fleet's")
	case inBucket(c.blobs):
		return checkBucket(c.blobs)
	}
	return nil
}

// database looks at a database that servers share, and at where their blobs are. They may run: what
// is new and nobody's yet is no finding.
func (c *fleetCheck) database(ctx context.Context) (err error) {
	var secret [32]byte
	secretKnown := false
	if c.secretFile == "" {
		c.unchecked = append(c.unchecked, uncheckedKeys)
	} else if secret, err = datadir.SecretFile(c.secretFile, false, rand.Reader); err != nil {
		var e *fleet.Error
		if !errors.As(err, &e) {
			return err
		}
		c.add(fsck.File, e)
	} else {
		secretKnown = true
	}
	store, err := postgres.OpenToCheck(ctx, postgres.Options{URL: c.url, Secret: secret})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var blobs fsckBlobs
	if c.blobs == "" {
		c.unchecked = append(c.unchecked, uncheckedBlobs)
	} else if blobs, err = c.openBlobs(ctx, c.blobs, secret, secretKnown); err != nil {
		return err
	}
	if err := c.tables(ctx, store, secretKnown); err != nil {
		return err
	}
	known, err := c.releases(ctx, store, blobs)
	if err != nil || !known || blobs == nil {
		return err
	}
	if err := c.dropFresh(ctx, blobs); err != nil {
		return err
	}
	if c.remove && secretKnown {
		return c.clean(ctx, blobs, func() error { return nil })
	}
	return nil
}

// dropFresh takes back findings of blobs that a server may be about to publish.
func (c *fleetCheck) dropFresh(ctx context.Context, blobs fsckBlobs) error {
	fresh := map[string]bool{}
	orphans := c.result.Orphans[:0:0]
	for _, d := range c.result.Orphans {
		kept, err := blobs.kept(ctx, d)
		if err != nil {
			return err
		}
		if fresh[d.String()] = kept; !kept {
			orphans = append(orphans, d)
		}
	}
	c.result.Orphans = orphans
	faults := c.faults[:0:0]
	for _, f := range c.faults {
		if f.What == fsck.Orphan && fresh[f.Digest] {
			continue
		}
		if f.Harmless && !inBucket(c.blobs) {
			f.Hint = "it costs room and nothing else: delete it by hand while no server runs"
		}
		faults = append(faults, f)
	}
	c.faults = faults
	return nil
}
