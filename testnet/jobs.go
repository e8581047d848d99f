package testnet

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"

	"github.com/shoal-os/shoal/node/api/client"
	"github.com/shoal-os/shoal/tasks/exec/wasm/wat"
	"github.com/shoal-os/shoal/testnet/report"
	"github.com/shoal-os/shoal/testnet/script"
)

// sliceSize is what each task of a job reads on its standard input and writes to its standard output: the least that a
// slice may have, and more than a result holds by itself, so that outputs are stored in the pool.
const sliceSize = 64 << 10

// work is a job that was submitted: once that is acknowledged it is promised to come to its right end.
type work struct {
	name string
	id   string
	from int
	sums [][sha256.Size]byte // of each task's output
	size int64               // of each task's output
	out  int                 // index in the report

	held map[string][]client.JobLease // by worker: what it ran when it was expected to work
	told map[int]string               // by task: the attempt whose result was told first
}

// submit hands a job to the pool. Its program is a WebAssembly module that copies what it is given, so that the right
// output of each task is known: its own part of a file that follows from the seed.
func (w *world) submit(ctx context.Context, a script.Action) (string, error) {
	p := w.peers[a.Peers[0]]
	c, err := p.api()
	if err != nil {
		return "", err
	}
	k := &work{name: a.Name, from: p.index, size: sliceSize, held: map[string][]client.JobLease{}, told: map[int]string{}}
	program := wat.Cat()
	if a.Last > 0 {
		program, k.size = wat.Nap(a.Last), wat.NapBytes
	}
	path, err := w.parts(k, a)
	if err != nil {
		return "", err
	}
	defer os.Remove(path)
	module, err := c.JobStore(ctx, "copy.wasm", bytes.NewReader(program))
	if err != nil {
		return "", fmt.Errorf("store the program: %w", err)
	}
	req := client.JobRequest{
		Name: a.Name, Fresh: true, Memory: 16 << 20, Failures: 16,
		Program: client.JobProgram{Kind: "wasm", Module: &client.JobSource{Stored: &module}},
	}
	if a.Tasks > 1 {
		req.Split = &client.JobSplit{Slice: &client.JobSource{File: path}, Size: sliceSize, Bytes: true}
	} else {
		req.Stdin = &client.JobSource{File: path}
	}
	done, err := c.JobSubmit(ctx, req, nil)
	if err != nil {
		return "", fmt.Errorf("submit: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	k.id, k.out = done.ID, len(w.out.Jobs)
	w.out.Jobs = append(w.out.Jobs, report.Job{Name: k.name, ID: k.id, Tasks: a.Tasks, Submitted: w.now()})
	w.jobs = append(w.jobs, k)
	w.out.Tally.Jobs, w.out.Tally.Tasks = w.out.Tally.Jobs+1, w.out.Tally.Tasks+a.Tasks
	return fmt.Sprintf("%d tasks, %d stewards", done.Tasks, len(done.Stewards)), nil
}

// parts writes the file that the tasks share out.
func (w *world) parts(k *work, a script.Action) (path string, err error) {
	path = filepath.Join(w.cfg.Dir, "data", "job-"+k.name)
	f, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	random := rand.New(rand.NewPCG(a.Seed, 1))
	part := make([]byte, sliceSize)
	for range a.Tasks {
		for i := range part {
			part[i] = byte(random.Uint32())
		}
		k.sums = append(k.sums, sha256.Sum256(part[:k.size]))
		if _, err := f.Write(part); err != nil {
			return "", err
		}
	}
	return path, f.Close()
}

// work finds a job by its name; nil if it was never acknowledged.
func (w *world) work(name string) *work {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, k := range w.jobs {
		if k.name == name {
			return k
		}
	}
	return nil
}

// await waits until a job is over, and looks at what came of it.
func (w *world) await(ctx context.Context, a script.Action) (string, error) {
	k := w.work(a.Name)
	if k == nil {
		return "", fmt.Errorf("%s was never acknowledged", a.Name)
	}
	err := eventually(ctx, opWait, func(ctx context.Context) error { return w.over(ctx, k) })
	if err != nil {
		return "", err
	}
	live := w.live()
	return fmt.Sprintf("%d results", len(k.sums)), w.results(ctx, live[0], k, nil)
}

// over says why a job is not done.
func (w *world) over(ctx context.Context, k *work) error {
	var last error
	for _, p := range w.live() {
		c, err := p.api()
		if err != nil {
			continue
		}
		j, err := c.Job(ctx, k.id)
		switch {
		case err != nil:
			last = err
		case j.State == client.JobDone:
			w.mu.Lock()
			if done := &w.out.Jobs[k.out].Done; *done == 0 {
				*done = w.now()
			}
			w.mu.Unlock()
			return nil
		case j.Over():
			return fmt.Errorf("%s is %s: %d of %d done, %d given up", k.name, j.State, j.Done, j.Tasks, j.Failed)
		default:
			last = fmt.Errorf("%s is %s: %d of %d done, %d run, as %s sees it", k.name, j.State, j.Done, j.Tasks, j.Running, p.name)
		}
		if j.State != client.JobUnreachable && err == nil {
			break // one that knows is enough
		}
	}
	if last == nil {
		last = errors.New("nobody can be asked")
	}
	return last
}

// results compares what a peer says came of each task. Tokens collects which attempt was committed; if they are there already,
// from another peer, they must be the same.
func (w *world) results(ctx context.Context, p *peer, k *work, tokens map[int]string) error {
	c, err := p.api()
	if err != nil {
		return err
	}
	seen := map[int]bool{}
	err = c.JobResults(ctx, k.id, 0, len(k.sums)+1, func(r client.TaskResult) error {
		id := r.Worker + " " + r.Token
		if err := w.tell(k, r); err != nil {
			return err
		}
		switch was, told := tokens[r.Task]; {
		case r.Task < 0 || r.Task >= len(k.sums):
			return fmt.Errorf("%s tells of a task %d of %s, which has %d", p.name, r.Task, k.name, len(k.sums))
		case seen[r.Task]:
			return fmt.Errorf("%s tells of two results of task %d of %s", p.name, r.Task, k.name)
		case r.State != client.TaskDone:
			return fmt.Errorf("task %d of %s is %s: %s", r.Task, k.name, r.State, r.Reason)
		case told && was != id:
			return fmt.Errorf("task %d of %s was committed twice: as %s, and as %s", r.Task, k.name, was, id)
		}
		seen[r.Task] = true
		if tokens != nil {
			tokens[r.Task] = id
		}
		return nil
	})
	if err != nil {
		return err
	}
	if len(seen) != len(k.sums) {
		return fmt.Errorf("%s knows of %d results of %s, which has %d tasks", p.name, len(seen), k.name, len(k.sums))
	}
	for task, sum := range k.sums {
		s := newSummer()
		if err := c.JobOutput(ctx, k.id, task, client.OutputStdout, "", s, nil); err != nil {
			return fmt.Errorf("%s reads the output of task %d of %s: %w", p.name, task, k.name, err)
		}
		if err := s.compare(blob{size: k.size, sum: sum}); err != nil {
			return fmt.Errorf("the output of task %d of %s is not right: %w", task, k.name, err)
		}
	}
	return nil
}

// promiseJobs: every job that was acknowledged comes to its end, with the right output of each task, which was committed
// once: two peers tell of the same attempt.
func (w *world) promiseJobs(ctx context.Context) {
	w.mu.Lock()
	jobs := slices.Clone(w.jobs)
	w.mu.Unlock()
	if len(jobs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, readingWait)
	defer cancel()
	began := w.now()
	var unfinished, twice []string
	tasks := 0
	for _, k := range jobs {
		tasks += len(k.sums)
		if err := eventually(ctx, settleWait, func(ctx context.Context) error { return w.over(ctx, k) }); err != nil {
			unfinished = append(unfinished, err.Error())
			continue
		}
		tokens := map[int]string{}
		live := w.live()
		for _, p := range live[:min(len(live), 2)] {
			if err := w.results(ctx, p, k, tokens); err != nil {
				twice = append(twice, err.Error())
			}
		}
	}
	w.promise("every acknowledged job is complete", listed(unfinished), "", fmt.Sprintf("%d jobs, %.1f s", len(jobs), w.now()-began))
	w.promise("each task is committed once, with the right output", listed(twice), "", fmt.Sprintf("%d tasks, as two peers tell of them", tasks))
}

// attempts notes who has which task now, for the report.
func (w *world) attempts(ctx context.Context, c *client.Client) {
	w.mu.Lock()
	jobs := slices.Clone(w.jobs)
	w.mu.Unlock()
	for _, k := range jobs {
		w.mu.Lock()
		over := w.out.Jobs[k.out].Done > 0
		w.mu.Unlock()
		if over {
			continue
		}
		j, err := c.Job(ctx, k.id)
		if err != nil {
			continue
		}
		w.mu.Lock()
		out := &w.out.Jobs[k.out]
		if j.Over() {
			out.Done = w.now()
		}
		for _, l := range j.Leases {
			w.noteAttempt(out, l)
		}
		w.mu.Unlock()
	}
}

// noteAttempt prolongs an attempt that is known, or begins one; the lock is held.
func (w *world) noteAttempt(out *report.Job, l client.JobLease) {
	who := slices.IndexFunc(w.peers, func(p *peer) bool { return p.name == l.Worker })
	for i := range out.Attempts {
		if a := &out.Attempts[i]; a.Task == l.Task && a.Token == l.Token {
			a.To = w.now()
			return
		}
	}
	if len(out.Attempts) < attemptsMax {
		out.Attempts = append(out.Attempts, report.Attempt{Task: l.Task, Peer: who, Token: l.Token, From: w.now(), To: w.now() + 0.2, End: "seen"})
	}
}

// attemptsMax bounds what a report tells of one job.
const attemptsMax = 2000
