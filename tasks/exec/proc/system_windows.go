package proc

import (
	"os"
	"os/exec"
)

// own has nothing to do: the child is in a job object, and so is all that it starts.
func own(*exec.Cmd) {}

var groupLacks = []string{
	"native commands can read and write whatever this user can, and use the network",
	"what a native command started may run on until its runner ends",
	"native commands cannot be frozen",
	"the memory and the number of native commands' processes are not limited",
}

func killGroup(p *os.Process) { _ = p.Kill() }

func freezeGroup(*os.Process, bool) {}

func codeOf(s *os.ProcessState) int { return s.ExitCode() }
