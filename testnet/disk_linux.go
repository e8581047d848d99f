package testnet

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const (
	// diskSize is that of the disk that a peer is given where a scenario has disks that are full, in bytes. It is memory, as far as
	// it is used.
	diskSize = 256 << 20
	// fillLeast is what is left of a full disk at most, in bytes.
	fillLeast = 16 << 10
	filler    = "what-fills-the-disk"
)

// mountDisk puts a file system of its own, a small one in memory, where a peer has its home. Root may do that.
func mountDisk(home string) error {
	if err := unix.Mount("shoal-testnet", home, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV, fmt.Sprintf("size=%d,mode=0700", diskSize)); err != nil {
		return fmt.Errorf("mount a small disk: %w", err)
	}
	return nil
}

// unmountDisk undoes mountDisk, also while somebody still has a file open there.
func unmountDisk(home string) error { return unix.Unmount(home, unix.MNT_DETACH) }

// fillDisk takes all that is free of the disk a peer's home is on.
func fillDisk(home string) error {
	f, err := os.OpenFile(filepath.Join(home, filler), os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	for size := int64(0); ; {
		var st unix.Statfs_t
		if err := unix.Fstatfs(int(f.Fd()), &st); err != nil {
			return err
		}
		free := int64(st.Bavail) * st.Bsize
		if free < fillLeast {
			return nil
		}
		switch err := unix.Fallocate(int(f.Fd()), 0, size, free); {
		case errors.Is(err, unix.ENOSPC): // the peer was faster
		case err != nil:
			return fmt.Errorf("fill a disk: %w", err)
		default:
			size += free
		}
	}
}

// freeDisk undoes fillDisk.
func freeDisk(home string) error {
	err := os.Remove(filepath.Join(home, filler))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	return err
}
