package pool

import (
	"time"

	"golang.org/x/sys/unix"
)

// BootTime counts from the start of the machine, sleep included: CLOCK_BOOTTIME, see clock_gettime(2).
func BootTime() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return time.Since(processStart) // kernels before 2.6.39 have none; they get no notice of sleep
	}
	return time.Duration(ts.Nano())
}

var processStart = time.Now()
