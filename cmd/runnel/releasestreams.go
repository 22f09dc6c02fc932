package main

import (
	"fmt"
	"io"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
)

// What `runnel release show` says of a release's streams, and of those that the server makes.

func showStreams(w io.Writer, d *client.ReleaseDetail) error {
	fmt.Fprintln(w)
	rows := [][]string{{"STREAM", "FROM", "CHUNK", "BYTES", "OF RAW", "PROFILE", "SHEET BY", "ROOT", "SHA-256 OF THE FILE"}}
	for _, s := range d.Streams {
		row := []string{s.Kind, "", term.Number(s.Chunk), term.Number(s.Length), "", "", "", short(s.Root), s.Digest}
		if s.Sent > 0 {
			row[1] = from(s.Base, s.BaseVersion)
			row[3], row[4], row[5] = term.Number(s.Sent), fmt.Sprintf("%.1f %%", 100*s.Share), s.Profile
			row[6] = s.SignedBy
			if !s.Listed {
				row[6] += " (revoked?)"
			}
		}
		rows = append(rows, row)
	}
	if err := table(w, rows); err != nil {
		return err
	}
	for _, s := range d.Streams {
		if s.Sent > 0 && !s.Proven {
			fmt.Fprintf(w, "the patch from %s was not tried here: the server has not that image\n", from(s.Base, s.BaseVersion))
		}
	}
	return showDerivations(w, d.Derived)
}

// from names the image that a patch starts from; "" for none.
func from(base, version string) string {
	if version != "" {
		return fleet.CleanText(version, fleet.MaxVersion)
	}
	return short(base)
}

func showDerivations(w io.Writer, d *client.Derived) error {
	if d == nil {
		return nil
	}
	if d.Why != "" {
		fmt.Fprintf(w, "\n%s\n", d.Why)
	}
	rows := [][]string{{"BY THE SERVER", "FROM", "PROFILE", "DEVICES", "STATE", "BYTES", "SAYS"}}
	for _, j := range d.List {
		state := j.State
		if state == string(fleet.DerivationMaking) {
			state = fmt.Sprintf("making, %d %%", j.Percent)
		}
		bytes := ""
		if j.Sent > 0 {
			bytes = term.Number(j.Sent)
		}
		rows = append(rows, []string{j.Kind, from(j.Base, j.BaseVersion), j.Profile, term.Number(j.Devices), state, bytes, fleet.CleanText(j.Reason, fleet.MaxText)})
	}
	if len(rows) == 1 {
		if d.Why == "" {
			fmt.Fprintf(w, "\nthe server makes patches of it by itself, once devices that take some are known to run something else\n")
		}
		return nil
	}
	fmt.Fprintln(w)
	return table(w, rows)
}
