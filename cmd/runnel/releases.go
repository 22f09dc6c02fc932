package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/term"
)

func newReleasesCmd() *cobra.Command {
	r := &remote{}
	var product string
	cmd := &cobra.Command{
		Use:   "releases",
		Short: "List releases, newest first",
		Long: `Lists releases.

--json prints {"releases":[{"id","product","version","digest","size","chip","project",
"app_version","idf_version","chunk_size","chunks","state","published_at","signed",
"epoch","sequence","security_version","slot","manifest_digest"}]}; a sequence of 0 is
that of an unsigned release. A release that is linked once a slot has a line for each
of its builds, and they share their sequence; one without a slot is for any.`,
		Example: "  runnel releases\n  runnel releases --product acme/pump --json\n  runnel releases withdraw 3",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Releases(cmd.Context(), product)
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
			rows := [][]string{{"ID", "PRODUCT", "VERSION", "CHIP", "SIGNED", "EPOCH", "SEQUENCE", "SLOT", "BYTES", "CHUNKS", "STATE", "PUBLISHED (UTC)", "SHA-256"}}
			for _, l := range list {
				signed, epoch, sequence, slot := "no", "", "", ""
				if l.Signed {
					signed, epoch, sequence, slot = "yes", fmt.Sprint(l.Epoch), fmt.Sprint(l.Sequence), anyOr(l.Slot, "%d")
				}
				rows = append(rows, []string{fmt.Sprint(l.ID), l.Product, l.Version, l.Chip, signed, epoch, sequence, slot, term.Number(l.Size),
					fmt.Sprintf("%s of %s", term.Number(l.Chunks), term.Number(l.ChunkSize)), l.State, stamp(l.PublishedAt), short(l.Digest)})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this `product`'s")
	r.flags(cmd)
	cmd.AddCommand(&cobra.Command{
		Use:     "withdraw ID",
		Short:   "Offer a release to no device any more",
		Example: "  runnel releases withdraw 3",
		Long: `Withdraws a release by the id that 'runnel releases' shows. Devices that run it keep it;
those that have it in progress drop it. Of a release in several builds, one a slot, all
are withdrawn with any of them: the same source is in each.

--json prints the release of that id.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := strconv.ParseInt(args[0], 10, 64)
			if err != nil || id < 1 {
				return usagef("%q is not a release's id", args[0]).withHint("'runnel releases' lists them")
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			l, err := c.Withdraw(cmd.Context(), id)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), l)
			}
			d, err := c.ReleaseDetail(cmd.Context(), l.ID)
			if err != nil {
				return err
			}
			if len(d.Builds) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "withdrew %s %s (release %d)\n", l.Product, l.Version, l.ID)
			}
			for _, b := range d.Builds {
				fmt.Fprintf(cmd.OutOrStdout(), "withdrew %s %s for slot %d (release %d)\n", l.Product, l.Version, b.Slot, b.ID)
			}
			return nil
		},
	})
	return cmd
}

func short(digest string) string { return digest[:min(12, len(digest))] }
