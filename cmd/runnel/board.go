package main

import (
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

func newBoardCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "board",
		Short: "A virtual ESP32 whose whole flash is one file",
		Args:  noArgs,
		Long: `A virtual ESP32: 'board new' makes its flash, 'board run' powers it on. What is in
the file is byte for byte what a real chip would hold: 'runnel inspect' and
'runnel boot' read it.`,
		Example: `  runnel board new --flash board.bin
  runnel board run --flash board.bin --id pump-7 --key-file pump-7.key --product acme/pump --root keys/root.pub`,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBoardNewCmd(), newBoardRunCmd(), newBoardPageCmd())
	return cmd
}

func newBoardNewCmd() *cobra.Command {
	var flashFile, app, bootloader, dump, table string
	var sizeMiB uint32
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "new --flash FILE",
		Short: "Make a board",
		Long: `Makes the flash file of a board: partition table, boot records, and an image in
its first slot. Without --app a small image is built. The table is ESP-IDF's CSV or a
binary one; without --table it has two slots of 1,920 KiB, and state, journal and
scratch partitions (type 0x40, subtypes 1, 0 and 2). With --dump the whole flash of a
real chip is taken instead.

--json prints {"flash","bytes","slots":[{"name","bytes"}],"state","journal","scratch"}.`,
		Example: `  runnel board new --flash board.bin
  runnel board new --flash board.bin --app firmware.bin --table partitions.csv
  runnel board new --flash board.bin --dump read-from-a-chip.bin`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			hint := "see 'runnel board new --help'"
			switch {
			case flashFile == "":
				return usagef("--flash is missing").withHint("%s", hint)
			case sizeMiB < 1 || sizeMiB > 128:
				return usagef("--size must be 1 to 128 MiB")
			case dump != "" && (app != "" || table != "" || bootloader != "" || cmd.Flags().Changed("size")):
				return usagef("--dump is a whole flash: it goes with --flash alone").withHint("%s", hint)
			}
			var err error
			if dump != "" {
				err = boardFromDump(flashFile, dump)
			} else {
				err = boardNew(flashFile, app, bootloader, table, sizeMiB<<20)
			}
			if errors.Is(err, os.ErrExist) {
				return hinted(err, "a board is never overwritten: name another file, or remove this one")
			}
			if err != nil {
				return err
			}
			return boardMade(cmd.OutOrStdout(), flashFile, asJSON)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flashFile, "flash", "", "the flash `file` to make")
	f.StringVar(&app, "app", "", "`image` for the first slot")
	f.StringVar(&bootloader, "bootloader", "", "bootloader `image` (the virtual board runs its own)")
	f.StringVar(&table, "table", "", "partition table `file`, CSV or binary")
	f.StringVar(&dump, "dump", "", "`file`: take a real chip's whole flash instead")
	f.Uint32Var(&sizeMiB, "size", 4, "flash size in `MiB`")
	f.BoolVar(&asJSON, "json", false, "print one JSON object")
	return cmd
}

func boardNew(flashFile, app, bootloader, table string, size uint32) (err error) {
	l := board.Layout{Table: board.DefaultTable()}
	if table != "" {
		if l.Table, err = readTable(table, size); err != nil {
			return err
		}
	}
	b := &board.Board{}
	if app == "" {
		l.App, err = board.BuildImage(board.ImageSpec{Size: 256 << 10, Project: "runnel-board", Version: "0.0.0"})
	} else if l.App, err = readBounded(app, 16<<20); err == nil {
		var im *inspect.Image
		var at int64
		if im, at, err = inspect.ReadImage(l.App); err != nil {
			return hinted(fmt.Errorf("%s: %w at offset 0x%x", app, err, at), "'runnel inspect %s' shows what the file holds", app)
		}
		b.ChipID = im.ChipID
	}
	if err != nil {
		return err
	}
	if bootloader != "" {
		if l.Bootloader, err = readBounded(bootloader, 64<<10); err != nil {
			return err
		}
	}
	if b.Chip, err = nor.Create(flashFile, nor.Config{Size: size}); err != nil {
		return err
	}
	if err := b.Write(l); err != nil {
		return errors.Join(err, b.Chip.Close(), os.Remove(flashFile))
	}
	return b.Chip.Close()
}

func boardFromDump(flashFile, dump string) error {
	data, err := readBounded(dump, inspect.MaxSize)
	if err != nil {
		return err
	}
	if r := inspect.File(data); r.Kind != inspect.KindFlash || r.Error != "" {
		return hinted(fmt.Errorf("%s is no whole flash dump: %s%s", dump, r.Kind, yes(r.Error != "", ", "+r.Error, "")),
			"'esptool read-flash 0 ALL FILE' reads one from a chip")
	}
	chip, err := nor.Create(flashFile, nor.Config{Size: uint32(len(data))})
	if err != nil {
		return err
	}
	if err := chip.Load(0, data); err != nil {
		return errors.Join(err, chip.Close(), os.Remove(flashFile))
	}
	return chip.Close()
}

// boardMade tells what was made, and what such a board can't do.
func boardMade(w io.Writer, flashFile string, asJSON bool) (err error) {
	chip, err := nor.Open(flashFile, nor.Config{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, chip.Close()) }()
	t, err := (&board.Board{Chip: chip}).Table()
	if err != nil {
		return err
	}
	type slot struct {
		Name  string `json:"name"`
		Bytes uint32 `json:"bytes"`
	}
	out := struct {
		Flash   string `json:"flash"`
		Bytes   uint32 `json:"bytes"`
		Slots   []slot `json:"slots"`
		State   bool   `json:"state"`
		Journal bool   `json:"journal"`
		Scratch bool   `json:"scratch"`
	}{Flash: flashFile, Bytes: chip.Geometry().Size, Slots: []slot{}}
	out.State = t.Find(esp32.TypeRunnel, esp32.SubtypeState) != nil
	out.Journal = t.Find(esp32.TypeRunnel, esp32.SubtypeJournal) != nil
	out.Scratch = t.Find(esp32.TypeRunnel, esp32.SubtypeScratch) != nil
	text := ""
	for i := range t.P[:t.N] {
		if p := &t.P[i]; p.Type == esp32.TypeApp {
			out.Slots = append(out.Slots, slot{string(p.Name()), p.Size})
			text += fmt.Sprintf(", %s of %s KiB", p.Name(), term.Number(p.Size/1024))
		}
	}
	if asJSON {
		return printJSON(w, out)
	}
	text = fmt.Sprintf("made %s: %s KiB of flash%s\n", flashFile, term.Number(out.Bytes/1024), text)
	if t.Slots()+yesNo(t.Find(esp32.TypeApp, esp32.SubtypeFactory) != nil) < 2 || t.Find(esp32.TypeData, esp32.SubtypeOTA) == nil {
		text += "it can run, but not be updated: that needs two app partitions and one of type data, ota\n"
	} else if !out.Journal {
		text += "no journal partition: the end of a slot is used where the image leaves 8 KiB free\n"
	}
	_, err = io.WriteString(w, text)
	return err
}

func yesNo(b bool) uint8 {
	if b {
		return 1
	}
	return 0
}

// readTable reads a table, CSV or binary.
func readTable(path string, size uint32) (t esp32.Table, err error) {
	data, err := readBounded(path, 64<<10)
	if err != nil {
		return t, err
	}
	if len(data) > 1 && data[0] == 0xAA && data[1] == 0x50 {
		if i, err := t.Parse(data, size); err != nil {
			return t, fmt.Errorf("%s: entry %d: %w", path, i, err)
		}
		return t, nil
	}
	if line, err := t.ParseCSV(data, size); err != nil {
		return t, fmt.Errorf("%s:%d: %w", path, line, err)
	}
	return t, nil
}

func resetReason(s string) (boot.ResetReason, bool) {
	for r := boot.ResetPowerOn; r <= boot.ResetExternal; r++ {
		if r.String() == s {
			return r, true
		}
	}
	return 0, false
}
