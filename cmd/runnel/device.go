package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
)

type orderFunc func(*client.Client, context.Context, string) (client.Device, error)

func newDeviceCmd() *cobra.Command {
	r := &remote{}
	cmd := newDeviceShowCmd(r, "runnel device")
	r.flags(cmd)
	return cmd
}

// newDeviceShowCmd is 'runnel device', and 'runnel devices show', where people look for it:
// path is which of the two.
func newDeviceShowCmd(r *remote, path string) *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:   path[strings.LastIndexByte(path, ' ')+1:] + " ID",
		Short: "Show one device and its timeline",
		Long: `Shows a device and what became of it, newest first.

--json prints {"device":{...},"timeline":[{"id","time","device","version","event",
"detail","proven"}],"total":N}; the device is as 'runnel devices --json' shows it.`,
		Example: "  " + path + " pump-7\n  " + path + " pump-7 --limit 5 --json",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			d, err := c.Device(cmd.Context(), args[0])
			if err != nil {
				return deviceError(err)
			}
			events, total, err := c.Timeline(cmd.Context(), args[0], limit)
			if err != nil {
				return err
			}
			w := cmd.OutOrStdout()
			if r.json {
				return printJSON(w, map[string]any{"device": d, "timeline": append([]client.Event{}, events...), "total": total})
			}
			rows := [][]string{{"device", d.ID}, {"product", d.Product}, {"identity", d.Assurance}, {"runs", runsText(&d)},
				{"last seen", stampOrNever(d.LastSeen)}, {"nonce", fmt.Sprint(d.Nonce)}}
			rows = append(rows, sayOfItself(&d)...)
			if p := d.Deployment; p != nil {
				rows = append(rows, []string{"deployment", deploymentText(p)}, []string{"chunks", fmt.Sprintf("%d of %d", p.ChunksReceived, p.ChunksTotal)})
				if p.Reason != "" {
					rows = append(rows, []string{"reason", p.Reason})
				}
				if p.RawOnly {
					rows = append(rows, []string{"stream", "raw: a patch or the compressed image was of no use to it"})
				}
			}
			if d.RollbackWanted {
				rows = append(rows, []string{"ordered", "go back: " + d.RollbackReason})
			}
			warn(cmd, d.Warning)
			if err := table(w, rows); err != nil {
				return err
			}
			fmt.Fprintln(w)
			return printEvents(cmd, events, total)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 50, "how many `lines` of its timeline, 1 to 1000")
	return cmd
}

// sayOfItself are rows of what a device says of its image, its bootloader and how it is.
func sayOfItself(d *client.Device) (rows [][]string) {
	if d.RunningDigest != "" {
		rows = append(rows, []string{"image", "sha256 " + d.RunningDigest})
	}
	if len(d.SlotSizes) > 0 {
		sizes := make([]string, len(d.SlotSizes))
		for i, n := range d.SlotSizes {
			sizes[i] = term.Number(n)
		}
		rows = append(rows, []string{"slots", strings.Join(sizes, " and ") + " bytes"})
	}
	if b := d.Bootloader; b != nil {
		can := []string{"does not go back by itself"}
		if b.Rollback {
			can[0] = "goes back by itself"
		}
		if b.SecureBoot {
			can = append(can, "secure boot")
		}
		if b.FlashEncryption {
			can = append(can, "flash encryption")
		}
		if b.SecureVersion != nil {
			can = append(can, fmt.Sprintf("secure version %d", *b.SecureVersion))
		}
		rows = append(rows, []string{"bootloader", strings.Join(can, ", ")})
	}
	if p := d.Patches; p != nil {
		rows = append(rows, []string{"patches", fmt.Sprintf("takes them, %s, in %s bytes of RAM", strings.Join(p.Profiles, " and "), term.Number(p.RAM))})
	}
	if h := d.Health; h != nil {
		if h.FreeRAM != 0 {
			rows = append(rows, []string{"free RAM", term.Number(h.FreeRAM) + " bytes"})
		}
		if h.BootReason != "" {
			rows = append(rows, []string{"started by", h.BootReason})
		}
		if h.Battery != 0 {
			rows = append(rows, []string{"battery", fmt.Sprintf("%d %%", h.Battery)})
		}
		if h.Signal != 0 {
			rows = append(rows, []string{"signal", fmt.Sprintf("%d dBm", h.Signal)})
		}
	}
	return rows
}

// runsText is the version that a device runs, and from which slot, where it said so.
func runsText(d *client.Device) string {
	switch {
	case d.RunningSlot == nil:
		return d.RunningVersion
	case *d.RunningSlot == fleet.FactoryImage:
		return strings.TrimSpace(d.RunningVersion + " (factory image)")
	}
	return strings.TrimSpace(fmt.Sprintf("%s (slot %d of %d)", d.RunningVersion, *d.RunningSlot, d.Slots))
}

// deviceError says where to look for a device that is not there.
func deviceError(err error) error {
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return hinted(err, "'runnel devices' lists them")
	}
	return err
}

func checkLimit(n int) error {
	if n < 1 || n > 1000 {
		return usagef("--limit is %d, not 1 to 1000", n)
	}
	return nil
}

func printEvents(cmd *cobra.Command, events []client.Event, total int) error {
	rows := [][]string{{"TIME (UTC)", "DEVICE", "VERSION", "EVENT", "DETAIL"}}
	for _, e := range events {
		detail := e.Detail
		if !e.Proven {
			detail = strings.TrimSpace(detail + " (unproven)")
		}
		rows = append(rows, []string{stamp(e.Time), e.Device, e.Version, e.Name, detail})
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	if len(events) < total {
		fmt.Fprintf(cmd.OutOrStdout(), "%d of %d; --limit shows more\n", len(events), total)
	}
	return nil
}
