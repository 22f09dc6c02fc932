package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/release"
)

func newKeysPublishCmd() *cobra.Command {
	r := &remote{}
	var pin pinFlags
	cmd := &cobra.Command{
		Use:   "publish DIR|FILE",
		Short: "Give a server the key list: by it alone it believes releases",
		Long: `Gives a server the key list of a folder or file. The first one that a server gets pins
its roots: it must be signed by those in --root, or by root*.pub in DIR; or you say
--own-roots. From then on a list is taken only if it follows the one before, by the
rules of a device. A server has one set of roots: several vendors are several servers.
The products that it names take signed releases only
('runnel products' says otherwise). The same list again is no error.

--json prints {"keylist":{"version","generation","sha256","added_at"},"created":bool}.`,
		Example: "  runnel keys publish keys\n  runnel keys publish keys/keylist.cose --root root.pub --json",
		Args:    exactArgs("DIR|FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			path := listPath(args[0])
			if _, err := readList(path); err != nil {
				return err
			}
			envelope, err := readBounded(path, release.MaxEnvelope)
			if err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			if err := pin.check(cmd.Context(), cmd, c, args[0], envelope); err != nil {
				return err
			}
			l, created, err := c.PublishKeyList(cmd.Context(), envelope)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"keylist": l, "created": created})
			}
			word := "published"
			if !created {
				word = "already published:"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s key list version %d, generation %d\nsha256 %s\n", word, l.Version, l.Generation, l.SHA256)
			return nil
		},
	}
	r.flags(cmd)
	pin.flags(cmd)
	return cmd
}
