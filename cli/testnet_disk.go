package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/testnet"
)

// newTestnetDisk is what the testnet starts for the disk of a peer that is to be slow. It reads what the disk becomes from
// stdin, and ends with it.
func newTestnetDisk(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    testnet.DiskCommand + " HOME UNDER",
		Short:  "Be the disk of a testnet's peer",
		Hidden: true,
		Args:   argsRange(2, 2, ""),
		RunE: func(_ *cobra.Command, args []string) error {
			return testnet.RunDisk(args[0], args[1], a.in, a.out)
		},
	}
}
