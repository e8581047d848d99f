package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"slices"
	"time"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	groupCall    = "call"
	groupStream  = "stream"
	groupRecover = "recover"
	groupSplit   = "split"
	groupChaos   = "chaos"
	groupHostile = "hostile"

	taskWorkers = 4
	// runnerLabel is what the last two mates have, so that a job can be kept off the one that submits it.
	runnerLabel = "bench=runner"
)

// noopModule is a WebAssembly module that does nothing: memory of a page and an empty _start.
var noopModule = []byte{
	0x00, 'a', 's', 'm', 1, 0, 0, 0,
	1, 4, 1, 0x60, 0, 0, // a type: no arguments, no results
	3, 2, 1, 0, // a function of it
	5, 3, 1, 0, 1, // a memory of one page
	7, 19, 2, 6, 'm', 'e', 'm', 'o', 'r', 'y', 2, 0, 6, '_', 's', 't', 'a', 'r', 't', 0, 0,
	10, 4, 1, 2, 0, 11, // its body: end
}

// tasksBench measures the pool's tasks over real processes on one machine.
type tasksBench struct {
	dir    string
	shoal  *peers
	crew   *crew
	module client.JobFile // the no-op, stored
	sizes  taskSizes
}

// taskSizes is how much of each there is.
type taskSizes struct {
	calls, wasm, proc, chaos int
	split                    size
}

func runTasks(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench tasks", flag.ContinueOnError)
	z := taskSizes{split: 4 << 30}
	fs.IntVar(&z.calls, "calls", 200, "jobs of one task, one after another")
	fs.IntVar(&z.wasm, "wasm", 20_000, "WebAssembly no-ops in one job")
	fs.IntVar(&z.proc, "proc", 4_000, "native no-ops in one job")
	fs.IntVar(&z.chaos, "chaos", 1_000, "tasks of 50 ms that run while peers are killed")
	fs.Var(&z.split, "split", "size of the file whose SHA-256 is computed by slices")
	opts := addRunFlags(fs, 1)
	if err := fs.Parse(args); err != nil {
		return err
	}
	if fs.NArg() > 0 || min(opts.runs, z.calls, z.wasm, z.proc, z.chaos) < 1 || z.split < 1 {
		return errors.New("tasks: bad arguments; see tasks --help")
	}
	return inTemporaryFolder(func(dir string) error {
		b := &tasksBench{dir: dir, shoal: newPeers(dir, ""), sizes: z}
		defer b.end()
		report := newReport("tasks", opts.runs)
		report.groups = []group{
			{groupCall, "no-ops one after another, three stewards with real fsync", "a second", 1, "CPU s"},
			{groupStream, fmt.Sprintf("no-ops of one job through %d workers, three stewards with real fsync", taskWorkers), "a second", 1, "CPU s"},
			{groupRecover, "what a loss costs; the rate is its inverse", "a second", 1, "CPU s"},
			{groupSplit, "SHA-256 of " + z.split.String() + " by slices on four peers", "MB/s", 1, "CPU s"},
			{groupHostile, "questions to the API of peers while hostile guests run on all of them", "answers/s", 1, "CPU s"},
			{groupChaos, fmt.Sprintf("%d tasks of 50 ms while workers, the leading steward and the submitter go", z.chaos), "tasks/s", 1, "CPU s"},
		}
		return report.measure(ctx, opts, b.cases())
	})
}

func (b *tasksBench) cases() []testcase {
	return []testcase{
		{name: "fsync", group: groupCall, what: "a bare append and fsync of 256 bytes", run: b.bareCommits},
		{name: "call-wasm", group: groupCall, what: "a WebAssembly job of one task, from its submission to its result", floor: "fsync",
			run: func(ctx context.Context) (sample, error) { return b.callEach(ctx, b.wasm()) }},
		{name: "call-proc", group: groupCall, what: "the same, native", floor: "fsync",
			run: func(ctx context.Context) (sample, error) { return b.callEach(ctx, b.native("true")) }},
		{name: "wazero", group: groupStream, what: "a bare instance of the same module, in one process, on all cores", run: bareModules},
		{name: "noop-wasm", group: groupStream, what: "WebAssembly", floor: "wazero",
			run: func(ctx context.Context) (sample, error) { return b.streaming(ctx, b.wasm(), b.sizes.wasm) }},
		{name: "fork", group: groupStream, what: fmt.Sprintf("bare fork and exec, %d at a time", taskWorkers), run: b.bareForks},
		{name: "noop-proc", group: groupStream, what: "native", floor: "fork",
			run: func(ctx context.Context) (sample, error) { return b.streaming(ctx, b.native("true"), b.sizes.proc) }},
		{name: "worker-kill", group: groupRecover, what: "from a worker's kill -9 to its task running elsewhere",
			run: func(ctx context.Context) (sample, error) { return b.loseWorker(ctx, killed) }},
		{name: "worker-stop", group: groupRecover, what: "the same of a worker that falls silent (SIGSTOP)",
			run: func(ctx context.Context) (sample, error) { return b.loseWorker(ctx, silenced) }},
		{name: "leader-kill", group: groupRecover, what: "from the leading steward's kill -9 to the next lease granted", run: b.loseLeader},
		{name: "submitter", group: groupRecover, what: "from the submitter's stop in mid-job to the job's end", run: b.loseSubmitter},
		{name: "sha256", group: groupSplit, what: "one process that reads and hashes", run: b.hashAlone},
		{name: "split", group: groupSplit, what: "by slices on four peers", floor: "sha256", run: b.hashTogether},
		{name: "hostile", group: groupHostile, what: "one kind of guest after another, for up to " + hostileTime.String(), run: b.hostile},
		{name: "chaos", group: groupChaos, what: "real processes, killed and restarted", run: b.chaos},
	}
}

// ready makes a pool of taskWorkers peers that lend a core each, once.
func (b *tasksBench) ready(ctx context.Context) error {
	if b.crew != nil {
		return nil
	}
	var flags [][]string
	for i := range taskWorkers {
		f := []string{"--cores", "1", "--allow-exec", "--store", "20GiB"}
		if i >= taskWorkers/2 {
			f = append(f, "--labels", runnerLabel)
		}
		flags = append(flags, f)
	}
	var err error
	if b.crew, err = newCrew(ctx, b.shoal, flags...); err != nil {
		return errors.Join(err, b.end())
	}
	return nil
}

// end stops the pool; the next case gets a new one.
func (b *tasksBench) end() error {
	if b.crew != nil {
		b.crew.close()
		b.crew, b.module = nil, client.JobFile{}
	}
	return nil
}

// program yields what a job runs; it is asked when the pool is there.
type program func(ctx context.Context) (client.JobProgram, error)

func (b *tasksBench) native(path string, args ...string) program {
	return func(context.Context) (client.JobProgram, error) {
		return client.JobProgram{Kind: "proc", Path: path, Args: args}, nil
	}
}

// wasm is the no-op, stored once, so that no submission carries it.
func (b *tasksBench) wasm() program {
	return func(ctx context.Context) (client.JobProgram, error) {
		if b.module.Root == "" {
			var err error
			if b.module, err = b.asker().JobStore(ctx, "noop.wasm", noopReader()); err != nil {
				return client.JobProgram{}, err
			}
		}
		return client.JobProgram{Kind: "wasm", Module: &client.JobSource{Stored: &b.module}}, nil
	}
}

// asker is the client of the peer that submits.
func (b *tasksBench) asker() *client.Client { return b.crew.mates[0].client }

// submit makes a job that is run anew.
func (b *tasksBench) submit(ctx context.Context, p program, change func(*client.JobRequest)) (client.Submitted, error) {
	if err := b.ready(ctx); err != nil {
		return client.Submitted{}, err
	}
	what, err := p(ctx)
	if err != nil {
		return client.Submitted{}, err
	}
	req := client.JobRequest{Program: what, Fresh: true}
	if change != nil {
		change(&req)
	}
	return b.asker().JobSubmit(ctx, req, nil)
}

// finished waits for a job's end, which must be a good one.
func finished(ctx context.Context, c *client.Client, id string) (client.Job, error) {
	j, err := c.JobWatch(ctx, id, func(client.JobEvent) error { return nil })
	if err == nil && j.State != client.JobDone {
		err = fmt.Errorf("the job ended as %s with %d of %d tasks done", j.State, j.Done, j.Tasks)
	}
	return j, err
}

// callEach submits jobs of one task, one after another, and waits for each.
func (b *tasksBench) callEach(ctx context.Context, p program) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	var times, entered []time.Duration
	before := b.cpu()
	began := time.Now()
	const warm = 5
	for i := range warm + b.sizes.calls {
		if i == warm {
			before, began = b.cpu(), time.Now()
		}
		at := time.Now()
		s, err := b.submit(ctx, p, nil)
		in := time.Since(at)
		if err == nil {
			_, err = finished(ctx, b.asker(), s.ID)
		}
		if err != nil {
			return sample{}, err
		}
		if i >= warm {
			times, entered = append(times, time.Since(at)), append(entered, in)
		}
	}
	elapsed := time.Since(began).Seconds()
	return sample{rate: float64(len(times)) / elapsed, seconds: elapsed, send: result{CPU: b.cpu() - before}, note: percentiles(times) + "; submitted " + percentiles(entered)}, nil
}

// percentiles says how long things took.
func percentiles(times []time.Duration) string {
	slices.Sort(times)
	at := func(p int) float64 { return float64(times[(len(times)-1)*p/100].Microseconds()) / 1000 }
	return fmt.Sprintf("p50 %.2f ms, p99 %.2f ms", at(50), at(99))
}

// streaming runs many tasks of one job.
func (b *tasksBench) streaming(ctx context.Context, p program, n int) (sample, error) {
	if err := b.ready(ctx); err != nil {
		return sample{}, err
	}
	before := b.cpu()
	began := time.Now()
	s, err := b.submit(ctx, p, func(r *client.JobRequest) { r.Split = &client.JobSplit{Count: n} })
	if err != nil {
		return sample{}, err
	}
	j, err := finished(ctx, b.asker(), s.ID)
	if err != nil {
		return sample{}, err
	}
	elapsed := time.Since(began).Seconds()
	if j.Done != n {
		return sample{}, fmt.Errorf("%d of %d tasks are done", j.Done, n)
	}
	return sample{rate: float64(n) / elapsed, seconds: elapsed, send: result{CPU: b.cpu() - before}, note: fmt.Sprintf("%d retries", j.Retries)}, nil
}

// cpu is what all processes of the pool have used, in seconds, their runners not counted.
func (b *tasksBench) cpu() (sum float64) {
	for _, m := range b.crew.mates {
		if m.cmd != nil {
			sum += processCPU(m.cmd.Process.Pid)
		}
	}
	return sum
}
