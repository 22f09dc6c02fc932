package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/inspect"
)

func newInspectCmd() *cobra.Command {
	var asJSON bool
	var of string
	cmd := &cobra.Command{
		Use:   "inspect FILE",
		Short: "Say what an image, a flash dump, a release file or a signed object holds",
		Long: `Says what a file from or for an ESP32's flash holds, and checks it as the
bootloader would: an image, a partition table, an otadata pair, a dump; or a raw image
for a boot stage of ours. Of a release
file, a key list, a manifest or a stream sheet it shows the fields, and of a release
file it holds image and streams against the manifest. Signatures are shown, not
checked: that is 'runnel verify'. A stream file says nothing about itself: with
--manifest it is held against the root that is signed there. Exit status 1 for a bad
file, with the defect and its offset.

With --json: kind (image, bootloader, raw-image, partition-table, otadata, flash,
release, key-list, manifest, stream-sheet, stream) and, for images, chip, segments,
checksum_ok, sha256_ok, length, project, version, idf_version, elf_sha256; for
releases manifest, key_list, signatures and streams (kind, length, chunk_bytes, root,
file_bytes, file_sha256); for raw images raw; error and error_offset for a bad one.`,
		Example: `  runnel inspect firmware.bin
  runnel inspect board.bin --json | jq .slots
  runnel inspect pump-1.2.0.runnel --json | jq .manifest
  runnel inspect stream.bin --manifest pump-1.2.0.runnel`,
		Args: exactArgs("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := inspectFile(cmd, args[0], of)
			if err != nil {
				return err
			}
			if asJSON {
				err = printJSON(cmd.OutOrStdout(), r)
			} else {
				err = showReport(cmd.OutOrStdout(), r)
			}
			if err == nil && r.Error != "" {
				err = fmt.Errorf("%s: %s", args[0], r.Error)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	cmd.Flags().StringVar(&of, "manifest", "", "`file` with the manifest, sheet or release whose stream FILE is")
	return cmd
}

// readBounded reads a regular file of at most limit bytes.
func readBounded(path string, limit int64) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		return nil, fmt.Errorf("%s is a folder, not a file", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(data)) > limit {
		return nil, fmt.Errorf("%s is larger than %d MiB", path, limit>>20)
	}
	return data, nil
}

func printJSON(w io.Writer, v any) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(v)
}

func showReport(w io.Writer, r *inspect.Report) error {
	t := tabwriter.NewWriter(w, 0, 4, 2, ' ', 0)
	fmt.Fprintf(t, "kind\t%s\n", r.Kind)
	showImage(t, r.Image)
	showRaw(t, r.Raw)
	showSigned(t, r.Signed)
	if len(r.Partitions) > 0 {
		fmt.Fprintf(t, "\nPARTITION\tTYPE\tSUBTYPE\tOFFSET\tSIZE\n")
		for _, p := range r.Partitions {
			fmt.Fprintf(t, "%s\t0x%02x\t0x%02x\t0x%06x\t0x%06x\n", p.Name, p.Type, p.Subtype, p.Offset, p.Size)
		}
		fmt.Fprintf(t, "md5\t%s\n", yes(*r.HasMD5, "right", "none"))
	}
	if len(r.Entries) > 0 {
		fmt.Fprintf(t, "\nRECORD\tSEQUENCE\tSTATE\tCRC\tACTIVE\n")
		for i, e := range r.Entries {
			if e.Blank {
				fmt.Fprintf(t, "%d\terased\t\t\t\n", i)
				continue
			}
			fmt.Fprintf(t, "%d\t%d\t%s\t%s\t%s\n", i, e.Sequence, e.State, yes(e.CRCOK, "ok", "bad"), yes(*r.Active == i, "yes", ""))
		}
	}
	for _, s := range r.Slots {
		fmt.Fprintf(t, "\nslot\t%s\n", s.Name)
		if s.Error != "" {
			fmt.Fprintf(t, "%s\t%s\n", yes(s.Image == nil && s.Error == "erased", "content", "defect"), s.Error)
		}
		showImage(t, s.Image)
	}
	return t.Flush()
}

func showRaw(t io.Writer, im *inspect.RawImage) {
	if im == nil {
		return
	}
	fmt.Fprintf(t, "length\t%d bytes\n", im.Length)
	if im.Trailing > 0 {
		fmt.Fprintf(t, "trailing\t%d bytes\n", im.Trailing)
	}
	fmt.Fprintf(t, "load address\t0x%08x\nentry\t0x%08x\nstack\t0x%08x\ncrc32\t%s\n", im.Load, im.Entry, im.Stack, yes(im.CRCOK, "right", "wrong"))
}

func showImage(t io.Writer, im *inspect.Image) {
	if im == nil {
		return
	}
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(t, "%s\t%s\n", name, value)
		}
	}
	row("chip", im.Chip)
	row("project", im.Project)
	row("version", im.Version)
	row("idf version", im.IDFVersion)
	row("built", im.Built)
	row("elf sha256", im.ELFSHA256)
	if im.Length == 0 { // neither was reached: they are not wrong, they are not there
		row("length", "unknown: the image ends behind the file")
		showSegments(t, im)
		return
	}
	row("length", fmt.Sprintf("%d bytes", im.Length))
	if im.Trailing > 0 {
		row("trailing", fmt.Sprintf("%d bytes", im.Trailing))
	}
	row("checksum", yes(im.ChecksumOK, "right", "wrong"))
	switch {
	case im.SHA256OK == nil:
		row("sha256", "none appended")
	default:
		row("sha256", yes(*im.SHA256OK, "right", "wrong"))
	}
	showSegments(t, im)
}

func showSegments(t io.Writer, im *inspect.Image) {
	for i, s := range im.Segments {
		fmt.Fprintf(t, "segment %d\t0x%08x  %8d bytes at 0x%06x%s\n", i, s.Address, s.Length, s.FileOffset, yes(s.Mapped, "  mapped", ""))
	}
}

func yes(b bool, t, f string) string {
	if b {
		return t
	}
	return f
}
