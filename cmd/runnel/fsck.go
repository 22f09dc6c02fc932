package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/fsck"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
)

func newFsckCmd() *cobra.Command {
	c := &fleetCheck{}
	data, asJSON := "", false
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Read all of a fleet that is stored, and name what is damaged, missing or left over",
		Long: `Reads all of the data folder of a server that does not run: the database, its secret,
and the image, the streams and the manifest of each release. It changes nothing, but
for what --remove-orphans removes: images and streams that no release refers to and
files that a crash left half-written. They are harmless, a server's start removes
them too.

Exit status 1 where anything was found and not removed; each finding says what to do.

--json prints {"checked":N,"bytes":N,"removed":N,"unchecked":[...],"faults":[{"what",
"message","hint","sha256","missing","release_id","product","version","harmless"}]}; what
is database, file, image, stream, manifest, orphan, unfinished or unknown.

With --blobs the images and streams are those in the bucket that 'runnel serve' was
given; the whole bucket is read over the network. What was written there less than a
day ago stays, whoever refers to it: another server may be about to publish it. The
cache of copies is not looked at: the server compares them when it uses them.

With --database (or RUNNEL_DATABASE) it reads the PostgreSQL database that servers
share, while they run: each table's rows, that references lead somewhere, with
--secret-file whether the secret opens the keys, with --blobs the images and streams.
What was not looked at is said, and is in "unchecked": keys, blobs. Indexes are left to
PostgreSQL's own pg_amcheck. Of a folder that servers share nothing is removed.`,
		Example: "  runnel fsck --data fleet\n  runnel fsck --data fleet --blobs 's3://my-bucket/fleet?region=eu-central-1'\n  runnel fsck --data fleet --remove-orphans\n  runnel fsck --data fleet --json\n" +
			"  runnel fsck --database postgres://runnel@db/runnel --secret-file secret.key --blobs s3://my-bucket/fleet",
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if c.url == "" && data == "" {
				c.url = os.Getenv(databaseEnv)
			}
			if err := c.validate(data); err != nil {
				return err
			}
			if !asJSON {
				bar := newProgress(cmd.ErrOrStderr(), "checking")
				defer bar.End()
				c.progress = bar.Set
			}
			if c.url != "" {
				err = c.database(cmd.Context())
			} else {
				err = c.folder(cmd.Context(), data)
			}
			if err != nil {
				return err
			}
			return c.show(cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `folder`")
	cmd.Flags().StringVar(&c.url, "database", "", "the PostgreSQL database's `URL`, in place of --data; or in "+databaseEnv)
	cmd.Flags().StringVar(&c.secretFile, "secret-file", "", "`file` of the secret that seals the device keys in --database")
	cmd.Flags().StringVar(&c.blobs, "blobs", "", "`where` images and streams are, as serve was given it: a bucket's URL, or with --database a folder; default: in the data folder")
	cmd.Flags().BoolVar(&c.remove, "remove-orphans", false, "remove images and streams that no release refers to, and half-written files")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func (c *fleetCheck) validate(data string) error {
	switch {
	case data != "" && c.url != "":
		return usagef("--data and --database exclude each other")
	case c.url != "":
		return c.validateDatabase()
	case data == "":
		return usagef("--data is missing").withHint("name the server's data folder, or its PostgreSQL database with --database")
	case c.secretFile != "":
		return usagef("--secret-file goes with --database").withHint("a data folder has its own")
	case c.blobs != "":
		return checkBucket(c.blobs)
	}
	return nil
}

// fleetCheck is one look at what servers keep a fleet in.
type fleetCheck struct {
	url        string // of a database that servers share; "": a data folder
	secretFile string // with url
	blobs      string // where they are; "": in the data folder, or not looked at
	remove     bool
	progress   func(done, total int64)

	result    fsck.Result
	faults    []fsck.Finding
	removed   int
	unchecked []string // what was not looked at
}

// checkedStore is what a check needs of a database.
type checkedStore interface {
	fsck.Releases
	fsck.Signed
	Check(ctx context.Context) ([]*fleet.Error, error)
}

// folder looks at a data folder.
func (c *fleetCheck) folder(ctx context.Context, data string) (err error) {
	d, err := datadir.OpenToCheck(data)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	found, unfinished, err := d.Check()
	if err != nil {
		return err
	}
	c.add(fsck.File, found...)
	for _, name := range unfinished {
		c.harmless(fsck.Unfinished, name+" was being written when a crash came")
	}
	secret, err := d.Secret(rand.Reader)
	if err != nil {
		// It is among what was found. Nothing else can be said of keys, but all of the rest can.
		secret = [32]byte{}
	}
	secretKnown := err == nil
	blobs, err := c.openBlobs(ctx, d.Blobs(), secret, secretKnown)
	if err != nil {
		return err
	}
	store, err := sqlite.OpenToCheck(ctx, sqlite.Options{Path: d.Database(), Secret: secret})
	var e *fleet.Error
	switch {
	case errors.As(err, &e) && e.Code == fleet.CodeInvalid:
		// Without the database nothing says what the blobs are for: none is an orphan.
		c.add(fsck.Database, e)
		return nil
	case err != nil:
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if err := c.tables(ctx, store, secretKnown); err != nil || blobs == nil {
		return err
	}
	known, err := c.releases(ctx, store, blobs)
	if err == nil && known && c.remove {
		return c.clean(ctx, blobs, d.RemoveUnfinished)
	}
	return err
}

// releases holds what a store says of them against what is there; known is false where the
// database is too damaged to say.
func (c *fleetCheck) releases(ctx context.Context, store checkedStore, blobs fsckBlobs) (known bool, err error) {
	config := fsck.Config{Releases: store, Signed: store, Progress: c.progress}
	if blobs != nil {
		config.Blobs = blobs
	}
	c.result, err = fsck.Run(ctx, config)
	var e *fleet.Error
	if errors.As(err, &e) && len(c.faults) > 0 && ctx.Err() == nil {
		return false, nil // that much was found already
	}
	if err != nil {
		return false, err
	}
	c.faults = append(c.faults, c.result.Findings...)
	return true, nil
}

func (c *fleetCheck) tables(ctx context.Context, store checkedStore, secretKnown bool) error {
	found, err := store.Check(ctx)
	if err != nil {
		return err
	}
	for _, e := range found {
		if secretKnown || e.Code != fleet.CodeInvalid { // else: of course it is not the one
			c.add(fsck.Database, e)
		}
	}
	return nil
}

func (c *fleetCheck) add(what string, found ...*fleet.Error) {
	for _, e := range found {
		f := fsck.Finding{What: what, Message: e.Message, Hint: e.Hint, Missing: e.Code == fleet.CodeNotFound}
		if e.Err != nil {
			f.Message += ": " + e.Err.Error()
		}
		c.faults = append(c.faults, f)
	}
}

func (c *fleetCheck) harmless(what, message string) {
	c.faults = append(c.faults, fsck.Finding{What: what, Message: message, Harmless: true,
		Hint: "the server removes it when it starts, and so does --remove-orphans"})
}

// clean removes what is harmless, of a fleet that is otherwise known: with a
// damaged database an image that it forgot may be the last copy. rest removes what else
// was half-written.
func (c *fleetCheck) clean(ctx context.Context, blobs fsckBlobs, rest func() error) error {
	left := c.faults[:0:0]
	for _, f := range c.faults {
		if !f.Harmless {
			left = append(left, f)
		}
	}
	for _, f := range left {
		if f.What == fsck.Database {
			return nil
		}
	}
	removed := len(c.faults) - len(left)
	for _, digest := range c.result.Orphans {
		kept, err := blobs.kept(ctx, digest)
		switch {
		case err != nil:
			return err
		case kept: // it is no finding either: it may be as it should be
			removed--
			continue
		}
		if err := blobs.Delete(ctx, digest); err != nil {
			return err
		}
	}
	if err := errors.Join(blobs.removeUnfinished(), rest()); err != nil {
		return err
	}
	c.removed = removed
	c.faults = left
	return nil
}

// show prints what was found; its error is that anything was.
func (c *fleetCheck) show(w io.Writer, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, map[string]any{"checked": c.result.Checked, "bytes": c.result.Bytes, "removed": c.removed,
			"unchecked": append([]string{}, c.unchecked...), "faults": append([]fsck.Finding{}, c.faults...)}); err != nil {
			return err
		}
	} else {
		for _, f := range c.faults {
			if _, err := fmt.Fprintf(w, "%s\n  %s\n", f.Message, f.Hint); err != nil {
				return err
			}
		}
		removed := ""
		if c.removed > 0 {
			removed = fmt.Sprintf(", %d left over and removed", c.removed)
		}
		for _, u := range c.unchecked {
			if _, err := fmt.Fprintln(w, uncheckedTexts[u]); err != nil {
				return err
			}
		}
		if _, err := fmt.Fprintf(w, "%d images, streams and manifests checked%s, %d findings\n", c.result.Checked, removed, len(c.faults)); err != nil {
			return err
		}
	}
	if len(c.faults) > 0 {
		return hinted(fmt.Errorf("the fleet's data is not as it should be: %d findings", len(c.faults)), "each of them says what to do")
	}
	return nil
}
