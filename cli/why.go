package cli

import (
	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newWhy(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "why JOB [TASK]",
		Short: "Say what a task waits for, and why each peer does not run it",
		Long: "Asks the job's leading steward where a task stands, and each peer that is there what it does\n" +
			"about the job, or why it does nothing. Tasks are counted from 0; a job of one task needs no number.",
		Args: argsRange(1, 2, "job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				job, task, err := a.taskOf(cmd.Context(), c, args)
				if err != nil {
					return err
				}
				why, err := c.JobWhy(cmd.Context(), job.ID, task)
				if err != nil {
					return err
				}
				return a.printWhy(why)
			})
		},
		ValidArgsFunction: a.completeJobs,
	}
}

func (a *app) printWhy(why client.JobWhy) error {
	if a.json {
		return a.printJSON(why)
	}
	rows := [][]string{{"PEER", "REASON"}}
	for _, r := range why.Reasons {
		name := cut(clean(r.Peer), nameShown)
		if r.Steward {
			name += " (steward)"
		}
		rows = append(rows, []string{name, r.Reason})
	}
	return table(a.out, rows)
}
