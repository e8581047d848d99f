package pool

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"

	"github.com/shoal-os/shoal/dht/roster"
)

const (
	// While members are missing, the meeting points are looked at again at waits that double between these.
	meetFirst = 5 * time.Second
	meetMax   = 15 * time.Minute
	// meetIdle is how often it is looked whether one is missing, and whether a new day has other points.
	meetIdle = time.Minute
	// meetWait bounds one look.
	meetWait = time.Minute
	// strangerAgain is how long a peer that was found and is no member is left alone, and strangersMax how many such are
	// remembered.
	strangerAgain = 10 * time.Minute
	strangersMax  = 1024
)

// meet announces this peer at the pool's meeting points in the DHT, and looks there for members that it has no link to.
// The points follow from the pool's secret and the day: who does not know the secret cannot even tell that they belong to
// a pool.
func (p *Pool) meet() {
	seeded := make(map[[32]byte]bool)
	defer func() {
		for key := range seeded {
			p.cfg.Finder.Unseed(key)
		}
	}()
	wait := meetFirst
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-p.ctx.Done():
			return
		}
		if p.over() {
			return
		}
		points := meetings(*p.secrets.Load(), p.clock.wall())
		p.reseed(seeded, points)
		if p.missing() {
			p.lookAt(points)
			timer.Reset(wait)
			wait = min(2*wait, meetMax)
		} else {
			timer.Reset(meetIdle)
			wait = meetFirst
		}
	}
}

// reseed changes the announced points to those of now.
func (p *Pool) reseed(seeded, points map[[32]byte]bool) {
	for key := range points {
		if !seeded[key] {
			seeded[key] = true
			p.cfg.Finder.Seed(key)
		}
	}
	for key := range seeded {
		if !points[key] {
			delete(seeded, key)
			p.cfg.Finder.Unseed(key)
		}
	}
}

// missing reports whether there is a member that this peer hears nothing of.
func (p *Pool) missing() bool {
	for _, m := range p.Members() {
		if m.State != roster.Online {
			return true
		}
	}
	return false
}

// lookAt tries whoever is announced at the points.
func (p *Pool) lookAt(points map[[32]byte]bool) {
	ctx, cancel := context.WithTimeout(p.ctx, meetWait)
	defer cancel()
	for key := range points {
		for info, err := range p.cfg.Finder.FindProviders(ctx, key) {
			if err != nil {
				break
			}
			p.foundNearby(info)
		}
	}
}

// foundNearby is told of peers that may be members: from the local network, from the meeting points. A member's addresses
// are noted and its link tried at once. Of others nothing can be known without asking, which costs a connection, so each
// is asked rarely; the greeting shows a stranger nothing.
func (p *Pool) foundNearby(info peer.AddrInfo) {
	if p.over() || info.ID == p.cfg.Identity.ID || len(info.Addrs) == 0 {
		return
	}
	p.cfg.Host.Peerstore().AddAddrs(info.ID, info.Addrs, peerstore.TempAddrTTL)
	select {
	case p.calls <- func() { p.tryFound(info.ID) }:
	default: // busy: it will be found again
	}
}

func (p *Pool) tryFound(id peer.ID) {
	switch l := p.links[id]; {
	case l != nil && !l.up:
		l.pokeNow()
	case l == nil && !p.over() && p.mayAsk(id):
		p.wg.Go(func() { p.probe(id) })
	}
}

// mayAsk reports whether an unknown peer is due to be asked, and notes that it was.
func (p *Pool) mayAsk(id peer.ID) bool {
	now := p.clock.boot()
	if at, ok := p.asked[id]; ok && now < at+strangerAgain {
		return false
	}
	if len(p.asked) >= strangersMax {
		for other, at := range p.asked {
			if now >= at+strangerAgain {
				delete(p.asked, other)
			}
		}
		if len(p.asked) >= strangersMax {
			return false
		}
	}
	p.asked[id] = now
	return true
}

// probe greets a peer that may be a member. When it is, its certificate is learned on the way, and a link follows.
func (p *Pool) probe(id peer.ID) {
	ctx, cancel := context.WithTimeout(network.WithAllowLimitedConn(p.ctx, "pool"), dialLinkWait)
	defer cancel()
	s, err := p.dialLink(ctx, id)
	if err != nil {
		p.heed(err)
		return
	}
	_ = s.Reset()
}
