package main

import (
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

const productJSON = `{"product","signed_only","allow_v1","by_operator",
"rollouts_only","signers":["KEY"],"least_assurance","least_wire","confirm",
"chunk_sizes":[N],"hardware":["NAME"]}`

func newProductsCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:     "products",
		Aliases: []string{"product"},
		Short:   "Show and set what products take and ask",
		Long: `Lists the products that something is said of. Those that are not listed take
unsigned images. A key list that names a product, or a signed release of it, makes it
take signed ones only; devices on the v1 wire, which has no signatures, then get
nothing of it.

--json prints {"policies":[` + productJSON + `]}.`,
		Example: "  runnel products\n  runnel products show acme/pump\n  runnel products set acme/pump --allow-v1",
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
			rows := [][]string{policyHeads}
			for _, p := range list {
				rows = append(rows, policyRow(p))
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	r.flags(cmd)
	cmd.AddCommand(newProductShowCmd(r), newProductSetCmd(r))
	return cmd
}

func newProductShowCmd(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "show PRODUCT",
		Short:   "Show what one product takes and asks",
		Long:    "Shows what one product takes and asks.\n\n--json prints " + productJSON + ".",
		Example: "  runnel products show acme/pump\n  runnel products show acme/pump --json",
		Args:    exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fleet.ValidateProduct(args[0]); err != nil {
				return usagef("%v", err)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Policies(cmd.Context())
			if err != nil {
				return err
			}
			for _, p := range list {
				if p.Product == args[0] {
					return showPolicy(cmd, r, p)
				}
			}
			return hinted(fleet.Errorf(fleet.CodeNotFound, "nothing is said of %s: it takes unsigned images, and asks nothing", args[0]), "'runnel products set' says something")
		},
	}
}

func newProductSetCmd(r *remote) *cobra.Command {
	var signedOnly, allowV1, rolloutsOnly, anySigner, anyHardware bool
	var signers, hardware []string
	var assurance, wire, confirm, chunks string
	cmd := &cobra.Command{
		Use:   "set PRODUCT",
		Short: "Say what a product takes and asks",
		Long: `--signed-only refuses unsigned images on every way in; --signed-only=false takes them
again, whatever key lists say. --allow-v1 lets devices on the v1 wire have what is
signed too: they can't check it, and anybody on the network between can have them
take anything. --rollouts-only gives its releases to nobody but by rollouts: without it a
release that is pushed before the product's first rollout is for all of its devices.

The rest are the product's terms. They ask for more than key lists and devices do, hold for
each push and for each decision ('runnel why' names them), and leave what is not said:

  --signer KEY         only these release keys may sign, as many as the key list's threshold
                       asks for; --any-signer takes that back. What others signed is
                       refused, and offered no more.
  --least-assurance A  serve devices whose identity is known as well as that: own (a key of
                       their own), shared (the product's key), none
  --least-wire W       serve devices that believe releases by that, or better: signed,
                       mac-only, v1
  --confirm C          trial: only devices whose bootloader goes back by itself, as they
                       say; contact: and only releases that want an answer of the server
                       before they are confirmed; any
  --chunk-sizes LIST   sizes that images and streams are served in, the default of
                       'runnel push' first; any
  --hardware NAME      hardware that there is of the product; a push for other hardware, a
                       slip of the pen mostly, is refused. --any-hardware takes that back

--json prints the product as 'runnel products show --json' does.`,
		Example: `  runnel products set acme/pump --signed-only
  runnel products set acme/pump --signer 90b4c7a51f0e2d38 --least-wire signed
  runnel products set acme/pump --confirm contact --chunk-sizes 4096,1024`,
		Args: exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := fleet.ValidateProduct(args[0]); err != nil {
				return usagef("%v", err)
			}
			p := client.PolicyChange{Product: args[0]}
			said := false
			changed := func(name string) bool {
				yes := cmd.Flags().Changed(name)
				said = said || yes
				return yes
			}
			for name, f := range map[string]struct {
				value *bool
				to    **bool
			}{"signed-only": {&signedOnly, &p.SignedOnly}, "allow-v1": {&allowV1, &p.AllowV1}, "rollouts-only": {&rolloutsOnly, &p.RolloutsOnly}} {
				if changed(name) {
					*f.to = f.value
				}
			}
			for name, f := range map[string]struct {
				value *string
				to    **string
			}{"least-assurance": {&assurance, &p.LeastAssurance}, "least-wire": {&wire, &p.LeastWire}, "confirm": {&confirm, &p.Confirm}} {
				if changed(name) {
					*f.to = f.value
				}
			}
			if changed("any-signer") && anySigner {
				p.Signers = &[]string{}
			}
			if changed("signer") {
				if p.Signers != nil {
					return usagef("--any-signer and --signer exclude each other")
				}
				p.Signers = &signers
			}
			if changed("any-hardware") && anyHardware {
				p.Hardware = &[]string{}
			}
			if changed("hardware") {
				if p.Hardware != nil {
					return usagef("--any-hardware and --hardware exclude each other")
				}
				p.Hardware = &hardware
			}
			if changed("chunk-sizes") {
				sizes, err := parseSizes(chunks)
				if err != nil {
					return err
				}
				p.ChunkSizes = &sizes
			}
			if !said {
				return usagef("nothing is said of %s", args[0]).withHint("give --signed-only, --allow-v1, --rollouts-only, --signer, --least-assurance, --least-wire, --confirm, --chunk-sizes or --hardware; 'runnel products set --help' says what they do")
			}
			// The same check as the server's, before it is asked.
			if _, err := termsOf(p).Apply(fleet.Terms{}); err != nil {
				return asUsage(err)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			out, err := c.SetPolicy(cmd.Context(), p)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), out)
			}
			return table(cmd.OutOrStdout(), [][]string{policyHeads, policyRow(out)})
		},
	}
	f := cmd.Flags()
	f.BoolVar(&signedOnly, "signed-only", false, "refuse unsigned images")
	f.BoolVar(&allowV1, "allow-v1", false, "serve devices on the v1 wire, which can't check signatures")
	f.BoolVar(&rolloutsOnly, "rollouts-only", false, "give its releases to nobody but by rollouts")
	f.StringArrayVar(&signers, "signer", nil, "a release `key` that may sign, 16 hex digits; may be said again")
	f.BoolVar(&anySigner, "any-signer", false, "let all keys sign that the key list names")
	f.StringVar(&assurance, "least-assurance", "none", "least of devices that are served: `own`, shared or none")
	f.StringVar(&wire, "least-wire", "v1", "weakest that is served: `signed`, mac-only or v1")
	f.StringVar(&confirm, "confirm", "any", "what a trial has to be: any, `trial` or contact")
	f.StringArrayVar(&hardware, "hardware", nil, "a `name` of hardware, as 'runnel sign --hardware' has it; may be said again")
	f.BoolVar(&anyHardware, "any-hardware", false, "take releases for any hardware")
	f.StringVar(&chunks, "chunk-sizes", "any", "`list` of bytes, the default first, like 1024,4096; any")
	return cmd
}

// parseSizes reads "1024,4096"; "any" is none.
func parseSizes(text string) ([]int, error) {
	if text == "any" {
		return []int{}, nil
	}
	var sizes []int
	for part := range strings.SplitSeq(text, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(part))
		if err != nil {
			return nil, usagef("--chunk-sizes %q is no list of bytes", text).withHint("write it like 1024,4096, or any")
		}
		sizes = append(sizes, n)
	}
	return sizes, nil
}

// termsOf is what of a change is terms.
func termsOf(p client.PolicyChange) fleet.TermsChange {
	c := fleet.TermsChange{Signers: p.Signers, Chunks: p.ChunkSizes, Hardware: p.Hardware}
	if p.LeastAssurance != nil {
		a := fleet.Assurance(*p.LeastAssurance)
		c.Assurance = &a
	}
	if p.LeastWire != nil {
		w := fleet.Wire(*p.LeastWire)
		c.Wire = &w
	}
	if p.Confirm != nil {
		f := fleet.Confirm(*p.Confirm)
		c.Confirm = &f
	}
	return c
}

func showPolicy(cmd *cobra.Command, r *remote, p client.Policy) error {
	if r.json {
		return printJSON(cmd.OutOrStdout(), p)
	}
	row := policyRow(p)
	rows := [][]string{{"product", p.Product}, {"unsigned images", row[1]}, {"v1 devices", row[2]}, {"said by", row[3]}, {"given out", row[4]},
		{"signers", anyOf(p.Signers)}, {"least assurance", p.LeastAssurance}, {"least wire", p.LeastWire}, {"confirm", p.Confirm}, {"chunk sizes", sizesText(p.ChunkSizes)}, {"hardware", anyOf(p.Hardware)}}
	return table(cmd.OutOrStdout(), rows)
}

func anyOf(list []string) string {
	if len(list) == 0 {
		return "any"
	}
	return strings.Join(list, ", ")
}

func sizesText(sizes []int) string {
	if len(sizes) == 0 {
		return "any"
	}
	return fleet.Terms{Chunks: sizes}.ChunksText()
}

var policyHeads = []string{"PRODUCT", "UNSIGNED IMAGES", "V1 DEVICES", "SAID BY", "GIVEN OUT", "TERMS"}

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
	switch {
	case p.ByOperator:
		by = "an operator"
	case !p.SignedOnly:
		by = "nobody"
	}
	var terms []string
	if n := len(p.Signers); n > 0 {
		terms = append(terms, fmt.Sprintf("%d signers", n))
	}
	if p.LeastAssurance != "none" {
		terms = append(terms, "assurance "+p.LeastAssurance)
	}
	if p.LeastWire != "v1" {
		terms = append(terms, "wire "+p.LeastWire)
	}
	if p.Confirm != "any" {
		terms = append(terms, "confirm "+p.Confirm)
	}
	if len(p.ChunkSizes) > 0 {
		terms = append(terms, "chunks "+sizesText(p.ChunkSizes))
	}
	if len(p.Hardware) > 0 {
		terms = append(terms, "hardware "+anyOf(p.Hardware))
	}
	return []string{p.Product, unsigned, v1, by, out, strings.Join(terms, "; ")}
}
