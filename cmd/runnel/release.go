package main

import (
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
)

func newReleaseCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:     "release",
		Short:   "Look into one release, publish a draft, withdraw",
		Long:    "Looks into one release, or changes what is said of it; 'runnel releases' lists them.",
		Example: "  runnel release show 1.2.0\n  runnel release show 1.2.0 --product acme/pump --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r.flags(cmd)
	var product string
	var slot uint8
	show := &cobra.Command{
		Use:   "show VERSION",
		Short: "Show a release: its manifest, who signed it, its streams",
		Long: `Shows what a release's manifest says, field by field, which keys signed it, and
its streams with their digests: devices fetch them as /r1/streams/DIGEST. Of an
unsigned release it shows what is known of the image. Patches and the compressed image
are listed with what a device is sent for them, sheet included, and what of the raw
stream that is; below them is what the server makes by itself, or why it makes none. Where a version was issued
more than once it is the newest. Of a release in several builds, one a slot, it shows
the one that --slot names, or that for the lowest slot, and says which others there are.

--json prints the release as 'runnel releases --json' shows it, and "hardware",
"manifest":{"product","hardware","version","epoch","sequence","security_version",
"component","format","chip","image_digest","image_size","slot","address",
"confirm_contact","confirm_seconds","signed_at"}, "signers":[{"key","listed"}],
"streams":[{"kind","chunk","length","root","digest", and of a derived one "base",
"base_version","profile","ram","sent","share","signed_by","listed","proven"}],
"derived":{"key","listed","why","list":[{"kind","base","base_version","profile","state",
"devices","percent","sent","reason","stream"}]} for what the server makes by itself, and,
where it is built for one slot, "builds":[{"slot","id","digest"}]. An unsigned one has no
manifest.`,
		Example: "  runnel release show 1.2.0\n  runnel release show 1.2.0 --product acme/pump --json\n  runnel release show 1.2.0 --slot 1",
		Args:    exactArgs("VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Releases(cmd.Context(), product, "")
			if err != nil {
				return err
			}
			var build *uint8
			if cmd.Flags().Changed("slot") {
				build = &slot
			}
			id, err := findRelease(list, args[0], build)
			if err != nil {
				return err
			}
			d, err := c.ReleaseDetail(cmd.Context(), id)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			return showRelease(cmd.OutOrStdout(), &d)
		},
	}
	show.Flags().StringVar(&product, "product", "", "the `product` that it is of; needed where several have the version")
	show.Flags().Uint8Var(&slot, "slot", 0, "the `number` of the slot whose build it is (default: the lowest that there is)")
	cmd.AddCommand(show)
	cmd.AddCommand(newReleaseVerbs(r, "release")...)
	return cmd
}

// findRelease is the newest of a version, in the build for slot, or for the lowest
// that there is; list is newest first.
func findRelease(list []client.Release, version string, slot *uint8) (int64, error) {
	var found []client.Release
	for _, l := range list {
		if l.Version == version {
			found = append(found, l)
		}
	}
	if len(found) == 0 {
		return 0, &fleet.Error{Code: fleet.CodeNotFound, Message: fmt.Sprintf("no release is called %s", fleet.CleanText(version, fleet.MaxVersion)), Hint: "'runnel releases' lists them"}
	}
	for _, l := range found {
		if l.Product != found[0].Product {
			return 0, usagef("several products have a release %s: %s and %s are two", version, found[0].Product, l.Product).withHint("name one with --product")
		}
	}
	newest := found[0]
	for _, l := range found {
		// An older one with that slot is another release.
		same := l.Signed && l.Epoch == newest.Epoch && l.Sequence == newest.Sequence
		switch {
		case !same || l.Slot == nil:
		case slot != nil && *l.Slot == *slot:
			return l.ID, nil
		case *l.Slot < *newest.Slot:
			newest = l
		}
	}
	if slot != nil {
		return 0, &fleet.Error{Code: fleet.CodeNotFound, Message: fmt.Sprintf("release %s has no build for slot %d alone", newest.Version, *slot), Hint: "'runnel releases' lists them"}
	}
	return newest.ID, nil
}

func showRelease(w io.Writer, d *client.ReleaseDetail) error {
	rows := [][]string{{"product", d.Product}, {"version", d.Version}, {"release", strconv.FormatInt(d.ID, 10)}, {"state", d.State},
		{"published", stamp(d.PublishedAt) + " UTC"}, {"image", term.Number(d.Size) + " bytes, sha256 " + d.Digest},
		{"chip", d.Chip}, {"project", strings.TrimSpace(d.Project + " " + d.AppVersion)}, {"built with", d.IDFVersion}}
	if d.Channel != "" {
		rows = append(rows, []string{"channel", d.Channel})
	}
	for line := range strings.SplitSeq(d.Notes, "\n") {
		if line = fleet.CleanText(line, fleet.MaxNotes); line != "" {
			rows = append(rows, []string{"notes", line})
		}
	}
	m := d.Manifest
	if m == nil {
		rows = append(rows, []string{"chunks", fmt.Sprintf("%s of %s bytes", term.Number(d.Chunks), term.Number(d.ChunkSize))},
			[]string{"signed", "no: devices can't tell who made it"})
		return table(w, rows)
	}
	rows = append(rows, []string{"manifest", d.ManifestDigest},
		[]string{"hardware", strings.Join(m.Hardware, ", ")},
		[]string{"epoch", fmt.Sprint(m.Epoch)}, []string{"sequence", fmt.Sprint(m.Sequence)}, []string{"security version", fmt.Sprint(m.SecurityVersion)},
		[]string{"component", m.Component + ", format " + m.Format}, []string{"slot", anyOr(m.Slot, "%d")}, []string{"address", anyOr(m.Address, "0x%x")},
		[]string{"confirm", confirmText(m)})
	if len(d.Builds) > 0 {
		var others []string
		for _, b := range d.Builds {
			if b.ID != d.ID {
				others = append(others, fmt.Sprintf("slot %d (release %d)", b.Slot, b.ID))
			}
		}
		text := strings.Join(others, ", ")
		if text == "" {
			text = "none: devices that run from this slot get nothing"
		}
		rows = append(rows, []string{"other builds", text})
	}
	if m.SignedAt != nil {
		rows = append(rows, []string{"signed at", stamp(*m.SignedAt) + " UTC, says the signer"})
	}
	for _, s := range d.Signers {
		text := s.Key
		if !s.Listed {
			text += " (not in the newest key list: revoked?)"
		}
		rows = append(rows, []string{"signed by", text})
	}
	if err := table(w, rows); err != nil {
		return err
	}
	return showStreams(w, d)
}

func anyOr[T any](v *T, format string) string {
	if v == nil {
		return "any"
	}
	return fmt.Sprintf(format, *v)
}

func confirmText(m *client.Manifest) string {
	s := "after an answer of the server"
	if !m.ConfirmContact {
		s = "by the image itself"
	}
	return fmt.Sprintf("%s, within %d s", s, m.ConfirmSeconds)
}
