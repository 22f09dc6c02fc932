package main

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
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

With --vectors it reads records from standard input instead, one JSON object a line
(e0, e1, app_count, factory), and writes each again with boot_index, after0, after1
and initial_contents.`,
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
				return bootVectors(cmd.InOrStdin(), cmd.OutOrStdout())
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
		return fmt.Errorf("%s has %d bytes: no whole flash chip of 1 MiB or more", path, len(data))
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
	}{Steps: got.Steps, Writes: writes}
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

func slotName(s boot.Slot) string {
	if s == boot.Factory {
		return "factory"
	}
	return fmt.Sprintf("ota_%d", s)
}

// vector is one case; members that it does not know are dropped.
type vector struct {
	E0       string `json:"e0"`
	E1       string `json:"e1"`
	AppCount uint32 `json:"app_count"`
	Factory  bool   `json:"factory"`

	BootIndex int32  `json:"boot_index"`
	After0    string `json:"after0"`
	After1    string `json:"after1"`
	Initial   int    `json:"initial_contents"`
}

const maxVectorLine = 64 << 10

func bootVectors(in io.Reader, out io.Writer) error {
	r := bufio.NewReaderSize(in, maxVectorLine)
	w := bufio.NewWriter(out)
	enc := json.NewEncoder(w)
	// A whole array, as the file of vectors is, is taken too.
	if first, err := r.Peek(1); err == nil && first[0] == '[' {
		var all []vector
		if err := json.NewDecoder(io.LimitReader(r, inspect.MaxSize)).Decode(&all); err != nil {
			return fmt.Errorf("standard input: %w", err)
		}
		for i := range all {
			if err := all[i].decide(); err != nil {
				return fmt.Errorf("case %d: %w", i+1, err)
			}
			if err := enc.Encode(&all[i]); err != nil {
				return err
			}
		}
		return w.Flush()
	}
	sc := bufio.NewScanner(r)
	sc.Buffer(nil, maxVectorLine)
	line := 0
	for sc.Scan() {
		line++
		if len(bytes.TrimSpace(sc.Bytes())) == 0 {
			continue
		}
		var v vector
		err := json.Unmarshal(sc.Bytes(), &v)
		if err == nil {
			err = v.decide()
		}
		if err != nil {
			return fmt.Errorf("line %d: %w", line, err)
		}
		if err := enc.Encode(&v); err != nil {
			return err
		}
	}
	if err := sc.Err(); err != nil {
		return fmt.Errorf("line %d: %w", line+1, err)
	}
	return w.Flush()
}

func (v *vector) decide() error {
	e0, err := entryOf("e0", v.E0)
	if err != nil {
		return err
	}
	e1, err := entryOf("e1", v.E1)
	if err != nil {
		return err
	}
	s := esp32.Select(e0, e1, v.AppCount, v.Factory, true)
	v.BootIndex = s.BootIndex
	v.After0, v.After1 = hex.EncodeToString(s.After[0][:]), hex.EncodeToString(s.After[1][:])
	v.Initial = 0
	if s.InitialContents {
		v.Initial = 1
	}
	return nil
}

func entryOf(name, s string) (e esp32.Entry, err error) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(e) {
		return e, fmt.Errorf("%s is not a record of 64 hex digits", name)
	}
	copy(e[:], b)
	return e, nil
}
