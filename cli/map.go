package cli

import (
	"context"
	"fmt"
	"io"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	// countMax bounds the tasks of a job; it is the market's.
	countMax = 1_000_000
	// sliceMin is the least size of a slice; it is a job's.
	sliceMin = 64 << 10
)

const mapHelp = `Runs a program once for each of many inputs, spread over the peers of the pool, and gathers
the results in the order of the inputs. The inputs are

  files       /photos (all below it), '/photos/*.jpg', or files and folders of this machine
  --lines F   the lines of a file; - is standard input
  --slice S   parts of one file, of S bytes, cut at line ends; each task reads its own on
              standard input (--bytes cuts at the byte)
  --count N   nothing but the numbers from 0, as SHOAL_TASK

In the arguments {} stands for where the task finds its file, for its line, or for its number.
Without any {} the file or line is the last argument. What the tasks print comes in order; with
-o the files that they leave in /out (./out for native commands) are put into one folder, and
what they print beside them. With --reduce a second program runs once at the end: it reads what
all tasks printed, in order, and finds the files that they left as /in/TASK/NAME; then its result
is the answer.
` + placesHelp + `

A task whose peer vanishes runs elsewhere; one that fails on three peers, or --retries times
more, is given up: it is listed at the end with the last lines it wrote, and the exit code is 1.
After ctrl-C the job is canceled (130).`

type mapFlags struct {
	jobFlags
	lines, reduce, out string
	slice              bytesFlag
	count              int
	bytes, detach      bool
}

func newMap(a *app) *cobra.Command {
	var flags mapFlags
	cmd := &cobra.Command{
		Use:   "map [flags] INPUTS… PROG.wasm ARGS… | map [flags] INPUTS… -- CMD ARGS…",
		Short: "Run a program for each of many inputs, everywhere at once",
		Long:  mapHelp,
		Example: "  shoal map '/photos/*.jpg' -o /thumbs -- sh -c 'convert \"$1\" -resize 200 out/\"${1##*/}\"' sh {}\n" +
			"  shoal map --slice 64MiB /logs/huge.log --reduce 'sum.wasm' count.wasm\n" +
			"  seq 100 | shoal map --lines - -- ./simulate {}",
		Annotations: map[string]string{programKey: "last"},
		RunE: func(cmd *cobra.Command, args []string) error {
			inputs, words, err := programArgs(cmd, args)
			if err == nil {
				err = flags.check(inputs)
			}
			if err != nil {
				return err
			}
			return a.withPeer(cmd.Context(), func(c *client.Client) error { return a.mapAll(cmd.Context(), c, &flags, inputs, words) })
		},
	}
	flags.add(cmd.Flags())
	return cmd
}

func (m *mapFlags) add(f *pflag.FlagSet) {
	f.StringVar(&m.lines, "lines", "", "a task for each line of this file; - is standard input")
	f.Var(&m.slice, "slice", "a task for each part of the one input, of this size, as 64MiB")
	f.BoolVar(&m.bytes, "bytes", false, "cut slices exactly at their size, and not at the end of the line")
	f.IntVar(&m.count, "count", 0, "so many tasks, without an input of their own")
	f.StringVar(&m.reduce, "reduce", "", "a program with its arguments that is run once over all results, as 'sum.wasm -n'")
	f.StringVarP(&m.out, "out", "o", "", "folder for what the tasks leave and print: DIR, or /PATH in the pool")
	f.BoolVarP(&m.detach, "detach", "d", false, "print the job's id and leave; `shoal result` gathers later")
	m.jobFlags.add(f)
}

// check holds that there is exactly one kind of inputs.
func (m *mapFlags) check(inputs []string) error {
	kinds := 0
	for _, is := range []bool{m.lines != "", m.count != 0, len(inputs) > 0} {
		if is {
			kinds++
		}
	}
	switch {
	case kinds == 0:
		return usagef("give files, --lines or --count; see `shoal map --help`", "there are no inputs")
	case kinds > 1:
		return usagef("give files, --lines or --count, and --slice with one file", "only one kind of inputs at a time")
	case m.count < 0 || m.count > countMax:
		return usagef("", "--count must be from 1 to %d", countMax)
	case m.slice != 0 && len(inputs) != 1:
		return usagef("", "--slice takes exactly one file")
	case m.slice != 0 && m.slice < sliceMin:
		return usagef("", "slices must be of %s at least", bytesText(sliceMin))
	case m.bytes && m.slice == 0:
		return usagef("", "--bytes has no meaning without --slice")
	case m.detach && m.out != "":
		return usagef("gather later with `shoal result JOB -o DIR`", "--out has no meaning with --detach")
	}
	return nil
}

// split makes the request's split of the flags.
func (m *mapFlags) split(ctx context.Context, a *app, c *client.Client, inputs []string) (*client.JobSplit, error) {
	switch {
	case m.count > 0:
		return &client.JobSplit{Count: m.count}, nil
	case m.lines == "-":
		f, err := c.JobStore(ctx, "lines", a.in)
		return &client.JobSplit{Lines: &client.JobSource{Stored: &f}}, err
	case m.lines != "":
		src, err := source(m.lines)
		return &client.JobSplit{Lines: &src}, err
	case m.slice != 0:
		src, err := source(inputs[0])
		return &client.JobSplit{Slice: &src, Size: int64(m.slice), Bytes: m.bytes}, err
	}
	out := &client.JobSplit{}
	for _, in := range inputs {
		src, err := source(in)
		if err != nil {
			return nil, err
		}
		out.Files = append(out.Files, client.JobInput{Name: ".", From: src})
	}
	return out, nil
}

// request makes a request of all that was typed.
func (m *mapFlags) request(ctx context.Context, a *app, c *client.Client, inputs, words []string) (client.JobRequest, error) {
	p, err := program(words)
	if err != nil {
		return client.JobRequest{}, err
	}
	if m.count == 0 && m.slice == 0 && !strings.Contains(strings.Join(p.Args, "\x00"), "{}") {
		p.Args = append(p.Args[:len(p.Args):len(p.Args)], "{}")
	}
	req, err := m.jobFlags.request(a, p, false)
	if err != nil {
		return req, err
	}
	if m.reduce != "" {
		words, err := splitWords(m.reduce)
		if err == nil && len(words) == 0 {
			err = usagef("", "--reduce names no program")
		}
		if err != nil {
			return req, err
		}
		reduce, err := program(words)
		if err != nil {
			return req, err
		}
		reduce.Env = req.Program.Env
		req.Reduce = &reduce
	}
	req.Split, err = m.split(ctx, a, c, inputs)
	return req, err
}

func (a *app) mapAll(ctx context.Context, c *client.Client, flags *mapFlags, inputs, words []string) error {
	out, err := a.target(ctx, c, flags.out)
	if err != nil {
		return err
	}
	req, err := flags.request(ctx, a, c, inputs, words)
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
	if out != nil {
		out.streams = true
		defer out.close()
	}
	signal.Ignore(syscall.SIGPIPE) // the write says so, and the job is ended
	err = a.gather(ctx, c, job, req.Name, req.Reduce != nil, out)
	if ctx.Err() != nil || nobodyReads(err) {
		return a.cancelJob(ctx, c, job.ID)
	}
	return lostJob(err, job)
}

// gather follows a job to its end, and puts out what its tasks give, in order.
func (a *app) gather(ctx context.Context, c *client.Client, job client.Submitted, label string, reduce bool, out *target) error {
	g := &gathering{app: a, client: c, job: job, reduce: reduce, out: out, state: make([]string, job.Tasks)}
	g.view = a.newTaskView(label)
	g.stdout, g.stderr = a.beside(g.view)
	if out != nil {
		out.place.Tasks = job.Tasks
	}
	end, err := c.JobWatch(ctx, job.ID, func(e client.JobEvent) error { return g.take(ctx, e) })
	if err == nil {
		err = g.rest(ctx)
	}
	g.view.end()
	if err != nil {
		return err
	}
	return g.finish(ctx, end)
}

// beside returns where to write while a bar may be on the screen.
func (a *app) beside(v *taskView) (stdout, stderr *lineWriter) {
	stdout, stderr = &lineWriter{to: a.out}, &lineWriter{to: v}
	if v.progress != nil && a.screen {
		stdout.to = v
	}
	return stdout, stderr
}

// gathering is the tasks of one job, on their way back.
type gathering struct {
	app    *app
	client *client.Client
	job    client.Submitted
	reduce bool
	out    *target
	view   *taskView

	stdout, stderr *lineWriter
	state          []string // of each task; "" is open
	closed         int
	next           int // the first task that was not put out
	failed         []client.TaskResult
	failures       int
}

// failuresKept bounds the failed tasks of which the reasons are shown.
const failuresKept = 5

// take notes what happened, and puts out what has become complete.
func (g *gathering) take(ctx context.Context, e client.JobEvent) error {
	for _, t := range e.Closed {
		if t.Task >= 0 && t.Task < len(g.state) && g.state[t.Task] == "" {
			g.state[t.Task] = t.State
			g.closed++
		}
	}
	g.view.update(e.Job, g.closed)
	return g.flush(ctx)
}

// flush puts out the tasks that are closed and have only closed ones before them.
func (g *gathering) flush(ctx context.Context) error {
	end := g.next
	for end < len(g.state) && g.state[end] != "" {
		end++
	}
	if end == g.next {
		return nil
	}
	first := g.next
	g.next = end
	if !g.wanted(first, end) {
		return nil
	}
	return g.client.JobResults(ctx, g.job.ID, first, end-first, func(r client.TaskResult) error { return g.put(ctx, r) })
}

// wanted reports whether anything of these tasks is to be put out.
func (g *gathering) wanted(first, end int) bool {
	if !g.reduce || end == len(g.state) {
		return true
	}
	for _, s := range g.state[first:end] {
		if s == client.TaskFailed {
			return true
		}
	}
	return false
}

// rest puts out what is left when nothing more comes.
func (g *gathering) rest(ctx context.Context) error {
	for i, s := range g.state {
		if s == "" {
			g.state[i] = client.TaskCanceled
		}
	}
	if err := g.flush(ctx); err != nil {
		return err
	}
	if err := g.stdout.flush(); err != nil {
		return err
	}
	return g.stderr.flush()
}

// put puts out what one task gave.
func (g *gathering) put(ctx context.Context, r client.TaskResult) error {
	switch {
	case r.State == client.TaskFailed:
		if g.failures++; len(g.failed) < failuresKept {
			g.failed = append(g.failed, r)
		}
		return nil
	case r.State != client.TaskDone, g.reduce && !r.Reduce:
		return nil
	}
	if err := g.copy(ctx, g.stderr, r, client.OutputStderr, r.Stderr); err != nil {
		return err
	}
	if g.out != nil {
		return g.out.add(ctx, g.client, g.job.ID, r)
	}
	return g.copy(ctx, g.stdout, r, client.OutputStdout, r.Stdout)
}

// copy writes one of a task's streams.
func (g *gathering) copy(ctx context.Context, to *lineWriter, r client.TaskResult, part string, s client.JobStream) error {
	var w io.Writer = to
	if to.to == io.Writer(g.app.out) { // nothing is beside it: bytes are bytes
		w = g.app.out
	}
	if s.Size == int64(len(s.Inline)) {
		_, err := w.Write(s.Inline)
		return err
	}
	return g.client.JobOutput(ctx, g.job.ID, r.Task, part, "", w, nil)
}

// finish saves into the pool what belongs there, lists what failed, and ends as the job did.
func (g *gathering) finish(ctx context.Context, end client.Job) error {
	a := g.app
	if g.out != nil && g.out.pool != "" {
		if err := g.out.save(ctx, a, g.client, g.job.ID, -1); err != nil {
			return err
		}
	}
	if g.out != nil {
		a.notef("%s", g.out.text())
	}
	if end.State == client.JobCanceled {
		return client.Errorf(client.KindRefused, "`shoal result "+shortJob(g.job.ID)+"` gathers what is done", "the job was canceled: %s", clean(end.Canceled))
	}
	if g.failures == 0 {
		return nil
	}
	for i := range g.failed {
		a.notefFailure(&g.failed[i])
	}
	if more := g.failures - len(g.failed); more > 0 {
		a.notef("… and %d more", more)
	}
	return client.Errorf(client.KindInternal, fmt.Sprintf("`shoal logs %s TASK` shows all that one wrote", shortJob(g.job.ID)),
		"%d of %s failed", g.failures, plural(len(g.state), "task"))
}

// tailLines is how many of a failed task's last lines are shown.
const tailLines = 5

// notefFailure tells of a task that was given up.
func (a *app) notefFailure(r *client.TaskResult) {
	item := ""
	if r.Item != "" {
		item = " (" + cut(clean(r.Item), 60) + ")"
	}
	a.notef("%s task %d%s: %s", a.paint(red, "failed:"), r.Task, item, clean(r.Reason))
	lines := strings.Split(strings.TrimRight(string(r.Stderr.Inline), "\n"), "\n")
	for _, line := range lines[max(0, len(lines)-tailLines):] {
		if line != "" {
			a.notef("  %s", a.paint(dim, clean(line)))
		}
	}
}
