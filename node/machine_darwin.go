package node

import (
	"golang.org/x/sys/unix"

	"github.com/shoal-os/shoal/dht/roster"
)

// memory is the machine's, in bytes; 0 if it cannot be told.
func memory() int64 {
	size, err := unix.SysctlUint64("hw.memsize")
	if err != nil {
		return 0
	}
	return int64(size)
}

// power is not told without a program of its own or cgo, which is too dear for every few seconds.
func power() (roster.Power, uint8) { return roster.PowerUnknown, 0 }
