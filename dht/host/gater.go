package host

import (
	"net/netip"
	"time"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/control"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// rateGrace is how long the connection limiter remembers an address that went quiet.
const rateGrace = time.Minute

var (
	loopback4 = netip.MustParsePrefix("127.0.0.0/8")
	loopback6 = netip.MustParsePrefix("::1/128")
)

// newGater returns the gater of a host, or nil when there is nothing to gate.
func newGater(confined bool, next connmgr.ConnectionGater) connmgr.ConnectionGater {
	if !confined {
		return next
	}
	if next == nil {
		next = openGate{}
	}
	return confinement{next}
}

// confinement keeps a host that listens on loopback from dialling anything else. Addresses of other networks reach it
// through the DHT from peers that listen on more; dialling them would be a surprise to whoever chose loopback. A relayed
// address begins with the relay's own, which is what counts.
type confinement struct{ connmgr.ConnectionGater }

func (c confinement) InterceptAddrDial(p peer.ID, a ma.Multiaddr) bool {
	return manet.IsIPLoopback(a) && c.ConnectionGater.InterceptAddrDial(p, a)
}

// openGate lets everything through.
type openGate struct{}

func (openGate) InterceptPeerDial(peer.ID) bool               { return true }
func (openGate) InterceptAddrDial(peer.ID, ma.Multiaddr) bool { return true }
func (openGate) InterceptAccept(network.ConnMultiaddrs) bool  { return true }
func (openGate) InterceptSecured(network.Direction, peer.ID, network.ConnMultiaddrs) bool {
	return true
}
func (openGate) InterceptUpgraded(network.Conn) (bool, control.DisconnectReason) { return true, 0 }

// isRelayed reports whether an address goes through another peer.
func isRelayed(a ma.Multiaddr) bool {
	_, err := a.ValueForProtocol(ma.P_CIRCUIT)
	return err == nil
}
