package main

import (
	"crypto/rand"
	"encoding/base32"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
	"github.com/runnel-fota/runnel/internal/fleet"
)

func newTokensCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "tokens",
		Short: "Tokens by which devices become known by themselves",
		Long: `Lists enrolment tokens, and the devices that came with one and wait for approval.
Secrets are shown when a token is made and never again.

--json prints {"tokens":[{"id","product","id_pattern","count","used","approval",
"created_at","expires_at","revoked_at","warning"}],"waiting":[{"device","token",
"hardware","status","time"}]}; empty members may be left away.`,
		Example: "  runnel tokens\n  runnel tokens add --product acme/pump --expires 24h",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return listTokens(cmd, r)
		},
	}
	list := &cobra.Command{
		Use:     "list",
		Short:   "List tokens, and devices that wait",
		Long:    "What 'runnel tokens' does.\n\n--json prints what it does.",
		Example: "  runnel tokens list --json",
		Args:    noArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return listTokens(cmd, r) },
	}
	r.flags(cmd)
	cmd.AddCommand(newTokensAddCmd(r), list, newTokensRevokeCmd(r))
	return cmd
}

func listTokens(cmd *cobra.Command, r *remote) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	tokens, waiting, err := c.EnrolTokens(cmd.Context())
	if err != nil {
		return err
	}
	if r.json {
		return printJSON(cmd.OutOrStdout(), map[string]any{"tokens": append([]client.EnrolToken{}, tokens...), "waiting": append([]client.Enrolment{}, waiting...)})
	}
	if len(tokens) == 0 {
		fmt.Fprintln(cmd.OutOrStdout(), "no enrolment tokens; make one with 'runnel tokens add --product P'")
		return nil
	}
	rows := [][]string{{"TOKEN", "PRODUCT", "IDS", "USED", "APPROVAL", "STATE"}}
	for _, t := range tokens {
		state := "in force"
		switch {
		case t.RevokedAt != nil:
			state = "revoked " + stamp(*t.RevokedAt)
		case t.ExpiresAt != nil:
			state = "until " + stamp(*t.ExpiresAt)
		}
		rows = append(rows, []string{t.ID, t.Product, t.IDPattern, fmt.Sprintf("%d/%d", t.Used, t.Count), map[bool]string{true: "yes", false: "no"}[t.Approval], state})
	}
	if err := table(cmd.OutOrStdout(), rows); err != nil || len(waiting) == 0 {
		return err
	}
	fmt.Fprintln(cmd.OutOrStdout(), "\nwaiting for 'runnel devices approve ID':")
	rows = [][]string{{"DEVICE", "TOKEN", "HARDWARE", "SINCE"}}
	for _, e := range waiting {
		rows = append(rows, []string{e.Device, e.Token, e.Hardware, stamp(e.Time)})
	}
	return table(cmd.OutOrStdout(), rows)
}

func newTokensAddCmd(r *remote) *cobra.Command {
	var t client.EnrolToken
	var expires time.Duration
	var out string
	cmd := &cobra.Command{
		Use:   "add",
		Short: "Make a token",
		Long: `Makes a token by which devices of a product become known, and prints it this once, as
ID:SECRET; -o writes it to a file of mode 0600 instead. A device takes it with 'runnel
enrol', or with core/wire/native. Neither the secret nor the device's key crosses the
wire, and a token never gives a known device another key.

A token that several devices share (--count) lets each of them compute the keys of the
others from a recording: the server takes it over TLS only.

--json prints {"token":{"id","product",...},"secret":"ID:SECRET"}; without "secret" where
-o is given.`,
		Example: "  runnel tokens add --product acme/pump --id-pattern 'pump-*' --expires 24h -o line-3.token\n  runnel tokens add --product acme/pump --count 50 --approval",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if t.Product == "" {
				return usagef("--product is missing")
			}
			if t.Count < 1 {
				return usagef("--count is not above 0")
			}
			if expires < 0 {
				return usagef("--expires is negative")
			}
			if expires > 0 {
				at := time.Now().Add(expires).UTC()
				t.ExpiresAt = &at
			}
			var b [42]byte
			if _, err := rand.Read(b[:]); err != nil {
				return err
			}
			if t.ID == "" {
				t.ID = strings.ToLower(base32.StdEncoding.EncodeToString(b[32:]))
			}
			secret := hex.EncodeToString(b[:32])
			c, err := r.client()
			if err != nil {
				return err
			}
			made := t
			make := func() (err error) {
				made, err = c.AddEnrolToken(cmd.Context(), t, secret)
				return err
			}
			text := t.ID + ":" + secret
			if out != "" {
				err = writeSecretAnd(out, text, make)
			} else {
				err = make()
			}
			if err != nil {
				return err
			}
			warn(cmd, made.Warning)
			if r.json {
				o := map[string]any{"token": made}
				if out == "" {
					o["secret"] = text
				}
				return printJSON(cmd.OutOrStdout(), o)
			}
			if out != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "token %s for %s of %s is in %s\n", made.ID, devicesText(made.Count), made.Product, out)
				return nil
			}
			fmt.Fprintf(cmd.OutOrStdout(), "token for %s of %s, shown this once:\n\n  %s\n", devicesText(made.Count), made.Product, text)
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&t.Product, "product", "", "the devices' `product`")
	f.StringVar(&t.ID, "id", "", "the token's public `id` (default: a random one)")
	f.StringVar(&t.IDPattern, "id-pattern", "", "only device ids that fit this `glob` of * and ?")
	f.IntVar(&t.Count, "count", 1, "`number` of devices that it takes")
	f.DurationVar(&expires, "expires", 0, "how long it is in force; 0 is for ever")
	f.BoolVar(&t.Approval, "approval", false, "each device waits for 'runnel devices approve'")
	f.StringVarP(&out, "out", "o", "", "`file` for the token; it must not exist")
	return cmd
}

func devicesText(n int) string {
	if n == 1 {
		return "one device"
	}
	return strconv.Itoa(n) + " devices"
}

// writeSecretAnd has a secret in its file before f tells the server of it. The file
// goes again where the server refused; where its answer did not come it may have it.
func writeSecretAnd(path, text string, f func() error) error {
	if err := writeSecret(path, text); err != nil {
		return err
	}
	err := f()
	switch fleet.CodeOf(err) {
	case "":
		return nil
	case fleet.CodeBusy, fleet.CodeInternal:
		return hinted(err, "the server may have taken it: the secret is kept in %s", path)
	}
	return errors.Join(err, os.Remove(path))
}

func newTokensRevokeCmd(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:     "revoke ID",
		Short:   "Let no more devices in by a token",
		Long:    "Revokes a token and forgets its secret. Devices that it made known stay known.\n\n--json prints {\"id\"}.",
		Example: "  runnel tokens revoke line-3",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			if err := c.RevokeEnrolToken(cmd.Context(), args[0]); err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"id": args[0]})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "revoked %s\n", args[0])
			return nil
		},
	}
}
