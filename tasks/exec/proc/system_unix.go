//go:build unix && !linux

package proc

import (
	"os"
	"os/exec"
	"syscall"
)

// own makes a process the first of a group, which is frozen and killed as one. A process that leaves the group escapes.
func own(cmd *exec.Cmd) { cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} }

var groupLacks = []string{
	"native commands can read and write whatever this user can, and use the network",
	"native commands that leave their process group are not stopped with it",
	"the memory and the number of native commands' processes are not limited",
}

func killGroup(p *os.Process) { _ = syscall.Kill(-p.Pid, syscall.SIGKILL) }

func freezeGroup(p *os.Process, on bool) {
	sig := syscall.SIGCONT
	if on {
		sig = syscall.SIGSTOP
	}
	_ = syscall.Kill(-p.Pid, sig)
}

func codeOf(s *os.ProcessState) int {
	if w, ok := s.Sys().(syscall.WaitStatus); ok && w.Signaled() {
		return signalBase + int(w.Signal())
	}
	return s.ExitCode()
}
