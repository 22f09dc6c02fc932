package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/fsck"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
)

func newFsckCmd() *cobra.Command {
	var data, url string
	asJSON, remove := false, false
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Read all of a data folder, and name what is damaged, missing or left over",
		Long: `Reads all of the data folder of a server that does not run: the database, its secret,
and the image, the streams and the manifest of each release. It changes nothing, but
for what --remove-orphans removes: images and streams that no release refers to and
files that a crash left half-written. They are harmless, a server's start removes
them too.

Exit status 1 where anything was found and not removed; each finding says what to do.

--json prints {"checked":N,"bytes":N,"removed":N,"faults":[{"what","message","hint",
"sha256","missing","release_id","product","version","harmless"}]}; what is database,
file, image, stream, manifest, orphan, unfinished or unknown.

With --blobs the images and streams are those in the bucket that 'runnel serve' was
given; the whole bucket is read over the network. What was written there less than a
day ago stays, whoever refers to it: another server may be about to publish it. The
cache of copies is not looked at: the server compares them when it uses them.`,
		Example: "  runnel fsck --data fleet\n  runnel fsck --data fleet --blobs 's3://my-bucket/fleet?region=eu-central-1'\n  runnel fsck --data fleet --remove-orphans\n  runnel fsck --data fleet --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if data == "" {
				return usagef("--data is missing").withHint("name the server's data folder")
			}
			if url != "" {
				if err := checkBucket(url); err != nil {
					return err
				}
			}
			c := &folderCheck{remove: remove, bucket: url}
			if !asJSON {
				bar := newProgress(cmd.ErrOrStderr(), "checking")
				defer bar.End()
				c.progress = bar.Set
			}
			if err := c.run(cmd.Context(), data); err != nil {
				return err
			}
			return c.show(cmd.OutOrStdout(), asJSON)
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `folder`")
	cmd.Flags().StringVar(&url, "blobs", "", "the `URL` of the bucket of images and streams, as serve was given it; default: in the data folder")
	cmd.Flags().BoolVar(&remove, "remove-orphans", false, "remove images and streams that no release refers to, and half-written files")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

// folderCheck is one look at a data folder.
type folderCheck struct {
	remove   bool
	bucket   string // "": blobs are in the folder
	progress func(done, total int64)

	result  fsck.Result
	faults  []fsck.Finding
	removed int
}

func (c *folderCheck) run(ctx context.Context, data string) (err error) {
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
	blobs, err := c.openBlobs(ctx, d, secret, secretKnown)
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
	if err := c.database(ctx, store, secretKnown); err != nil || blobs == nil {
		return err
	}
	c.result, err = fsck.Run(ctx, fsck.Config{Releases: store, Signed: store, Blobs: blobs, Progress: c.progress})
	if err != nil {
		if errors.As(err, &e) && len(c.faults) > 0 && ctx.Err() == nil {
			return nil // of a damaged database that much is known
		}
		return err
	}
	c.faults = append(c.faults, c.result.Findings...)
	if c.remove {
		return c.clean(ctx, d, blobs)
	}
	return nil
}

func (c *folderCheck) database(ctx context.Context, store *sqlite.Store, secretKnown bool) error {
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

func (c *folderCheck) add(what string, found ...*fleet.Error) {
	for _, e := range found {
		f := fsck.Finding{What: what, Message: e.Message, Hint: e.Hint, Missing: e.Code == fleet.CodeNotFound}
		if e.Err != nil {
			f.Message += ": " + e.Err.Error()
		}
		c.faults = append(c.faults, f)
	}
}

func (c *folderCheck) harmless(what, message string) {
	c.faults = append(c.faults, fsck.Finding{What: what, Message: message, Harmless: true,
		Hint: "the server removes it when it starts, and so does --remove-orphans"})
}

// clean removes what is harmless, of a folder that is otherwise known: with a
// damaged database an image that it forgot may be the last copy.
func (c *folderCheck) clean(ctx context.Context, d *datadir.Dir, blobs fsckBlobs) error {
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
	if err := errors.Join(blobs.removeUnfinished(), d.RemoveUnfinished()); err != nil {
		return err
	}
	c.removed = removed
	c.faults = left
	return nil
}

// show prints what was found; its error is that anything was.
func (c *folderCheck) show(w io.Writer, asJSON bool) error {
	if asJSON {
		if err := printJSON(w, map[string]any{"checked": c.result.Checked, "bytes": c.result.Bytes, "removed": c.removed,
			"faults": append([]fsck.Finding{}, c.faults...)}); err != nil {
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
		if _, err := fmt.Fprintf(w, "%d images, streams and manifests checked%s, %d findings\n", c.result.Checked, removed, len(c.faults)); err != nil {
			return err
		}
	}
	if len(c.faults) > 0 {
		return hinted(fmt.Errorf("the data folder is not as it should be: %d findings", len(c.faults)), "each of them says what to do")
	}
	return nil
}
