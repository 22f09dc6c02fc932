package main

import "github.com/spf13/cobra"

// subcommands lists every verb, in the order in which help shows them.
func subcommands() []*cobra.Command {
	return []*cobra.Command{
		newServeCmd(),
		newPushCmd(),
		newKeysCmd(),
		newSignCmd(),
		newVerifyCmd(),
		newReleasesCmd(),
		newReleaseCmd(),
		newProductsCmd(),
		newRolloutCmd(),
		newFleetCmd(),
		newGroupCmd(),
		newDevicesCmd(),
		newDeviceCmd(),
		newWhyCmd(),
		newTokensCmd(),
		newEnrolCmd(),
		newLogsCmd(),
		newFsckCmd(),
		newMigrateCmd(),
		newDemoCmd(),
		newInspectCmd(),
		newDiffCmd(),
		newPatchCmd(),
		newBootCmd(),
		newBoardCmd(),
		newBridgeCmd(),
		newTortureCmd(),
	}
}
