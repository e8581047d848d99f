package exec

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"time"

	"github.com/shoal-os/shoal/tasks/exec/pb"
	"github.com/shoal-os/shoal/tasks/job"
)

const (
	// idleMax is how long a child without work is kept.
	idleMax = time.Minute
	// compileMax bounds how long a module may be compiled; a Go program takes one or two seconds.
	compileMax = 5 * time.Minute
	// readyMax is how long a child may take to begin, on a machine however busy.
	readyMax = 2 * time.Minute
)

// childrenMax bounds all children of a pool, the frozen ones and those that are just being killed too.
func childrenMax(cores int) int { return 2*cores + 4 }

var (
	errNoExec = errors.New("the owner of this machine does not allow native commands")
	errClosed = errors.New("exec: the pool is closed")
	errBusy   = errors.New("exec: too many guests at once")
)

// Config says where and how guests run.
type Config struct {
	// Dir is the pool's own folder, for compiled modules. It is made if it is missing. Nobody else may write there:
	// what it holds is run.
	Dir string

	// Command makes the command that starts a child; the pool appends its arguments. It must call Child first thing. Nil is
	// this very binary.
	Command func() *exec.Cmd

	Cores     int  // how many children run at once; 0: as many as there are processors
	AllowExec bool // whether native commands may run
	Log       *slog.Logger
}

// Pool runs tasks. Its methods may be called by anybody at any time.
type Pool struct {
	cfg    Config
	spawn  chan func()   // to the one thread that starts children
	stop   chan struct{} // closed by Close
	spares spares

	mu       sync.Mutex
	closed   bool
	idle     []*runner // the one that was used last is last
	all      map[*runner]struct{}
	coming   int             // being started
	prepared map[string]bool // compiled and on disk, by module id
	wait     sync.WaitGroup  // for launches and children's readers
}

// Open makes a pool. It starts no child yet.
func Open(cfg Config) (*Pool, error) {
	if cfg.Cores <= 0 {
		cfg.Cores = runtime.NumCPU()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	dir, err := filepath.Abs(cfg.Dir)
	if err != nil || cfg.Dir == "" {
		return nil, fmt.Errorf("exec: open: the folder %q: %w", cfg.Dir, err)
	}
	if cfg.Dir = dir; os.MkdirAll(dir, 0o700) != nil {
		return nil, fmt.Errorf("exec: open: %w", os.MkdirAll(dir, 0o700))
	}
	p := &Pool{
		cfg: cfg, spawn: make(chan func()), stop: make(chan struct{}), all: map[*runner]struct{}{}, prepared: map[string]bool{},
		spares: spares{max: childrenMax(cfg.Cores)},
	}
	go p.spawner()
	return p, nil
}

// spawner starts all children from one thread that lives as long as the pool: on Linux a child dies with the thread that
// started it, not only with the process.
func (p *Pool) spawner() {
	runtime.LockOSThread()
	for {
		select {
		case f := <-p.spawn:
			f()
		case <-p.stop:
			return
		}
	}
}

// Close ends all children and waits for them. Attempts that run are killed and are faults.
func (p *Pool) Close() error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return nil
	}
	p.closed = true
	runners := make([]*runner, 0, len(p.all))
	for r := range p.all {
		runners = append(runners, r)
	}
	p.mu.Unlock()
	for _, r := range runners {
		r.destroy()
	}
	p.wait.Wait()
	p.spares.clear()
	close(p.stop)
	return nil
}

// Prepare finds out whether a program can run here, so that its tasks start warm. A module is compiled in a child and kept on
// disk; of a native command, module is its path or name and id is not looked at. The error says in words why it cannot run.
// Only the first call for an id takes time.
func (p *Pool) Prepare(ctx context.Context, kind job.Kind, module, id string) error {
	switch kind {
	case job.Wasm:
	case job.Proc:
		return p.find(module)
	default:
		return fmt.Errorf("exec: prepare: kind %d of program", kind)
	}
	p.mu.Lock()
	done := p.prepared[id]
	p.mu.Unlock()
	if done {
		return nil
	}
	if err := p.compile(ctx, module, id); err != nil {
		return fmt.Errorf("exec: prepare: %w", err)
	}
	p.mu.Lock()
	p.prepared[id] = true
	p.mu.Unlock()
	return nil
}

func (p *Pool) find(command string) error {
	if !p.cfg.AllowExec {
		return fmt.Errorf("exec: prepare: %w", errNoExec)
	}
	if _, err := exec.LookPath(command); err != nil {
		return fmt.Errorf("exec: prepare: this machine has no command %.200q: %w", command, err)
	}
	return nil
}

// compile has a child compile a module. A child that is stopped in the middle of it is of no more use.
func (p *Pool) compile(ctx context.Context, module, id string) error {
	ctx, cancel := context.WithTimeout(ctx, compileMax)
	defer cancel()
	r, err := p.take(job.Wasm)
	if err != nil {
		return err
	}
	answer := make(chan string, 1)
	if err := r.prepare(&pb.Prepare{Module: module, ModuleId: id}, answer); err != nil {
		r.destroy()
		return fmt.Errorf("the runner broke: %w", err)
	}
	select {
	case text := <-answer:
		p.give(r)
		if text != "" {
			return errors.New(text)
		}
		return nil
	case <-r.gone:
		return errors.New(r.epitaph())
	case <-ctx.Done():
		r.destroy()
		return fmt.Errorf("it was not compiled in time: %w", context.Cause(ctx))
	}
}

// Guards says in words what cannot be enforced on this system, for people to read; nothing if all can. It may start a
// child to find out, and lists nothing of native commands if they are not allowed.
func (p *Pool) Guards() []string {
	if !p.cfg.AllowExec {
		return nil
	}
	r, err := p.take(job.Proc)
	if err != nil {
		return []string{"native commands cannot run: " + err.Error()}
	}
	defer p.give(r)
	return append([]string(nil), r.lacks...)
}

// Start begins an attempt. It does not wait for a child to start, and what goes wrong later is the attempt's exit.
func (p *Pool) Start(t Task) (*Attempt, error) {
	if err := t.check(p.cfg.AllowExec); err != nil {
		return nil, fmt.Errorf("exec: start: %w", err)
	}
	if t.Kind == job.Proc { // the child may not make it
		if err := p.spares.take(t.Dir); err != nil {
			return nil, fmt.Errorf("exec: start: %w", err)
		}
	}
	r, err := p.idleOrRoom(t.Kind)
	if err != nil {
		return nil, err
	}
	a := newAttempt(p, t)
	if r != nil {
		r.run(a)
		return a, nil
	}
	go func() {
		r, err := p.launch(t.Kind)
		if err != nil {
			a.end(Exit{Reason: "the runner did not start: " + err.Error(), Fault: true})
			return
		}
		r.run(a)
	}()
	return a, nil
}

// take returns a child for the caller alone.
func (p *Pool) take(kind job.Kind) (*runner, error) {
	r, err := p.idleOrRoom(kind)
	if r != nil || err != nil {
		return r, err
	}
	return p.launch(kind)
}

// idleOrRoom returns an idle child, or none and the right to launch one.
func (p *Pool) idleOrRoom(kind job.Kind) (*runner, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	for i := len(p.idle) - 1; i >= 0; i-- {
		if r := p.idle[i]; r.kind == kind {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			r.nap.Stop()
			return r, nil
		}
	}
	if len(p.all)+p.coming >= childrenMax(p.cfg.Cores) {
		if len(p.idle) == 0 {
			return nil, errBusy
		}
		r := p.idle[0] // of the other kind
		p.idle = p.idle[1:]
		r.nap.Stop()
		r.retire()
	}
	p.coming++
	p.wait.Add(1) // until the launch fails, or the child's reader ends
	return nil, nil
}

// launch starts a child, for which idleOrRoom has made room.
func (p *Pool) launch(kind job.Kind) (*runner, error) {
	r, err := startRunner(p, kind)
	if err != nil {
		p.mu.Lock()
		p.coming--
		p.mu.Unlock()
		p.wait.Done()
		return nil, err
	}
	p.mu.Lock()
	p.coming--
	p.all[r] = struct{}{}
	closed := p.closed
	p.mu.Unlock()
	go r.read()
	if err := r.awake(); err != nil {
		return nil, err
	}
	if closed {
		r.destroy()
		return nil, errClosed
	}
	return r, nil
}

// give takes a child back that has nothing to do.
func (p *Pool) give(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if _, ok := p.all[r]; !ok || p.closed {
		return
	}
	p.idle = append(p.idle, r)
	r.nap = time.AfterFunc(idleMax, func() { p.nap(r) })
}

// nap lets a child go that had nothing to do for idleMax.
func (p *Pool) nap(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, o := range p.idle {
		if o == r {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			r.retire()
			return
		}
	}
}

// forget is called when a child is gone.
func (p *Pool) forget(r *runner) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, r)
	for i, o := range p.idle {
		if o == r {
			p.idle = append(p.idle[:i], p.idle[i+1:]...)
			r.nap.Stop()
			return
		}
	}
}
