package block

import (
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// bootID names the present boot of this machine; see Root.Trusted.
var bootID = sync.OnceValue(func() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return unknownBoot
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
