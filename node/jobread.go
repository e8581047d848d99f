package node

import (
	"context"
	"io"
	"io/fs"
	"iter"
	"path"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/storage/tree"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

// JobResults reads what became of tasks, in order.
func (n *Node) JobResults(ctx context.Context, text string, first, count int) iter.Seq2[client.TaskResult, error] {
	return func(yield func(client.TaskResult, error) bool) {
		c, id, err := n.job(ctx, text)
		if err != nil {
			yield(client.TaskResult{}, err)
			return
		}
		r, err := c.results(ctx, id)
		if err != nil {
			yield(client.TaskResult{}, err)
			return
		}
		defer r.close()
		if first >= r.info.Tasks {
			yield(client.TaskResult{}, taskError(tasks.ErrNoTask))
			return
		}
		if most := r.info.Tasks - first; count <= 0 || count > most {
			count = most
		}
		for t, err := range c.tasks.Results(ctx, id, first, count) {
			if err != nil {
				yield(client.TaskResult{}, taskError(err))
				return
			}
			shape, err := r.shape(&t)
			if !yield(shape, err) || err != nil {
				return
			}
		}
	}
}

// results reads those of one job.
type results struct {
	ctx   context.Context
	c     *circle
	info  tasks.Info
	items tasks.File // of a list; nil until it is read
}

func (c *circle) results(ctx context.Context, id job.ID) (*results, error) {
	info, err := c.tasks.Job(ctx, id)
	if err != nil {
		return nil, taskError(err)
	}
	return &results{ctx: ctx, c: c, info: info}, nil
}

func (r *results) close() {
	if r.items != nil {
		_ = r.items.Close() // it was only read
	}
}

// shape describes what became of one task.
func (r *results) shape(t *tasks.TaskResult) (client.TaskResult, error) {
	out := client.TaskResult{Task: t.Task, State: t.State.String(), Item: wire.CleanText(r.item(t.Task))}
	out.Reduce = r.info.Spec != nil && r.info.Spec.Reduce != nil && t.Task == r.info.Tasks-1
	if t.State == market.Open || len(t.Results) == 0 {
		return out, nil
	}
	out.Worker, out.Token = r.c.name(t.Worker), t.Token.String()
	last := t.Results[len(t.Results)-1]
	out.Exit, out.Reason = last.Exit, wire.CleanText(last.Reason)
	out.Stdout, out.Stderr, out.Usage = streamShape(last.Stdout), streamShape(last.Stderr), usageShape(last.Usage)
	if t.State == market.Failed {
		for _, f := range t.Results {
			out.Failures = append(out.Failures, client.TaskFailure{Exit: f.Exit, Reason: wire.CleanText(f.Reason)})
		}
		out.Failures[len(out.Failures)-1].Worker = out.Worker
		return out, nil
	}
	files, err := r.c.tasks.Outputs(r.ctx, last)
	if err != nil {
		return client.TaskResult{}, taskError(err)
	}
	for _, f := range files {
		out.Outputs = append(out.Outputs, client.JobOutput{Name: f.Name, Mode: f.Mode, Size: max(f.File.Size, int64(len(f.Inline)))})
	}
	return out, nil
}

// item is what stood for {} in a task; "" if that cannot be read now, as it is for people only.
func (r *results) item(i int) string {
	spec := r.info.Spec
	if spec == nil || i >= spec.Tasks() {
		return ""
	}
	switch spec.Split.Kind {
	case job.Items:
		return spec.Split.Items[i].Text
	case job.List:
		if r.items == nil {
			f, err := r.c.tasks.OpenFile(r.ctx, spec.Split.File)
			if err != nil {
				return ""
			}
			r.items = f
		}
		item, err := job.ItemAt(r.items, spec.Tasks(), i)
		if err != nil {
			return ""
		}
		return item.Text
	}
	return ""
}

func streamShape(s job.Stream) client.JobStream {
	return client.JobStream{Size: max(s.File.Size, int64(len(s.Inline))), Inline: s.Inline, Cut: s.Cut}
}

func usageShape(u job.Usage) client.JobUsage {
	return client.JobUsage{
		Wall: u.Wall.Seconds(), CPU: u.CPU.Seconds(), Memory: u.Memory, Read: u.Read, Written: u.Written, Fetched: u.Fetched,
	}
}

// JobOutput reads a part of a task's result.
func (n *Node) JobOutput(ctx context.Context, text string, task int, part, name string, begin func(size int64) io.Writer) error {
	c, id, err := n.job(ctx, text)
	if err != nil {
		return err
	}
	t, err := c.tasks.Result(ctx, id, task)
	switch {
	case err != nil:
		return taskError(err)
	case t.State == market.Open:
		return client.Errorf(client.KindUnready, "`shoal wait` waits for it, and `shoal why` tells what it waits for", "task %d has no result yet", task)
	case len(t.Results) == 0:
		return client.Errorf(client.KindNotFound, "", "task %d was not run", task)
	}
	inline, file, err := c.partOf(ctx, t.Results[len(t.Results)-1], part, name)
	if err != nil {
		return err
	}
	return c.pour(ctx, inline, file, begin)
}

func (c *circle) partOf(ctx context.Context, r *job.Result, part, name string) (inline []byte, file job.File, err error) {
	switch part {
	case client.OutputStdout:
		return r.Stdout.Inline, r.Stdout.File, nil
	case client.OutputStderr:
		return r.Stderr.Inline, r.Stderr.File, nil
	}
	files, err := c.tasks.Outputs(ctx, r)
	if err != nil {
		return nil, file, taskError(err)
	}
	for _, f := range files {
		if f.Name == name {
			return f.Inline, f.File, nil
		}
	}
	return nil, file, client.Errorf(client.KindNotFound, "`shoal result --json` lists its files", "the task left no file %q", wire.CleanText(name))
}

// pour writes bytes that stand in a result or are a file.
func (c *circle) pour(ctx context.Context, inline []byte, file job.File, begin func(size int64) io.Writer) error {
	r, size, err := c.readerOf(ctx, inline, file)
	if err != nil {
		return err
	}
	defer r.Close()
	if _, err := io.CopyBuffer(onlyWriter{begin(size)}, r, make([]byte, catBuffer)); err != nil {
		return taskError(err)
	}
	return nil
}

// JobSave puts what tasks left into a folder of the pool.
func (n *Node) JobSave(ctx context.Context, req client.JobSaveRequest, progress func(client.Progress)) (client.FileTransfer, error) {
	c, id, err := n.job(ctx, req.Job)
	if err != nil {
		return client.FileTransfer{}, err
	}
	r, err := c.results(ctx, id)
	if err != nil {
		return client.FileTransfer{}, err
	}
	defer r.close()
	began := time.Now()
	put := c.tree.NewPut(tree.PutOptions{Progress: fileProgress("storing", progress)})
	defer put.Abort()
	if err := put.Folder(ctx, req.Path, fs.ModeDir|0o755, began); err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	place := client.Placing{Tasks: r.info.Tasks, Streams: req.Streams}
	first, count := r.span(req.Task)
	for t, err := range c.tasks.Results(ctx, id, first, count) {
		if err != nil {
			return client.FileTransfer{}, taskError(err)
		}
		if err := r.save(put, &place, req.Path, &t, began); err != nil {
			return client.FileTransfer{}, err
		}
	}
	result, err := put.Commit(ctx)
	if err != nil {
		return client.FileTransfer{}, fileError(err)
	}
	return transferShape(req.Path, result, wantedCopies(0), began), nil
}

// span is which tasks are meant by a number: -1 is the reduce, or all where there is none.
func (r *results) span(task int) (first, count int) {
	switch {
	case task >= 0:
		return task, 1
	case r.info.Spec != nil && r.info.Spec.Reduce != nil:
		return r.info.Tasks - 1, 1
	}
	return 0, r.info.Tasks
}

// save puts what one task left; one without a result leaves nothing.
func (r *results) save(put *tree.Put, place *client.Placing, dir string, t *tasks.TaskResult, at time.Time) error {
	shape, err := r.shape(t)
	if err != nil || shape.State != client.TaskDone {
		return err
	}
	for _, p := range place.Place(shape) {
		inline, file, err := r.c.partOf(r.ctx, t.Results[len(t.Results)-1], p.Part, p.Name)
		if err != nil {
			return err
		}
		if err := r.put(put, path.Join(dir, p.Path), fs.FileMode(p.Mode), at, inline, file); err != nil {
			return err
		}
	}
	return nil
}

func (r *results) put(put *tree.Put, at string, mode fs.FileMode, when time.Time, inline []byte, file job.File) error {
	in, _, err := r.c.readerOf(r.ctx, inline, file)
	if err != nil {
		return err
	}
	defer in.Close()
	if mode == 0 {
		mode = 0o644
	}
	return fileError(put.File(r.ctx, at, mode, when, in))
}
