package main

import (
	"crypto/ed25519"
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/release"
)

func newKeysServerCmd() *cobra.Command {
	r := &remote{}
	var out string
	var renew bool
	cmd := &cobra.Command{
		Use:   "server",
		Short: "Show the server's stream key: with it in the key list, the server makes patches",
		Long: `Shows the public half of the key with which the server signs the sheets of patches and
compressed images that it makes by itself, and writes it to a file. It counts nothing
until the roots put it into the key list, with the role stream:

  runnel keys server -o server.pub
  runnel keys add keys server --pub server.pub --role stream
  runnel keys publish keys

Who steals a key with that role wastes devices' downloads and erases, and can install no
image: whatever comes out of a stream is held against the manifest, which a release key signs.
--renew makes another key: add that to the list, and revoke the old one.

--json prints {"key","public","listed","products"}.`,
		Example: "  runnel keys server -o server.pub\n  runnel keys server --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			k, err := c.StreamKey(cmd.Context(), renew)
			if fleet.CodeOf(err) == fleet.CodeNotFound {
				return hinted(err, "an older server has none: upgrade it")
			}
			if err != nil {
				return err
			}
			if out != "" {
				public, err := hex.DecodeString(k.Public)
				if err != nil || len(public) != ed25519.PublicKeySize {
					return fmt.Errorf("the server said a public key that is none")
				}
				if err := release.WritePublic(out, public); err != nil {
					return err
				}
			}
			w := cmd.OutOrStdout()
			if r.json {
				return printJSON(w, k)
			}
			fmt.Fprintf(w, "stream key %s\npublic     %s\n", k.Key, k.Public)
			switch {
			case len(k.Products) > 0:
				fmt.Fprintf(w, "signs      streams of %s\n", strings.Join(k.Products, ", "))
			default:
				fmt.Fprintln(w, "signs      nothing yet: the key list does not name it ('runnel keys add --role stream', then 'runnel keys publish')")
			}
			if out != "" {
				fmt.Fprintf(w, "wrote      %s\n", out)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the public key")
	cmd.Flags().BoolVar(&renew, "renew", false, "have the server make another key")
	r.flags(cmd)
	return cmd
}
