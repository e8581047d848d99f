//go:build !linux

package proc

import (
	"sync"
	"time"

	"github.com/shoal-os/shoal/dht/pool"
)

// clockEvery is how often the boot-time clock is read: timers here do not count sleep.
const clockEvery = 100 * time.Millisecond

// Alarm calls a function at a reading of the boot-time clock, which counts sleep.
type Alarm struct {
	ring func()

	mu    sync.Mutex
	until time.Duration
	runs  bool
}

// NewAlarm makes one that is not set.
func NewAlarm(ring func()) *Alarm { return &Alarm{ring: ring} }

// Set moves the time; 0 is none.
func (a *Alarm) Set(t time.Duration) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.until = t
	if t > 0 && !a.runs {
		a.runs = true
		go a.watch()
	}
}

func (a *Alarm) watch() {
	for {
		a.mu.Lock()
		left := a.until - pool.BootTime()
		over := a.until <= 0
		if over || left <= 0 {
			a.until, a.runs = 0, false
		}
		a.mu.Unlock()
		switch {
		case over:
			return
		case left <= 0:
			a.ring()
			return
		}
		time.Sleep(min(left, clockEvery))
	}
}
