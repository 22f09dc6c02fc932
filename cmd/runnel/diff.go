package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/patch"
	"github.com/runnel-fota/runnel/internal/delta"
	"github.com/runnel-fota/runnel/internal/term"
)

// diffResult is what 'runnel diff --json' prints.
type diffResult struct {
	PatchBytes   int           `json:"patch_bytes"`
	PayloadBytes int           `json:"payload_bytes"`
	RAMBytes     int           `json:"ram_bytes"`
	Profile      string        `json:"profile"`
	Variant      string        `json:"variant"`
	Restarts     int           `json:"restart_points"`
	OldBytes     int           `json:"old_bytes"`
	NewBytes     int           `json:"new_bytes"`
	Seconds      float64       `json:"seconds"`
	Report       *delta.Report `json:"report,omitempty"`
}

var profiles = map[string]uint8{"large": patch.ProfileLarge, "small": patch.ProfileSmall}

func newDiffCmd() *cobra.Command {
	var out, profile string
	var report, asJSON, keep bool
	var imageChunk, every uint32
	cmd := &cobra.Command{
		Use:   "diff OLD NEW -o PATCH",
		Short: "Make a patch that turns one image into another",
		Long: `Makes a patch: what a device that runs OLD needs to write NEW. Calls, jumps, literals
and pointers are predicted from OLD for Xtensa, RISC-V and Thumb; several variants are
tried, the smallest is kept, applied, and held against NEW. An empty OLD (/dev/null)
makes a compressed image. 'runnel patch' applies it.

Sizes count everything that a device is sent: records, their hashes, and the stream
sheet under one signature. The large profile takes less than 16,384 bytes of a device's
RAM, records included; the small one less than 8,192, for patches that are some percent
larger.

--report says where the bytes go, and names compressed files inside NEW that changed:
no patch can tell what changed in those. Store them uncompressed, or leave them as they
are.

--json prints patch_bytes, payload_bytes, ram_bytes, profile, variant, restart_points,
old_bytes, new_bytes, seconds, and with --report the report.`,
		Example: `  runnel diff pump-1.2.0.bin pump-1.3.0.bin -o pump.patch
  runnel diff pump-1.2.0.bin pump-1.3.0.bin --report
  runnel diff pump-1.2.0.bin pump-1.3.0.bin -o pump.patch --profile small --json
  runnel diff /dev/null pump-1.3.0.bin -o pump.compressed`,
		Args: exactArgs("OLD", "NEW"),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, ok := profiles[profile]
			switch {
			case !ok:
				return usagef("no profile %q: large or small", profile)
			case out == "" && !report && !asJSON:
				return usagef("-o is missing").withHint("name the file for the patch, or ask for --report alone")
			}
			old, err := readBounded(args[0], maxImage)
			if err != nil {
				return err
			}
			img, err := readBounded(args[1], maxImage)
			if err != nil {
				return err
			}
			if len(img) == 0 {
				return fmt.Errorf("%s is empty: there is nothing to make", args[1])
			}
			o := delta.Options{Profile: p, ImageChunk: imageChunk, Keep: keep, RestartEvery: int(every) << 10}
			if every == 0 {
				o.RestartEvery = -1
			}
			start := time.Now()
			if !asJSON {
				bar := newProgress(cmd.ErrOrStderr(), "comparing")
				defer bar.End()
				o.Progress = func(done float64, what string) { bar.Say(done, what) }
			}
			r, err := delta.Make(cmd.Context(), old, img, o)
			if errors.Is(err, context.Canceled) {
				return errors.New("interrupted: no patch was made")
			}
			if err != nil {
				return err
			}
			f := delta.NewFile(old, img, r)
			sent, err := f.Sent(cmd.Context())
			if err != nil {
				return err
			}
			d := diffResult{PatchBytes: sent, PayloadBytes: len(r.Payload), RAMBytes: delta.RAM(p), Profile: profile, Variant: r.Variant,
				Restarts: r.Restarts, OldBytes: len(old), NewBytes: len(img), Seconds: math.Round(time.Since(start).Seconds()*1000) / 1000}
			if report {
				d.Report = &r.Report
			}
			if out != "" {
				if err := replaceFile(out, 0o644, func(w *os.File) error { _, err := w.Write(f.Encode()); return err }); err != nil {
					return err
				}
			}
			if asJSON {
				return printJSON(cmd.OutOrStdout(), d)
			}
			return showDiff(cmd.OutOrStdout(), out, &d)
		},
	}
	cmd.Flags().StringVarP(&out, "output", "o", "", "`file` for the patch")
	cmd.Flags().BoolVar(&report, "report", false, "say where the bytes go")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().StringVar(&profile, "profile", "large", "RAM of the device: large or small")
	cmd.Flags().Uint32Var(&imageChunk, "image-chunk", 1024, "`bytes` in a chunk of the image's own stream, whose hashes restart points carry")
	cmd.Flags().Uint32Var(&every, "restart-every", 32, "`KiB` of the patch between points where a device can go on after a reset; 0: none")
	cmd.Flags().BoolVar(&keep, "snapshots", false, "for devices with scratch sectors, which keep the coder's state over a reset: restart points cost less. Others begin such a patch anew")
	return cmd
}

func showDiff(w io.Writer, out string, d *diffResult) error {
	if out != "" {
		fmt.Fprintf(w, "made %s\n", out)
	}
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "sent\t%s of %s bytes, %.1f %%\n", term.Number(d.PatchBytes), term.Number(d.NewBytes), percent(float64(d.PatchBytes), d.NewBytes))
	fmt.Fprintf(t, "variant\t%s\n", d.Variant)
	fmt.Fprintf(t, "RAM of the device\t%s bytes (%s)\n", term.Number(d.RAMBytes), d.Profile)
	fmt.Fprintf(t, "restart points\t%d\n", d.Restarts)
	fmt.Fprintf(t, "took\t%.1f s\n", d.Seconds)
	if r := d.Report; r != nil {
		c := &r.Cost
		fmt.Fprintf(t, "\nPATCH\tBYTES\t\n")
		for _, row := range []struct {
			name  string
			bytes float64
		}{
			{"what the images are, map of addresses", c.Preamble}, {"where runs of the old image lie", c.Control},
			{"that bytes are as predicted", c.Flags}, {"what they are where not", c.Misses},
			{"literals", c.Literals}, {"copies", c.Copies}, {"restart points", c.Restarts},
			{"records' hashes and the sheet", float64(d.PatchBytes - d.PayloadBytes)},
		} {
			fmt.Fprintf(t, "%s\t%.0f\t%.1f %%\n", row.name, row.bytes, percent(row.bytes, d.PatchBytes))
		}
		fmt.Fprintf(t, "\nIMAGE\tBYTES\tMOVED\tMISSED\tIN THE PATCH\n")
		for _, k := range r.Kinds {
			fmt.Fprintf(t, "runs: %s predicted\t%s\t%s\t%s\t%.0f\n", k.Name, term.Number(k.Bytes), term.Number(k.Moved), term.Number(k.Misses), k.Cost)
		}
		fmt.Fprintf(t, "insertions\t%s\t\t\t%.0f\n", term.Number(r.Inserted), c.Literals+c.Copies)
		for _, a := range r.Packed {
			fmt.Fprintf(t, "\nhint: %s bytes at 0x%x are a %s file that is not in the old image: a small change inside\nchanges all of it. Store it uncompressed, or leave it as it was.\n", term.Number(a.Bytes), a.Offset, a.Kind)
		}
	}
	return t.Flush()
}

func percent(part float64, whole int) float64 {
	if whole == 0 {
		return 0
	}
	return part * 100 / float64(whole)
}
