package cli

import (
	"context"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newLogs(a *app) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [-f] JOB [TASK]",
		Short: "Print what a task writes",
		Long: "Prints what a task has written so far, its standard output to stdout and its standard error to\n" +
			"stderr; with -f also what it still writes, wherever it runs, until it ends. Of a task that failed\n" +
			"it is the last attempt's. Tasks are counted from 0; a job of one task needs no number.",
		Args: argsRange(1, 2, "job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				job, task, err := a.taskOf(cmd.Context(), c, args)
				if err != nil {
					return err
				}
				return c.JobLogs(cmd.Context(), job.ID, task, follow, a.writeOutput)
			})
		},
		ValidArgsFunction: a.completeJobs,
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until the task ends")
	own(cmd.Flags())
	return cmd
}

// taskOf reads JOB [TASK] of a command about one task.
func (a *app) taskOf(ctx context.Context, c *client.Client, args []string) (job client.Job, task int, err error) {
	if len(args) > 1 {
		if task, err = parseTask(args[1]); err != nil {
			return job, 0, err
		}
	}
	if job, err = c.Job(ctx, args[0]); err != nil {
		return job, 0, err
	}
	switch {
	case len(args) < 2 && job.Tasks > 1:
		return job, 0, usagef("give its number, from 0 to "+strconv.Itoa(job.Tasks-1), "the job has %d tasks: which one?", job.Tasks)
	case job.Tasks > 0 && task >= job.Tasks:
		return job, 0, client.Errorf(client.KindNotFound, "tasks are counted from 0", "the job has %s, and none is called %d", plural(job.Tasks, "task"), task)
	}
	return job, task, nil
}

func parseTask(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return 0, usagef("tasks are numbers, counted from 0", "%q is no task", clean(text))
	}
	return n, nil
}
