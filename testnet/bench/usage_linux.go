package main

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// ownCPU is the user and system time of this process so far, in seconds.
func ownCPU() float64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		return 0
	}
	return seconds(u.Utime) + seconds(u.Stime)
}

func seconds(t syscall.Timeval) float64 { return float64(t.Sec) + float64(t.Usec)/1e6 }

// ownRSS is this process's peak of resident bytes.
func ownRSS() int64 { return peakRSS(os.Getpid()) }

// peakRSS is a running process's peak of resident bytes; 0 if it is gone. The kernel's rusage would not do: it counts
// what the parent had before the exec.
func peakRSS(pid int) int64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0
	}
	_, rest, _ := bytes.Cut(data, []byte("VmHWM:"))
	fields := bytes.Fields(rest)
	if len(fields) == 0 {
		return 0
	}
	kb, _ := strconv.ParseInt(string(fields[0]), 10, 64)
	return kb << 10
}

// clockTicks is USER_HZ, which Linux has fixed at 100 for programs on every architecture that Go knows.
const clockTicks = 100

// processCPU is the user and system time of another process so far, in seconds; 0 if it is gone.
func processCPU(pid int) float64 {
	data, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return 0
	}
	// The second field, the name, may hold anything: count from the bracket that ends it (proc(5), fields 14 and 15).
	fields := bytes.Fields(data[bytes.LastIndexByte(data, ')')+1:])
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.ParseFloat(string(fields[11]), 64)
	system, _ := strconv.ParseFloat(string(fields[12]), 64)
	return (user + system) / clockTicks
}

// settle writes out what earlier runs left in the page cache, so that each run starts with the same debts.
func settle() { syscall.Sync() }

// waitedRSS is a finished process's peak of resident bytes. It is never less than what this process had when it started
// the other, so this process stays small.
func waitedRSS(s *os.ProcessState) int64 {
	u, ok := s.SysUsage().(*syscall.Rusage)
	if !ok {
		return 0
	}
	return u.Maxrss << 10
}

// topFolder is FS_TOPDIR_FL of linux/fs.h.
const topFolder = 0x00020000

// spreadFolders asks the file system to place each folder made in dir afresh, in a part of the disk of its own
// (chattr +T). Otherwise ext4 puts them where an earlier bench has just deleted its files; see shareBench.output.
// File systems that know no such thing refuse, which is as good.
func spreadFolders(dir string) {
	f, err := os.Open(dir)
	if err != nil {
		return
	}
	defer f.Close()
	flags, err := unix.IoctlGetInt(int(f.Fd()), unix.FS_IOC_GETFLAGS)
	if err == nil {
		_ = unix.IoctlSetPointerInt(int(f.Fd()), unix.FS_IOC_SETFLAGS, flags|topFolder)
	}
}
