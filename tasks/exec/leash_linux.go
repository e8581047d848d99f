package exec

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/shoal-os/shoal/tasks/exec/proc"
	"github.com/shoal-os/shoal/tasks/job"
)

// maxrssUnit is the unit of ru_maxrss, in bytes.
const maxrssUnit = 1024

// leash holds a child. On Linux it has its own process group and dies with the thread that started it; a runner of native
// commands is the first process of namespaces of its own, or else in a control group of its own, as the system lets it, so
// that all it started can be killed with it. One without namespaces does not die with its peer at once: it is told by the end
// of its input, kills what it runs, and ends.
type leash struct{ group *proc.Group }

// self is this very binary, also when its file was replaced.
func self() (string, error) { return "/proc/self/exe", nil }

func (l *leash) start(cmd *exec.Cmd, kind job.Kind) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if kind != job.Proc {
		return cmd.Start()
	}
	plain := func() exec.Cmd {
		return exec.Cmd{
			Path: cmd.Path, Args: cmd.Args, Env: cmd.Env, Stdin: cmd.Stdin, Stdout: cmd.Stdout, Stderr: cmd.Stderr,
			WaitDelay: cmd.WaitDelay, SysProcAttr: &syscall.SysProcAttr{Setpgid: true},
		}
	}
	again := plain()
	// A session of its own for the child and all commands that it runs, which share its priority; see lowerSession.
	cmd.SysProcAttr.Setpgid, cmd.SysProcAttr.Setsid = false, true
	proc.Isolate(cmd.SysProcAttr)
	if cmd.Start() == nil {
		go lowerSession(cmd.Process.Pid, procNice)
		return nil
	}
	if l.group = proc.NewGroup(); l.group != nil {
		*cmd, again = again, plain()
		l.group.Join(cmd.SysProcAttr)
		cmd.Args = append(cmd.Args[:len(cmd.Args):len(cmd.Args)], groupArg)
		if cmd.Start() == nil {
			return nil
		}
		l.group.Remove()
		l.group = nil
	}
	*cmd = again
	return cmd.Start()
}

// kill ends the child and, by its namespace or its group, all it runs.
func (l *leash) kill(cmd *exec.Cmd) {
	l.group.Kill()
	_ = cmd.Process.Kill()
}

func (l *leash) release() { l.group.Remove() }

const (
	// sessionTries is how often the kernel is asked to lower a session, sessionEvery after the other: it takes that from an ordinary
	// user ten times a second, of all his processes together.
	sessionTries = 30
	sessionEvery = 110 * time.Millisecond
)

// lowerSession gives the session that a process leads a nice value. Where the kernel schedules sessions as groups (sched(7), The
// autogroup feature) the values of single processes count among those of their session only, and one that starts a thousand gets as
// much as all of the owner's programs. Elsewhere there is no such file.
func lowerSession(leader, nice int) {
	path := fmt.Sprintf("/proc/%d/autogroup", leader)
	for range sessionTries {
		if err := os.WriteFile(path, []byte(strconv.Itoa(nice)), 0); !errors.Is(err, syscall.EAGAIN) {
			return
		}
		time.Sleep(sessionEvery)
	}
}
