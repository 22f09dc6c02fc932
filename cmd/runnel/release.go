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
		Short:   "Look into one release",
		Long:    "Looks into one release; 'runnel releases' lists them.",
		Example: "  runnel release show 1.2.0\n  runnel release show 1.2.0 --product acme/pump --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r.flags(cmd)
	var product string
	show := &cobra.Command{
		Use:   "show VERSION",
		Short: "Show a release: its manifest, who signed it, its streams",
		Long: `Shows what a release's manifest says, field by field, which keys signed it, and
its streams with their digests: devices fetch them as /r1/streams/DIGEST. Of an
unsigned release it shows what is known of the image. Where a version was issued
more than once it is the newest.

--json prints the release as 'runnel releases --json' shows it, and "hardware",
"manifest":{"product","hardware","version","epoch","sequence","security_version",
"component","format","chip","image_digest","image_size","slot","address",
"confirm_contact","confirm_seconds","signed_at"}, "signers":[{"key","listed"}] and
"streams":[{"kind","chunk","length","root","digest","base"}]. An unsigned one has no
manifest.`,
		Example: "  runnel release show 1.2.0\n  runnel release show 1.2.0 --product acme/pump --json",
		Args:    exactArgs("VERSION"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Releases(cmd.Context(), product)
			if err != nil {
				return err
			}
			id, err := findRelease(list, args[0])
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
	cmd.AddCommand(show)
	return cmd
}

// findRelease is the newest of a version; list is newest first.
func findRelease(list []client.Release, version string) (int64, error) {
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
	return found[0].ID, nil
}

func showRelease(w io.Writer, d *client.ReleaseDetail) error {
	rows := [][]string{{"product", d.Product}, {"version", d.Version}, {"release", strconv.FormatInt(d.ID, 10)}, {"state", d.State},
		{"published", stamp(d.PublishedAt) + " UTC"}, {"image", term.Number(d.Size) + " bytes, sha256 " + d.Digest},
		{"chip", d.Chip}, {"project", strings.TrimSpace(d.Project + " " + d.AppVersion)}, {"built with", d.IDFVersion}}
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
	fmt.Fprintln(w)
	rows = [][]string{{"STREAM", "CHUNK", "BYTES", "ROOT", "SHA-256 OF THE FILE"}}
	for _, s := range d.Streams {
		kind := s.Kind
		if s.Base != "" {
			kind += " from " + short(s.Base)
		}
		rows = append(rows, []string{kind, term.Number(s.Chunk), term.Number(s.Length), short(s.Root), s.Digest})
	}
	return table(w, rows)
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
