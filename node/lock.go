package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"github.com/gofrs/flock"

	"github.com/shoal-os/shoal/node/api/client"
)

const (
	lockFile = "lock"
	pidFile  = "pid"
	homeMode = 0o700
)

// lock is the hold of one peer on its home. The system lets go of it when the
// process ends, however it ends.
type lock struct {
	file *flock.Flock
	pid  string
}

// MakeHome makes the folder of a peer, for its owner alone, unless it is there.
func MakeHome(home string) error {
	if err := os.MkdirAll(home, homeMode); err != nil {
		return homeError(home, err)
	}
	return nil
}

// lockHome makes the home and takes hold of it.
func lockHome(home string) (*lock, error) {
	if err := MakeHome(home); err != nil {
		return nil, err
	}
	file := flock.New(filepath.Join(home, lockFile), flock.SetPermissions(0o600))
	ok, err := file.TryLock()
	if err != nil {
		return nil, homeError(home, err)
	}
	if !ok {
		return nil, heldError(home)
	}
	l := &lock{file: file, pid: filepath.Join(home, pidFile)}
	// The lock file itself cannot carry the number: Windows lets nobody read what is locked.
	if err := os.WriteFile(l.pid, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o600); err != nil {
		return nil, errors.Join(homeError(home, err), file.Unlock())
	}
	return l, nil
}

func (l *lock) release() error {
	os.Remove(l.pid)
	return l.file.Unlock() // the file stays: removing it would let two hold two files of one name
}

// holder names the process that holds a home, " (process 12)" or "".
func holder(home string) string {
	data, err := os.ReadFile(filepath.Join(home, pidFile))
	pid := strings.TrimSpace(string(data))
	if _, numeric := strconv.Atoi(pid); err != nil || numeric != nil {
		return ""
	}
	return " (process " + pid + ")"
}

func heldError(home string) error {
	return client.Errorf(client.KindBusy,
		"use it, stop it with `shoal down`, or give this one a home of its own with --home",
		"another peer%s runs on %s", holder(home), home)
}

// CheckFree returns nil when no peer has hold of the home, and otherwise the
// error of the kind [client.KindBusy] that [Start] would return. A peer that
// does not answer yet, or any more, has hold as well.
func CheckFree(home string) error {
	file := flock.New(filepath.Join(home, lockFile), flock.SetFlag(os.O_RDWR))
	free, err := file.TryLock()
	if err != nil {
		return nil // no home or no lock file: nobody was ever here
	}
	if !free {
		return heldError(home)
	}
	return file.Unlock()
}

// homeError words what is wrong with the home itself.
func homeError(home string, err error) error {
	hint := "choose another folder with --home or SHOAL_HOME"
	switch {
	case errors.Is(err, syscall.ENOTDIR):
		return client.Errorf(client.KindHome, hint, "the home %s is not a folder", home)
	case errors.Is(err, fs.ErrPermission), errors.Is(err, syscall.EROFS):
		return client.Errorf(client.KindPermission, hint, "the home %s is not writable: %w", home, err)
	default:
		return client.Wrap(client.KindHome, fmt.Errorf("home: %w", err), hint)
	}
}
