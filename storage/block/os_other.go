//go:build !linux

package block

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"
)

// bootID is different in every process where the system gives no cheap boot
// identifier, so that nothing unsynced is believed unread; see Root.Trusted.
var bootID = sync.OnceValue(func() string {
	return unknownBoot + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
})

// SyncDisk writes the files at or below path to their disk, one by one.
func SyncDisk(path string) error {
	return filepath.WalkDir(path, func(p string, d os.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		f, err := os.OpenFile(p, os.O_RDWR, 0)
		if err != nil {
			return err
		}
		return errors.Join(f.Sync(), f.Close())
	})
}
