package cli

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/testnet"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

func newUp(a *app) *cobra.Command {
	var flags peerFlags
	var detach bool
	cmd := &cobra.Command{
		Use:   "up",
		Short: "Start this peer",
		Long: "Starts the peer of this home, which seeds what was shared and fetched, and prints\n" +
			"its name, addresses and API. Ctrl-C stops it. With --detach it keeps running in the\n" +
			"background, and up returns once it answers; its output goes to peer.log in the home.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if detach {
				return a.detach(cmd.Context(), cmd.Flags())
			}
			cfg := flags.config(a)
			if path, ok := a.env(testnet.ClockEnv); ok {
				clock, err := testnet.OpenClock(cmd.Context(), path)
				if err != nil {
					return err
				}
				cfg.Now = clock.Now
			}
			cfg.Log = slog.New(slog.NewTextHandler(a.err, &slog.HandlerOptions{Level: slog.LevelInfo})) // with times: it may be a log file
			return a.up(cmd.Context(), cfg)
		},
	}
	flags.add(cmd.Flags())
	cmd.Flags().SetNormalizeFunc(func(_ *pflag.FlagSet, name string) pflag.NormalizedName {
		if name == "cores" { // what people try first; as a setting it has its own name, since a job has cores too
			name = "lend-cores"
		}
		return pflag.NormalizedName(name)
	})
	cmd.Flags().BoolVarP(&detach, "detach", "d", false, "run in the background")
	return cmd
}

// up is the peer, in the foreground.
func (a *app) up(ctx context.Context, cfg node.Config) error {
	n, err := a.start(ctx, cfg)
	if err != nil {
		return err
	}
	status, err := n.Status(ctx)
	if err == nil {
		err = a.printUp(status)
	}
	if err != nil {
		n.Close()
		return err
	}
	a.notef("running; ctrl-C or `shoal down` stops it")
	select {
	case <-ctx.Done():
	case <-n.Done():
	}
	a.notef("stopping")
	return n.Close()
}

// printUp says what a peer is that has just started.
func (a *app) printUp(s client.Status) error {
	if a.json {
		return a.printJSON(s)
	}
	rows := [][]string{{"name", clean(s.Name)}, {"id", s.ID}}
	rows = append(rows, column("addresses", s.Addrs, "none")...)
	rows = append(rows, []string{"api", s.API})
	if s.Shares > 0 {
		rows = append(rows, []string{"seeding", fmt.Sprintf("%s, %s", plural(s.Shares, "share"), bytesText(s.Shared))})
	}
	return table(a.out, rows)
}
