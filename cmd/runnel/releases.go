package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/term"
)

func newReleasesCmd() *cobra.Command {
	r := &remote{}
	var product, channel string
	cmd := &cobra.Command{
		Use:   "releases",
		Short: "List releases, newest first",
		Long: `Lists releases.

--json prints {"releases":[{"id","product","version","digest","size","chip","project",
"app_version","idf_version","chunk_size","chunks","state","published_at","channel",
"notes","signed","epoch","sequence","security_version","slot","manifest_digest"}]}; state
is draft, published or withdrawn; a sequence of 0 is that of an unsigned release. A release that is linked once a slot has a line for each
of its builds, and they share their sequence; one without a slot is for any.`,
		Example: "  runnel releases\n  runnel releases --product acme/pump --channel beta --json\n  runnel releases withdraw 3",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Releases(cmd.Context(), product, channel)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"releases": append([]client.Release{}, list...)})
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "no releases; publish one with 'runnel push FILE'")
				return nil
			}
			rows := [][]string{{"ID", "PRODUCT", "VERSION", "CHIP", "SIGNED", "EPOCH", "SEQUENCE", "SLOT", "BYTES", "CHUNKS", "STATE", "CHANNEL", "PUBLISHED (UTC)", "SHA-256"}}
			for _, l := range list {
				signed, epoch, sequence, slot := "no", "", "", ""
				if l.Signed {
					signed, epoch, sequence, slot = "yes", fmt.Sprint(l.Epoch), fmt.Sprint(l.Sequence), anyOr(l.Slot, "%d")
				}
				rows = append(rows, []string{fmt.Sprint(l.ID), l.Product, l.Version, l.Chip, signed, epoch, sequence, slot, term.Number(l.Size),
					fmt.Sprintf("%s of %s", term.Number(l.Chunks), term.Number(l.ChunkSize)), l.State, l.Channel, stamp(l.PublishedAt), short(l.Digest)})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this `product`'s")
	cmd.Flags().StringVar(&channel, "channel", "", "only this `channel`'s")
	r.flags(cmd)
	cmd.AddCommand(newReleaseVerbs(r, "releases")...)
	return cmd
}

func short(digest string) string { return digest[:min(12, len(digest))] }
