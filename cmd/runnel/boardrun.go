package main

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

// boardRun are the flags of board run.
type boardRun struct {
	boardWire
	flashFile, server, id, reset    string
	noRollback, asJSON, plain, once bool
	poll                            time.Duration
	chunkBuffer                     int
}

func newBoardRunCmd() *cobra.Command {
	var o boardRun
	cmd := &cobra.Command{
		Use:   "run --flash FILE --server URL",
		Short: "Power a board on",
		Long: `Powers a board on: the bootloader's decision, then the application, whose only
work is the updater. Ctrl-C is a power cut: run it again and it resumes.

On a terminal a live view is drawn; q, as ctrl-C, pulls the plug. With --plain, and
into a pipe, one line an event; with --json one JSON object an event: t (seconds),
event, slot, version, bytes, total, chunk, chunks, bytes_per_second, ram_bytes (in
use now), ram_peak, ram_budget, verifier_bytes (of a signature check, apart), reason,
text; empty members are left away.

A board speaks one wire. With --key-file it is the native one: it takes releases that
are signed by keys that the roots stand for, of its own product and hardware. --root
names the roots that are built into a device, generation and m with them; what it
learns later lies in its flash and overrules them. With --psk it is the original chunk
protocol, v1, which checks no signatures.`,
		Example: `  runnel board run --flash board.bin --id pump-7 --key-file pump-7.key --product acme/pump --root keys/root.pub
  runnel board run --flash board.bin --id pump-7 --key-file pump-7.key --product acme/pump --root keys/root.pub --once --json
  runnel board run --flash board.bin --server http://127.0.0.1:8080 --id old-7 --psk-file old-7.key
  runnel board run --flash board.bin --id old-7 --psk-file old-7.key --reset brown-out --plain`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	f := cmd.Flags()
	f.StringVar(&o.flashFile, "flash", "", "the board's flash `file`")
	f.StringVar(&o.server, "server", "", "the server's `URL` (or RUNNEL_SERVER)")
	f.StringVar(&o.id, "id", "board", "the device's `id`")
	o.boardWire.flags(cmd)
	f.StringVar(&o.reset, "reset", "power-on", "`why` it starts: power-on, brown-out, panic, watchdog, software, deep-sleep, external")
	f.BoolVar(&o.noRollback, "no-rollback", false, "a bootloader built without rollback")
	f.BoolVar(&o.once, "once", false, "stop when the server has nothing more for it, or nothing that it takes")
	f.DurationVar(&o.poll, "poll", 10*time.Second, "`time` between polls; on the native wire the shortest that a server may ask for, and, if given, the longest too")
	f.IntVar(&o.chunkBuffer, "chunk-buffer", 1024, "`bytes`: the largest chunk size that it takes")
	f.BoolVar(&o.asJSON, "json", false, "one JSON object an event")
	f.BoolVar(&o.plain, "plain", false, "one line an event, no live view")
	return cmd
}

func (o *boardRun) run(cmd *cobra.Command) error {
	hint := "see 'runnel board run --help'"
	if o.server == "" {
		o.server = os.Getenv("RUNNEL_SERVER")
	}
	reason, ok := resetReason(o.reset)
	switch {
	case o.flashFile == "":
		return usagef("--flash is missing").withHint("%s", hint)
	case o.server == "":
		return usagef("--server is missing").withHint("give --server URL or set RUNNEL_SERVER, e.g. http://127.0.0.1:8080")
	case o.poll < time.Millisecond || o.poll > 24*time.Hour:
		return usagef("--poll is %s, not a millisecond to a day", o.poll)
	case !ok:
		return usagef("--reset %s is no reset reason", o.reset).withHint("%s", hint)
	}
	if err := o.choose(); err != nil {
		return err
	}
	if m, err := o.patchMemory(); err == nil && !cmd.Flags().Changed("chunk-buffer") {
		o.chunkBuffer = max(o.chunkBuffer, m.Chunk())
	}
	if err := o.chunkBufferError(o.chunkBuffer); err != nil {
		return err
	}
	if err := o.read(o.id); err != nil {
		return err
	}
	client, err := devicehttp.New(o.server)
	if err != nil {
		return usagef("%v", err)
	}
	defer client.Close()
	chip, err := nor.Open(o.flashFile, nor.Config{})
	if err != nil {
		return flashError(o.flashFile, err)
	}
	return errors.Join(o.start(cmd, chip, client, reason), chip.Close())
}

// start finds out what the board is, and powers it on.
func (o *boardRun) start(cmd *cobra.Command, chip *nor.Chip, client *devicehttp.Client, reason boot.ResetReason) error {
	b := &board.Board{Chip: chip, NoRollback: o.noRollback, ChipID: esp32.AnyChip}
	if o.wire == "native" {
		// A device tells its chip, and takes images for that one only.
		var err error
		if b.ChipID, err = runningChip(chip, o.noRollback); err != nil {
			return hinted(fmt.Errorf("%s: %w", o.flashFile, err), "'runnel inspect %s' shows what the file holds", o.flashFile)
		}
	}
	id, err := o.identity(o.id, o.poll, b.ChipID)
	if err != nil {
		return err
	}
	return o.power(cmd.Context(), cmd, b, client, id, reason)
}

// flashError says what to do about a flash file that can't be opened.
func flashError(file string, err error) error {
	switch {
	case errors.Is(err, nor.ErrInUse):
		return hinted(fmt.Errorf("%s is in use: another board runs on it", file), "a chip is on one board only; make another with 'runnel board new --flash FILE'")
	case errors.Is(err, os.ErrNotExist):
		return hinted(err, "make a board with 'runnel board new --flash %s'", file)
	case errors.Is(err, os.ErrPermission):
		return err
	}
	return hinted(err, "a board's flash is a file that 'runnel board new' made")
}

func (o *boardRun) power(ctx context.Context, cmd *cobra.Command, b *board.Board, client *devicehttp.Client, id boardIdentity, reason boot.ResetReason) (err error) {
	t, err := b.Table()
	if err != nil {
		return hinted(fmt.Errorf("%s: %w", o.flashFile, err), "'runnel inspect %s' shows what the file holds", o.flashFile)
	}
	log := newBoardLog(cmd.OutOrStdout(), o.asJSON, id.kind, o.chunkBuffer, int(t.Slots()))
	if id.native != nil {
		log.ram.patches(id.native.Patches)
	}
	carry := &carrier{c: client}
	log.trouble = carry.why
	// A hand on the plug: the flash operation in progress, or the next, is torn.
	ctx, unplug := context.WithCancel(ctx)
	defer unplug()
	stop := context.AfterFunc(ctx, b.Chip.CutPower)
	defer stop()
	if !o.plain && !o.asJSON {
		if log.live = newLive(cmd, o.id+" at "+o.server, b.Chip, &t, unplug); log.live != nil {
			defer func() { err = errors.Join(err, log.live.view.Close()) }()
		}
	}
	if id.about != "" {
		if !o.macOnly {
			log.verifier = board.VerifierBytes()
		}
		log.emit(boardEvent{Event: "wire", Text: id.about, Verifier: log.verifier})
	}
	done, failed := false, false
	err = b.Run(ctx, reason, board.App{
		Transport: carry, Identity: id.v1, Native: id.native, ChunkSize: o.chunkBuffer, PollMillis: uint32(o.poll.Milliseconds()),
		Seed: uint64(time.Now().UnixNano()), OnBoot: log.booted,
		OnStart: func(u *device.Updater, b board.Boot) {
			carry.asked, failed = 0, false
			log.started(u, b)
		},
		OnEvent: func(e device.Event) {
			log.event(e)
			done = done || o.once && e.Kind == device.EventUpToDate
			failed = e.Kind == device.EventFailed || failed && e.Kind == device.EventReported
		},
		Stop: func() bool {
			log.step()
			// A native board that refuses what a server has is told the same at every poll. Of
			// an image that failed before this start it has yet to report.
			if failed && o.once && id.kind == board.NativeWire && carry.asked > 0 && log.up.Status().Phase == "idle" {
				done = true
			}
			return done || log.err != nil
		},
	})
	if ctx.Err() != nil || errors.Is(err, board.ErrPowerCut) {
		log.emit(boardEvent{Event: "power_cut", Text: "run it again: it goes on"})
		err = nil
	}
	if errors.Is(err, device.ErrSlots) {
		err = hinted(fmt.Errorf("%s can't be updated: it has one app partition, and no other to write to", o.flashFile),
			"make a board with two: 'runnel board new --table FILE'")
	}
	if errors.Is(err, board.ErrGap) {
		err = hinted(fmt.Errorf("%s: %w", o.flashFile, err), "bootloader and updater would mean different slots by the same number: number them anew")
	}
	if errors.Is(err, device.ErrTrust) {
		err = hinted(fmt.Errorf("%s has no state partition: a key list could not be kept", o.flashFile), "make a board with one, or give --mac-only")
	}
	return errors.Join(err, log.err)
}

// carrier fits the HTTP client to the board, and remembers why the last request
// came to nothing: the updater only knows that it did.
type carrier struct {
	c      *devicehttp.Client
	status int
	err    error
	asked  int // requests since the last start
}

func (t *carrier) Do(ctx context.Context, r device.Request) (board.Answer, error) {
	t.asked++
	a, err := t.c.Do(ctx, &r)
	if t.err = err; err != nil {
		return nil, err
	}
	t.status = int(a.Head().Status)
	return a, nil
}

// why is the reason for people, "" where there is none to tell.
func (t *carrier) why() string {
	switch {
	case t.err != nil:
		return whyNot(t.err)
	case t.status != 200 && t.status != 206:
		return fmt.Sprintf("it answered %d", t.status)
	}
	return "the answer broke off or makes no sense"
}

// whyNot is an error of the network for people.
func whyNot(err error) string {
	var u *url.Error
	var n syscall.Errno
	switch {
	case errors.As(err, &n):
		return n.Error() // "connection refused": addresses and ports say nothing new
	case errors.As(err, &u) && u.Timeout():
		return "no answer in time"
	case errors.As(err, &u):
		return u.Err.Error() // without the URL: its query is of no interest
	}
	return err.Error()
}
