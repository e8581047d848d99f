package cli

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newKill(a *app) *cobra.Command {
	var why string
	cmd := &cobra.Command{
		Use:   "kill JOB…",
		Short: "End jobs",
		Long: "Cancels jobs: what runs is stopped, what is done keeps its result. Any member may do so, and\n" +
			"`shoal ps` and `wait` tell who it was; a terminal may end its own.",
		Args: argsRange(1, -1, "job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				var failed []error
				for _, name := range args {
					j, err := c.JobKill(cmd.Context(), client.JobRequestByID{Job: name, Why: why})
					if err != nil {
						failed = append(failed, err)
						continue
					}
					a.notef("%s %s: %s", shortJob(j.ID), clean(j.Name), j.State)
				}
				if len(failed) == 1 {
					return failed[0]
				}
				return errors.Join(failed...)
			})
		},
		ValidArgsFunction: a.completeJobs,
	}
	cmd.Flags().StringVar(&why, "why", "", "a reason, for those who look later")
	own(cmd.Flags())
	return cmd
}
