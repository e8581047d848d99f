package node

import (
	"sync/atomic"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"
)

// gate stands before every connection of the peer. While it is shut there is none: nobody is dialled, and who dials is
// hung up on.
type gate struct {
	next connmgr.ConnectionGater // nil lets everybody through
	shut atomic.Bool
}

func (g *gate) open(next func(connmgr.ConnectionGater) bool) bool {
	return !g.shut.Load() && (g.next == nil || next(g.next))
}

func (g *gate) InterceptPeerDial(p peer.ID) bool {
	return g.open(func(n connmgr.ConnectionGater) bool { return n.InterceptPeerDial(p) })
}

func (g *gate) InterceptAddrDial(p peer.ID, a multiaddr.Multiaddr) bool {
	return g.open(func(n connmgr.ConnectionGater) bool { return n.InterceptAddrDial(p, a) })
}

func (g *gate) InterceptAccept(c network.ConnMultiaddrs) bool {
	return g.open(func(n connmgr.ConnectionGater) bool { return n.InterceptAccept(c) })
}

func (g *gate) InterceptSecured(d network.Direction, p peer.ID, c network.ConnMultiaddrs) bool {
	return g.open(func(n connmgr.ConnectionGater) bool { return n.InterceptSecured(d, p, c) })
}

// InterceptUpgraded is the last word on a connection, also on one that was being made when the gate was shut.
func (g *gate) InterceptUpgraded(c network.Conn) (bool, control.DisconnectReason) {
	if g.shut.Load() {
		return false, 0
	}
	if g.next == nil {
		return true, 0
	}
	return g.next.InterceptUpgraded(c)
}
