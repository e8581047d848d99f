package tasks

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/shoal-os/shoal/tasks/exec"
	"github.com/shoal-os/shoal/tasks/job"
)

// fakeRunner runs what its first argument names, in this process.
type fakeRunner struct {
	mu      sync.Mutex
	refuse  string // why Prepare refuses
	gate    chan struct{}
	started []string // "JOB/TASK"
	live    map[*fakeGuest]bool
	frozen  int
}

func (r *fakeRunner) Prepare(context.Context, job.Kind, string, string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refuse != "" {
		return fmt.Errorf("%s", r.refuse)
	}
	return nil
}

func (r *fakeRunner) Start(t exec.Task) (Guest, error) {
	g := &fakeGuest{r: r, task: t, done: make(chan struct{}), dead: make(chan struct{}), thaw: make(chan struct{}, 1)}
	r.mu.Lock()
	if r.live == nil {
		r.live = map[*fakeGuest]bool{}
	}
	r.live[g] = true
	r.started = append(r.started, g.env("SHOAL_TASK"))
	r.mu.Unlock()
	go g.run()
	return g, nil
}

// running is how many guests run and are not frozen.
func (r *fakeRunner) running() (n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for g := range r.live {
		if !g.frozen {
			n++
		}
	}
	return n
}

func (r *fakeRunner) starts() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.started)
}

// open lets through who waits at the gate, now and later.
func (r *fakeRunner) open() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate == nil {
		r.gate = make(chan struct{})
	}
	select {
	case <-r.gate:
	default:
		close(r.gate)
	}
}

func (r *fakeRunner) waitAt() chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gate == nil {
		r.gate = make(chan struct{})
	}
	return r.gate
}

// fakeGuest is one that runs.
type fakeGuest struct {
	r      *fakeRunner
	task   exec.Task
	done   chan struct{}
	dead   chan struct{}
	thaw   chan struct{}
	once   sync.Once
	frozen bool // guarded by r.mu
	exit   exec.Exit
}

func (g *fakeGuest) Freeze() {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	g.frozen = true
	g.r.frozen++
}

func (g *fakeGuest) Thaw() {
	g.r.mu.Lock()
	defer g.r.mu.Unlock()
	g.frozen = false
}
func (g *fakeGuest) Kill()                 { g.once.Do(func() { close(g.dead) }) }
func (g *fakeGuest) Until(time.Duration)   {}
func (g *fakeGuest) Done() <-chan struct{} { return g.done }
func (g *fakeGuest) Exit() exec.Exit       { return g.exit }

func (g *fakeGuest) env(name string) string {
	for _, e := range g.task.Env {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}

func (g *fakeGuest) run() {
	defer func() {
		g.r.mu.Lock()
		delete(g.r.live, g)
		g.r.mu.Unlock()
		close(g.done)
	}()
	began := time.Now()
	g.exit = g.do()
	g.exit.Usage.Wall = time.Since(began)
	select {
	case <-g.dead:
		g.exit = exec.Exit{Code: exec.CodeKilled, Reason: "it was killed", Fault: true}
	default:
	}
}

func (g *fakeGuest) stdin() []byte {
	s := g.task.Stdin
	if s.Path == "" {
		return s.Text
	}
	raw, err := os.ReadFile(s.Path)
	if err != nil {
		panic(err)
	}
	raw = raw[s.First:]
	if s.Size >= 0 {
		raw = raw[:s.Size]
	}
	return raw
}

func (g *fakeGuest) write(name string, data []byte) {
	path := filepath.Join(g.task.Dir, "out", name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err == nil {
		err = os.WriteFile(path, data, 0o640)
		if err == nil {
			return
		}
	}
	panic("the fake guest cannot write")
}

func (g *fakeGuest) do() exec.Exit {
	args := g.task.Args
	out := g.task.Stdout
	say := func(format string, a ...any) { _, _ = fmt.Fprintf(out, format, a...) }
	pause := func(d time.Duration) {
		select {
		case <-time.After(d):
		case <-g.dead:
		}
	}
	switch args[0] {
	case "noop":
	case "task":
		say("task %s of %s\n", g.env("SHOAL_TASK"), g.env("SHOAL_TASKS"))
	case "echo":
		say("%s\n", strings.Join(args[1:], " "))
	case "cat":
		_, _ = out.Write(g.stdin())
	case "lines":
		say("%d\n", bytes.Count(g.stdin(), []byte("\n")))
	case "slow":
		d, _ := time.ParseDuration(args[1])
		pause(d)
		say("task %s\n", g.env("SHOAL_TASK"))
	case "gate":
		say("before ")
		select {
		case <-g.r.waitAt():
			say("after\n")
		case <-g.dead:
		}
	case "hang":
		<-g.dead
	case "fail":
		_, _ = io.WriteString(g.task.Stderr, "it does not work\n")
		return exec.Exit{Code: 3}
	case "big":
		n, _ := strconv.Atoi(args[1])
		_, _ = out.Write(bytes.Repeat([]byte("0123456789abcdef"), n/16))
	case "files":
		n, _ := strconv.Atoi(args[1])
		for i := range n {
			g.write(fmt.Sprintf("dir/file%d", i), []byte(fmt.Sprintf("file %d of task %s", i, g.env("SHOAL_TASK"))))
		}
	case "inputs":
		for _, m := range g.task.Inputs {
			raw, err := os.ReadFile(m.Path)
			if err != nil {
				return exec.Exit{Code: 1, Reason: err.Error()}
			}
			say("%s %d %s\n", m.Name, m.Size, raw)
		}
		_, _ = out.Write(g.stdin())
	}
	return exec.Exit{}
}
