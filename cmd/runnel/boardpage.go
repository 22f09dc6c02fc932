package main

import (
	"errors"
	"fmt"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/factory"
)

func newBoardPageCmd() *cobra.Command {
	var w boardWire
	var id, out string
	cmd := &cobra.Command{
		Use:   "page --id ID --key-file FILE --product PRODUCT --hardware NAME --root FILE -o FILE",
		Short: "The factory page of a real board: its id, secret and roots",
		Long: `Writes the page that a board of firmware/ is given once, before it is shipped: its id,
product, hardware, its secret on the native wire, and the roots that it believes
(docs/format/factory.md). Flash it where the board's map says.

The file has the secret in it: it is made readable for you alone, and never
overwritten. What the board does with the roots, its program says: an image built for
the profile mac-only checks no signature.`,
		Example: `  runnel devices add pump-7 --product acme/pump --new-native-key -o pump-7.key
  runnel board page --id pump-7 --key-file pump-7.key --product acme/pump --hardware nrf51 --root keys/root.pub -o pump-7.page`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case id == "":
				return usagef("--id is missing")
			case w.hardware == "":
				return usagef("--hardware is missing").withHint("the name that releases are signed for, e.g. --hardware nrf51")
			case out == "":
				return usagef("-o is missing").withHint("the page has a secret in it: name a file")
			}
			w.wire = "native"
			if err := w.choose(); err != nil {
				return err
			}
			if err := w.read(id); err != nil {
				return err
			}
			return writePage(cmd, id, out, &w)
		},
	}
	w.flags(cmd)
	for _, v1 := range []string{"wire", "psk", "psk-file", "silent"} {
		_ = cmd.Flags().MarkHidden(v1) // a page is for the native wire; it fails for flags that are not there, and these are
	}
	cmd.Flags().StringVar(&id, "id", "", "the device's `id`")
	cmd.Flags().StringVarP(&out, "output", "o", "", "the `file` to make")
	return cmd
}

func writePage(cmd *cobra.Command, id, out string, w *boardWire) error {
	hardware, err := parseHardware([]string{w.hardware})
	if err != nil {
		return err
	}
	secret := [factory.SecretSize]byte(w.key)
	page := factory.Page{Key: w.keyNumber, Device: []byte(id), Product: []byte(w.product), Hardware: hardware[0], Secret: &secret, Roots: w.baked}
	text, e := page.Encode(make([]byte, factory.MaxRoots+1024))
	if e != 0 {
		return fmt.Errorf("the page can't be made: %w", e)
	}
	f, err := os.OpenFile(out, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return hinted(err, "a page is never overwritten: name another file, or remove this one")
	}
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return errors.Join(err, os.Remove(out))
	}
	_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: %d bytes, with %d bytes of roots\n", out, len(text), len(w.baked))
	return err
}
