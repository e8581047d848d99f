package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newWait(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "wait JOB…",
		Short: "Wait until jobs are over",
		Long: "Waits until jobs are over, on any member of the pool, whoever asked for them. Ctrl-C ends the\n" +
			"waiting and leaves the jobs alone. The exit code is that of the program if it is one job of one\n" +
			"task, and otherwise 0 if all tasks have a result and 1 if not.",
		Args: argsRange(1, -1, "job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.waitAll(cmd.Context(), c, args) })
		},
		ValidArgsFunction: a.completeJobs,
	}
}

func (a *app) waitAll(ctx context.Context, c *client.Client, names []string) error {
	var ended []client.Job
	bad := false
	for _, name := range names {
		j, err := a.waitFor(ctx, c, name)
		if err != nil {
			return err
		}
		ended = append(ended, j)
		bad = bad || j.State != client.JobDone
		a.notef("%s %s: %s", shortJob(j.ID), clean(j.Name), endText(j))
	}
	if a.json {
		if err := a.printJSON(client.JobList{Jobs: ended}); err != nil {
			return err
		}
	}
	switch {
	case len(ended) == 1 && ended[0].Tasks == 1 && ended[0].State != client.JobCanceled:
		return a.exitOfTask(ctx, c, ended[0])
	case bad:
		return silent{exitFailure}
	}
	return nil
}

// waitFor shows one job until it is over.
func (a *app) waitFor(ctx context.Context, c *client.Client, name string) (client.Job, error) {
	j, err := c.Job(ctx, name)
	if err != nil || j.Over() {
		return j, err
	}
	v := a.newTaskView(j.Name)
	closed := 0
	end, err := c.JobWatch(ctx, j.ID, func(e client.JobEvent) error {
		closed += len(e.Closed)
		v.update(e.Job, closed)
		return nil
	})
	v.end()
	return end, err
}

// exitOfTask ends as the one task of a job did.
func (a *app) exitOfTask(ctx context.Context, c *client.Client, j client.Job) error {
	var result client.TaskResult
	if err := c.JobResults(ctx, j.ID, 0, 1, func(r client.TaskResult) error { result = r; return nil }); err != nil {
		return err
	}
	switch {
	case result.Exit != 0:
		return silent{result.Exit & 0xff}
	case j.State != client.JobDone:
		return silent{exitFailure}
	}
	return nil
}

// endText is how a job ended, for people.
func endText(j client.Job) string {
	text := doneText(j) + " done"
	if j.Canceled != "" {
		text += ", canceled: " + clean(j.Canceled)
	}
	if !j.Ended.IsZero() {
		text += ", took " + durationText(j.Ended.Sub(j.Created))
	}
	return text
}
