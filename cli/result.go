package cli

import (
	"context"
	"encoding/json"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newResult(a *app) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "result JOB [TASK]",
		Short: "Print what a job came to",
		Long: "Prints what the job's tasks wrote to their standard output, in order; of a job with a reduce that of\n" +
			"the reduce. With -o it saves the files that they left, and what they printed beside them, in a\n" +
			"folder of this machine or, if it begins with /, of the pool. Results are kept for a week after the\n" +
			"end (--keep). The exit code is 1 if tasks have none.",
		Args: argsRange(1, 2, "job"),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.result(cmd.Context(), c, args, output) })
		},
		ValidArgsFunction: a.completeJobs,
	}
	cmd.Flags().StringVarP(&output, "output", "o", "", "folder to save files in")
	return cmd
}

func (a *app) result(ctx context.Context, c *client.Client, args []string, output string) error {
	task := -1
	if len(args) > 1 {
		var err error
		if task, err = parseTask(args[1]); err != nil {
			return err
		}
	}
	job, err := c.Job(ctx, args[0])
	if err != nil {
		return err
	}
	out, err := a.target(ctx, c, output)
	if err != nil {
		return err
	}
	defer out.close()
	if out != nil {
		out.streams, out.place.Tasks = true, job.Tasks
	}
	r := &resultReader{app: a, client: c, job: job, out: out, each: task >= 0}
	first, count := task, 1
	switch {
	case task < 0 && job.Reduce:
		first = job.Tasks - 1
	case task < 0:
		first, count = 0, 0
	}
	if err := c.JobResults(ctx, job.ID, first, count, func(t client.TaskResult) error { return r.take(ctx, t) }); err != nil {
		return err
	}
	if out != nil && out.pool != "" {
		err = out.save(ctx, a, c, job.ID, task)
	}
	if err != nil {
		return err
	}
	return r.finish()
}

// resultReader puts out the results of one job.
type resultReader struct {
	app    *app
	client *client.Client
	job    client.Job
	out    *target
	each   bool // one task was asked for by its number

	open, bad int
}

func (r *resultReader) take(ctx context.Context, t client.TaskResult) error {
	if r.app.json {
		if err := json.NewEncoder(r.app.out).Encode(t); err != nil {
			return err
		}
	}
	switch {
	case t.State == client.TaskOpen:
		r.open++
		return nil
	case t.State != client.TaskDone:
		r.bad++
		if t.State == client.TaskFailed && !r.app.json {
			r.app.notefFailure(&t)
		}
		return nil
	case r.out != nil:
		return r.out.add(ctx, r.client, r.job.ID, t)
	case r.app.json:
		return nil
	case t.Stdout.Size == int64(len(t.Stdout.Inline)):
		_, err := r.app.out.Write(t.Stdout.Inline)
		return err
	}
	return r.client.JobOutput(ctx, r.job.ID, t.Task, client.OutputStdout, "", r.app.out, nil)
}

// finish says what is lacking.
func (r *resultReader) finish() error {
	if r.out != nil {
		r.app.notef("%s", r.out.text())
	}
	switch {
	case r.open > 0:
		return client.Errorf(client.KindUnready, "`shoal wait "+shortJob(r.job.ID)+"` waits for it", "%s not done yet", openText(r.open, r.each))
	case r.bad > 0 && r.job.State == client.JobCanceled:
		return client.Errorf(client.KindInternal, "", "the job was canceled: %s", clean(r.job.Canceled))
	case r.bad > 0:
		return silent{exitFailure}
	}
	return nil
}

func openText(open int, each bool) string {
	switch {
	case each:
		return "the task is"
	case open == 1:
		return "1 task is"
	}
	return plural(open, "task") + " are"
}
