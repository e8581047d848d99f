//go:build !linux && !darwin && !windows

package node

import "github.com/shoal-os/shoal/dht/roster"

// memory cannot be told here.
func memory() int64 { return 0 }

func power() (roster.Power, uint8) { return roster.PowerUnknown, 0 }
