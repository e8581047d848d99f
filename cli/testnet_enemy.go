package cli

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/testnet"
	"github.com/shoal-os/shoal/testnet/evil"
)

// newTestnetEnemy is what the testnet starts in the place of a peer that is to be hostile. It reads who and what from stdin,
// and ends when it is told to.
func newTestnetEnemy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:    testnet.EnemyCommand,
		Short:  "Attack a testnet's own peers",
		Hidden: true,
		Args:   argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			var cfg evil.Config
			if err := json.NewDecoder(a.in).Decode(&cfg); err != nil {
				return fmt.Errorf("enemy: %w", err)
			}
			cfg.Report = a.out
			return evil.Run(cmd.Context(), cfg)
		},
	}
}
