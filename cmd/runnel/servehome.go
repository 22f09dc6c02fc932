package main

import (
	"context"
	"crypto/rand"
	"errors"
	"io/fs"
	"os"
	"time"

	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/store/postgres"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
	"github.com/runnel-fota/runnel/internal/store/sqlstore"
)

// databaseEnv is where a URL may be that is not to be seen in a list of processes.
const databaseEnv = "RUNNEL_DATABASE"

// home is what a server keeps its fleet in: a data folder, or a database that it shares
// with others.
type home struct {
	store     *sqlstore.Store
	replicas  fleet.Replicas // nil: the store is this server's alone
	secret    [32]byte
	blobs     string // folder for images and streams; "": they are elsewhere
	cache     string // folder for copies of those that are elsewhere; "": the home has none
	tokenFile string
	token     string // made by this start; "": there was one

	// starting runs a part of the start that one of several servers does.
	starting func(ctx context.Context, f func() error) error
	closers  []func() error
}

// close closes what was opened, the last first.
func (h *home) close() error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i]())
	}
	return errors.Join(errs...)
}

func (c *serveConfig) validateDatabase() error {
	switch {
	case c.data != "":
		return usagef("--data and --database exclude each other").withHint("with --database name the secret and the blobs: --secret-file FILE --blobs FOLDER, or s3://BUCKET")
	case !postgres.IsURL(c.database):
		return usagef("--database is no postgres:// URL").withHint("write it like postgres://runnel@db.example.com/runnel?sslmode=verify-full")
	case c.secretFile == "":
		return usagef("--secret-file is missing").withHint("name a file for the secret that seals the device keys: the first start makes it, and every server of the database needs a copy")
	case c.blobs.where == "":
		return usagef("--blobs is missing").withHint("name a folder for images and streams that all servers of the database see, or a bucket: s3://my-bucket/fleet")
	}
	return nil
}

func (c *serveConfig) openHome(ctx context.Context) (*home, error) {
	h := &home{starting: func(_ context.Context, f func() error) error { return f() }}
	open := h.openFolder
	if c.database != "" {
		open = h.openDatabase
	}
	if err := open(ctx, c); err != nil {
		return nil, errors.Join(err, h.close())
	}
	return h, nil
}

func (h *home) openFolder(ctx context.Context, c *serveConfig) error {
	dir, err := datadir.Open(c.data)
	if err != nil {
		return err
	}
	h.closers = append(h.closers, dir.Close)
	secret, err := dir.Secret(rand.Reader)
	if err != nil {
		return err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{Path: dir.Database(), Secret: secret, Migrating: c.migrating})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, store.Close)
	h.store, h.secret, h.blobs, h.cache, h.tokenFile = store.Store, secret, dir.Blobs(), dir.Cache(), dir.TokenFile()
	return nil
}

func (h *home) openDatabase(ctx context.Context, c *serveConfig) error {
	secret, err := databaseSecret(ctx, c.database, c.secretFile)
	if err != nil {
		return err
	}
	store, err := postgres.Open(ctx, postgres.Options{URL: c.database, Secret: secret, Migrating: c.migrating})
	if err != nil {
		return err
	}
	h.closers = append(h.closers, store.Close)
	h.starting = store.Starting
	if store.Exposed() {
		c.log.Warn("the network can read and alter what goes to the database and back", "hint", "add sslmode=verify-full to --database, and sslrootcert=FILE for an authority of your own")
	}
	h.store, h.replicas, h.secret, h.blobs, h.tokenFile = store.Store, store.Store, secret, c.blobs.where, datadir.TokenFileBeside(c.secretFile)
	return nil
}

func (c *serveConfig) migrating(from, to int64) {
	c.log.Info("the database is brought up to date: from then on older programs refuse it", "schema", from, "to", to)
}

// databaseSecret reads the secret of a database, and makes it where the database has none.
func databaseSecret(ctx context.Context, url, file string) ([32]byte, error) {
	if _, err := os.Stat(file); errors.Is(err, fs.ErrNotExist) {
		sealed, err := postgres.Sealed(ctx, url)
		if err != nil {
			return [32]byte{}, err
		}
		return datadir.SecretFile(file, !sealed, rand.Reader)
	}
	return datadir.SecretFile(file, false, rand.Reader)
}

// ready says whether the database answers.
func (h *home) ready(ctx context.Context) error {
	_, err := h.store.Generation(ctx)
	return err
}

// ensureToken makes the first operator's token where there is none.
func (h *home) ensureToken(ctx context.Context) (err error) {
	return h.starting(ctx, func() error {
		h.token, err = datadir.EnsureTokenAt(ctx, h.tokenFile, h.store, rand.Reader, time.Now())
		return err
	})
}
