package proc

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
)

// Isolate asks for the namespaces in which a child is to be the first process. Where the system refuses them the start
// fails, and the child is started without.
func Isolate(attr *syscall.SysProcAttr) {
	attr.Cloneflags |= syscall.CLONE_NEWUSER | syscall.CLONE_NEWPID | syscall.CLONE_NEWNS | syscall.CLONE_NEWNET |
		syscall.CLONE_NEWIPC | syscall.CLONE_NEWUTS
	attr.UidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getuid(), HostID: os.Getuid(), Size: 1}}
	attr.GidMappings = []syscall.SysProcIDMap{{ContainerID: os.Getgid(), HostID: os.Getgid(), Size: 1}}
}

// Group is a control group (cgroup v2) of a child and all it starts, where this process may make one: killing it leaves
// nothing alive, also without namespaces. Nil is none. It limits nothing: the controllers are seldom handed down, and the
// child counts by itself.
type Group struct {
	path string
	dir  *os.File
}

// How often, and how long apart, the folder of a group is tried to be removed.
const (
	emptyTries = 200
	emptyPause = 10 * time.Millisecond
)

var groups atomic.Uint64

// NewGroup makes a group below this process's own, or returns nil.
func NewGroup() *Group {
	own, err := ownGroup()
	if err != nil {
		return nil
	}
	sweep(own)
	path := filepath.Join(own, fmt.Sprintf("shoal-%d-%d", os.Getpid(), groups.Add(1)))
	if os.Mkdir(path, 0o700) != nil {
		return nil
	}
	g := &Group{path: path}
	if _, err := os.Stat(filepath.Join(path, "cgroup.kill")); err == nil { // from Linux 5.14 on
		g.dir, err = os.Open(path)
		if err == nil {
			return g
		}
	}
	g.Remove()
	return nil
}

// sweep removes groups of peers that are no more. The system lets nobody remove one in which a process lives.
func sweep(own string) {
	old, _ := filepath.Glob(filepath.Join(own, "shoal-*-*"))
	for _, path := range old {
		var pid, n int
		if _, err := fmt.Sscanf(filepath.Base(path), "shoal-%d-%d", &pid, &n); err == nil && syscall.Kill(pid, 0) == syscall.ESRCH {
			_ = os.Remove(path)
		}
	}
}

// ownGroup is the folder of the group that this process is in.
func ownGroup() (string, error) {
	raw, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(raw)) {
		if path, ok := strings.CutPrefix(strings.TrimSpace(line), "0::"); ok {
			mount, err := groupMount()
			return filepath.Join(mount, path), err
		}
	}
	return "", os.ErrNotExist
}

// groupMount finds where the unified hierarchy is mounted: the fifth field of a line of mountinfo whose type is cgroup2.
func groupMount() (string, error) {
	f, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return "", err
	}
	defer f.Close()
	for lines := bufio.NewScanner(f); lines.Scan(); {
		before, after, ok := strings.Cut(lines.Text(), " - ")
		if fields := strings.Fields(before); ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return fields[4], nil
		}
	}
	return "", os.ErrNotExist
}

// Join has a process that is to be started begin in the group.
func (g *Group) Join(attr *syscall.SysProcAttr) {
	if g != nil {
		attr.UseCgroupFD, attr.CgroupFD = true, int(g.dir.Fd())
	}
}

// Kill kills all that is in the group.
func (g *Group) Kill() {
	if g != nil {
		_ = os.WriteFile(filepath.Join(g.path, "cgroup.kill"), []byte("1"), 0)
	}
}

// Remove takes the group away. What was killed may still be in it for a moment.
func (g *Group) Remove() {
	if g == nil {
		return
	}
	if g.dir != nil {
		g.dir.Close()
	}
	for range emptyTries {
		if err := os.Remove(g.path); !errors.Is(err, syscall.EBUSY) {
			return
		}
		time.Sleep(emptyPause)
	}
}
