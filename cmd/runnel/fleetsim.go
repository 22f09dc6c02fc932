package main

import (
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/core/esp32"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/inspect"
	"github.com/runnel-fota/runnel/sim/board"
)

func newFleetCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "fleet",
		Short:   "Simulate a fleet of boards",
		Long:    "Simulates a fleet of boards against a real server.",
		Example: "  runnel fleet sim --devices 1000 --product acme/pump --root keys/root.pub",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newFleetSimCmd())
	return cmd
}

// fleetOptions is what runnel fleet sim is called with, and what that says.
type fleetOptions struct {
	remote
	boardTrust
	devices, concurrency    int
	product, hardware       string
	chip, app               string
	prefix, keys, token     string
	poll, trial, ramp, last time.Duration // last: --for
	speed                   float64
	fail, silent, mute      string
	how, failOn, release    string
	rollouts                []int64
	seed                    uint64
	plain                   bool

	image                              []byte // that boards start with
	chipID                             uint16
	kinds                              []hardwareKind
	failShare, silentShare, mutedShare float64
	filter                             *fleet.Filter
}

// hardwareKind is a kind of hardware and how many parts of the fleet are of it.
type hardwareKind struct {
	name  string
	parts int
}

const (
	maxSimDevices = 1_000_000
	maxSimBenches = 1024
)

func newFleetSimCmd() *cobra.Command {
	o := &fleetOptions{}
	cmd := &cobra.Command{
		Use:   "sim",
		Short: "Have very many virtual boards poll a server and take its releases",
		Long: `Runs very many boards against a running server, over the native wire: each has the real
device core, boot records, state, a journal and two slots in flash. They poll, take what
is on offer, prove it, restart, try it, confirm it or go back, and report, as boards do.
What they hold in common they share in memory, so that one is a few kilobytes.

Devices are made known by the operator's API (which needs its token), or with --token-file
by an enrolment token, as 'runnel tokens add' makes one. They have new ids and keys each time, unless --keys
names a file. They stay known to the server.

Failures are drawn for each device and release, from --seed: --fail crashes the new image
at its start (or has its self-test fail: --fail-how self-test), --silent takes it and is
never heard of again, --unproven reaches no server with it. --fail-on names devices by a
filter, as 'runnel rollout create --to' does, over id, product, hardware, chip and version,
which is the new image's. --bad-release keeps all of it to one release.

--poll, --trial, --ramp and --for are in your time. --speed has the boards' own clock run
faster, so that what a release or the device core waits for comes sooner: trials,
back-offs, another try of an unproven image. The server's clock it can't move.

On a terminal it shows the product's rollouts live; else a line every five seconds. It ends
at ctrl-C, after --for, or when each rollout that --rollout names has ended. With --json it
prints one object at the end: {"devices","seconds","polls","polls_per_second","offers",
"confirmed","failed","reasons","rolled_back","unproven","silent","bytes_received",
"poll_latency_ms","ram_per_device",...,"rollouts":[...]}.

Exit status with --rollout: that of 'runnel rollout watch', of the first that is not complete.`,
		Example: `  runnel fleet sim --devices 1000 --product acme/pump --root keys/root.pub --poll 10s
  runnel fleet sim --devices 10000 --product acme/pump --root keys/root.pub --fail 2% --silent 1% --rollout 3 --json
  runnel fleet sim --devices 200 --product acme/pump --root keys/root.pub --hardware r1:9,r2:1 \
    --fail-on 'hardware == "r2"' --bad-release 1.5.0
  runnel fleet sim --devices 50 --product acme/pump --root keys/root.pub --token-file line-3.token --for 10m`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(cmd); err != nil {
				return err
			}
			return simulateFleet(cmd, o)
		},
	}
	o.remote.flags(cmd)
	o.trustFlags(cmd, "")
	f := cmd.Flags()
	f.IntVar(&o.devices, "devices", 100, "how many")
	f.StringVar(&o.product, "product", "", "the `product` that they are")
	f.StringVar(&o.hardware, "hardware", "", "`kinds` of hardware with their parts of the fleet, like r1:9,r2:1 (default: the chip's name)")
	f.StringVar(&o.chip, "chip", "esp32", "the `chip` that they have")
	f.StringVar(&o.app, "app", "", "`image` that they start with, which says the chip (default: one is made)")
	f.StringVar(&o.prefix, "id-prefix", "", "what ids begin with (default: sim-, and something new each time)")
	f.StringVar(&o.keys, "keys", "", "`file` that their keys and ids follow from; made where it is not there. With it, the same devices come again")
	f.StringVar(&o.token, "token-file", "", "`file` with an enrolment token; - is standard input")
	f.DurationVar(&o.poll, "poll", 10*time.Second, "`time` between polls; 0: as the server says")
	f.DurationVar(&o.trial, "trial", 0, "`time` that a trial may take where the release does not say (default 5m)")
	f.DurationVar(&o.ramp, "ramp", 0, "`time` over which they start (default: as --poll, a minute at most)")
	f.DurationVar(&o.last, "for", 0, "end after this `time`; 0: at ctrl-C, or with --rollout")
	f.Float64Var(&o.speed, "speed", 1, "how many `times` as fast the boards' clock runs")
	f.IntVar(&o.concurrency, "concurrency", 32, "`boards` that speak to the server at once")
	f.StringVar(&o.fail, "fail", "0%", "`share` of devices on which a new image fails")
	f.StringVar(&o.how, "fail-how", "crash", "how: `crash` or self-test")
	f.StringVar(&o.failOn, "fail-on", "", "`filter`: the new image fails on these devices too")
	f.StringVar(&o.silent, "silent", "0%", "`share` of devices that fall silent with a new image")
	f.StringVar(&o.mute, "unproven", "0%", "`share` of devices that reach no server with a new image")
	f.StringVar(&o.release, "bad-release", "", "`version`: failures come with this release only")
	f.Int64SliceVar(&o.rollouts, "rollout", nil, "end when the rollout of this `number` ends; may be repeated")
	f.Uint64Var(&o.seed, "seed", 0, "what failures are drawn from (default: said at the start)")
	f.BoolVar(&o.plain, "plain", false, "print lines, on a terminal too")
	return cmd
}

// check finds what is wrong with the call, before anything is made.
func (o *fleetOptions) check(cmd *cobra.Command) error {
	switch {
	case o.product == "":
		return usagef("--product is missing").withHint("boards take releases of their own product only, e.g. --product acme/pump")
	case fleet.ValidateProduct(o.product) != nil:
		return usagef("%v", fleet.ValidateProduct(o.product))
	case o.devices < 1 || o.devices > maxSimDevices:
		return usagef("--devices %d: from 1 to %d", o.devices, maxSimDevices)
	case o.concurrency < 1 || o.concurrency > maxSimBenches:
		return usagef("--concurrency %d: from 1 to %d", o.concurrency, maxSimBenches)
	case !(o.speed >= 0.01 && o.speed <= 10_000):
		return usagef("--speed %v: from 0.01 to 10000", o.speed)
	case o.poll != 0 && (o.poll < 10*time.Millisecond || o.poll > 24*time.Hour):
		return usagef("--poll %v: from 10ms to 24h, or 0", o.poll)
	case o.trial < 0 || o.trial > 24*time.Hour || o.ramp < 0 || o.last < 0:
		return usagef("--trial is up to 24h, and no time is below 0")
	case o.how != "crash" && o.how != "self-test":
		return usagef("--fail-how %s: it is crash or self-test", o.how)
	case o.keys != "" && (o.token != "" || o.prefix != ""):
		return usagef("--keys goes without --token-file and --id-prefix").withHint("a token makes a device known once; the file has the prefix in it")
	case o.prefix != "" && fleet.ValidateDeviceID(simID(o.prefix, o.devices)) != nil:
		return usagef("--id-prefix %q makes no device's id", o.prefix)
	}
	for _, f := range []struct {
		flag, text string
		to         *float64
	}{{"--fail", o.fail, &o.failShare}, {"--silent", o.silent, &o.silentShare}, {"--unproven", o.mute, &o.mutedShare}} {
		var err error
		if *f.to, err = fleet.ParseShare(f.text); err != nil {
			return usagef("%s: %v", f.flag, err).withHint("write it like 2%%")
		}
	}
	if o.failShare+o.silentShare+o.mutedShare > 1 {
		return usagef("--fail, --silent and --unproven are more than all devices together")
	}
	if err := checkFilter("--fail-on", o.failOn); err != nil {
		return err
	}
	if o.failOn != "" {
		f, err := fleet.ParseFilter(o.failOn)
		if err != nil {
			return err
		}
		o.filter = &f
	}
	if err := o.checkTrust(cmd); err != nil {
		return err
	}
	if !cmd.Flags().Changed("ramp") {
		o.ramp = min(o.poll, time.Minute)
	}
	if !cmd.Flags().Changed("seed") {
		o.seed = rand.Uint64() >> 32 // short enough to be typed
	}
	if err := o.readImage(cmd); err != nil {
		return err
	}
	return o.readHardware()
}

// readImage is the image that the boards start with, and their chip.
func (o *fleetOptions) readImage(cmd *cobra.Command) (err error) {
	if o.app != "" {
		if cmd.Flags().Changed("chip") {
			return usagef("--app says the chip: --chip goes without it")
		}
		if o.image, err = readBounded(o.app, 16<<20); err != nil {
			return err
		}
		im, at, err := inspect.ReadImage(o.image)
		if err != nil {
			return hinted(fmt.Errorf("%s: %w at offset 0x%x", o.app, err, at), "'runnel inspect %s' shows what the file holds", o.app)
		}
		o.chipID = im.ChipID
		return nil
	}
	const chips = 64 // ids given by ESP-IDF are far below
	var names []string
	for id := range uint16(chips) {
		if esp32.ChipName(id) == "" {
			continue
		}
		if chipHardware(id) == o.chip {
			o.chipID = id
			o.image, err = board.BuildImage(board.ImageSpec{Size: 32 << 10, Chip: id, Project: "runnel-fleet", Version: "0.0.0"})
			return err
		}
		names = append(names, chipHardware(id))
	}
	return usagef("--chip %s is not known", o.chip).withHint("it is one of %s", strings.Join(names, ", "))
}

// readHardware reads r1:9,r2:1.
func (o *fleetOptions) readHardware() error {
	text := o.hardware
	if text == "" {
		if text = chipHardware(o.chipID); text == "" {
			return usagef("--hardware is missing").withHint("the image names no chip that is known")
		}
	}
	for _, part := range strings.Split(text, ",") {
		name, parts, weighed := strings.Cut(strings.TrimSpace(part), ":")
		k := hardwareKind{parts: 1}
		if weighed {
			n, err := strconv.ParseUint(parts, 10, 16)
			if err != nil {
				return usagef("--hardware %s: %q is no number of parts", text, parts).withHint("write it like r1:9,r2:1")
			}
			k.parts = int(n)
		}
		list, err := parseHardware([]string{name})
		if err != nil {
			return err
		}
		k.name = string(list[0])
		o.kinds = append(o.kinds, k)
	}
	sum := 0
	for _, k := range o.kinds {
		sum += k.parts
	}
	if sum == 0 {
		return usagef("--hardware %s has no parts", text)
	}
	return nil
}

// hardwareOf is the hardware of device i: kinds take turns by their parts, so that a
// small fleet has its share of each.
func (o *fleetOptions) hardwareOf(i int) string {
	sum := 0
	for _, k := range o.kinds {
		sum += k.parts
	}
	for i %= sum; ; {
		for _, k := range o.kinds {
			if i < k.parts {
				return k.name
			}
			i -= k.parts
		}
	}
}

func simID(prefix string, i int) string { return fmt.Sprintf("%s%06d", prefix, i) }
