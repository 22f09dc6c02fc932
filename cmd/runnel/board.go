package main

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	v1 "github.com/runnel-fota/runnel/core/wire/v1"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

func newBoardCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "board",
		Short: "A virtual ESP32 whose whole flash is one file",
		Args:  noArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newBoardNewCmd(), newBoardRunCmd())
	return cmd
}

func newBoardNewCmd() *cobra.Command {
	var flashFile, app, bootloader, dump, table string
	var sizeMiB uint32
	cmd := &cobra.Command{
		Use:   "new --flash FILE",
		Short: "Make a board",
		Long: `Makes the flash file of a board: partition table, boot records, and an image in
its first slot. Without --app a small image is built. The table is a binary one or
a real dump's; without --table it has two slots of 1,920 KiB, state and journal.`,
		Example: `  runnel board new --flash board.bin
  runnel board new --flash board.bin --app firmware.bin --table partitions.bin
  runnel board new --flash board.bin --dump read-from-a-chip.bin`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if flashFile == "" {
				return usagef("--flash is missing").withHint("see 'runnel board new --help'")
			}
			if dump != "" {
				return boardFromDump(flashFile, dump)
			}
			if sizeMiB < 1 || sizeMiB > 128 {
				return usagef("--size must be 1 to 128 MiB")
			}
			return boardNew(flashFile, app, bootloader, table, sizeMiB<<20)
		},
	}
	f := cmd.Flags()
	f.StringVar(&flashFile, "flash", "", "the flash file to make")
	f.StringVar(&app, "app", "", "image for the first slot")
	f.StringVar(&bootloader, "bootloader", "", "bootloader image (the virtual board runs its own)")
	f.StringVar(&table, "table", "", "partition table, CSV or binary")
	f.StringVar(&dump, "dump", "", "take a real chip's whole flash instead")
	f.Uint32Var(&sizeMiB, "size", 4, "flash size in MiB")
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
			return fmt.Errorf("%s: %w at offset 0x%x", app, err, at)
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
		return fmt.Errorf("%s is no whole flash dump: %s%s", dump, r.Kind, yes(r.Error != "", ", "+r.Error, ""))
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

// readTable reads a binary table.
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

// boardRun are the flags of board run.
type boardRun struct {
	flashFile, server, id, psk, pskFile, reset string
	noRollback, silent, asJSON, plain, once    bool
	poll                                       time.Duration
	chunkBuffer                                int
}

func newBoardRunCmd() *cobra.Command {
	var o boardRun
	cmd := &cobra.Command{
		Use:   "run --flash FILE --server URL",
		Short: "Power a board on",
		Long: `Powers a board on: the bootloader's decision, then the application, whose only
work is the updater. Ctrl-C is a power cut: run it again and it resumes.

On a terminal a live view is drawn; with --plain, and into a pipe, one line an
event; with --json one JSON object: t (seconds), event, slot, version,
bytes, total, chunk, chunks, bytes_per_second, ram_bytes, ram_budget, reason, text.`,
		Example: `  runnel board run --flash board.bin --server http://127.0.0.1:8080 --id pump-7 --psk-file key.hex
  runnel board run --flash board.bin --server URL --id pump-7 --psk HEX64 --once --json`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.flashFile, "flash", "", "the board's flash file")
	f.StringVar(&o.server, "server", os.Getenv("RUNNEL_SERVER"), "the server's URL (RUNNEL_SERVER)")
	f.StringVar(&o.id, "id", "board", "the device's id")
	f.StringVar(&o.psk, "psk", "", "the device's key, 64 hex digits")
	f.StringVar(&o.pskFile, "psk-file", "", "file that holds the key")
	f.StringVar(&o.reset, "reset", "power-on", "why it starts: power-on, brown-out, panic, watchdog, software, deep-sleep, external")
	f.BoolVar(&o.noRollback, "no-rollback", false, "a bootloader built without rollback")
	f.BoolVar(&o.silent, "silent", false, "send no Device-ID and no MAC, as old boards do")
	f.BoolVar(&o.once, "once", false, "stop when the server has nothing more for it")
	f.DurationVar(&o.poll, "poll", 10*time.Second, "between polls")
	f.IntVar(&o.chunkBuffer, "chunk-buffer", 1024, "bytes: the largest chunk size that it takes")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object an event")
	f.BoolVar(&o.plain, "plain", false, "one line an event, no live view")
	return cmd
}

func (o *boardRun) run(cmd *cobra.Command) error {
	hint := "see 'runnel board run --help'"
	if o.flashFile == "" {
		return usagef("--flash is missing").withHint("%s", hint)
	}
	if o.server == "" {
		return usagef("--server is missing").withHint("%s", hint)
	}
	if o.chunkBuffer < device.MinChunkBuffer || o.chunkBuffer%256 != 0 || o.chunkBuffer > 16<<10 {
		return usagef("--chunk-buffer must be a multiple of 256 from %d to 16384", device.MinChunkBuffer)
	}
	reason, ok := resetReason(o.reset)
	if !ok {
		return usagef("--reset %s is no reset reason", o.reset).withHint("%s", hint)
	}
	key, err := o.key()
	if err != nil {
		return err
	}
	client, err := devicehttp.New(o.server)
	if err != nil {
		return usagef("%v", err)
	}
	defer client.Close()
	chip, err := nor.Open(o.flashFile, nor.Config{})
	if err != nil {
		return err
	}
	b := &board.Board{Chip: chip, NoRollback: o.noRollback, ChipID: esp32.AnyChip}
	err = o.power(cmd.Context(), cmd, b, client, key, reason)
	return errors.Join(err, chip.Close())
}

func (o *boardRun) power(ctx context.Context, cmd *cobra.Command, b *board.Board, client *devicehttp.Client, key []byte, reason boot.ResetReason) (err error) {
	t, err := b.Table()
	if err != nil {
		return fmt.Errorf("%s: %w", o.flashFile, err)
	}
	log := newBoardLog(cmd.OutOrStdout(), o.asJSON, o.chunkBuffer, int(t.Slots()))
	id := v1.Identity{ID: o.id, Signed: true, Key: key}
	if o.silent {
		id.ID, id.Signed = "", false
	}
	// A hand on the plug: the flash operation in progress, or the next, is torn.
	ctx, unplug := context.WithCancel(ctx)
	defer unplug()
	stop := context.AfterFunc(ctx, b.Chip.CutPower)
	defer stop()
	if out, ok := cmd.OutOrStdout().(*os.File); ok && !o.plain && !o.asJSON && term.IsTerminal(int(out.Fd())) {
		log.live = newLiveView(cmd.InOrStdin(), out, o.id+" at "+o.server, b.Chip, &t, unplug)
		defer func() { err = errors.Join(err, log.live.close()) }()
	}
	done := false
	err = b.Run(ctx, reason, board.App{
		Transport: carrier{client}, Identity: id, ChunkBuffer: o.chunkBuffer, PollMillis: uint32(o.poll.Milliseconds()),
		Seed: uint64(time.Now().UnixNano()), OnStart: log.started,
		OnEvent: func(e device.Event) {
			log.event(e)
			done = done || o.once && e.Kind == device.EventUpToDate
		},
		Stop: func() bool { return done || log.err != nil },
	})
	if ctx.Err() != nil || errors.Is(err, board.ErrPowerCut) {
		log.emit(boardEvent{Event: "power_cut"})
		err = nil
	}
	return errors.Join(err, log.err)
}

// carrier fits the HTTP client to the board.
type carrier struct{ c *devicehttp.Client }

func (t carrier) Do(ctx context.Context, r v1.Request) (board.Answer, error) {
	a, err := t.c.Do(ctx, &r)
	if err != nil {
		return nil, err
	}
	return a, nil
}

func (o *boardRun) key() ([]byte, error) {
	text := o.psk
	if o.pskFile != "" {
		b, err := readBounded(o.pskFile, 1024)
		if err != nil {
			return nil, err
		}
		text = strings.TrimSpace(string(b))
	}
	if text == "" {
		return nil, usagef("--psk or --psk-file is missing").withHint("the key that 'runnel devices add' was given")
	}
	key, err := hex.DecodeString(text)
	if err != nil || len(key) != 32 {
		return nil, usagef("the key must be 64 hex digits")
	}
	return key, nil
}

func resetReason(s string) (boot.ResetReason, bool) {
	for r := boot.ResetPowerOn; r <= boot.ResetExternal; r++ {
		if r.String() == s {
			return r, true
		}
	}
	return 0, false
}
