//go:build unix

package block

import "golang.org/x/sys/unix"

// FreeSpace returns how many bytes an ordinary user may still write to the
// file system that holds path.
func FreeSpace(path string) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(path, &st); err != nil {
		return 0, err
	}
	return int64(st.Bavail) * int64(st.Bsize), nil
}
