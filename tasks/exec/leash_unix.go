//go:build unix

package exec

import (
	"os"
	"os/exec"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/shoal-os/shoal/tasks/job"
)

// Nice values of children. What a native command starts is bounded by little else, and gets a tenth of what the peer and its owner's
// programs get where all want a core. A module has one thread and a core that was lent; more than a little costs small tasks dearly, for
// the peer then wakes for each message before others have gathered (no-ops through four workers: 0 and 2 gave 2,300 a second, 5 gave
// 1,750, 10 gave 1,400).
const (
	wasmNice = 2
	procNice = 10
)

// beNice gives this process, which is a child and the first of its group, and all that it will start, a lower priority.
func beNice(kind job.Kind) {
	nice := wasmNice
	if kind == job.Proc {
		nice = procNice
	}
	_ = unix.Setpriority(unix.PRIO_PGRP, 0, nice)
}

// stop freezes the child itself.
func (l *leash) stop(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGSTOP) }

// cont thaws it; one that is not frozen does not notice.
func (l *leash) cont(cmd *exec.Cmd) { _ = cmd.Process.Signal(syscall.SIGCONT) }

// cpuTime returns what this process and those of its children that it waited for have used.
func cpuTime() time.Duration {
	var total time.Duration
	for _, who := range []int{unix.RUSAGE_SELF, unix.RUSAGE_CHILDREN} {
		var u unix.Rusage
		if unix.Getrusage(who, &u) == nil {
			total += time.Duration(u.Utime.Nano() + u.Stime.Nano())
		}
	}
	return total
}

// peakOf returns the greatest resident size of a process that has ended, in bytes.
func peakOf(s *os.ProcessState) int64 {
	if u, ok := s.SysUsage().(*syscall.Rusage); ok {
		return int64(u.Maxrss) * maxrssUnit
	}
	return 0
}
