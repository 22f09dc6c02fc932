package main

import (
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

func newBootCmd() *cobra.Command {
	var asJSON, vectors, noRollback bool
	cmd := &cobra.Command{
		Use:   "boot FLASH",
		Short: "Say which slot the bootloader would start from a flash dump, and why",
		Long: `Says which slot ESP-IDF's bootloader would start from a flash dump, what it would
write first, and why. The file is not changed.

--json prints one object: running (the slot), steps, writes, error.

With --vectors it reads records from standard input instead, one JSON object a line
(e0, e1, app_count, factory) or one array of them, and writes each again, a line
each, with boot_index (-1 is factory), after0, after1 and initial_contents (0 or 1).
Other members are handed on as they are.`,
		Example: `  runnel boot board.bin
  runnel boot board.bin --no-rollback --json
  runnel boot --vectors < cases.jsonl`,
		Args: func(cmd *cobra.Command, args []string) error {
			if vectors {
				return noArgs(cmd, args)
			}
			return exactArgs("FLASH")(cmd, args)
		},
		RunE: func(cmd *cobra.Command, args []string) error {
			if vectors {
				return bootVectors(cmd.InOrStdin(), cmd.OutOrStdout(), !noRollback)
			}
			return bootDump(cmd.OutOrStdout(), args[0], noRollback, asJSON)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object: running, steps, writes, error")
	cmd.Flags().BoolVar(&vectors, "vectors", false, "decide records from standard input")
	cmd.Flags().BoolVar(&noRollback, "no-rollback", false, "a bootloader built without rollback")
	return cmd
}

// bootDump starts a copy of the dump in memory and tells what happened.
func bootDump(w io.Writer, path string, noRollback, asJSON bool) error {
	data, err := readBounded(path, inspect.MaxSize)
	if err != nil {
		return err
	}
	if len(data) < 1<<20 || len(data)%65536 != 0 {
		return hinted(fmt.Errorf("%s has %d bytes: no whole flash chip of 1 MiB or more", path, len(data)), "'runnel inspect %s' shows what the file holds", path)
	}
	chip, err := nor.New(nor.Config{Size: uint32(len(data))})
	if err != nil {
		return err
	}
	if err := chip.Load(0, data); err != nil {
		return err
	}
	b := &board.Board{Chip: chip, NoRollback: noRollback, ChipID: esp32.AnyChip}
	writes := []string{}
	chip.SetLog(func(o nor.Op) { writes = append(writes, o.String()) })
	got, err := b.Boot()
	out := struct {
		Running string   `json:"running,omitempty"`
		Steps   []string `json:"steps"`
		Writes  []string `json:"writes"`
		Error   string   `json:"error,omitempty"`
	}{Steps: append(bootRecords(data), got.Steps...), Writes: writes}
	if err != nil {
		out.Error = err.Error()
	} else {
		out.Running = slotName(got.Running)
	}
	if asJSON {
		if jerr := printJSON(w, out); jerr != nil {
			return jerr
		}
		return err
	}
	for _, s := range out.Steps {
		fmt.Fprintln(w, s)
	}
	for _, s := range writes {
		fmt.Fprintf(w, "flash: %s\n", s)
	}
	if err == nil {
		fmt.Fprintf(w, "running: %s\n", out.Running)
	}
	return err
}

// bootRecords says what the decision is made from.
func bootRecords(data []byte) (steps []string) {
	r := inspect.File(data)
	for i, e := range r.Entries {
		s := fmt.Sprintf("record %d: ", i)
		switch {
		case e.Blank:
			s += "erased"
		case !e.CRCOK:
			s += "damaged"
		default:
			s += fmt.Sprintf("sequence %d, %s%s", e.Sequence, e.State, yes(r.Active != nil && *r.Active == i, ": it is in force", ""))
		}
		steps = append(steps, s)
	}
	return steps
}

func slotName(s boot.Slot) string {
	if s == boot.Factory {
		return "factory"
	}
	return fmt.Sprintf("ota_%d", s)
}
