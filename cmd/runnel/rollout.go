package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const rolloutJSON = `--json prints {"id","product","release","state","phase","phases":[{"number","takes",
"state","waits_for","devices":{...}}],"reason","to","on_failure","devices":{"offered",
"progress","confirmed","failed","silent","unproven","aside","uncounted",...},
"failure_rate_at_least","version",...}.`

func newRolloutCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:     "rollout",
		Aliases: []string{"rollouts"},
		Short:   "Move a release to a fleet, phase by phase",
		Long: `A rollout takes one release to the devices that a filter names, in phases. It goes on
by itself while devices confirm, stops by itself when too many fail, and says why. A
product that never had a rollout gives its newest release to all of its devices.

--json prints what each verb says.`,
		Example: `  runnel rollout create --product acme/pump --release 1.4.0 --phases "1,10%,100%"
  runnel rollout list
  runnel rollout watch 1
  runnel rollout pause 1 --reason "storm in the north"
  runnel why pump-7`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r.flags(cmd)
	cmd.AddCommand(newRolloutCreateCmd(r), newRolloutListCmd(r), newRolloutShowCmd(r), newRolloutWatchCmd(r))
	for _, c := range []struct {
		say         fleet.Command
		short, long string
	}{
		{fleet.CommandPause, "Offer it to nobody, as of now", "Devices that are downloading are not stopped; none begins and none is given it again."},
		{fleet.CommandResume, "Go on, and forgive what stopped it", "Failures until now count no more; those from now on do."},
		{fleet.CommandCancel, "End it: downloads are cancelled, who runs the release keeps it", "It can't be taken up again: make another one."},
		{fleet.CommandRevert, "End it, and order back who runs the release by it", "Each device goes back to the image that it confirmed before, if that is still in its other slot."},
	} {
		cmd.AddCommand(newRolloutSayCmd(r, c.say, c.short, c.long))
	}
	cmd.AddCommand(newRolloutForceCmd(r))
	return cmd
}

func newRolloutCreateCmd(r *remote) *cobra.Command {
	n := client.NewRollout{}
	var start string
	quarantine := fleet.DefaultQuarantine
	cmd := &cobra.Command{
		Use:   "create",
		Short: "Begin a rollout",
		Long: `Begins a rollout of a release. --to is a filter over devices; without one it is for
every device of the product. --phases adds up: numbers of devices first, then percent
and groups. It moves on when enough of a phase's devices confirmed (--success-threshold,
--soak), and stops when more fail than --fail-threshold for sure: by the lower bound of
the failure rate, so that one failure among three does not read as 33 %.

` + rolloutJSON,
		Example: `  runnel rollout create --release 1.4.0 --product acme/pump --phases "1,10%,100%" --fail-threshold 20% --on-failure pause
  runnel rollout create --release 1.4.0 --product acme/pump --to 'hardware == "r2" and not ("lab" in tags)' \
    --phases "group:beta,5%,100%" --soak 24h --on-failure revert --window 22:00-04:30 --concurrency 200`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			switch {
			case n.Product == "":
				return usagef("--product is missing")
			case n.Release == "" && n.Channel == "":
				return usagef("--release is missing").withHint("name a version; 'runnel releases' lists them; or a channel, for the newest in it")
			case n.Release != "" && n.Channel != "":
				return usagef("--release and --channel exclude each other")
			case n.OnFailure != fleet.OnFailurePause && n.OnFailure != fleet.OnFailureRevert:
				return usagef("--on-failure is %q, not pause or revert", n.OnFailure)
			}
			if err := checkFilter("--to", n.To); err != nil {
				return err
			}
			if start != "" {
				t, err := time.Parse(time.RFC3339, start)
				if err != nil {
					return usagef("--start-at is %q", start).withHint("write it like 2026-12-24T22:00:00+01:00")
				}
				n.StartAt = &t
			}
			if cmd.Flags().Changed("quarantine") {
				n.Quarantine = &quarantine
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			out, err := c.CreateRollout(cmd.Context(), n)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			return showRollout(cmd, out)
		},
	}
	f := cmd.Flags()
	f.StringVar(&n.Product, "product", "", "the `product`")
	f.StringVar(&n.Release, "release", "", "`version` of the release")
	f.StringVar(&n.Channel, "channel", "", "in place of --release: the newest release in that `channel`")
	f.StringVar(&n.To, "to", "", "`filter` over devices; none: all of the product")
	f.StringVar(&n.Phases, "phases", "1,10%,100%", "`list` of numbers, percent and group:NAME")
	f.StringVar(&n.Success, "success-threshold", "80%", "`share` of a phase's devices that have to confirm")
	f.StringVar(&n.Fail, "fail-threshold", "20%", "`share` of failures above which it stops, by the lower bound")
	f.StringVar(&n.OnFailure, "on-failure", fleet.OnFailurePause, "`pause` or revert")
	f.StringVar(&n.Soak, "soak", "", "`time` between a phase's success and the next phase, like 24h")
	f.StringVar(&n.Most, "max-duration", fleet.DefaultMost.String(), "`time` after which a phase pauses it; 0: any")
	f.StringVar(&n.Silence, "silence", fleet.DefaultSilence.String(), "`time` after which a device that took the image and is not heard of has failed")
	f.StringVar(&start, "start-at", "", "`time` at which it begins (RFC 3339)")
	f.StringVar(&n.Window, "window", "", "`HH:MM-HH:MM` in which updates begin, in each device's time zone (attribute timezone; else UTC)")
	f.IntVar(&n.Concurrency, "concurrency", 0, "devices on their way at `once`; 0: any number")
	f.Int64Var(&n.Rate, "rate", 0, "`bytes` a second of streams that begin; 0: any")
	f.IntVar(&n.MinRevert, "min-revert", fleet.DefaultMinRevert, "`devices` with own keys that have to fail before it reverts by itself")
	f.StringVar(&n.Assurance, "assurance", string(fleet.AssuranceOwn), "least of devices that count: `own` or shared")
	f.Float64Var(&n.Backoff, "backoff-scale", 1, "`factor` on the waits between tries of what failed, 0.01 to 100")
	f.IntVar(&quarantine, "quarantine", fleet.DefaultQuarantine, "`failures` in a row from which a device gets nothing; 0: any number")
	return cmd
}

// checkFilter shows where a filter is wrong before the server is asked.
func checkFilter(flag, text string) error {
	_, err := fleet.ParseFilter(text)
	if f := filterError(err); f != nil {
		return usagef("%s: column %d: %s\n  %s", flag, f.Column, f.Reason, strings.ReplaceAll(f.Caret(), "\n", "\n  ")).
			withHint(`write it like hardware == "r2" and "beta" in tags; docs/design/rollouts.md lists what it may look at`)
	}
	return err
}

func newRolloutListCmd(r *remote) *cobra.Command {
	var product string
	cmd := &cobra.Command{
		Use:     "list",
		Short:   "List rollouts, newest first",
		Long:    "Lists rollouts, newest first.\n\n--json prints {\"rollouts\":[...]}, each as 'runnel rollout show --json' shows it.",
		Example: "  runnel rollout list\n  runnel rollout list --product acme/pump --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Rollouts(cmd.Context(), product)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"rollouts": append([]client.Rollout{}, list...)})
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "there is no rollout: devices get the newest release of their product")
				return nil
			}
			rows := [][]string{{"ID", "PRODUCT", "RELEASE", "STATE", "PHASE", "CONFIRMED", "FAILED", "TO"}}
			for _, o := range list {
				rows = append(rows, []string{strconv.FormatInt(o.ID, 10), o.Product, o.Release, o.State, fmt.Sprintf("%d of %d", o.Phase, len(o.Phases)),
					strconv.Itoa(o.Counts.Confirmed), strconv.Itoa(o.Counts.Bad()), o.To})
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "only this `product`'s")
	return cmd
}

func newRolloutShowCmd(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "show ID",
		Short:   "Show one rollout, its phases and its devices",
		Long:    "Shows a rollout with its phases, and what became of their devices.\n\n" + rolloutJSON,
		Example: "  runnel rollout show 1\n  runnel rollout show 1 --json",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := r.rollout(args[0])
			if err != nil {
				return err
			}
			o, err := c.Rollout(cmd.Context(), id)
			if err != nil {
				return rolloutError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), o)
			}
			return showRollout(cmd, o)
		},
	}
}

// rollout is the client, and a rollout's number.
func (r *remote) rollout(arg string) (*client.Client, int64, error) {
	id, err := strconv.ParseInt(arg, 10, 64)
	if err != nil || id < 1 {
		return nil, 0, usagef("%q is no rollout's number", arg).withHint("'runnel rollout list' shows them")
	}
	c, err := r.client()
	return c, id, err
}

func rolloutError(err error) error {
	if fleet.CodeOf(err) == fleet.CodeNotFound {
		return hinted(err, "'runnel rollout list' lists them")
	}
	return err
}

func showRollout(cmd *cobra.Command, o client.Rollout) error {
	to := o.To
	if to == "" {
		to = "every device of " + o.Product
	}
	rows := [][]string{{"rollout", strconv.FormatInt(o.ID, 10)}, {"release", o.Product + " " + o.Release}, {"to", to}, {"state", o.State}, {"because", o.Reason}, {"on failure", o.OnFailure},
		{"failing", fmt.Sprintf("%d of %d, at least %.1f%%", o.Counts.Bad(), o.Counts.Bad()+o.Counts.Confirmed, 100*o.FailureRate)}}
	if o.StartAt != nil {
		rows = append(rows, []string{"begins", stamp(*o.StartAt)})
	}
	if o.Window != "" {
		rows = append(rows, []string{"window", o.Window})
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout())
	list := [][]string{{"PHASE", "TAKES", "STATE", "WAITS FOR", "OFFERED", "UNDER WAY", "CONFIRMED", "FAILED", "SILENT", "UNPROVEN", "ASIDE", "NOT COUNTED"}}
	for _, p := range o.Phases {
		waits := ""
		if p.Waits != nil {
			waits = strconv.Itoa(*p.Waits)
		}
		row := []string{strconv.Itoa(p.Number), p.Takes, p.State, waits}
		c := p.Counts
		for _, n := range []int{c.Offered, c.Progress, c.Confirmed, c.Failed, c.Silent, c.Unproven, c.Aside, c.Uncounted} {
			row = append(row, strconv.Itoa(n))
		}
		list = append(list, row)
	}
	return table(cmd.OutOrStdout(), list)
}

func newRolloutSayCmd(r *remote, say fleet.Command, short, long string) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     string(say) + " ID",
		Short:   short,
		Long:    short + ".\n\n" + long + "\n\n" + rolloutJSON,
		Example: fmt.Sprintf("  runnel rollout %s 1 --reason \"storm in the north\"", say),
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := r.rollout(args[0])
			if err != nil {
				return err
			}
			o, err := c.Say(cmd.Context(), id, say, reason)
			if err != nil {
				return rolloutError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), o)
			}
			return showRollout(cmd, o)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that everybody is shown")
	return cmd
}

func newRolloutForceCmd(r *remote) *cobra.Command {
	var reason, device string
	cmd := &cobra.Command{
		Use:   "force ID",
		Short: "Begin the next phase now, or let one device have it now",
		Long: `Begins a rollout's next phase, whatever the one before has shown. With --device that
one device gets the release with its next poll, whatever phase, window, budgets and
quarantine say; a paused rollout gives nothing to it either.

` + rolloutJSON + ` With --device it prints the device.`,
		Example: "  runnel rollout force 1 --reason \"tested by hand\"\n  runnel rollout force 1 --device pump-7",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := r.rollout(args[0])
			if err != nil {
				return err
			}
			if device != "" {
				d, err := c.ForceDevice(cmd.Context(), id, device)
				if err != nil {
					return err
				}
				if r.json {
					return printJSON(cmd.OutOrStdout(), d)
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s gets rollout %d with its next poll; 'runnel why %s' tells\n", device, id, device)
				return nil
			}
			o, err := c.Say(cmd.Context(), id, fleet.CommandForce, reason)
			if err != nil {
				return rolloutError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), o)
			}
			return showRollout(cmd, o)
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`text` that everybody is shown")
	cmd.Flags().StringVar(&device, "device", "", "only this `device`")
	return cmd
}
