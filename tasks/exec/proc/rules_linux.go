package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What may be done with files, by Landlock's names.
const (
	readFile  = unix.LANDLOCK_ACCESS_FS_READ_FILE
	readDir   = unix.LANDLOCK_ACCESS_FS_READ_DIR
	execute   = unix.LANDLOCK_ACCESS_FS_EXECUTE
	writeFile = unix.LANDLOCK_ACCESS_FS_WRITE_FILE
	look      = readFile | readDir | execute
	ofFiles   = readFile | execute | writeFile | unix.LANDLOCK_ACCESS_FS_TRUNCATE | unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
)

// systemFolders are what any command may need to run at all. Homes, and so the peer's keys, are not among them.
var systemFolders = []string{"/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32", "/usr", "/etc", "/opt", "/nix", "/gnu", "/snap", "/proc", "/sys"}

// devices may be read and written.
var devices = []string{"/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom"}

// rules are what Landlock holds a command to. They are laid on one thread, which then starts the command; the rest of the
// process keeps its rights, which is why the kernel's three calls are made here and no library's.
type rules struct {
	abi   int // 0: there is no Landlock
	fixed []rule
}

// rule allows something below a place.
type rule struct {
	fd     int
	access uint64
}

func newRules() *rules {
	r := &rules{}
	const version = 1 // LANDLOCK_CREATE_RULESET_VERSION
	abi, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, version)
	if e != 0 {
		return r
	}
	r.abi = int(abi)
	return r
}

// open opens the places that are the same for all commands, as they are mounted now.
func (r *rules) open() {
	if r.abi == 0 {
		return
	}
	for _, p := range systemFolders {
		if fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			r.fixed = append(r.fixed, rule{fd, look})
		}
	}
	for _, p := range devices {
		if fd, err := unix.Open(p, unix.O_PATH|unix.O_CLOEXEC, 0); err == nil {
			r.fixed = append(r.fixed, rule{fd, readFile | writeFile})
		}
	}
}

// handled are all rights over files that this kernel's Landlock knows: what it handles is forbidden unless a rule allows it.
func (r *rules) handled() uint64 {
	all := uint64(1<<13 - 1) // the first version's
	if r.abi >= 2 {
		all |= unix.LANDLOCK_ACCESS_FS_REFER
	}
	if r.abi >= 3 {
		all |= unix.LANDLOCK_ACCESS_FS_TRUNCATE
	}
	if r.abi >= 5 {
		all |= unix.LANDLOCK_ACCESS_FS_IOCTL_DEV
	}
	return all
}

// attr is the argument of landlock_create_ruleset; older kernels take the beginning of it.
type attr struct{ fs, net, scoped uint64 }

// impose lays the rules on this thread.
func (r *rules) impose(c *command) error {
	if r.abi == 0 {
		return nil
	}
	a, size := attr{fs: r.handled()}, uintptr(8)
	if r.abi >= 4 {
		a.net, size = unix.LANDLOCK_ACCESS_NET_BIND_TCP|unix.LANDLOCK_ACCESS_NET_CONNECT_TCP, 16
	}
	if r.abi >= 6 {
		a.scoped, size = 1|2, 24 // abstract sockets and signals stay among the command's own
	}
	fd, _, e := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, uintptr(unsafe.Pointer(&a)), size, 0)
	if e != 0 {
		return fmt.Errorf("landlock: %w", e)
	}
	defer unix.Close(int(fd))
	for _, f := range r.fixed {
		if err := r.add(int(fd), f); err != nil {
			return err
		}
	}
	if err := r.allow(int(fd), c.dir, r.handled()); err != nil {
		return err
	}
	for _, p := range append(c.inputs, c.Path) {
		if err := r.allow(int(fd), p, look); err != nil {
			return err
		}
	}
	if _, _, e := unix.Syscall(unix.SYS_LANDLOCK_RESTRICT_SELF, fd, 0, 0); e != 0 {
		return fmt.Errorf("landlock: restrict: %w", e)
	}
	return nil
}

// allow allows something at a path, whose links count as where they lead.
func (r *rules) allow(ruleset int, path string, access uint64) error {
	path, err := filepath.EvalSymlinks(path)
	if err != nil {
		return err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFDIR {
		access &= ofFiles
	}
	return r.add(ruleset, rule{fd, access})
}

func (r *rules) add(ruleset int, f rule) error {
	b := unix.LandlockPathBeneathAttr{Allowed_access: f.access & r.handled(), Parent_fd: int32(f.fd)}
	if _, _, e := unix.Syscall6(unix.SYS_LANDLOCK_ADD_RULE, uintptr(ruleset), unix.LANDLOCK_RULE_PATH_BENEATH, uintptr(unsafe.Pointer(&b)), 0, 0, 0); e != 0 {
		return fmt.Errorf("landlock: rule: %w", e)
	}
	return nil
}

// layOff takes from this thread, for good, what the command must not have.
func (s *system) layOff(c *command) error {
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("no new privileges: %w", err)
	}
	if err := s.rules.impose(c); err != nil {
		return err
	}
	return dropCapabilities()
}

// dropCapabilities empties this thread's sets, and sees to it that being root gives none back.
func dropCapabilities() error {
	const noRoot = 1<<0 | 1<<1 // SECBIT_NOROOT and its lock
	if err := unix.Prctl(unix.PR_SET_SECUREBITS, noRoot, 0, 0, 0); err != nil && os.Geteuid() == 0 {
		return fmt.Errorf("capabilities: %w", err)
	}
	head := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	if err := unix.Capset(&head, &none[0]); err != nil {
		return fmt.Errorf("capabilities: %w", err)
	}
	return nil
}
