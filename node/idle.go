package node

import (
	"sync"
	"time"
)

const (
	// idleAfter is how long nobody must have touched the machine for it to count as idle.
	idleAfter = 5 * time.Minute
	// idleLook is how long an answer of the system is good: it is asked for every two seconds.
	idleLook = 5 * time.Second
)

// idleWatch tells whether somebody uses the machine.
type idleWatch struct {
	mu     sync.Mutex
	looked time.Time
	is     bool
	inputs inputs
}

// idle reports whether nobody has touched the machine for a while. Where the system does not tell it says no; then
// canTellIdle is false and nobody asks.
func (w *idleWatch) idle() bool {
	if !canTellIdle {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if now := time.Now(); w.looked.IsZero() || now.Sub(w.looked) >= idleLook {
		w.looked, w.is = now, now.Sub(w.inputs.last(now)) >= idleAfter
	}
	return w.is
}
