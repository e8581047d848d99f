//go:build unix && !linux

package exec

import (
	"os"
	"os/exec"
	"runtime"
	"syscall"

	"github.com/shoal-os/shoal/tasks/job"
)

// maxrssUnit is the unit of ru_maxrss, in bytes.
var maxrssUnit = map[bool]int64{true: 1, false: 1024}[runtime.GOOS == "darwin"]

// leash holds a child. Here it has its own process group, and notices its peer's death by the end of its standard input; one
// that is frozen by then is sent a hangup by the system, which ends it.
type leash struct{}

func self() (string, error) { return os.Executable() }

func (l *leash) start(cmd *exec.Cmd, _ job.Kind) error {
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	return cmd.Start()
}

// kill ends the child. A native command that it runs is in a group of its own and is killed by whoever asked the child
// first; see package proc.
func (l *leash) kill(cmd *exec.Cmd) { _ = cmd.Process.Kill() }

func (l *leash) release() {}
