package dht

import (
	"github.com/libp2p/go-libp2p/core/connmgr"
	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/peer"
)

// tableTag is the tag by which kad-dht marks the connections to peers of its routing table.
const tableTag = "kbucket"

// tableEvents says who is told of changes. added is called from the table's goroutine and must not block.
type tableEvents struct {
	added func(peer.ID)
}

// watchTable returns a host for kad-dht that tells of peers entering its routing table. kad-dht has no event for it (its
// one hook is a field that may not be set once it runs), and asking the table for its size again and again would be a
// poll that is either late or costly. But it marks each new peer at the connection manager, in the moment it adds it.
// TestWatch guards that this stays so.
func watchTable(h p2phost.Host, ev tableEvents) p2phost.Host {
	return watchedHost{Host: h, conns: watchedConns{ConnManager: h.ConnManager(), ev: ev}}
}

type watchedHost struct {
	p2phost.Host
	conns connmgr.ConnManager
}

func (h watchedHost) ConnManager() connmgr.ConnManager { return h.conns }

type watchedConns struct {
	connmgr.ConnManager
	ev tableEvents
}

// Protect marks the peers of the two farthest buckets.
func (c watchedConns) Protect(p peer.ID, tag string) {
	c.ConnManager.Protect(p, tag)
	if tag == tableTag {
		c.ev.added(p)
	}
}

// TagPeer marks all others.
func (c watchedConns) TagPeer(p peer.ID, tag string, value int) {
	c.ConnManager.TagPeer(p, tag, value)
	if tag == tableTag {
		c.ev.added(p)
	}
}
