package pool

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime counts from the start of the machine, sleep included: on macOS that is CLOCK_MONOTONIC, while Go's own clock is
// the one that stands still in sleep (CLOCK_UPTIME_RAW), see clock_gettime(3).
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		return time.Since(processStart)
	}
	return time.Duration(ts.Nano())
}

var processStart = time.Now()
