package wire

import (
	"sync"

	"github.com/libp2p/go-libp2p/core/peer"
)

// Slots bounds how much others may have open here at a time, each of them and all together. It is safe for concurrent use.
type Slots struct {
	each, all int

	mu    sync.Mutex
	taken map[peer.ID]int
	sum   int
}

// NewSlots returns slots of which one peer may have so many, and all peers together.
func NewSlots(each, all int) *Slots {
	return &Slots{each: each, all: all, taken: map[peer.ID]int{}}
}

// Enter takes a slot and reports whether there was one. Leave gives it back.
func (s *Slots) Enter(p peer.ID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.taken[p] >= s.each || s.sum >= s.all {
		return false
	}
	s.taken[p]++
	s.sum++
	return true
}

// Leave gives back a slot that Enter took.
func (s *Slots) Leave(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sum--
	if s.taken[p]--; s.taken[p] == 0 {
		delete(s.taken, p)
	}
}
