//go:build !linux

package proc

import (
	"os"
	"os/exec"
	"sync"
	"time"
)

// system is what systems other than Linux do for a box: the means of groupLacks' file.
type system struct {
	lacks []string

	mu   sync.Mutex
	main *os.Process
}

func (s *system) open(string) error { return nil }

func (s *system) prepare(bool) { s.lacks = groupLacks }

// execute runs a command from its first process's start until its end.
func (r *run) execute(c *command) (e ended) {
	s := &r.box.sys
	defer c.close()
	cmd := &exec.Cmd{
		Path: c.Path, Args: c.args, Env: c.env, Dir: c.dir, Stdout: stream{r, false}, Stderr: stream{r, true},
		WaitDelay: drainMax, // for streams that somebody out of reach still holds
	}
	if c.stdin != nil {
		cmd.Stdin = c.stdin
	}
	own(cmd)
	if err := cmd.Start(); err != nil {
		return ended{code: codeMissing, err: err}
	}
	s.mu.Lock()
	s.main = cmd.Process
	s.mu.Unlock()
	r.begun(cmd.Process.Pid)
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = cmd.Wait()
		killGroup(cmd.Process) // whoever is left of it
		s.mu.Lock()
		s.main = nil
		s.mu.Unlock()
	}()
	tick := time.NewTicker(lookEvery)
	defer tick.Stop()
	for {
		select {
		case <-done:
			return ended{code: codeOf(cmd.ProcessState), cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
		case <-tick.C:
			r.look()
		}
	}
}

// stream takes what a command writes.
type stream struct {
	run    *run
	stderr bool
}

func (s stream) Write(p []byte) (int, error) {
	s.run.take(s.stderr, p)
	return len(p), nil
}

func (s *system) kill(int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.main != nil {
		killGroup(s.main)
	}
}

func (s *system) freeze(_ int, on bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.main != nil {
		freezeGroup(s.main, on)
	}
}

type usage struct {
	procs  int
	memory int64
}

func (s *system) usage(int) usage { return usage{} }
