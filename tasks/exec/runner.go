package exec

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/wire"
	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// tailMax is how much of what a child itself says to its standard error is kept, in bytes: its last words.
	tailMax = 8 << 10
	// readBuffer is for reports, in bytes.
	readBuffer = 64 << 10
	// killGrace is how long a child may take to kill what it runs before it is killed with it.
	killGrace = 2 * time.Second
	// writeMax is how long a child may take to take an order; one that is frozen still has its pipe's buffer.
	writeMax = 10 * time.Second
)

// runner is the peer's side of one child.
type runner struct {
	pool  *Pool
	kind  job.Kind
	cmd   *exec.Cmd
	leash leash    // what the system does to its processes as one
	in    *os.File // orders
	out   *os.File // reports
	tail  tail
	nap   *time.Timer // of an idle one; the pool's
	ready chan struct{}
	gone  chan struct{} // closed when the process has ended and was waited for
	lacks []string      // set before ready

	mu      sync.Mutex // also held while an order is written
	attempt *Attempt
	answer  chan<- string // to a Prepare
	next    uint64        // the last task's id
	cpu     time.Duration // of the child before this task
	doomed  bool          // killed, or not to be used again
	over    bool          // its reader is through, and ends no attempt any more
}

// startRunner starts a child. Its reader does not run yet.
func startRunner(p *Pool, kind job.Kind) (r *runner, err error) {
	r = &runner{pool: p, kind: kind, ready: make(chan struct{}), gone: make(chan struct{})}
	r.cmd = p.command(kind)
	var inChild, outChild *os.File
	if inChild, r.in, err = os.Pipe(); err != nil {
		return nil, err
	}
	defer inChild.Close()
	if r.out, outChild, err = os.Pipe(); err != nil {
		r.in.Close()
		return nil, err
	}
	defer outChild.Close()
	r.cmd.Stdin, r.cmd.Stdout, r.cmd.Stderr = inChild, outChild, &r.tail
	r.cmd.WaitDelay = time.Second // for a stderr that somebody else holds open
	failed := make(chan error, 1)
	p.spawn <- func() { failed <- r.leash.start(r.cmd, kind) }
	if err := <-failed; err != nil {
		r.in.Close()
		r.out.Close()
		return nil, err
	}
	return r, nil
}

// command is what starts a child. The child gets nothing of the peer's environment but where commands and temporary files
// are: it hands on what it has to native commands. One of wasm collects no garbage unless told (see package wasm) and needs one
// thread beside the guest's; one of proc waits for others most of the time.
func (p *Pool) command(kind job.Kind) *exec.Cmd {
	var cmd *exec.Cmd
	if p.cfg.Command != nil {
		cmd = p.cfg.Command()
	} else {
		path, err := self()
		cmd = exec.Command(path)
		cmd.Err = err
	}
	cmd.Args = append(cmd.Args, childArg, kind.String(), p.cfg.Dir)
	for _, name := range []string{"PATH", "TMPDIR", "LANG", "LC_ALL", "SYSTEMROOT", "TEMP", "PATHEXT", "GORACE", "GOCOVERDIR"} {
		if v, ok := os.LookupEnv(name); ok {
			cmd.Env = append(cmd.Env, name+"="+v)
		}
	}
	gc := "GOGC=off"
	if kind == job.Proc {
		gc = "GOGC=800"
	}
	cmd.Env = append(cmd.Env, "GOMAXPROCS=2", gc)
	return cmd
}

// awake waits for the child's first word.
func (r *runner) awake() error {
	late := time.NewTimer(readyMax)
	defer late.Stop()
	select {
	case <-r.ready:
		return nil
	case <-r.gone:
		return errors.New(r.epitaph())
	case <-late.C:
		r.destroy()
		return errors.New("it did not begin in time")
	}
}

// run gives the child a task. It is called once for each time that the pool hands it out.
func (r *runner) run(a *Attempt) {
	r.mu.Lock()
	if r.over { // it died after it was handed out
		r.mu.Unlock()
		a.end(Exit{Code: CodeKilled, Fault: true, Reason: r.epitaph()})
		return
	}
	r.next++
	r.attempt = a
	id := r.next
	r.mu.Unlock()
	if a.begin(r, id) {
		return
	}
	r.mu.Lock()
	r.attempt = nil
	r.mu.Unlock()
	r.pool.give(r)
}

// prepare has the child compile a module.
func (r *runner) prepare(m *pb.Prepare, answer chan<- string) error {
	r.mu.Lock()
	r.answer = answer
	r.mu.Unlock()
	return r.send(&pb.Order{Order: &pb.Order_Prepare{Prepare: m}})
}

func (r *runner) send(o *pb.Order) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	_ = r.in.SetWriteDeadline(time.Now().Add(writeMax)) // where pipes have none the child's death ends the wait
	return wire.WriteMsg(r.in, o, orderMax)
}

// signal has the child do something to the task's processes.
func (r *runner) signal(id uint64, kind pb.Signal_Kind) error {
	return r.send(&pb.Order{Order: &pb.Order_Signal{Signal: &pb.Signal{Id: id, Kind: kind}}})
}

// freeze stops the child with its guest, of wasm; one of proc freezes its guests itself when told.
func (r *runner) freeze() { r.leash.stop(r.cmd) }

// thaw is the opposite of freeze.
func (r *runner) thaw() { r.leash.cont(r.cmd) }

// retire lets a child end that has nothing to do.
func (r *runner) retire() { r.in.Close() }

// destroy kills the child with all it runs. Its reader does the rest.
func (r *runner) destroy() {
	r.mu.Lock()
	r.doomed = true
	r.mu.Unlock()
	r.leash.kill(r.cmd)
}

// read is the child's reader: it ends when the child has.
func (r *runner) read() {
	defer r.pool.wait.Done()
	err := r.reports()
	r.destroy()
	if werr := r.cmd.Wait(); err == nil || errors.Is(err, io.EOF) {
		err = werr
	}
	r.leash.release()
	r.in.Close()
	r.out.Close()
	r.pool.forget(r)
	close(r.gone)
	r.mu.Lock()
	a := r.attempt
	r.attempt, r.over = nil, true
	r.mu.Unlock()
	if a != nil {
		r.bury(a)
	}
	if r.next == 0 && a == nil {
		r.pool.cfg.Log.Debug("a runner's child ended", "kind", r.kind, "error", err)
	}
}

// reports reads until the child's end or its first mistake.
func (r *runner) reports() error {
	in := bufio.NewReaderSize(r.out, readBuffer)
	var m pb.Report
	for {
		if err := wire.ReadMsg(in, &m, reportMax); err != nil {
			return err
		}
		if err := r.report(&m); err != nil {
			r.pool.cfg.Log.Warn("a runner's child broke the protocol", "error", err)
			return err
		}
	}
}

func (r *runner) report(m *pb.Report) error {
	switch m := m.Report.(type) {
	case *pb.Report_Ready:
		select {
		case <-r.ready:
			return errors.New("ready twice")
		default:
		}
		for _, l := range m.Ready.Lacks[:min(len(m.Ready.Lacks), lacksMax)] {
			r.lacks = append(r.lacks, wire.CleanText(l))
		}
		close(r.ready)
	case *pb.Report_Out:
		r.mu.Lock()
		a := r.attempt
		r.mu.Unlock()
		if a == nil {
			return errors.New("output without a task")
		}
		return a.output(m.Out.Stderr, m.Out.Data)
	case *pb.Report_Exit:
		return r.exited(m.Exit)
	case *pb.Report_Prepared:
		r.mu.Lock()
		answer := r.answer
		r.answer = nil
		r.mu.Unlock()
		if answer == nil {
			return errors.New("an answer without a question")
		}
		answer <- wire.CleanText(m.Prepared.Error)
	default:
		return errors.New("an empty report")
	}
	return nil
}

// exited ends the attempt and hands the child back, in this order of visible effects: whoever waits for the attempt may start
// the next one on this very child.
func (r *runner) exited(m *pb.Exit) error {
	r.mu.Lock()
	a := r.attempt
	if a == nil || m.Id != r.next {
		r.mu.Unlock()
		return fmt.Errorf("the end of task %d, which does not run", m.Id)
	}
	r.attempt = nil
	r.cpu = max(r.cpu, time.Duration(m.TotalCpuNs))
	doomed := r.doomed
	r.mu.Unlock()
	e, err := exitOf(m)
	if err != nil {
		r.mu.Lock()
		r.attempt = a // it ends with the child
		r.mu.Unlock()
		return err
	}
	a.detach()
	if r.kind == job.Proc {
		honest(a.task.Dir)
		r.pool.spares.give(a.task.Dir)
	}
	if !doomed {
		r.pool.give(r)
	}
	a.end(e)
	return nil
}

func exitOf(m *pb.Exit) (Exit, error) {
	if m.CpuNs < 0 || m.Memory < 0 || m.Read < 0 || m.Written < 0 || len(m.Reason) > reasonMax {
		return Exit{}, errors.New("an exit that is out of bounds")
	}
	return Exit{Code: int(m.Code), Reason: wire.CleanText(m.Reason), Fault: m.Fault, Usage: job.Usage{
		CPU: time.Duration(m.CpuNs), Memory: m.Memory, Read: m.Read, Written: m.Written,
	}}, nil
}

// bury ends the attempt of a child that is gone. If it was not killed from here, what it said last tells whose fault it was:
// a Go program that gives up says why, and it was the guest that drove it there; one that somebody killed says nothing.
func (r *runner) bury(a *Attempt) {
	if r.kind == job.Proc {
		honest(a.task.Dir)
	}
	e := Exit{Code: CodeKilled}
	if s := r.cmd.ProcessState; s != nil {
		e.Usage.CPU = max(0, s.UserTime()+s.SystemTime()-r.cpu)
		e.Usage.Memory = peakOf(s)
	}
	words := r.tail.String()
	switch {
	case strings.Contains(words, "out of memory") || strings.Contains(words, "cannot allocate memory") ||
		strings.Contains(words, "failed to allocate"):
		e.Reason = fmt.Sprintf("it used more memory than its limit of %s allows", size(a.task.Limits.Memory))
	case strings.Contains(words, "goroutine "):
		first, _, _ := strings.Cut(strings.TrimSpace(words), "\n")
		e.Reason = "it brought its runner down: " + wire.CleanText(first)
		r.pool.cfg.Log.Error("a guest brought its runner down", "words", words)
	default:
		e.Fault, e.Reason = true, r.epitaph()
	}
	a.end(e)
}

// epitaph says how a child that is gone ended.
func (r *runner) epitaph() string {
	text := "the runner ended"
	if s := r.cmd.ProcessState; s != nil {
		text += ": " + s.String()
	}
	if words := strings.TrimSpace(r.tail.String()); words != "" {
		first, _, _ := strings.Cut(words, "\n")
		text += ": " + wire.CleanText(first)
	}
	return text
}

// tail keeps the end of what is written to it.
type tail struct {
	mu  sync.Mutex
	buf []byte
}

func (t *tail) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	// The first words say what happened; the rest are stacks. Half is kept for each end.
	if room := tailMax - len(t.buf); room > 0 {
		t.buf = append(t.buf, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (t *tail) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return string(t.buf)
}
