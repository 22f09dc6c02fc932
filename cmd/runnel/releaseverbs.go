package main

import (
	"context"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

// newReleaseVerbs are what is done to a release, by its id: below 'releases', and
// below 'release' too, where people look for them. parent is which of the two.
func newReleaseVerbs(r *remote, parent string) []*cobra.Command {
	return []*cobra.Command{
		newReleaseVerb(r, parent, "publish", "Publish a draft", "published", `Publishes a draft by the id that 'runnel releases' shows, as if it were pushed now: in all
of its builds, where it has several.

--json prints the release of that id.`, (*client.Client).PublishDraft),
		newReleaseVerb(r, parent, "withdraw", "Offer a release to no device any more", "withdrew", `Withdraws a release by the id that 'runnel releases' shows. Devices that run it keep it;
those that have it in progress drop it. Of a release in several builds, one a slot, all
are withdrawn with any of them: the same source is in each. A draft that is withdrawn is
never published.

--json prints the release of that id.`, (*client.Client).Withdraw),
		newReleaseSetCmd(r, parent),
	}
}

func newReleaseVerb(r *remote, parent, name, short, done, long string, do func(*client.Client, context.Context, int64) (client.Release, error)) *cobra.Command {
	return &cobra.Command{
		Use:     name + " ID",
		Short:   short,
		Long:    long,
		Example: "  runnel " + parent + " " + name + " 3",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := releaseID(args[0])
			if err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			l, err := do(c, cmd.Context(), id)
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
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s (release %d)\n", done, l.Product, l.Version, l.ID)
			}
			for _, b := range d.Builds {
				fmt.Fprintf(cmd.OutOrStdout(), "%s %s %s for slot %d (release %d)\n", done, l.Product, l.Version, b.Slot, b.ID)
			}
			return nil
		},
	}
}

func releaseID(arg string) (int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id < 1 {
		return 0, usagef("%q is not a release's id", arg).withHint("'runnel releases' lists them")
	}
	return id, nil
}

func newReleaseSetCmd(r *remote, parent string) *cobra.Command {
	var notes, channel string
	cmd := &cobra.Command{
		Use:   "set ID",
		Short: "Change a release's notes or its channel",
		Long: `Changes what people say of a release. What is in a channel is given out by rollouts
alone, of which 'runnel rollout create --channel' takes the newest; --channel "" takes it
out, and a product without rollouts then gives it to all, if it is the newest.

--json prints the release of that id.`,
		Example: "  runnel " + parent + " set 3 --notes 'fixes the valve'\n  runnel " + parent + " set 3 --channel stable",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			id, err := releaseID(args[0])
			if err != nil {
				return err
			}
			var w fleet.Words
			if cmd.Flags().Changed("notes") {
				w.Notes = &notes
			}
			if cmd.Flags().Changed("channel") {
				w.Channel = &channel
			}
			if w == (fleet.Words{}) {
				return usagef("neither --notes nor --channel is given")
			}
			if err := fleet.ValidateWords(channel, notes); err != nil {
				return asUsage(err)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			l, err := c.SetWords(cmd.Context(), id, w)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), l)
			}
			in := "in no channel"
			if l.Channel != "" {
				in = "in channel " + l.Channel
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s %s (release %d) is %s\n", l.Product, l.Version, l.ID, in)
			return nil
		},
	}
	cmd.Flags().StringVar(&notes, "notes", "", "`text` for people, 2048 bytes at most")
	cmd.Flags().StringVar(&channel, "channel", "", "its `channel`, like stable")
	return cmd
}
