package cli

import (
	"context"
	"errors"
	"fmt"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

func newID(a *app) *cobra.Command {
	var addrs bool
	cmd := &cobra.Command{
		Use:   "id",
		Short: "Print this peer's id",
		Long: "Prints the id of the peer on this home, whether it is running or not. With --addrs\n" +
			"it prints the running peer's addresses instead, each fit for another's --bootstrap.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			id, err := a.identity(cmd.Context(), addrs)
			if err != nil {
				return err
			}
			if a.json {
				return a.printJSON(id)
			}
			if !addrs {
				_, err = fmt.Fprintln(a.out, clean(id.ID))
				return err
			}
			for _, addr := range id.Addrs {
				fmt.Fprintln(a.out, clean(addr))
			}
			return nil
		},
	}
	cmd.Flags().BoolVar(&addrs, "addrs", false, "print the addresses of the running peer")
	return cmd
}

// identity asks the running peer, or reads the home when none is running and
// that is enough.
func (a *app) identity(ctx context.Context, running bool) (client.Identity, error) {
	c, err := a.dial(ctx)
	if errors.Is(err, client.ErrNoPeer) && !running && a.peer == "" {
		return node.ReadIdentity(a.home)
	}
	if err != nil {
		return client.Identity{}, err
	}
	defer c.Close()
	return c.ID(ctx)
}
