package main

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/blob/dir"
	"github.com/runnel-fota/runnel/internal/datadir"
	"github.com/runnel-fota/runnel/internal/ingest"
	"github.com/runnel-fota/runnel/internal/store/sqlite"
)

func newFsckCmd() *cobra.Command {
	var data string
	asJSON := false
	cmd := &cobra.Command{
		Use:   "fsck",
		Short: "Read everything that releases refer to in a data folder, and name what is damaged",
		Long: `Reads the image, the streams and the manifest of each release in the data folder of a
server that does not run, and compares their SHA-256. It changes nothing. Exit status
1 where something is missing or damaged.

--json prints {"checked":N,"faults":[{"what","sha256","missing","release_id","product",
"version"}]}; what is image, stream or manifest.`,
		Example: "  runnel fsck --data fleet",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			if data == "" {
				return usagef("--data is missing").withHint("name the server's data folder")
			}
			n, faults, err := fsck(cmd, data)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if asJSON {
				list := make([]map[string]any, 0, len(faults))
				for _, f := range faults {
					list = append(list, map[string]any{"what": f.What, "sha256": f.Digest.String(), "missing": f.Missing,
						"release_id": f.Release.ID, "product": f.Release.Product, "version": f.Release.Version})
				}
				if err := printJSON(w, map[string]any{"checked": n, "faults": list}); err != nil {
					return err
				}
			} else {
				for _, f := range faults {
					fmt.Fprintln(w, f)
				}
				fmt.Fprintf(w, "%d images, streams and manifests checked, %d missing or damaged\n", n, len(faults))
			}
			if len(faults) > 0 {
				return hinted(fmt.Errorf("%d of %d are missing or damaged", len(faults), n), "push the release again: what is damaged is replaced")
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&data, "data", "", "the data `folder`")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}

func fsck(cmd *cobra.Command, data string) (n int, faults []ingest.Fault, err error) {
	ctx := cmd.Context()
	// A server's first start makes its folder; a look at it must not.
	if _, err := os.Stat(data); err != nil {
		return 0, nil, err
	}
	d, err := datadir.Open(data)
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	secret, err := d.Secret(rand.Reader)
	if err != nil {
		return 0, nil, err
	}
	store, err := sqlite.Open(ctx, sqlite.Options{Path: d.Database(), Secret: secret})
	if err != nil {
		return 0, nil, err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	blobs, err := dir.Open(dir.Options{Path: d.Blobs()})
	if err != nil {
		return 0, nil, err
	}
	return newIntake(blobs, store, false).Check(ctx)
}
