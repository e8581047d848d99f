package client

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"sync/atomic"
)

// The names of the events of a job.
const (
	EventJob    = "job"
	EventOutput = "output"
)

// The parts of a task's result that GET /v1/jobs/output reads: one of its streams, or a file that it left.
const (
	OutputStdout = "stdout"
	OutputStderr = "stderr"
	OutputFile   = "file"
)

// taskLineMax bounds one line of results: what is inline, in base64, and a spec's longest item.
const taskLineMax = 1 << 20

// JobSubmit asks for work. When it returns, the job is in its stewards' log and goes on without this peer, as far as
// Spare says. Progress is of the bytes that are stored first.
func (c *Client) JobSubmit(ctx context.Context, req JobRequest, progress func(Progress)) (Submitted, error) {
	return stream[Submitted](ctx, c, "/v1/jobs", req, progress)
}

// JobStore makes a file for a job of what r yields.
func (c *Client) JobStore(ctx context.Context, name string, r io.Reader) (JobFile, error) {
	return upload[JobFile](ctx, c, "/v1/jobs/store?"+url.Values{"name": {name}}.Encode(), r)
}

// Jobs lists jobs, newest first: those that run or ended within a day, or all that are still known.
func (c *Client) Jobs(ctx context.Context, all bool) ([]Job, error) {
	list, err := call[JobList](ctx, c, http.MethodGet, "/v1/jobs?"+url.Values{"all": {strconv.FormatBool(all)}}.Encode())
	return list.Jobs, err
}

// Job returns one job by its id, the beginning of it, or its name; of several with the name, the newest.
func (c *Client) Job(ctx context.Context, job string) (Job, error) {
	return call[Job](ctx, c, http.MethodGet, "/v1/jobs/job?"+url.Values{"job": {job}}.Encode())
}

// JobWatch calls each for what happens to a job, what is closed already included, until it is over, and then returns how it
// ended. The first event says how the job is.
func (c *Client) JobWatch(ctx context.Context, job string, each func(JobEvent) error) (Job, error) {
	return follow(ctx, c, http.MethodGet, "/v1/jobs/watch?"+url.Values{"job": {job}}.Encode(), nil, func(e event, out *Job) (bool, error) {
		if e.Name != EventJob {
			return handle(e, out, nil)
		}
		happened, err := decode[JobEvent](e)
		if err != nil {
			return true, err
		}
		return false, each(happened)
	})
}

// JobResults calls each for count tasks from first on, in order, open ones too; count 0 is all.
func (c *Client) JobResults(ctx context.Context, job string, first, count int, each func(TaskResult) error) error {
	q := url.Values{"job": {job}, "first": {strconv.Itoa(first)}, "count": {strconv.Itoa(count)}}
	return readLines(ctx, c, "/v1/jobs/results?"+q.Encode(), taskLineMax, each)
}

// JobOutput writes a part of a task's result to w: OutputStdout, OutputStderr, or the file name that it left. begin, which
// may be nil, is called before with the size in bytes. An error of w is returned as it is.
func (c *Client) JobOutput(ctx context.Context, job string, task int, part, name string, w io.Writer, begin func(size int64)) error {
	q := url.Values{"job": {job}, "task": {strconv.Itoa(task)}, "part": {part}}
	if name != "" {
		q.Set("name", name)
	}
	return c.download(ctx, "/v1/jobs/output?"+q.Encode(), w, begin)
}

// JobLogs calls each for what a task writes, as it comes with follow, until the task is closed.
func (c *Client) JobLogs(ctx context.Context, job string, task int, followed bool, each func(JobOutputText) error) error {
	q := url.Values{"job": {job}, "task": {strconv.Itoa(task)}, "follow": {strconv.FormatBool(followed)}}
	_, err := follow(ctx, c, http.MethodGet, "/v1/jobs/logs?"+q.Encode(), nil, func(e event, out *struct{}) (bool, error) {
		if e.Name != EventOutput {
			return handle(e, out, nil)
		}
		text, err := decode[JobOutputText](e)
		if err != nil {
			return true, err
		}
		return false, each(text)
	})
	return err
}

// JobKill ends a job. It is no error if it is over already.
func (c *Client) JobKill(ctx context.Context, req JobRequestByID) (Job, error) {
	return send[Job](ctx, c, http.MethodPost, "/v1/jobs/kill", req)
}

// JobWhy asks the job's leading steward and each peer about a task.
func (c *Client) JobWhy(ctx context.Context, job string, task int) (JobWhy, error) {
	return call[JobWhy](ctx, c, http.MethodGet, "/v1/jobs/why?"+url.Values{"job": {job}, "task": {strconv.Itoa(task)}}.Encode())
}

// JobSave puts what tasks left into a folder of the pool.
func (c *Client) JobSave(ctx context.Context, req JobSaveRequest, progress func(Progress)) (FileTransfer, error) {
	return stream[FileTransfer](ctx, c, "/v1/jobs/save", req, progress)
}

// Mine takes the machine back from the pool's tasks, or gives it again.
func (c *Client) Mine(ctx context.Context, on bool) (Worker, error) {
	return send[Worker](ctx, c, http.MethodPost, "/v1/mine", MineRequest{on})
}

// Worker tells what this peer does for the pool's tasks.
func (c *Client) Worker(ctx context.Context) (Worker, error) {
	return call[Worker](ctx, c, http.MethodGet, "/v1/worker")
}

// upload posts what r yields. An error of r is returned as it is.
func upload[T any](ctx context.Context, c *Client, path string, r io.Reader) (T, error) {
	var out T
	in := &readError{r: r}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, "http://"+c.host()+c.prefix+path, in)
	if err != nil {
		return out, fmt.Errorf("api: %w", err)
	}
	req.Header.Set("Content-Type", "application/octet-stream")
	resp, err := c.roundTrip(ctx, req)
	if err != nil {
		if broken := in.err.Load(); broken != nil && ctx.Err() == nil {
			return out, *broken
		}
		return out, err
	}
	defer resp.Body.Close()
	return out, json.NewDecoder(io.LimitReader(resp.Body, answerBytesMax)).Decode(&out)
}

// readError tells the reader's errors from the connection's.
type readError struct {
	r   io.Reader
	err atomic.Pointer[error] // the transport reads in a goroutine of its own
}

func (r *readError) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if err != nil && err != io.EOF {
		r.err.Store(&err)
	}
	return n, err
}

// Close closes what can be closed, as the transport does when it has no more use for a body.
func (r *readError) Close() error {
	if c, ok := r.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}
