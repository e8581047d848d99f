//go:build !linux && !darwin && !windows

package pool

import "time"

// BootTime is the process's own clock. Whether it counts sleep differs from system to system; the roster notices a peer
// that was not running by the gap between its own steps as well, where the clock shows it.
func BootTime() time.Duration { return time.Since(processStart) }

var processStart = time.Now()
