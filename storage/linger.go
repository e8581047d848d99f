package storage

import (
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// lingerMax is how long after a Get has ended its root is served, if Close is
	// called before. Of peers that fetch the same at once, the last would otherwise
	// ask the seed for what all the others had: they end before it.
	lingerMax = 3 * time.Second
	// lingerIdle ends that when nobody was sent a byte for so long.
	lingerIdle  = 300 * time.Millisecond
	lingerCheck = 10 * time.Millisecond
)

// fetched are the roots whose Get has just ended, with when. Guarded by s.mu.
type fetched map[chunk.CID]time.Time

// add notes a root, and forgets those of long ago.
func (f *fetched) add(root chunk.CID, now time.Time) {
	for c, at := range *f {
		if now.Sub(at) > lingerMax {
			delete(*f, c)
		}
	}
	if *f == nil {
		*f = fetched{}
	}
	(*f)[root] = now
}

// linger waits while others are being served what this peer has just fetched.
func (s *Storage) linger() {
	tick := time.NewTicker(lingerCheck)
	defer tick.Stop()
	for s.wanted(time.Now()) {
		<-tick.C
	}
}

// wanted reports whether somebody is being served a root that has just been fetched.
func (s *Storage) wanted(now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	for root, at := range s.fetched {
		if now.Sub(at) < lingerMax && s.swarm.Gives(root, lingerIdle) {
			return true
		}
	}
	return false
}
