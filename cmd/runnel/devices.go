package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
)

func newDevicesCmd() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "devices",
		Short: "List devices, add them, give them orders",
		Long: `Lists all devices with their latest deployments.

--json prints {"devices":[{"id","product","assurance","warning","added_at","last_seen",
"running_version","nonce","clocked","signed","strongest_wire","native_keys","hardware",
"epoch","sequence","security_version","list_version","slots","running_slot",
"slot_sizes":[N],"running_digest","bootloader":{"rollback","secure_boot","flash_encryption",
"secure_version"},"patches":{"profiles":[],"ram"},"health":{"free_ram","boot_reason","battery","signal"},"tags",
"attributes","failures","rollback_wanted","rollback_reason","retry_at","deployment":{"release_id","version","state","chunks_received",
"chunks_total","verified","boot_status","reason","raw_only","proven","started_at","updated_at"}}]};
empty members may be left away. A running_slot of 255 is the factory image; free_ram is
bytes, battery percent, signal dBm. Times are
RFC 3339, UTC.`,
		Example: "  runnel devices\n  runnel devices add pump-1 --product acme/pump --psk-file key.hex",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			list, err := c.Devices(cmd.Context())
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"devices": append([]client.Device{}, list...)})
			}
			if len(list) == 0 {
				fmt.Fprintln(cmd.OutOrStdout(), "no devices; add one with 'runnel devices add ID --psk HEX64'")
				return nil
			}
			rows := [][]string{{"DEVICE", "PRODUCT", "IDENTITY", "RUNS", "DEPLOYMENT", "CHUNKS", "LAST SEEN"}}
			shared := 0
			for _, d := range list {
				state, chunks := "", ""
				if p := d.Deployment; p != nil {
					state, chunks = deploymentText(p), fmt.Sprintf("%d/%d", p.ChunksReceived, p.ChunksTotal)
				}
				if d.Assurance == "shared" {
					shared++
				}
				rows = append(rows, []string{d.ID, d.Product, d.Assurance, d.RunningVersion, state, chunks, stampOrNever(d.LastSeen)})
			}
			if shared > 0 {
				warn(cmd, fmt.Sprintf("%d with a shared key: each of them can speak in the name of the others of its product", shared))
			}
			return table(cmd.OutOrStdout(), rows)
		},
	}
	r.flags(cmd)
	cmd.AddCommand(newDeviceShowCmd(r, "runnel devices show"), newDevicesAddCmd(r), newLabelCmd(r), newRotateKeyCmd(r), newApproveCmd(r), newProductKeyCmd(r), newRollbackCmd(r),
		newOrderCmd(r, "reset-wire", "Let a device speak a weaker wire than it did", (*client.Client).ResetWire),
		newOrderCmd(r, "reset-nonce", "Forget a device's highest nonce and clock, so that it is heard again", (*client.Client).ResetNonce),
		newOrderCmd(r, "retry", "Let a device try again the release that it found bad", (*client.Client).Retry))
	return cmd
}

func deploymentText(p *client.Deployment) string {
	s := p.Version + " " + p.State
	if !p.Proven {
		s += " (unproven)"
	}
	return s
}

func newDevicesAddCmd(r *remote) *cobra.Command {
	var key keyFlags
	var native nativeKeyFlags
	var product string
	cmd := &cobra.Command{
		Use:     "add ID",
		Example: "  runnel devices add pump-7 --product acme/pump --new-native-key -o pump-7.key\n  runnel devices add pump-7 --product acme/pump --psk-file pump-7.psk\n  openssl rand -hex 32 | tee pump-8.key | runnel devices add pump-8 --product acme/pump --psk-file -",
		Short:   "Add a device with its key",
		Long: `Adds a device. For the native wire it gets a secret of its own: --new-native-key
makes one and writes it to the file that -o names (64 hex digits, mode 0600), the
only place where it is ever shown; --native-key-file takes one that there is. It is
never the v1 key, which --psk and --psk-file give: a device without one of its own
speaks v1 with its product's.

--json prints the device, as 'runnel devices --json' does; no key is in it.`,
		Args: exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			psk, err := key.read(cmd)
			if err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			var d client.Device
			secret, err := native.use(cmd, func(secret string) (err error) {
				if secret == "" {
					d, err = c.AddDevice(cmd.Context(), args[0], product, psk)
				} else {
					d, err = c.AddNativeDevice(cmd.Context(), args[0], product, secret, psk)
				}
				return err
			})
			if err != nil {
				return err
			}
			warn(cmd, d.Warning)
			if d.Assurance == "none" && secret == "" {
				warn(cmd, "it has no key, so it can be sent no chunks: set its product's with 'runnel devices product-key'")
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "added %s (identity: %s)\n", d.ID, d.Assurance)
			if native.out != "" {
				fmt.Fprintf(cmd.OutOrStdout(), "native key 0 is in %s\n", native.out)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&product, "product", "", "its `product`; without one the only product that there is")
	key.flags(cmd)
	native.flags(cmd)
	return cmd
}

func newProductKeyCmd(r *remote) *cobra.Command {
	var key keyFlags
	cmd := &cobra.Command{
		Use:     "product-key PRODUCT",
		Example: "  runnel devices product-key acme/pump --psk-file pump.key",
		Short:   "Set the key that devices of a product share where they have none of their own",
		Long:    "Sets the key.\n\n--json prints {\"product\",\"warning\"}.",
		Args:    exactArgs("PRODUCT"),
		RunE: func(cmd *cobra.Command, args []string) error {
			psk, err := key.read(cmd)
			if err != nil {
				return err
			}
			if psk == "" {
				return usagef("the key is missing").withHint("give --psk HEX64 or --psk-file FILE")
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			warning, err := c.SetProductKey(cmd.Context(), args[0], psk)
			if err != nil {
				return err
			}
			warn(cmd, warning)
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]string{"product": args[0], "warning": warning})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "set the key of %s\n", args[0])
			return nil
		},
	}
	key.flags(cmd)
	return cmd
}

func newRollbackCmd(r *remote) *cobra.Command {
	var reason string
	cmd := &cobra.Command{
		Use:     "rollback ID",
		Example: "  runnel devices rollback pump-7 --reason 'runs hot'\n  runnel devices rollback all --json",
		Short:   "Have a device (or 'all') go back to the image before",
		Long:    "The device is told at its next poll, at most every ten minutes, until it reports.\n\n--json prints {\"device\",\"devices\":N,\"reason\"}.",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			n, err := c.Rollback(cmd.Context(), args[0], reason)
			if err != nil {
				return deviceError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"device": args[0], "devices": n, "reason": reason})
			}
			fmt.Fprintf(cmd.OutOrStdout(), "ordered %d to go back\n", n)
			return nil
		},
	}
	cmd.Flags().StringVar(&reason, "reason", "", "`why`, for the device and the log")
	return cmd
}

func newOrderCmd(r *remote, name, short string, order orderFunc) *cobra.Command {
	return &cobra.Command{
		Use:     name + " ID",
		Example: "  runnel devices " + name + " pump-7",
		Short:   short,
		Long:    short + ".\n\n--json prints the device, as 'runnel devices --json' does.",
		Args:    exactArgs("ID"),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			d, err := order(c, cmd.Context(), args[0])
			if err != nil {
				return deviceError(err)
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), d)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: done for %s\n", name, d.ID)
			return nil
		},
	}
}
