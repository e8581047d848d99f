package pool

import (
	"time"

	"github.com/shoal-os/shoal/dht/roster"
)

// sleptAfter is how far the boot-time clock must have run ahead of the monotonic one between two looks to say that the
// machine slept.
const sleptAfter = time.Second

// clock reads the clocks of the machine. Go's timers and its monotonic clock stand still while a laptop sleeps (they must,
// or all would fire at once on waking); the boot-time clock goes on. What one gained on the other is the sleep.
type clock struct {
	boot func() time.Duration
	wall func() time.Time
}

// clockOf is the machine's, with the time of day that was asked for.
func clockOf(cfg Config) clock {
	c := clock{boot: BootTime, wall: cfg.Now}
	if c.wall == nil {
		c.wall = time.Now
	}
	return c
}

func (c clock) moment() roster.Moment { return roster.Moment{Boot: c.boot(), Wall: c.wall().Round(0)} }

// sleepWatch tells waking up from other lateness.
type sleepWatch struct {
	boot time.Duration
	mono time.Time
}

// woke reports whether the machine slept since the last call.
func (w *sleepWatch) woke(boot time.Duration, mono time.Time) bool {
	first := w.mono.IsZero()
	slept := (boot - w.boot) - mono.Sub(w.mono)
	w.boot, w.mono = boot, mono
	return !first && slept > sleptAfter
}
