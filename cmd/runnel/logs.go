package main

import (
	"github.com/spf13/cobra"

	"github.com/runnel-fota/runnel/internal/client"
)

func newLogsCmd() *cobra.Command {
	r := &remote{}
	var device string
	var limit int
	cmd := &cobra.Command{
		Use:   "logs",
		Short: "Show what happened, newest first",
		Long: `Shows the log. What a device said without a MAC is marked as unproven.

--json prints {"total":N,"logs":[{"id","time","device","version","event","detail","proven"}]}.`,
		Example: "  runnel logs\n  runnel logs --device pump-7 --limit 200 --json",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := checkLimit(limit); err != nil {
				return err
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			events, total, err := c.Logs(cmd.Context(), device, limit)
			if err != nil {
				return err
			}
			if r.json {
				return printJSON(cmd.OutOrStdout(), map[string]any{"total": total, "logs": append([]client.Event{}, events...)})
			}
			return printEvents(cmd, events, total)
		},
	}
	cmd.Flags().StringVar(&device, "device", "", "only this `device`'s")
	cmd.Flags().IntVar(&limit, "limit", 50, "how many `lines`, 1 to 1000")
	r.flags(cmd)
	return cmd
}
