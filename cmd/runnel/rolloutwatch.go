package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
	"github.com/runnel-fota/runnel/internal/term"
)

func newRolloutWatchCmd(r *remote) *cobra.Command {
	var plain bool
	cmd := &cobra.Command{
		Use:   "watch ID",
		Short: "Follow a rollout until it ends",
		Long: `Shows a rollout live until it is complete, reverted, cancelled or superseded: a bar for
each phase, the failure rate's lower bound beside the threshold, the soak that is left,
why it stopped, and what happened last. q or ctrl-C leaves; the rollout goes on. A paused
one is waited for, and so is a server that is away for a while.

Where standard output is no terminal, or with --plain, it prints a line whenever something
changes. --json prints the rollout as 'runnel rollout show --json' does, one object a line.

Exit status 0: complete; 3: reverted; 4: cancelled; 5: superseded; 130: left before it
ended; 1: it could not be watched.`,
		Example: "  runnel rollout watch 1\n  runnel rollout watch 1 --json | jq -c .devices\n  runnel rollout watch 1 --plain && echo complete",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, id, err := r.rollout(args[0])
			if err != nil {
				return err
			}
			return watchRollout(cmd, c, id, r.json, plain)
		},
	}
	cmd.Flags().BoolVar(&plain, "plain", false, "print lines, on a terminal too")
	return cmd
}

// watchRollout follows one rollout to its end.
func watchRollout(cmd *cobra.Command, c *client.Client, id int64, asJSON, plain bool) error {
	ctx, leave := context.WithCancel(cmd.Context())
	defer leave()
	// The first look is not tried again: a wrong address or number is said at once.
	first, err := c.Rollout(ctx, id)
	if err != nil {
		return rolloutError(err)
	}
	w := &rolloutWatch{c: c, out: cmd.OutOrStdout(), errOut: cmd.ErrOrStderr(), json: asJSON}
	if f := terminal(cmd.OutOrStdout()); f != nil && !asJSON && !plain {
		w.view = term.Start(cmd.InOrStdin(), f, fmt.Sprintf("rollout %d at %s", id, c.Server()), term.Rollouts{}, leave)
	}
	err = w.follow(ctx, []client.Rollout{first}, func(ctx context.Context) ([]client.Rollout, error) { return looks(ctx, c, id) }, allEnded)
	if w.view != nil {
		err = errors.Join(err, w.view.Close())
	}
	if err != nil {
		return err
	}
	return rolloutEnd(w.list[0])
}

// looks looks at rollouts by their numbers.
func looks(ctx context.Context, c *client.Client, ids ...int64) (list []client.Rollout, err error) {
	for _, id := range ids {
		o, err := c.Rollout(ctx, id)
		if err != nil {
			return nil, err
		}
		list = append(list, o)
	}
	return list, nil
}

func allEnded(list []client.Rollout) bool {
	return !slices.ContainsFunc(list, func(o client.Rollout) bool { return !ended(o) })
}

// ended says whether nothing more is to come of it that is worth waiting for.
func ended(o client.Rollout) bool {
	s := fleet.RolloutState(o.State)
	return s == fleet.RolloutComplete || !s.InForce()
}

// rolloutEnd is how it ended, as an exit status.
func rolloutEnd(o client.Rollout) error {
	status := map[fleet.RolloutState]int{fleet.RolloutReverted: exitReverted, fleet.RolloutCancelled: exitCancelled, fleet.RolloutSuperseded: exitSuperseded}[fleet.RolloutState(o.State)]
	switch {
	case fleet.RolloutState(o.State) == fleet.RolloutComplete:
		return nil
	case status == 0:
		return &statusError{exitLeft, fmt.Sprintf("left before its end: rollout %d is %s and goes on without you", o.ID, o.State)}
	}
	return &statusError{status, fmt.Sprintf("rollout %d is %s: %s", o.ID, o.State, fleet.CleanText(o.Reason, fleet.MaxText))}
}

// watchEvery is how often a rollout is looked at: the server moves it once a second.
const watchEvery = time.Second

// rolloutWatch shows rollouts as they change: on a view, as lines, or as JSON.
type rolloutWatch struct {
	c           *client.Client
	out, errOut io.Writer
	view        *term.View // nil: lines
	json        bool
	figures     func() []string // of what else goes on, for the view; may be nil

	list    []client.Rollout // what is shown
	trouble string           // why the server is not heard; "": it is
	seen    int64            // the newest event that was looked at
	said    map[int64]string // by rollout: what the last line was made of
}

// follow looks until done says so of what it saw, or ctx has ended. What it saw last is
// in w.list.
func (w *rolloutWatch) follow(ctx context.Context, list []client.Rollout, look func(context.Context) ([]client.Rollout, error), done func([]client.Rollout) bool) error {
	tick := time.NewTicker(watchEvery)
	defer tick.Stop()
	for {
		w.list = list
		if err := w.show(ctx); err != nil || done(list) {
			return err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
		next, err := look(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if w.away(err) {
			continue
		}
		if err != nil {
			return rolloutError(err)
		}
		list = next
	}
}

// away notes whether the server was heard. Of what may pass by itself it says so, once.
func (w *rolloutWatch) away(err error) bool {
	code := fleet.CodeOf(err)
	away := err != nil && (code == fleet.CodeBusy || code == fleet.CodeInternal)
	was := w.trouble
	if w.trouble = ""; away {
		w.trouble = fmt.Sprintf("%s; trying again", fleet.CleanText(err.Error(), fleet.MaxText))
	}
	if w.view != nil || (was == "") == (w.trouble == "") {
		return away
	}
	text := w.trouble
	if text == "" {
		text = "the server answers again"
	}
	fmt.Fprintf(w.errOut, "%s  %s\n", stamp(time.Now()), text)
	return away
}

// show shows what changed.
func (w *rolloutWatch) show(ctx context.Context) error {
	if w.view != nil {
		w.say(ctx)
		p := term.Rollouts{Trouble: w.trouble}
		for _, o := range w.list {
			p.List = append(p.List, rolloutPicture(o))
		}
		if w.figures != nil {
			p.Figures = w.figures()
		}
		w.view.Show(p)
		return nil
	}
	if w.said == nil {
		w.said = map[int64]string{}
	}
	for _, o := range w.list {
		now := fmt.Sprint(o.Version, o.Counts)
		if w.said[o.ID] == now {
			continue
		}
		w.said[o.ID] = now
		if err := w.line(o); err != nil {
			return err
		}
	}
	return nil
}

// line is a rollout in one line.
func (w *rolloutWatch) line(o client.Rollout) error {
	if w.json {
		return json.NewEncoder(w.out).Encode(o)
	}
	n, p := o.Counts, o.Phases[o.Phase-1]
	waits := 0
	if p.Waits != nil {
		waits = *p.Waits
	}
	soak := ""
	if p.Left != "" {
		soak = "  soaks, " + p.Left + " left"
	}
	_, err := fmt.Fprintf(w.out, "%s  rollout %d %-10s  phase %d of %d (%s)  %s  %d under way, %d confirmed, %d failed, %d unproven  %s%s\n", stamp(time.Now()), o.ID, o.State, o.Phase, len(o.Phases),
		p.Takes, share(p.Counts.Confirmed, waits), n.Progress, n.Confirmed, n.Bad(), n.Unproven, fleet.CleanText(o.Reason, fleet.MaxText), soak)
	return err
}

// share is a bar of 20 for part of all.
func share(part, all int) string {
	const width = 20
	n := 0
	if all > 0 {
		n = min(part*width/all, width)
	}
	return "[" + strings.Repeat("#", n) + strings.Repeat(".", width-n) + "]"
}

// watchEvents is how much of the log a look goes through, and watchFirst how much the
// first one shows.
const (
	watchEvents = 200
	watchFirst  = 10
)

// say has the view tell what the log has of the rollouts since the last look. A log that
// can't be had now is one for the next look.
func (w *rolloutWatch) say(ctx context.Context) {
	if w.trouble != "" {
		return
	}
	events, _, err := w.c.Logs(ctx, "", watchEvents)
	if err != nil || len(events) == 0 {
		return
	}
	var lines []string
	for i := len(events) - 1; i >= 0; i-- { // oldest first
		if e := events[i]; e.ID > w.seen && w.concerns(e) {
			detail := e.Detail
			if e.Device != "" {
				detail = e.Device + "  " + detail
			}
			lines = append(lines, fmt.Sprintf("%s  %-14s %s", e.Time.UTC().Format(time.TimeOnly), e.Name, detail))
		}
	}
	if w.seen == 0 {
		lines = lines[max(0, len(lines)-watchFirst):]
	}
	w.seen = events[0].ID
	for _, l := range lines {
		w.view.Say(l)
	}
}

// concerns picks what somebody would look for who asks why a rollout moves or stops:
// its own events, and the failures of its release's devices.
func (w *rolloutWatch) concerns(e client.Event) bool {
	for _, o := range w.list {
		switch e.Name {
		case fleet.EventRollout, fleet.EventRolloutNo:
			rest, ok := strings.CutPrefix(e.Detail, "rollout "+strconv.FormatInt(o.ID, 10))
			if ok && (strings.HasPrefix(rest, " ") || strings.HasPrefix(rest, ":")) {
				return true
			}
		case fleet.EventFailed, fleet.EventBootFailed, fleet.EventRollback, fleet.EventVerificationFailed, fleet.EventForced:
			if e.Version == o.Release {
				return true
			}
		}
	}
	return false
}

// rolloutPicture is a rollout as the view draws it.
func rolloutPicture(o client.Rollout) term.Rollout {
	p := term.Rollout{ID: o.ID, Product: o.Product, Release: o.Release, State: o.State, Reason: o.Reason, To: o.To, OnFailure: o.OnFailure,
		Bad: o.Counts.Bad(), Judged: o.Counts.Bad() + o.Counts.Confirmed, Bound: o.FailureRate}
	for i, ph := range o.Phases {
		c := ph.Counts
		one := term.Phase{Number: ph.Number, Takes: ph.Takes, State: ph.State, Total: c.Offered, Confirmed: c.Confirmed, Failed: c.Failed, Silent: c.Silent, Unproven: c.Unproven,
			Progress: c.Progress, Aside: c.Aside, Uncounted: c.Uncounted}
		if ph.Waits != nil {
			one.Total = max(one.Total, *ph.Waits)
		}
		p.Phases = append(p.Phases, one)
		if i == o.Phase-1 {
			p.Threshold, p.SoakLeft = ph.Fail, ph.Left
		}
	}
	return p
}
