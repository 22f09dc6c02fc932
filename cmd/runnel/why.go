package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func newWhyCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "why DEVICE",
		Short: "Say what a device would get now, and why",
		Long: `Says which release a device would get if it polled now, and each rule that decides so,
in order: by the function that decides for real, over what the device said last.
Below it, what the device was told last.

--json prints {"device","product","verdict","why","rollout","release","stream":{"kind",
"digest","sent"},"rules":[{"rule","rollout","result","text"}],"last_decisions":[{"time","verdict","rollout","version",
"why"}]}; result is pass, next, stop or offer; release is absent where there is nothing,
stream where it is the raw one.`,
		Example: "  runnel why pump-7\n  runnel why pump-7 --json",
		Args:    exactArgs("DEVICE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			y, err := c.Why(cmd.Context(), args[0])
			if err != nil {
				return deviceError(err)
			}
			w := cmd.OutOrStdout()
			if r.json {
				return printJSON(w, y)
			}
			gets := "nothing"
			if y.Release != "" {
				gets = y.Release
			}
			fmt.Fprintf(w, "%s of %s gets %s: %s\n\n", y.Device, y.Product, gets, fleet.CleanText(y.Why, fleet.MaxText))
			rows := [][]string{{"ROLLOUT", "RULE", "", "SAYS"}}
			for _, u := range y.Rules {
				rows = append(rows, []string{number(u.Rollout), u.Name, u.Result, u.Text})
			}
			if err := table(w, rows); err != nil || len(y.Last) == 0 {
				return err
			}
			fmt.Fprintln(w, "\nit was told")
			rows = [][]string{{"TIME (UTC)", "ROLLOUT", "VERDICT", "SAYS"}}
			for _, k := range y.Last {
				rows = append(rows, []string{stamp(k.Time), number(k.Rollout), k.Verdict, k.Why})
			}
			return table(w, rows)
		},
	}
	r.flags(cmd)
	return cmd
}

// number is a rollout's; "": none.
func number(n int64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatInt(n, 10)
}

// filterError is the mistake in a filter; nil: there is none.
func filterError(err error) *fleet.FilterError {
	var f *fleet.FilterError
	if errors.As(err, &f) {
		return f
	}
	return nil
}

func newGroupCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:     "group",
		Aliases: []string{"groups"},
		Short:   "Filters over devices with names, for phases of rollouts",
		Long: `A group is a filter with a name: who is in it is looked at with each poll. A phase
"group:NAME" of a rollout takes its devices.

--json prints what each verb says.`,
		Example: "  runnel group create beta --filter '\"beta\" in tags'\n  runnel group list",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	r.flags(cmd)
	var g client.Group
	create := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a group, or change its filter",
		Long: `Makes a group or changes its filter, which counts for rollouts that are under way too.

--json prints {"name","product","filter","changed_at"}.`,
		Example: "  runnel group create beta --filter '\"beta\" in tags'\n  runnel group create old --filter 'older(\"1.4.0\") and hardware == \"r2\"'",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if g.Filter == "" {
				return usagef("--filter is missing").withHint("true takes every device")
			}
			if err := checkFilter("--filter", g.Filter); err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			g.Name = args[0]
			out, err := c.SetGroup(cmd.Context(), g)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "group %s takes %s\n", out.Name, out.Filter)
			return nil
		},
	}
	create.Flags().StringVar(&g.Filter, "filter", "", "`expression` over devices")
	create.Flags().StringVar(&g.Product, "product", "", "the `product` that it is for, for people")
	list := &cobra.Command{
		Use:     "list",
		Short:   "List groups",
		Long:    "Lists groups by their names.\n\n--json prints {\"groups\":[{\"name\",\"product\",\"filter\",\"changed_at\"}]}.",
		Example: "  runnel group list --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return r.listGroups(cmd, "")
		},
	}
	show := &cobra.Command{
		Use:     "show NAME",
		Short:   "Show one group",
		Long:    "Shows one group.\n\n--json prints it as 'runnel group create --json' does.",
		Example: "  runnel group show beta",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return r.listGroups(cmd, args[0])
		},
	}
	remove := &cobra.Command{
		Use:     "delete NAME",
		Short:   "Delete a group that no rollout in force needs",
		Long:    "Deletes a group. One that a rollout in force has in a phase stays.\n\n--json prints {\"name\"}.",
		Example: "  runnel group delete beta",
		Args:    exactArgs("NAME"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			if err := c.DeleteGroup(cmd.Context(), args[0]); err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"name": args[0]})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "deleted group %s\n", args[0])
			return nil
		},
	}
	cmd.AddCommand(create, list, show, remove)
	return cmd
}

// listGroups shows all groups, or the one of that name.
func (r *remote) listGroups(cmd *cobra.Command, name string) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	list, err := c.Groups(cmd.Context())
	if err != nil {
		return err
	}
	w := cmd.OutOrStdout()
	if name != "" {
		for _, g := range list {
			if g.Name != name {
				continue
			}
			if r.json {
				return printJSON(w, g)
			}
			return table(w, [][]string{{"group", g.Name}, {"product", g.Product}, {"filter", g.Filter}, {"changed", stamp(g.ChangedAt)}})
		}
		return hinted(fleet.Errorf(fleet.CodeNotFound, "there is no group %q", name), "'runnel group list' lists them")
	}
	if r.json {
		return printJSON(w, map[string]any{"groups": append([]client.Group{}, list...)})
	}
	rows := [][]string{{"GROUP", "PRODUCT", "FILTER", "CHANGED (UTC)"}}
	for _, g := range list {
		rows = append(rows, []string{g.Name, g.Product, g.Filter, stamp(g.ChangedAt)})
	}
	return table(w, rows)
}

// newLabelCmd is a verb of 'runnel devices'.
func newLabelCmd(r *remote) *cobra.Command {
	var tags, attributes []string
	cmd := &cobra.Command{
		Use:   "label ID",
		Short: "Say a device's tags and attributes, for filters",
		Long: `Says a device's tags and attributes: they replace those before, all of them. The
attribute timezone (like Europe/Berlin) is where its maintenance window is.

--json prints the device as 'runnel devices --json' shows it.`,
		Example: "  runnel devices label pump-7 --tag beta --attr site=bremen --attr timezone=Europe/Berlin\n  runnel devices label pump-7",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			values := map[string]string{}
			for _, a := range attributes {
				k, v, ok := strings.Cut(a, "=")
				if !ok {
					return usagef("--attr %q has no value", a).withHint("write it like site=bremen")
				}
				values[k] = v
			}
			if err := fleet.ValidateTags(tags, values); err != nil {
				return usagef("%v", err)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			d, err := c.SetLabels(cmd.Context(), args[0], tags, values)
			if err != nil {
				return deviceError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s has %d tags and %d attributes\n", d.ID, len(d.Tags), len(d.Attributes))
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&tags, "tag", nil, "a `tag`; may be said again")
	cmd.Flags().StringArrayVar(&attributes, "attr", nil, "`name=value`; may be said again")
	return cmd
}
