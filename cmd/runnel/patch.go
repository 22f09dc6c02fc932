package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/internal/term"
)

func newPatchCmd() *cobra.Command {
	var out string
	cmd := &cobra.Command{
		Use:   "patch OLD PATCH -o NEW",
		Short: "Apply a patch that 'runnel diff' made",
		Long: `Makes the new image out of the old one and a patch, with the code that a device runs.
Both images are held against the SHA-256 in the patch. Exit status 1 and no output file
for a patch that is damaged, or made from another image.`,
		Example: `  runnel patch pump-1.2.0.bin pump.patch -o pump-1.3.0.bin`,
		Args:    exactArgs("OLD", "PATCH"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if out == "" {
				return usagef("-o is missing").withHint("name the file for the new image")
			}
			old, err := readBounded(args[0], maxImage)
			if err != nil {
				return err
			}
			p, err := readBounded(args[1], 2*maxImage)
			if err != nil {
				return err
			}
			f, err := delta.ParseFile(p)
			if err != nil {
				return fmt.Errorf("%s: %w", args[1], err)
			}
			img, err := f.Apply(old)
			var e patch.Error
			if errors.As(err, &e) {
				return hinted(fmt.Errorf("%s: %w", args[1], err), "the patch is damaged: fetch or make it again")
			}
			if err != nil {
				return err
			}
			if err := replaceFile(out, 0o644, func(w *os.File) error { _, err := w.Write(img); return err }); err != nil {
				return err
			}
			fmt.Fprintf(cmd.OutOrStdout(), "made %s: %s bytes\n", out, term.Number(len(img)))
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the new image")
	return cmd
}
