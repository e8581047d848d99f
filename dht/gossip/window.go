package gossip

import (
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
)

// windowSize is how far behind the newest message of a sender an older one may arrive and count, in messages. Messages
// of one sender take different ways and overtake each other; one that is later than that is a repetition or too old.
const windowSize = 1024

// window remembers which sequence numbers of one sender were seen: a sliding bitmap as IPsec has against replays (RFC
// 4303, 3.4.3). GossipSub itself forgets after two minutes what it has seen, so that a member could repeat what others
// once said.
type window struct {
	top  uint64
	seen [windowSize / 64]uint64
}

// take reports whether n is new, and notes it.
func (w *window) take(n uint64) bool {
	if n > w.top {
		if n-w.top >= windowSize {
			w.seen = [len(w.seen)]uint64{}
		} else {
			for i := w.top + 1; i != n; i++ {
				w.clear(i)
			}
		}
		w.top = n
		w.set(n)
		return true
	}
	if w.top-n >= windowSize || w.has(n) {
		return false
	}
	w.set(n)
	return true
}

func (w *window) has(n uint64) bool { return w.seen[n%windowSize/64]&(1<<(n%64)) != 0 }
func (w *window) set(n uint64)      { w.seen[n%windowSize/64] |= 1 << (n % 64) }
func (w *window) clear(n uint64)    { w.seen[n%windowSize/64] &^= 1 << (n % 64) }

// bucket is a token bucket: burst at once, then rate a second.
type bucket struct {
	tokens float64
	at     time.Time
}

func (b *bucket) take(now time.Time, rate, burst float64) bool {
	switch {
	case b.at.IsZero():
		b.tokens, b.at = burst, now
	case now.After(b.at): // a clock that went back neither gives tokens nor lets them be given twice
		b.tokens, b.at = min(burst, b.tokens+now.Sub(b.at).Seconds()*rate), now
	}
	if b.tokens < 1 {
		return false
	}
	b.tokens--
	return true
}

// senders keeps the window and bucket of each member that spoke on a topic.
type senders struct {
	leave func() // ends the waiting for more of the topic

	mu   sync.Mutex
	byID map[peer.ID]*sender
}

type sender struct {
	window window
	bucket bucket
}

func (s *senders) take(p peer.ID, seq uint64, now time.Time, l Limits) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	one := s.byID[p]
	if one == nil {
		one = new(sender)
		s.byID[p] = one
	}
	return one.window.take(seq) && one.bucket.take(now, l.Rate, l.Burst)
}

func (s *senders) forget(p peer.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.byID, p)
}
