package testnet

import (
	"errors"
	"os/exec"
	"runtime"
	"sync"
	"syscall"
)

// starter owns the thread that starts processes, which the kernel kills when that thread ends: with this program, however
// it ends.
type starter struct {
	starts chan func()
	ended  chan struct{}
	once   *sync.Once
}

func newStarter() starter {
	s := starter{make(chan func()), make(chan struct{}), new(sync.Once)}
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		for {
			select {
			case f := <-s.starts:
				f()
			case <-s.ended:
				return
			}
		}
	}()
	return s
}

func (s starter) start(cmd *exec.Cmd) error {
	if cmd.SysProcAttr == nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{}
	}
	cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	result := make(chan error, 1)
	select {
	case s.starts <- func() { result <- cmd.Start() }:
		return <-result
	case <-s.ended:
		return errors.New("testnet: start: it is over")
	}
}

func (s starter) close() { s.once.Do(func() { close(s.ended) }) }
