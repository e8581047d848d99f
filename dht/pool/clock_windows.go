package pool

import (
	"time"

	"golang.org/x/sys/windows"
)

// BootTime counts from the start of the machine, sleep included: GetTickCount64, in steps of 10 to 16 ms.
func BootTime() time.Duration { return windows.DurationSinceBoot() }
