//go:build unix

package quorum

import (
	"syscall"
	"time"
)

// processor is the time that this process took of the processors.
func processor() time.Duration {
	var u syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}
