package pool

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

const (
	// relaysMax is how many members keep this peer reachable at a time.
	relaysMax = 2
	// reserveWait bounds one reservation, and reserveAgain is the wait after one that failed.
	reserveWait  = 15 * time.Second
	reserveAgain = time.Minute
	// reserveLife is the longest that a relay grants: the end that it tells is by its clock, and this peer's may be hours behind.
	reserveLife = time.Hour
)

// relaying is this peer's part in the pool's relays: a member that strangers can reach relays for all others, and one that
// they cannot keeps reservations with those that do. Only members may use either end.
type relaying struct {
	serving  func() error // stops the service; nil: not running
	public   bool         // strangers can reach this peer
	offers   map[peer.ID]bool
	reserved map[peer.ID]*reservation
}

type reservation struct {
	addrs []multiaddr.Multiaddr // none: under way, or failed
	again time.Duration         // Boot when to ask again
}

// watchReach follows what AutoNAT v2 finds out about this peer's addresses.
func (p *Pool) watchReach() {
	sub, err := p.cfg.Host.EventBus().Subscribe(new(event.EvtHostReachableAddrsChanged))
	if err != nil {
		return // then this peer relays for nobody
	}
	defer func() { _ = sub.Close() }()
	for {
		select {
		case ev, ok := <-sub.Out():
			if !ok {
				return
			}
			if e, ok := ev.(event.EvtHostReachableAddrsChanged); ok {
				p.post(func() { p.reachChanged(len(e.Reachable) > 0) })
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// reachChanged starts or stops the relay.
func (p *Pool) reachChanged(public bool) {
	r := &p.relaying
	r.public = public
	switch {
	case public && r.serving == nil && !p.over():
		if stop, err := p.cfg.Host.ServeRelay(p.IsMember); err == nil {
			r.serving = stop
		}
	case !public && r.serving != nil:
		_ = r.serving()
		r.serving = nil
	}
	p.refreshSaying()
}

// reserve keeps up to relaysMax reservations with members that relay, while strangers cannot reach this peer.
func (p *Pool) reserve() {
	r, now := &p.relaying, p.clock.boot()
	for id := range r.reserved {
		if l := p.links[id]; r.public || !r.offers[id] || l == nil || !l.up {
			delete(r.reserved, id)
		}
	}
	if r.public {
		return
	}
	for id := range r.offers {
		l := p.links[id]
		switch res := r.reserved[id]; {
		case l == nil:
			delete(r.offers, id)
		case res == nil && l.up && len(r.reserved) < relaysMax, res != nil && now >= res.again:
			if res == nil {
				res = new(reservation)
				r.reserved[id] = res
			}
			res.again = now + reserveAgain
			p.wg.Go(func() { p.askRelay(id, res) })
		}
	}
}

func (p *Pool) askRelay(id peer.ID, res *reservation) {
	ctx, cancel := context.WithTimeout(p.ctx, reserveWait)
	defer cancel()
	addrs, until, err := p.cfg.Host.Reserve(ctx, id)
	p.post(func() {
		if err != nil || p.relaying.reserved[id] != res {
			res.addrs = nil
			return
		}
		res.addrs = addrs
		res.again = p.clock.boot() + renewal(time.Until(until))
		p.refreshSaying()
	})
}

// renewal is when a reservation is asked for again that seems to last for left.
func renewal(left time.Duration) time.Duration { return max(reserveAgain, min(left, reserveLife)/2) }

// relayed returns the addresses under which relays keep this peer reachable.
func (p *Pool) relayed() (out []multiaddr.Multiaddr) {
	for _, res := range p.relaying.reserved {
		out = append(out, res.addrs...)
	}
	return out
}

// stopRelay ends the service.
func (p *Pool) stopRelay() {
	if p.relaying.serving != nil {
		_ = p.relaying.serving()
		p.relaying.serving = nil
	}
}
