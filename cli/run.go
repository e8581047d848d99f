package cli

import (
	"context"
	"errors"
	"fmt"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// exitOwn is what run exits with when shoal failed, not the program, as env and timeout do.
	exitOwn = 125
	// killWait bounds the cancelling of a job after ctrl-C.
	killWait = 5 * time.Second
	// idleWait is for how long nobody may have taken a task before run says so.
	idleWait = 3 * time.Second
)

const runHelp = `Runs a program once, on whichever peer of the pool fits best, as though it ran here: what
it writes comes as it is written, its exit code is passed on, and ctrl-C ends it (a second
one leaves at once). PROG.wasm is a WebAssembly module for WASI preview 1, of this machine
or, if its path begins with /, of the pool. After -- comes a native command of the machine
that it runs on; only peers started with ` + "`up --allow-exec`" + ` take those.

A pipe or a file as standard input is read to its end and becomes the program's; a terminal
is read with -i only. The program finds inputs (--in) in /in, a native command in ./in and
$SHOAL_IN; files that it leaves in /out (./out, $SHOAL_OUT) are its outputs, for --out.
` + placesHelp + `

The same work asked for again is answered from its stored result; --fresh runs it anew.

Exit codes: the program's own (137 if a bound of time or memory ended it, 134 after a trap of a
module); 125 when shoal could not run it; 130 after ctrl-C.`

type runFlags struct {
	jobFlags
	out            string
	detach         bool
	typed, nothing bool
}

func newRun(a *app) *cobra.Command {
	var flags runFlags
	cmd := &cobra.Command{
		Use:   "run [flags] PROG.wasm ARGS… | run [flags] -- CMD ARGS…",
		Short: "Run a program on the pool as though it ran here",
		Long:  runHelp,
		Example: "  shoal run wordcount.wasm < book.txt\n  shoal run --in /photos/a.jpg --out . -- convert in/a.jpg out/a.png\n" +
			"  JOB=$(shoal run --detach --time 2h -- ./simulate 42)",
		Annotations: map[string]string{programKey: "first"},
		RunE: func(cmd *cobra.Command, args []string) error {
			before, words, err := programArgs(cmd, args)
			if err == nil && len(before) > 0 {
				err = usagef("flags of the program come after it", "%q stands before the program", clean(before[0]))
			}
			if err == nil && flags.detach && flags.out != "" {
				err = usagef("fetch it later with `shoal result JOB -o DIR`", "--out has no meaning with --detach")
			}
			if err != nil {
				return err
			}
			return ownFailure(cmd.Context(), a.withPeer(cmd.Context(), func(c *client.Client) error { return a.runOne(cmd.Context(), c, &flags, words) }))
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

func (r *runFlags) add(f *pflag.FlagSet) {
	f.StringVarP(&r.out, "out", "o", "", "folder for the files that it leaves: DIR, or /PATH in the pool")
	f.BoolVarP(&r.detach, "detach", "d", false, "print the job's id and leave; it goes on without this peer if the pool has enough others")
	f.BoolVarP(&r.typed, "interactive", "i", false, "read standard input from a terminal too, up to ctrl-D")
	f.BoolVarP(&r.nothing, "no-stdin", "n", false, "do not read standard input")
	r.jobFlags.add(f)
}

// ownFailure gives a failure that is shoal's the code that says so; what the program exits with would look like it otherwise.
// Mistakes on the command line and an interruption keep theirs.
func ownFailure(ctx context.Context, err error) error {
	var said silent
	var has *coded
	if err == nil || ctx.Err() != nil || errors.As(err, &said) || errors.As(err, &has) {
		return err
	}
	return &coded{err, exitOwn}
}

// coded is an error with an exit code of its own.
type coded struct {
	error
	code int
}

func (c *coded) Unwrap() error { return c.error }

func (a *app) runOne(ctx context.Context, c *client.Client, flags *runFlags, words []string) error {
	p, err := program(words)
	if err != nil {
		return err
	}
	req, err := flags.request(a, p, true)
	if err != nil {
		return err
	}
	if !flags.nothing {
		if req.Stdin, err = a.readStdin(ctx, c, flags.typed); err != nil {
			return err
		}
	}
	out, err := a.target(ctx, c, flags.out)
	if err != nil {
		return err
	}
	job, err := a.submit(ctx, c, req)
	if err != nil {
		return err
	}
	if flags.detach {
		return a.printDetached(job)
	}
	signal.Ignore(syscall.SIGPIPE) // the write says so, and the job is ended
	err = a.attend(ctx, c, job)
	if ctx.Err() != nil || nobodyReads(err) {
		return a.cancelJob(ctx, c, job.ID)
	}
	if err != nil {
		return lostJob(err, job)
	}
	return a.finishRun(ctx, c, job, out)
}

// submit asks for the work, and shows what is stored for it first.
func (a *app) submit(ctx context.Context, c *client.Client, req client.JobRequest) (client.Submitted, error) {
	v := a.newView("inputs")
	job, err := c.JobSubmit(ctx, req, v.update)
	v.end()
	if err == nil && job.Cached {
		a.notef("answered from the stored result of job %s; --fresh runs it anew", shortJob(job.ID))
	}
	return job, err
}

// printDetached prints the job's id, and who may go away now.
func (a *app) printDetached(job client.Submitted) error {
	if a.json {
		if err := a.printJSON(job); err != nil {
			return err
		}
	} else if _, err := fmt.Fprintln(a.out, job.ID); err != nil {
		return err
	}
	switch {
	case job.Cached:
	case job.Spare > 0:
		a.notef("kept by %s; any %d of them may now go away, this one too", clean(strings.Join(job.Stewards, ", ")), job.Spare)
	case len(job.Stewards) == 1:
		a.notef("%s kept by %s alone: it waits while that peer is away", a.paint(yellow, "note:"), clean(job.Stewards[0]))
	default:
		a.notef("%s kept by %s; none of them may go away now, or it waits", a.paint(yellow, "note:"), clean(strings.Join(job.Stewards, ", ")))
	}
	return nil
}

// attend passes on what the one task writes, until it is closed.
func (a *app) attend(ctx context.Context, c *client.Client, job client.Submitted) error {
	ctx, cancel := context.WithCancel(ctx)
	told := make(chan struct{})
	go func() {
		defer close(told)
		a.tellWaiting(ctx, c, job.ID)
	}()
	err := c.JobLogs(ctx, job.ID, 0, true, a.writeOutput)
	cancel()
	<-told
	return err
}

// writeOutput writes a part of a task's output to where it belongs.
func (a *app) writeOutput(o client.JobOutputText) (err error) {
	switch o.Stream {
	case "stdout":
		_, err = a.out.Write(o.Data)
	case "stderr":
		_, err = a.err.Write(o.Data)
	default:
		a.notef("%s %s", a.paint(yellow, "note:"), clean(string(o.Data)))
	}
	return err
}

// tellWaiting says once why nobody runs the task, if that is so for a while.
func (a *app) tellWaiting(ctx context.Context, c *client.Client, id string) {
	began := time.Now()
	enough := errors.New("enough")
	_, err := c.JobWatch(ctx, id, func(e client.JobEvent) error {
		switch {
		case e.Job != nil && e.Job.State != client.JobWaiting, len(e.Closed) > 0:
			return enough
		case time.Since(began) < idleWait:
			return nil
		}
		a.noteWhy(ctx, c, id)
		return enough
	})
	_ = err // the logs tell what is wrong, and end the command
}

// noteWhy tells what a task waits for, in a line for each peer.
func (a *app) noteWhy(ctx context.Context, c *client.Client, id string) {
	why, err := c.JobWhy(ctx, id, 0)
	if err != nil {
		return
	}
	a.notef("waiting for a peer to run it (`shoal why %s`):", shortJob(id))
	for _, r := range why.Reasons {
		a.notef("  %s: %s", clean(r.Peer), clean(r.Reason))
	}
}

// nobodyReads reports that an error is of a standard output that is read no more, and not of the connection to the peer.
func nobodyReads(err error) bool {
	return errors.Is(err, syscall.EPIPE) && client.KindOf(err) != client.KindLost
}

// cancelJob ends the job of a command that was interrupted, or whose output nobody reads any more.
func (a *app) cancelJob(ctx context.Context, c *client.Client, id string) error {
	end, cancel := context.WithTimeout(context.WithoutCancel(ctx), killWait)
	defer cancel()
	why := "interrupted"
	if ctx.Err() == nil {
		why = "nobody reads its output"
	}
	if _, err := c.JobKill(end, client.JobRequestByID{Job: id, Why: why}); err != nil {
		a.notef("job %s could not be canceled: %s", shortJob(id), cleanLine(err.Error()))
	} else {
		a.notef("canceled job %s", shortJob(id))
	}
	if ctx.Err() == nil {
		return silent{exitSignal + int(syscall.SIGPIPE)}
	}
	return ctx.Err()
}

// lostJob tells somebody who is cut off from a job how to come back to it.
func lostJob(err error, job client.Submitted) error {
	if client.KindOf(err) != client.KindLost {
		return err
	}
	hint := "it goes on when the peer does"
	if job.Spare > 0 {
		hint = "it goes on all the same; `shoal wait " + shortJob(job.ID) + "` on any member of the pool waits for it"
	}
	return client.Wrap(client.KindLost, fmt.Errorf("job %s: %w", shortJob(job.ID), err), hint)
}

// finishRun saves what the task left, and ends as it did.
func (a *app) finishRun(ctx context.Context, c *client.Client, job client.Submitted, out *target) error {
	var result client.TaskResult
	err := c.JobResults(ctx, job.ID, 0, 1, func(r client.TaskResult) error { result = r; return nil })
	if err != nil {
		return err
	}
	for _, s := range []struct {
		name string
		cut  bool
	}{{"standard output", result.Stdout.Cut}, {"standard error", result.Stderr.Cut}} {
		if s.cut {
			a.notef("%s the %s passed its bound and was cut; see --max-output", a.paint(yellow, "note:"), s.name)
		}
	}
	if result.State == client.TaskDone {
		if err := out.save(ctx, a, c, job.ID, 0); err != nil {
			return err
		}
	}
	return taskExit(result)
}

// taskExit is how a command ends that stands for one task.
func taskExit(r client.TaskResult) error {
	switch {
	case r.State == client.TaskDone && r.Exit == 0:
		return nil
	case r.State == client.TaskDone:
		return silent{r.Exit & 0xff}
	case r.State == client.TaskFailed && len(r.Failures) > 1:
		return &coded{fmt.Errorf("the task was given up after %d attempts, the last: %s", len(r.Failures), clean(r.Reason)), orOwn(r.Exit)}
	case r.State == client.TaskFailed:
		return &coded{fmt.Errorf("the task failed: %s", clean(r.Reason)), orOwn(r.Exit)}
	}
	return &coded{errors.New("the job was canceled"), exitOwn}
}

func orOwn(exit int) int {
	if exit == 0 {
		return exitOwn
	}
	return exit & 0xff
}

const jobShown = 12 // letters of a job's id on the screen

func shortJob(id string) string { return clean(id[:min(len(id), jobShown)]) }
