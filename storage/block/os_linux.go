package block

import (
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// bootID names the present boot of this machine; see Root.Trusted.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		// Different in every process: nothing unsynced is believed unread.
		return unknownBoot + strconv.Itoa(os.Getpid()) + "-" + strconv.FormatInt(time.Now().UnixNano(), 36)
	}
	return strings.TrimSpace(string(id))
})

// SyncDisk writes what the kernel holds for the file system at path to its
// disk, in one call however many files that is (syncfs(2)).
func SyncDisk(path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	return unix.Syncfs(int(f.Fd()))
}
