package cli

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/shoal-os/shoal/node/api/client"
)

func newPs(a *app) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "ps",
		Short: "List the pool's jobs",
		Long: "Lists the jobs that run and those that ended within a day, newest first, whoever asked for them.\n" +
			"DONE is how many of a job's tasks have their result; RUNNING how many run now, on how many peers.\n" +
			"A job is named by its id, the beginning of that, or its name, which means the newest.",
		Args: argsRange(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.withPeer(cmd.Context(), func(c *client.Client) error {
				jobs, err := c.Jobs(cmd.Context(), all)
				if err != nil {
					return err
				}
				return a.printJobs(jobs)
			})
		},
	}
	cmd.Flags().BoolVarP(&all, "all", "a", false, "all jobs whose results are kept still")
	return cmd
}

func (a *app) printJobs(jobs []client.Job) error {
	if a.json {
		return a.printJSON(client.JobList{Jobs: jobs})
	}
	if len(jobs) == 0 {
		a.notef("no jobs; `shoal run` and `shoal map` begin some")
		return nil
	}
	return table(a.out, jobRows(jobs, time.Now()))
}

// jobRows is a table of jobs.
func jobRows(jobs []client.Job, now time.Time) [][]string {
	rows := [][]string{{"JOB", "NAME", "STATE", "DONE", "RUNNING", "FROM", "AGE", "COMMAND"}}
	for _, j := range jobs {
		rows = append(rows, []string{
			shortJob(j.ID), cut(clean(j.Name), nameShown), stateOf(j), doneText(j), runningText(j),
			cut(clean(j.Submitter), nameShown), durationText(now.Sub(j.Created)), cut(clean(j.Command), commandShown),
		})
	}
	return rows
}

const commandShown = 48 // letters of a command in a table

func stateOf(j client.Job) string {
	if j.State == client.JobRunning && j.Failed > 0 {
		return "running, failing"
	}
	return j.State
}

func doneText(j client.Job) string {
	if j.State == client.JobUnreachable {
		return "?"
	}
	text := fmt.Sprintf("%d/%d", j.Done, j.Tasks)
	if j.Failed > 0 {
		text += fmt.Sprintf(", %d failed", j.Failed)
	}
	return text
}

func runningText(j client.Job) string {
	if j.Running == 0 {
		return "-"
	}
	workers := map[string]bool{}
	for _, l := range j.Leases {
		workers[l.Worker] = true
	}
	if len(workers) == 0 {
		return fmt.Sprint(j.Running)
	}
	return fmt.Sprintf("%d on %d", j.Running, len(workers))
}

// completeJobs offers the jobs that there are.
func (a *app) completeJobs(cmd *cobra.Command, _ []string, typed string) ([]string, cobra.ShellCompDirective) {
	if err := a.applySettings(cmd); err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var out []string
	_ = a.withPeer(cmd.Context(), func(c *client.Client) error {
		jobs, err := c.Jobs(cmd.Context(), true)
		for _, j := range jobs {
			if id := shortJob(j.ID); strings.HasPrefix(id, typed) && len(out) < completeMax {
				out = append(out, id+"\t"+cut(clean(j.Name), nameShown)+", "+j.State)
			}
		}
		return err
	})
	return out, cobra.ShellCompDirectiveNoFileComp
}
