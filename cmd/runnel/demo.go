package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/boot"
	"github.com/runnel-fota/runnel/core/device"
	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/devicehttp"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/internal/term"
	"github.com/runnel-fota/runnel/sim/board"
	"github.com/runnel-fota/runnel/sim/nor"
)

const (
	demoImageBytes = 1_068_032 // the documented run of the original: 1,043 chunks
	demoChunk      = 1024
	demoDevice     = "demo-board"
	demoProduct    = "demo/board"
	demoLimit      = time.Minute
	demoPoll       = 200 // ms: nobody wants to watch a board wait
)

func newDemoCmd() *cobra.Command {
	var asJSON bool
	var images []string
	var wire string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "The whole story in one command, in under a minute",
		Long: `Makes signing keys, which are thrown away at the end and count nowhere else; starts a
server and a virtual board on version A; signs and publishes B; cuts the power in the
middle of the download; powers the board on: it proves what it has, goes on, verifies,
reboots and confirms; publishes C, which crashes at boot: the board returns to B and
says why. Everything runs for real, on loopback and in a folder that is removed
afterwards. It ends with a table: RAM and flash over time, what the cut cost, what went
over the wire, how long it took.

--wire v1 tells the same over the original chunk protocol, without keys and signatures.

--json prints one object an event, as 'runnel board run --json' does; the last is the
summary: event, ok, image_bytes, chunks, chunk_bytes, working_set_bytes,
allocs_per_chunk, refetched_bytes, rolled_back, seconds, and error if a step failed.
On the native wire also wire; update_time_ratio (B's update on a second board, which
nothing interrupts, on the clocks of a modelled chip and a line of 10 Mbit/s, over what
the chip alone needs for the image), update_time_ratio_cut (the same with the power
cut); wire_bytes (all that B's update, cut included, sent and received at the board's
socket: headers, polls and reports too) and overhead_ratio (those over the image's
bytes).
Exit status 1 if any step is not as it should be.`,
		Example: `  runnel demo
  runnel demo --json | tail -1
  runnel demo --image old.bin --image new.bin`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if len(images) != 0 && len(images) != 2 {
				return usagef("--image is given twice, the old and the new image, or not at all")
			}
			if wire != "native" && wire != "v1" {
				return usagef("--wire %s: it is native or v1", wire)
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), demoLimit)
			defer cancel()
			d := &demo{out: cmd.OutOrStdout(), asJSON: asJSON, start: time.Now(), kind: board.NativeWire}
			if wire == "v1" {
				d.kind = board.V1
			}
			err := d.run(ctx, images)
			switch {
			case err == nil || cmd.Context().Err() == nil && ctx.Err() == nil:
				return err
			case cmd.Context().Err() != nil:
				return errors.New("interrupted")
			}
			return fmt.Errorf("not done within %s: %w", demoLimit, err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "one JSON object an event")
	cmd.Flags().StringArrayVar(&images, "image", nil, "`file` of a real image: the old one, then the new one")
	cmd.Flags().StringVar(&wire, "wire", "native", "the `wire` that the board speaks: native or v1")
	return cmd
}

// demo is one run. Every figure in its summary is measured in it.
type demo struct {
	out    io.Writer
	asJSON bool
	start  time.Time
	dir    string
	log    *boardLog

	kind   board.Kind
	api    *client.Client
	dev    *devicehttp.Client
	key    []byte // of the device, for its wire
	trust  demoTrust
	line   timedLine
	smooth time.Duration // B's update on a second board, which nothing interrupts
	chipID uint16
	b      *board.Board

	a, imgB, c []byte
	release    client.Release // B, as the server has it
	sequence   uint32         // of the last release that was signed
	stream     string         // path of B's, on the native wire
	fetched    int            // bytes of B's chunks: over v1 that were asked for, else that came
	wireBytes  int64          // of B's update, at the socket
	running    boot.Slot      // that started last
	rolledBack bool
	demoRows
}

func (d *demo) run(ctx context.Context, images []string) (err error) {
	if d.dir, err = os.MkdirTemp("", "runnel-demo-"); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(d.dir)) }()
	slots := board.DefaultTable()
	d.log = newBoardLog(d.out, d.asJSON, d.kind, demoChunk, int(slots.Slots()))
	if !d.asJSON {
		d.log.bar = newProgress(d.out, "          downloading  ").AtOnce()
	}
	if err := d.images(images); err != nil {
		return err
	}
	s := summary{Event: "summary", ChunkBytes: demoChunk, WorkingSet: board.WorkingSet(d.kind, demoChunk, int(slots.Slots()))}
	failed := d.steps(ctx)
	d.log.bar.Clear()
	s.ImageBytes, s.Chunks = int(d.release.Size), d.release.Chunks
	s.Refetched, s.RolledBack = max(0, d.fetched-len(d.imgB)), d.rolledBack
	if d.kind == board.NativeWire {
		s.native(d.wireBytes, len(d.imgB), d.smooth, d.line.clock.took)
		s.Allocs, err = d.allocsPerRecord(ctx)
	} else {
		s.Allocs, err = board.AllocsPerChunk()
	}
	if err != nil {
		return errors.Join(failed, err)
	}
	s.Seconds = time.Since(d.start).Seconds()
	if failed == nil {
		failed = s.outOfBounds(d.log.ram)
	}
	s.OK = failed == nil
	if !s.OK {
		s.Error = failed.Error()
	}
	return errors.Join(failed, d.finish(s))
}

// steps is the story.
func (d *demo) steps(ctx context.Context) (err error) {
	stop, err := d.server(ctx)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, stop()) }()
	if d.kind == board.NativeWire {
		d.line.dev, d.line.count = d.dev, func(path string, at, n int) {
			if path == d.stream {
				d.fetched += chunkBytes(at+n) - chunkBytes(at)
			}
		}
		if err := d.makeKeys(ctx); err != nil {
			return err
		}
	}
	if err := d.newBoard(ctx); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func(context.Context) error
	}{
		{yes(d.kind == board.V1, "push B", "sign and push B"), func(ctx context.Context) (err error) {
			d.release, err = d.push(ctx, "B", d.imgB)
			return err
		}},
		{"download, power cut in the middle", d.cut},
		{yes(d.kind == board.V1, "resume, verify, reboot, confirm", "prove, resume, verify, reboot, confirm"), d.resume},
		{yes(d.kind == board.V1, "push C, which crashes at boot", "sign and push C, which crashes at boot"), func(ctx context.Context) error { _, err := d.push(ctx, "C", d.c); return err }},
		{"C crashes at boot, the board returns to B", d.goBack},
	} {
		d.log.emit(boardEvent{Event: "step", Text: step.name})
		if err := step.do(ctx); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// images reads or builds A, B and C.
func (d *demo) images(files []string) (err error) {
	spec := func(version string, b board.Behaviour) board.ImageSpec {
		return board.ImageSpec{Size: demoImageBytes, Chip: d.chipID, Project: "runnel-demo", Version: version, Behave: b, Seed: 7}
	}
	if len(files) == 0 {
		if d.a, err = board.BuildImage(spec("A", board.BehaveOK)); err != nil {
			return err
		}
		if d.imgB, err = board.BuildImage(spec("B", board.BehaveOK)); err != nil {
			return err
		}
	} else {
		for i, to := range []*[]byte{&d.a, &d.imgB} {
			if *to, err = readBounded(files[i], 16<<20); err != nil {
				return err
			}
			im, at, err := inspect.ReadImage(*to)
			if err != nil {
				return fmt.Errorf("%s: %w at offset 0x%x", files[i], err, at)
			}
			if i > 0 && im.ChipID != d.chipID {
				return usagef("the two images are for different chips: %s is for %s", files[1], im.Chip)
			}
			d.chipID = im.ChipID
			t := board.DefaultTable()
			if slot := t.Find(esp32.TypeApp, esp32.SubtypeOTA0).Size; uint32(len(*to)) > slot {
				return usagef("%s has %s bytes: the demo's slots have %s", files[i], term.Number(len(*to)), term.Number(slot))
			}
		}
		if bytes.Equal(d.a, d.imgB) {
			return usagef("the two images are the same")
		}
	}
	d.c, err = board.BuildImage(spec("C", board.BehavePanic))
	return err
}

// server starts this very program as a server of its own and reads its first line.
func (d *demo) server(ctx context.Context) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := []string{"serve", "--json", "--data", filepath.Join(d.dir, "server"), "--listen", "127.0.0.1:0"}
	if d.kind == board.NativeWire {
		args = append(args, "--"+throwAwayFlag)
	}
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.WaitDelay = 10 * time.Second
	var errText bytes.Buffer
	cmd.Stderr = &errText
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	stop = func() error {
		// It may have gone already: ctrl-C reaches every program of a terminal.
		if err := cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return err
		}
		if err := cmd.Wait(); err != nil && ctx.Err() == nil {
			return fmt.Errorf("server: %w: %s", err, brief(errText.String()))
		}
		return nil
	}
	var first struct {
		URL   string `json:"url"`
		Token string `json:"admin_token"`
	}
	line, err := bufio.NewReader(out).ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &first)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("server did not start: %w", err), stop())
	}
	d.log.emit(boardEvent{Event: "server", Text: first.URL})
	if d.api, err = client.New(first.URL, first.Token); err == nil {
		d.dev, err = devicehttp.New(first.URL)
	}
	if err != nil {
		return nil, errors.Join(err, stop())
	}
	return stop, nil
}

// brief is as much of a server's log as an error has room for.
func brief(s string) string {
	const most = 600 // bytes
	s = strings.TrimSpace(s)
	if len(s) > most {
		s = s[:most] + "..."
	}
	return fleet.CleanText(s, most+3)
}

func (d *demo) flashFile() string { return filepath.Join(d.dir, "board.bin") }

// newBoard makes a board that runs A and makes it known to the server.
func (d *demo) newBoard(ctx context.Context) error {
	d.key = make([]byte, 32)
	if _, err := rand.Read(d.key); err != nil {
		return err
	}
	if err := d.addDevice(ctx); err != nil {
		return err
	}
	chip, err := nor.Create(d.flashFile(), nor.Config{})
	if err != nil {
		return err
	}
	d.b = &board.Board{Chip: chip, ChipID: d.chipID}
	if err := d.b.Write(board.Layout{Table: board.DefaultTable(), App: d.a}); err != nil {
		return errors.Join(err, chip.Close())
	}
	d.log.emit(boardEvent{Event: "board", Text: "virtual ESP32 on version A, flash in one file of 4 MiB"})
	return chip.Close()
}

func (d *demo) push(ctx context.Context, version string, img []byte) (client.Release, error) {
	var p client.Published
	var err error
	if d.kind == board.NativeWire {
		p, err = d.pushSigned(ctx, version, img)
	} else {
		sum := sha256.Sum256(img)
		p, err = d.api.Publish(ctx, demoProduct, version, demoChunk, hex.EncodeToString(sum[:]), bytes.NewReader(img), int64(len(img)), fleet.Publication{})
	}
	if err != nil {
		return client.Release{}, err
	}
	r := p.Release
	d.log.emit(boardEvent{Event: "published", Version: version,
		Text: fmt.Sprintf("%s bytes in %s chunks of %s", term.Number(r.Size), term.Number(r.Chunks), term.Number(r.ChunkSize))})
	return r, nil
}

// power opens the flash file anew, as a real start would, and runs the board until
// stop says so.
func (d *demo) power(ctx context.Context, stop func(*device.Updater, device.Event) bool) error {
	chip, err := nor.Open(d.flashFile(), nor.Config{Seed: 1})
	if err != nil {
		return err
	}
	d.b.Chip = chip
	d.line.clock.power(chip)
	done := false
	var up *device.Updater
	app := board.App{
		Transport: d, PollMillis: demoPoll, Seed: 1,
		OnBoot: d.log.booted,
		OnStart: func(u *device.Updater, b board.Boot) {
			up, d.running = u, b.Running
			d.log.started(u, b)
		},
		OnEvent: func(e device.Event) {
			d.log.event(e)
			d.line.clock.event(e)
			d.observe(e, d.log.ram)
			done = done || stop(up, e)
		},
		Stop: func() bool {
			d.log.step()
			if up != nil {
				st := up.Status()
				d.look(st, d.log.ram)
				d.line.clock.step(st.Phase)
			}
			return done
		},
	}
	d.identify(&app)
	err = d.b.Run(ctx, boot.ResetPowerOn, app)
	d.dev.Close() // the power is off: so are its connections
	return errors.Join(err, chip.Close(), d.log.err)
}

// cut pulls the plug at half of B.
func (d *demo) cut(ctx context.Context) error {
	sent, received := d.dev.Traffic()
	d.wireBytes = -sent - received
	err := d.power(ctx, func(_ *device.Updater, e device.Event) bool {
		if e.Kind == device.EventChunk && int(e.Bytes) >= len(d.imgB)/2 {
			d.row("power cut", e.Bytes, nil)
			d.b.Chip.CutPower()
		}
		// B is not finished before the cut: then there is no cut to show.
		return e.Kind == device.EventFailed || e.Kind == device.EventStaged
	})
	if err == nil {
		return errors.New("the download ended before the power cut")
	}
	if !errors.Is(err, board.ErrPowerCut) {
		return err
	}
	d.log.emit(boardEvent{Event: "power_cut", Text: "inside a flash operation"})
	return nil
}

func (d *demo) resume(ctx context.Context) error {
	resumed, confirmed := false, false
	var failed error
	err := d.power(ctx, func(_ *device.Updater, e device.Event) bool {
		resumed = resumed || e.Kind == device.EventResume && e.Bytes > 0
		confirmed = confirmed || e.Kind == device.EventConfirmed
		if e.Kind == device.EventFailed {
			failed = fmt.Errorf("release B failed: %s", e.Reason)
		}
		return failed != nil || confirmed && e.Kind == device.EventUpToDate
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case !resumed:
		return errors.New("the download started over instead of resuming")
	}
	sent, received := d.dev.Traffic()
	d.wireBytes += sent + received
	if err := d.holds(ctx, "B", d.imgB, "confirmed"); err != nil || d.kind == board.V1 {
		return err
	}
	return d.uninterrupted(ctx)
}

func (d *demo) goBack(ctx context.Context) error {
	before := d.running
	staged, crashed := false, false
	var failed error
	err := d.power(ctx, func(_ *device.Updater, e device.Event) bool {
		staged = staged || e.Kind == device.EventStaged && e.Slot != before
		switch {
		case e.Kind == device.EventConfirmed:
			failed = errors.New("release C was confirmed, though it crashes")
		case e.Kind == device.EventFailed && e.Reason == device.ReasonCrashed:
			crashed = true
		case e.Kind == device.EventFailed:
			failed = fmt.Errorf("release C failed, but did not crash: %s", e.Reason)
		}
		return failed != nil || crashed && e.Kind == device.EventUpToDate
	})
	switch {
	case err != nil:
		return err
	case failed != nil:
		return failed
	case !staged:
		return errors.New("release C was never started")
	case !crashed:
		return errors.New("the board did not notice that C crashed")
	}
	if err := d.holds(ctx, "B", d.imgB, "reverted"); err != nil {
		return err
	}
	d.rolledBack = d.running == before
	return nil
}

// holds checks from outside: the flash file boots the image, and the server shows
// the deployment's end.
func (d *demo) holds(ctx context.Context, version string, img []byte, state string) error {
	data, err := readBounded(d.flashFile(), inspect.MaxSize)
	if err != nil {
		return err
	}
	chip, err := nor.New(nor.Config{Size: uint32(len(data))})
	if err != nil {
		return err
	}
	if err := chip.Load(0, data); err != nil {
		return err
	}
	b := &board.Board{Chip: chip, ChipID: d.chipID}
	got, err := b.Boot()
	if err != nil {
		return err
	}
	t, err := b.Table()
	if err != nil {
		return err
	}
	p := t.Find(esp32.TypeApp, esp32.SubtypeOTA0+uint8(got.Running))
	if p == nil || !bytes.HasPrefix(data[p.Offset:], img) {
		return fmt.Errorf("slot %s does not hold %s byte for byte", slotName(got.Running), version)
	}
	dev, err := d.api.Device(ctx, demoDevice)
	if err != nil {
		return err
	}
	if dev.Deployment == nil || dev.Deployment.State != state {
		return fmt.Errorf("the server shows %s, not %s", deploymentOf(dev), state)
	}
	text := "server: " + dev.Deployment.Version + " " + dev.Deployment.State
	d.log.emit(boardEvent{Event: "checked", Slot: slotName(got.Running), Version: version, Text: text, Reason: dev.Deployment.Reason})
	return nil
}

func deploymentOf(d client.Device) string {
	if d.Deployment == nil {
		return "no deployment"
	}
	return deploymentText(d.Deployment)
}
