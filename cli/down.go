package cli

import (
	"context"
	"errors"
	"time"

	"github.com/shoal-os/shoal/node"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/spf13/cobra"
)

const (
	downTimeout  = 30 * time.Second
	downInterval = 50 * time.Millisecond
)

func newDown(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "down",
		Short: "Stop the running peer",
		Long:  "Stops the peer that runs on this home, and returns when it has stopped.",
		Args:  argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c, err := a.dial(cmd.Context())
			if err != nil {
				return err
			}
			defer c.Close()
			stopping, err := c.Down(cmd.Context())
			if err != nil {
				return err
			}
			if a.peer != "" {
				a.notef("%s is stopping (process %d there)", clean(a.peer), stopping.PID)
				return nil
			}
			if err := a.awaitDown(cmd.Context(), stopping.PID); err != nil {
				return err
			}
			a.notef("stopped (process %d)", stopping.PID)
			return nil
		},
	}
}

// awaitDown returns once the peer has let go of the home.
func (a *app) awaitDown(ctx context.Context, pid int) error {
	ctx, cancel := context.WithTimeout(ctx, downTimeout)
	defer cancel()
	for node.CheckFree(a.home) != nil {
		if err := pause(ctx, downInterval); errors.Is(err, context.DeadlineExceeded) {
			return client.Errorf(client.KindInternal, "see peer.log in the home, or end the process",
				"the peer (process %d) is still running after %s", pid, durationText(downTimeout))
		} else if err != nil {
			return err
		}
	}
	return nil
}
