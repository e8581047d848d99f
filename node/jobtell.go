package node

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks"
	"github.com/shoal-os/shoal/tasks/job"
	"github.com/shoal-os/shoal/tasks/market"
)

const (
	// lately is for how long a job that is over is listed when not all are asked for.
	lately = 24 * time.Hour
	// jobsWait bounds the wait for stewards of all jobs: those that do not answer by then are shown as unreachable.
	jobsWait = 2 * time.Second
	// watchTick is how often somebody who watches a job is told how it is.
	watchTick = 500 * time.Millisecond
	// closedMax and logMax bound one event: tasks that were closed, and bytes that a task wrote.
	closedMax = 4096
	logMax    = 64 << 10
)

// Jobs lists jobs.
func (n *Node) Jobs(ctx context.Context, all bool) ([]client.Job, error) {
	c, err := n.circle()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, jobsWait)
	defer cancel()
	list, err := c.tasks.Jobs(ctx)
	if err != nil {
		return nil, taskError(err)
	}
	out, now := []client.Job{}, c.names.Now()
	for i := range list {
		j := c.jobShape(&list[i])
		if !all && j.Over() && !j.Ended.IsZero() && now.Sub(j.Ended) > lately {
			continue
		}
		out = append(out, j)
	}
	return out, nil
}

// Job describes a job.
func (n *Node) Job(ctx context.Context, text string) (client.Job, error) {
	c, id, err := n.job(ctx, text)
	if err != nil {
		return client.Job{}, err
	}
	return c.jobNow(ctx, id)
}

func (c *circle) jobNow(ctx context.Context, id job.ID) (client.Job, error) {
	info, err := c.tasks.Job(ctx, id)
	if err != nil {
		return client.Job{}, taskError(err)
	}
	return c.jobShape(&info), nil
}

// jobShape describes a job for the API.
func (c *circle) jobShape(i *tasks.Info) client.Job {
	j := client.Job{
		ID: i.ID.String(), Name: wire.CleanText(i.Name), Kind: i.Kind.String(), Command: commandText(i),
		Submitter: c.name(i.Submitter), Created: i.Created, Ended: i.Progress.Ended, State: string(i.State), Tasks: i.Tasks,
		Done: i.Progress.Done, Failed: i.Progress.Failed, Dropped: i.Progress.Dropped + i.Progress.Skipped,
		Attempts: i.Attempts, Retries: i.Retries, Workers: i.Workers, Rate: i.Rate, Stewards: []client.Steward{}, Spare: i.Spare,
	}
	if i.Spec != nil {
		j.Priority, j.Reduce = i.Spec.Priority, i.Spec.Reduce != nil
	}
	if i.Progress.Canceled != "" {
		j.Canceled = wire.CleanText(i.Progress.Canceled) + ", by " + c.name(i.Progress.Canceler)
	}
	for _, id := range i.Stewards {
		m, _ := c.pool.Member(id)
		j.Stewards = append(j.Stewards, client.Steward{ID: id.String(), Name: c.name(id), Leading: id == i.Leader, Online: m.Self || m.State == roster.Online})
	}
	workers := map[peer.ID]bool{}
	for _, l := range i.Leases {
		if l.Phase != market.Frozen { // what is queued at a worker begins there any moment, and is told of late
			j.Running++
		}
		workers[l.Worker] = true
		j.Leases = append(j.Leases, c.leaseShape(&l))
	}
	j.Workers = max(j.Workers, len(workers))
	if j.State == client.JobWaiting && j.Running > 0 {
		j.State = client.JobRunning
	}
	return j
}

// commandText is what a job runs, for people. A module has no name of its own but the job's.
func commandText(i *tasks.Info) string {
	if i.Kind == job.Wasm {
		return wire.CleanText(strings.TrimSpace(i.Name + ".wasm " + i.Command))
	}
	return wire.CleanText(i.Command)
}

func (c *circle) leaseShape(l *tasks.Lease) client.JobLease {
	phases := [...]string{"queued", "queued", "running", "frozen", "done"}
	return client.JobLease{
		Task: l.Task, Token: l.Token.String(), Worker: c.name(l.Worker), Phase: phases[min(int(l.Phase), len(phases)-1)], Ran: l.Ran.Seconds(), Copy: l.Copy,
	}
}

// JobWatch tells how a job goes on.
func (n *Node) JobWatch(ctx context.Context, text string, each func(client.JobEvent) error) (client.Job, error) {
	c, id, err := n.job(ctx, text)
	if err != nil {
		return client.Job{}, err
	}
	now, err := c.jobNow(ctx, id)
	if err != nil {
		return client.Job{}, err
	}
	if err := each(client.JobEvent{Job: &now}); err != nil {
		return client.Job{}, err
	}
	w := newWatching(ctx, c.tasks, id)
	defer w.end()
	tick := time.NewTicker(watchTick)
	defer tick.Stop()
	for {
		select {
		case e, ok := <-w.events:
			if !ok {
				return c.watched(ctx, id, w.err)
			}
			if err := tellClosed(e, each); err != nil {
				return client.Job{}, err
			}
		case <-tick.C:
			now, err := c.jobNow(ctx, id)
			if err != nil {
				continue // its stewards are away for the moment
			}
			if err := each(client.JobEvent{Job: &now}); err != nil {
				return client.Job{}, err
			}
		}
	}
}

// watched is how a job is that was watched to its end.
func (c *circle) watched(ctx context.Context, id job.ID, err error) (client.Job, error) {
	if err != nil {
		return client.Job{}, taskError(err)
	}
	return c.jobNow(ctx, id)
}

// watching is a watch in a goroutine of its own.
type watching struct {
	events chan tasks.Event
	err    error // once events is closed
	cancel context.CancelFunc
}

func newWatching(ctx context.Context, t *tasks.Tasks, id job.ID) *watching {
	ctx, cancel := context.WithCancel(ctx)
	w := &watching{events: make(chan tasks.Event), cancel: cancel}
	go func() {
		defer close(w.events)
		for e, err := range t.Watch(ctx, id) {
			if err != nil {
				w.err = err
				return
			}
			select {
			case w.events <- e:
			case <-ctx.Done():
				w.err = ctx.Err()
				return
			}
		}
		w.err = ctx.Err()
	}()
	return w
}

// end stops the watch and waits for it.
func (w *watching) end() {
	w.cancel()
	for range w.events {
	}
}

// tellClosed tells of tasks that were closed, some at a time.
func tellClosed(e tasks.Event, each func(client.JobEvent) error) error {
	for some := range slices.Chunk(e.Closed, closedMax) {
		out := client.JobEvent{}
		for _, t := range some {
			out.Closed = append(out.Closed, client.TaskClosed{Task: t.Task, State: t.State.String()})
		}
		if err := each(out); err != nil {
			return err
		}
	}
	return nil
}

// JobWhy asks why a task does not run.
func (n *Node) JobWhy(ctx context.Context, text string, task int) (client.JobWhy, error) {
	c, id, err := n.job(ctx, text)
	if err != nil {
		return client.JobWhy{}, err
	}
	reasons, err := c.tasks.Why(ctx, id, task)
	if err != nil {
		return client.JobWhy{}, taskError(err)
	}
	out := client.JobWhy{Job: id.String(), Task: task, Reasons: []client.PeerReason{}}
	for _, r := range reasons {
		out.Reasons = append(out.Reasons, client.PeerReason{Peer: c.name(r.Peer), Steward: r.Steward, Reason: wire.CleanText(withoutPrefixes(r.Reason, "exec: ", "prepare: ", "tasks: "))})
	}
	return out, nil
}

// JobLogs passes on what a task writes.
func (n *Node) JobLogs(ctx context.Context, text string, task int, follow bool, each func(client.JobOutputText) error) error {
	c, id, err := n.job(ctx, text)
	if err != nil {
		return err
	}
	var mu sync.Mutex
	tell := func(stream string, data []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if err := each(client.JobOutputText{Stream: stream, Data: data}); err != nil {
			return &goneError{err}
		}
		return nil
	}
	err = c.tasks.Logs(ctx, id, task, follow, tasks.LogSink{
		Stdout: logWriter{"stdout", tell}, Stderr: logWriter{"stderr", tell},
		Note: func(words string) { _ = tell("note", []byte(wire.CleanText(words))) },
	})
	if gone := new(goneError); errors.As(err, &gone) {
		return gone.error
	}
	return taskError(err)
}

// logWriter is a stream of a task on its way to whoever reads it.
type logWriter struct {
	stream string
	tell   func(stream string, data []byte) error
}

func (w logWriter) Write(p []byte) (int, error) {
	for some := range slices.Chunk(p, logMax) {
		if err := w.tell(w.stream, some); err != nil {
			return 0, err
		}
	}
	return len(p), nil
}

// goneError says that the reader went away, which is not the task's fault.
type goneError struct{ error }

func (e *goneError) Unwrap() error { return e.error }
