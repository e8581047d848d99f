package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// killTries is how often processes are looked for that were started while others were killed, where there is no namespace
// in which one call finds them all.
const killTries = 100

// homesMax is how many folders of private folders stay mounted at a time; a peer has one.
const homesMax = 8

// system is what Linux does for a box.
type system struct {
	lacks  []string
	first  bool // this process is the first of its own pid namespace
	closed bool // it has no network
	still  bool // the file system is read-only
	rules  *rules
	homes  []string // folders that were made writable again
	hidden bool
	null   int    // the null device
	buf    []byte // for reading streams
}

func (s *system) lack(format string, args ...any) {
	s.lacks = append(s.lacks, fmt.Sprintf(format, args...))
}

// prepare sets up what is the same for all commands of this child.
func (s *system) prepare(grouped bool) {
	s.buf = make([]byte, pumpBuffer)
	s.null, _ = unix.Open(os.DevNull, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	// Only a child that was cloned into a namespace is its first process and has no parent there.
	s.first = os.Getpid() == 1 && os.Getppid() == 0
	s.closed = s.first
	s.rules = newRules()
	if s.first {
		s.furnish()
	} else {
		_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
		s.lack("native commands see other processes: they have no namespaces of their own here")
		if !grouped {
			s.lack("native commands may outlive a runner that crashes: there is no control group for them")
		}
		if s.rules.abi > 0 {
			s.lack("native commands can change modes and times of this user's files")
		}
		if s.rules.abi >= 4 {
			s.lack("native commands can use the network but for TCP")
		} else {
			s.lack("native commands can use the network")
		}
	}
	s.rules.open()
	switch {
	case s.rules.abi == 0 && !s.still:
		s.lack("native commands can read and write whatever this user can: there is no Landlock")
	case s.rules.abi == 0:
		s.lack("native commands can read whatever this user can, and write to each other's folders: there is no Landlock")
	}
	limits := []struct {
		what int
		n    uint64
	}{{unix.RLIMIT_CORE, 0}, {unix.RLIMIT_NOFILE, filesMax}}
	for _, l := range limits {
		_ = unix.Setrlimit(l.what, &unix.Rlimit{Cur: l.n, Max: l.n})
	}
}

// furnish makes the namespaces fit to live in: an own view of processes, a limit to their number, and files that cannot be
// changed.
func (s *system) furnish() {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		s.lack("native commands share this system's mounts: %v", err)
		return
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		s.lack("native commands see other processes: proc: %v", err)
	}
	// From Linux 6.14 on this is the namespace's own; twice the processes leaves room for threads. Before, it is read-only.
	_ = os.WriteFile("/proc/sys/kernel/pid_max", []byte(strconv.Itoa(4*procsMax)), 0)
	all := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, "/", unix.AT_RECURSIVE, &all); err == nil {
		s.still = true
	} else if s.rules.abi > 0 {
		s.lack("native commands can change modes and times of this user's files: mounts stay writable: %v", err)
	}
}

// open makes the folder that holds the private folder writable again, once for all that will be there, and hides the
// sockets of the system's services.
func (s *system) open(dir string) error {
	home := filepath.Dir(dir)
	if !s.still || unix.Access(home, unix.W_OK) != unix.EROFS {
		return nil
	}
	if err := unix.Mount(home, home, "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount %s: %w", home, err)
	}
	writable := unix.MountAttr{Attr_clr: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, home, 0, &writable); err != nil {
		return fmt.Errorf("mount %s: %w", home, err)
	}
	if s.homes = append(s.homes, home); len(s.homes) > homesMax {
		_ = unix.Unmount(s.homes[0], unix.MNT_DETACH)
		s.homes = s.homes[1:]
	}
	if !s.hidden && !strings.HasPrefix(dir, "/run/") {
		s.hidden = true
		_ = unix.Mount("none", "/run", "tmpfs", unix.MS_RDONLY|unix.MS_NOSUID|unix.MS_NODEV, "size=4k")
	}
	return nil
}

// bound sets the limits that cannot be this process's own. They count for each process; all of them together are looked at
// from time to time.
func bound(pid int, c *command) {
	for what, n := range map[int]uint64{unix.RLIMIT_DATA: uint64(c.memory), unix.RLIMIT_FSIZE: uint64(c.output) + 1} {
		_ = unix.Prlimit(pid, what, &unix.Rlimit{Cur: n, Max: n}, nil)
	}
}

// children is the processor time of all that was reaped so far.
func children() time.Duration {
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_CHILDREN, &u) != nil {
		return 0
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// kill kills every process of the command. In a namespace that is one call, which no fork can escape; elsewhere they are
// looked for until there are none. main is the first process, 0 if it has ended.
func (s *system) kill(main int) { s.signal(main, syscall.SIGKILL) }

func (s *system) freeze(main int, on bool) {
	if on {
		s.signal(main, syscall.SIGSTOP)
	} else {
		s.signal(main, syscall.SIGCONT)
	}
}

func (s *system) signal(main int, sig syscall.Signal) {
	if s.first {
		_ = syscall.Kill(-1, sig)
		return
	}
	if main > 0 {
		_ = syscall.Kill(-main, sig) // its session's first group
	}
	told := map[int]bool{}
	for range killTries {
		fresh := false
		for _, pid := range s.members() {
			if !told[pid] {
				told[pid], fresh = true, true
				_ = syscall.Kill(pid, sig)
			}
		}
		if !fresh {
			return
		}
	}
}

// usage is what is used now.
type usage struct {
	procs  int
	memory int64
}

func (s *system) usage(int) (u usage) {
	page := int64(os.Getpagesize())
	members := s.members()
	if len(members) > procsMax {
		return usage{procs: len(members)} // what each of them uses would take so long that many more are started
	}
	for _, pid := range members {
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/statm")
		if err != nil {
			continue
		}
		u.procs++
		if f := strings.Fields(string(raw)); len(f) > 2 {
			resident, _ := strconv.ParseInt(f[1], 10, 64)
			shared, _ := strconv.ParseInt(f[2], 10, 64)
			u.memory += page * max(0, resident-shared)
		}
	}
	return u
}

// members lists the command's processes: all others of the namespace, or all descendants, whom this process inherits when
// their parents end.
func (s *system) members() []int {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	self := os.Getpid()
	var all []int
	parents := map[int]int{}
	for _, n := range names {
		pid, err := strconv.Atoi(n)
		if err != nil || pid == self {
			continue
		}
		if s.first {
			all = append(all, pid)
		} else if p := parentOf(pid); p > 0 {
			parents[pid] = p
		}
	}
	for pid := range parents {
		for at, n := pid, 0; at > 0 && n < 1000; at, n = parents[at], n+1 {
			if parents[at] == self {
				all = append(all, pid)
				break
			}
		}
	}
	return all
}

// parentOf reads the fourth field of stat, after a name that may hold anything.
func parentOf(pid int) int {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := strings.Fields(string(raw[strings.LastIndexByte(string(raw), ')')+1:]))
	if len(f) < 2 || f[0] == "Z" || f[0] == "X" {
		return 0
	}
	p, _ := strconv.Atoi(f[1])
	return p
}
