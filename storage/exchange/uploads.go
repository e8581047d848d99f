package exchange

import (
	"context"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

// uploads is the serving side's shared state: who asks, what they gave and
// took, and which of them are choked. The choices are sched.Choker's.
type uploads struct {
	limit     limiter
	preferred func(peer.ID) bool
	changed   chan struct{} // holds a token when somebody came or went

	mu      sync.Mutex
	streams map[*upload]bool
	peers   map[peer.ID]*account
	lastID  uint64
}

// account is what one peer has given and taken, for the choker.
type account struct {
	id         uint64
	streams    int
	took, gave meter
}

// meter smooths a byte count into a rate.
type meter struct {
	fresh int
	rate  float64
	mark  time.Time
}

// meterSpan is the time over which rates for the choker are taken.
const meterSpan = 10 * time.Second

func (m *meter) add(n int) { m.fresh += n }

func (m *meter) read(now time.Time) float64 {
	if d := now.Sub(m.mark); d >= meterSpan/10 {
		keep := max(0, 1-d.Seconds()/meterSpan.Seconds())
		m.rate = keep*m.rate + (1-keep)*float64(m.fresh)/d.Seconds()
		m.mark, m.fresh = now, 0
	}
	return m.rate
}

func newUploads(cfg Config) *uploads {
	u := &uploads{
		limit: newLimiter(cfg.Up), preferred: cfg.Preferred, changed: make(chan struct{}, 1),
		streams: map[*upload]bool{}, peers: map[peer.ID]*account{},
	}
	if u.preferred == nil {
		u.preferred = func(peer.ID) bool { return false }
	}
	return u
}

const (
	uploadsMax     = 256 // streams served at a time, each with a buffer of a leaf
	uploadsPerPeer = 16  // of one peer, which needs one for each root it fetches
)

// add takes a stream in, unless there are too many.
func (u *uploads) add(x *upload) bool {
	u.mu.Lock()
	if a := u.account(x.peer); len(u.streams) >= uploadsMax || a.streams >= uploadsPerPeer {
		u.mu.Unlock()
		return false
	}
	u.streams[x] = true
	u.account(x.peer).streams++
	for other := range u.streams {
		if other.root == x.root {
			other.tellPeers() // the swarm grew: let its members find each other at once
		}
	}
	u.mu.Unlock()
	u.signal()
	return true
}

func (u *uploads) remove(x *upload) {
	u.mu.Lock()
	delete(u.streams, x)
	if a := u.account(x.peer); a.streams > 0 {
		a.streams--
	}
	u.mu.Unlock()
	u.signal()
}

func (u *uploads) signal() {
	select {
	case u.changed <- struct{}{}:
	default:
	}
}

// account returns p's account, making it if need be. The caller holds mu.
func (u *uploads) account(p peer.ID) *account {
	a := u.peers[p]
	if a == nil {
		u.lastID++
		now := time.Now()
		a = &account{id: u.lastID, took: meter{mark: now}, gave: meter{mark: now}}
		u.peers[p] = a
	}
	return a
}

// gave accounts bytes sent to p; got accounts bytes that p sent.
func (u *uploads) gave(p peer.ID, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.account(p).took.add(n)
}

func (u *uploads) got(p peer.ID, n int) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.account(p).gave.add(n)
}

// askers returns the peers that have a stream for root, each once: all, or
// those that are served what everybody may have.
func (u *uploads) askers(root chunk.CID, all bool) []peer.ID {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []peer.ID
	seen := map[peer.ID]bool{}
	for x := range u.streams {
		if x.root.CID() == root && (all || !x.private) && !seen[x.peer] {
			seen[x.peer] = true
			out = append(out, x.peer)
		}
	}
	return out
}

// wake has the streams that serve a record look for news.
func (u *uploads) wake(root *block.Root) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for x := range u.streams {
		if x.root == root {
			x.signal()
		}
	}
}

// gives reports whether anybody who asks for root was sent some of it within
// the last while.
func (u *uploads) gives(root chunk.CID, last time.Duration) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	for x := range u.streams {
		if x.root.CID() == root && !x.private && time.Since(time.Unix(0, x.gaveAt.Load())) < last {
			return true
		}
	}
	return false
}

// run applies the choker's choices until ctx ends.
func (u *uploads) run(ctx context.Context) {
	var choker sched.Choker
	for {
		wake := u.choose(&choker, time.Now())
		timer := time.NewTimer(time.Until(wake))
		select {
		case <-ctx.Done():
		case <-u.changed:
		case <-timer.C:
		}
		timer.Stop()
		if ctx.Err() != nil {
			return
		}
	}
}

func (u *uploads) choose(c *sched.Choker, now time.Time) (wake time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	var asking []sched.Interest
	for p, a := range u.peers {
		if a.streams == 0 {
			if a.gave.read(now) < 1 && a.took.read(now) < 1 {
				delete(u.peers, p)
			}
			continue
		}
		asking = append(asking, sched.Interest{
			ID: a.id, Member: u.preferred(p), Gave: a.gave.read(now), Took: a.took.read(now),
		})
	}
	choice := c.Step(now, asking)
	for x := range u.streams {
		x.setChoke(!choice.Serve[u.peers[x.peer].id])
	}
	return choice.Wake
}

// tellPeers has the stream's writer look for new peers of the swarm now.
func (u *upload) tellPeers() {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.grew = true
	u.signal()
}

// setChoke tells the stream's writer what the choker wants.
func (u *upload) setChoke(on bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.choke != on {
		u.choke = on
		u.signal()
	}
}
