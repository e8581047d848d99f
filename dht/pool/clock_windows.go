package pool

import (
	"time"

	"golang.org/x/sys/windows"
)

// bootTime counts from the start of the machine, sleep included: GetTickCount64, in steps of 10 to 16 ms.
func bootTime() time.Duration { return windows.DurationSinceBoot() }
