package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func newProductsCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:     "products",
		Aliases: []string{"product"},
		Short:   "Show and set what products take: signed releases only, v1 devices",
		Long: `Lists the products that something is said of. Those that are not listed take
unsigned images. A key list that names a product, or a signed release of it, makes it
take signed ones only; devices on the v1 wire, which has no signatures, then get
nothing of it.

--json prints {"policies":[{"product","signed_only","allow_v1","by_operator",
"rollouts_only"}]}.`,
		Example: "  runnel products\n  runnel products set acme/pump --allow-v1",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Policies(cmd.Context())
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"policies": append([]client.Policy{}, list...)})
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "nothing is said of any product: all take unsigned images")
				return nil
			}
			rows := [][]string{{"PRODUCT", "UNSIGNED IMAGES", "V1 DEVICES", "SAID BY", "GIVEN OUT"}}
			for _, p := range list {
				rows = append(rows, policyRow(p))
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	r.flags(cmd)
	var signedOnly, allowV1, rolloutsOnly bool
	set := &cobra.Command{
		Use:   "set PRODUCT",
		Short: "Say what a product takes",
		Long: `--signed-only refuses unsigned images on every way in; --signed-only=false takes them
again, whatever key lists say. --allow-v1 lets devices on the v1 wire have what is
signed too: they can't check it, and anybody on the network between can have them
take anything. --rollouts-only gives its releases to nobody but by rollouts: without it a
release that is pushed before the product's first rollout is for all of its devices.

--json prints the product as 'runnel products --json' shows it.`,
		Example: "  runnel products set acme/pump --signed-only\n  runnel products set acme/pump --allow-v1",
		Args:    exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fleet.ValidateProduct(args[0]); err != nil {
				return usagef("%v", err)
			}
			var only, v1, rollouts *bool
			if cmd.Flags().Changed("signed-only") {
				only = &signedOnly
			}
			if cmd.Flags().Changed("allow-v1") {
				v1 = &allowV1
			}
			if cmd.Flags().Changed("rollouts-only") {
				rollouts = &rolloutsOnly
			}
			if only == nil && v1 == nil && rollouts == nil {
				return usagef("neither --signed-only, --allow-v1 nor --rollouts-only is given").withHint("see 'runnel products set --help'")
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			p, err := c.SetPolicy(cmd.Context(), args[0], only, v1, rollouts)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), p)
			}
			return table(cmd.OutOrStdout(), [][]string{{"PRODUCT", "UNSIGNED IMAGES", "V1 DEVICES", "SAID BY", "GIVEN OUT"}, policyRow(p)})
		},
	}
	set.Flags().BoolVar(&signedOnly, "signed-only", false, "refuse unsigned images")
	set.Flags().BoolVar(&allowV1, "allow-v1", false, "serve devices on the v1 wire, which can't check signatures")
	set.Flags().BoolVar(&rolloutsOnly, "rollouts-only", false, "give its releases to nobody but by rollouts")
	cmd.AddCommand(set)
	return cmd
}

func policyRow(p client.Policy) []string {
	unsigned, v1, by := "taken", "served", "what is signed"
	if p.SignedOnly {
		unsigned = "refused"
	}
	if !p.AllowV1 {
		v1 = "not served"
	}
	out := "newest to all, or by rollouts"
	if p.RolloutsOnly {
		out = "by rollouts only"
	}
	if p.ByOperator {
		by = "an operator"
	}
	return []string{p.Product, unsigned, v1, by, out}
}
