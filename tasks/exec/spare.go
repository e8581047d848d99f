package exec

import (
	"fmt"
	"os"
	"path/filepath"
	"sync"
)

// spares are private folders that commands left as they found them. Most small commands write no file, and a file system may
// take longer to make and remove two folders than the command runs (ext4 looks through all inodes that were freed a
// moment ago). So an untouched one is kept, beside its place, for the next command.
type spares struct {
	max int

	mu   sync.Mutex
	next int
	free []string
}

// take makes the folder dir with an empty folder out in it.
func (s *spares) take(dir string) error {
	s.mu.Lock()
	spare := ""
	if n := len(s.free); n > 0 && filepath.Dir(s.free[n-1]) == filepath.Dir(dir) {
		spare, s.free = s.free[n-1], s.free[:n-1]
	}
	s.mu.Unlock()
	if spare != "" {
		if os.Rename(spare, dir) == nil {
			return nil
		}
		_ = os.RemoveAll(spare)
	}
	return os.MkdirAll(filepath.Join(dir, "out"), 0o700)
}

// honest sees to it that what is called out is a folder and not a link to one elsewhere: it would be collected. No process of
// the command is alive.
func honest(dir string) {
	for _, p := range []string{dir, filepath.Join(dir, "out")} {
		if info, err := os.Lstat(p); err == nil && !info.IsDir() {
			_ = os.Remove(p)
			return
		}
	}
}

// give takes a folder back if nothing was done to it.
func (s *spares) give(dir string) {
	if !untouched(dir, "out") || !untouched(filepath.Join(dir, "out"), "") {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.free) >= s.max {
		return
	}
	s.next++
	spare := filepath.Join(filepath.Dir(dir), fmt.Sprintf(".spare-%d-%d", os.Getpid(), s.next))
	if os.Rename(dir, spare) == nil {
		s.free = append(s.free, spare)
	}
}

// untouched reports whether a folder has the mode it was made with and holds only what it did then.
func untouched(dir, only string) bool {
	info, err := os.Lstat(dir)
	if err != nil || info.Mode() != os.ModeDir|0o700 {
		return false
	}
	f, err := os.Open(dir)
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(2)
	if only == "" {
		return len(names) == 0
	}
	return err == nil && len(names) == 1 && names[0] == only
}

// clear removes them all.
func (s *spares) clear() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, dir := range s.free {
		_ = os.RemoveAll(dir)
	}
	s.free = nil
}
