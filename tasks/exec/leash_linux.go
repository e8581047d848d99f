package exec

import (
	"os/exec"
	"syscall"

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
	proc.Isolate(cmd.SysProcAttr)
	if cmd.Start() == nil {
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
