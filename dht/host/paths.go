package host

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The transports that Path.Transport names.
const (
	TransportTLS   = "tcp+tls"
	TransportNoise = "tcp+noise"
	TransportQUIC  = "quic"
	TransportRelay = "relay"
)

// The distances that Path.Reach names.
const (
	ReachLoopback = "loopback" // the same machine
	ReachLAN      = "lan"      // a private or link-local address
	ReachWAN      = "wan"      // anything else
)

// Path is one open connection to a peer, as status shows it.
type Path struct {
	Transport string        // one of the Transport constants
	Remote    ma.Multiaddr  // the other end, without /p2p/
	Reach     string        // one of the Reach constants, for the far end's address; a relay's own address for relays
	Inbound   bool          // whether the other side dialled
	Limited   bool          // whether a relay bounds its time and bytes
	RTT       time.Duration // smoothed round trip to the peer over any connection; 0: not measured yet
	Streams   int           // open streams
	Opened    time.Time
}

// Paths returns the open connections to a peer, the one that new streams would use first. It is empty when there is
// none.
func (h *Host) Paths(p peer.ID) []Path {
	rtt := h.Peerstore().LatencyEWMA(p)
	var paths []Path
	for _, c := range h.Network().ConnsToPeer(p) {
		if c.IsClosed() {
			continue
		}
		stat := c.Stat()
		paths = append(paths, Path{
			Transport: transportName(c),
			Remote:    c.RemoteMultiaddr(),
			Reach:     reach(c.RemoteMultiaddr()),
			Inbound:   stat.Direction == network.DirInbound,
			Limited:   stat.Limited,
			RTT:       rtt,
			Streams:   stat.NumStreams,
			Opened:    stat.Opened,
		})
	}
	slices.SortStableFunc(paths, func(a, b Path) int {
		return cmp.Or(cmp.Compare(preference(a), preference(b)), cmp.Compare(b.Streams, a.Streams))
	})
	return paths
}

// preference orders paths as the swarm does: unlimited before limited, TCP before QUIC before relays.
func preference(p Path) int {
	rank := slices.Index([]string{TransportTLS, TransportNoise, TransportQUIC, TransportRelay}, p.Transport)
	if p.Limited {
		rank += 10
	}
	return rank
}

func transportName(c network.Conn) string {
	if isRelayed(c.RemoteMultiaddr()) {
		return TransportRelay
	}
	state := c.ConnState()
	if state.Transport != "tcp" {
		return TransportQUIC
	}
	switch state.Security {
	case libp2ptls.ID:
		return TransportTLS
	case noise.ID:
		return TransportNoise
	default:
		return "tcp+" + string(state.Security)
	}
}

func reach(a ma.Multiaddr) string {
	switch {
	case manet.IsIPLoopback(a):
		return ReachLoopback
	case manet.IsPrivateAddr(a) || manet.IsIP6LinkLocal(a):
		return ReachLAN
	default:
		return ReachWAN
	}
}
