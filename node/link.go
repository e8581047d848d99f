package node

import (
	"cmp"
	"slices"

	"github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// linkAddrsMax bounds the addresses in a link: it should fit into a message
// and a QR code, and the DHT has the rest.
const linkAddrsMax = 6

// linkAddrs chooses the addresses that a link carries: those that most likely
// work from elsewhere first, TCP before QUIC because bulk bytes run over it.
// Loopback addresses are of use only when there is nothing else.
func linkAddrs(all []multiaddr.Multiaddr) []multiaddr.Multiaddr {
	addrs := slices.DeleteFunc(slices.Clone(all), manet.IsIPLoopback)
	if len(addrs) == 0 {
		addrs = slices.Clone(all)
	}
	slices.SortStableFunc(addrs, func(a, b multiaddr.Multiaddr) int { return cmp.Compare(addrRank(a), addrRank(b)) })
	return addrs[:min(len(addrs), linkAddrsMax)]
}

// addrRank is lower for addresses that are of more use to a stranger.
func addrRank(a multiaddr.Multiaddr) int {
	rank := 0
	if _, err := a.ValueForProtocol(multiaddr.P_CIRCUIT); err == nil {
		rank += 2 // after a direct address of each kind, before the rest of the private ones
	}
	if !manet.IsPublicAddr(a) {
		rank += 4
	}
	if _, err := a.ValueForProtocol(multiaddr.P_TCP); err != nil {
		rank++
	}
	if _, err := a.ValueForProtocol(multiaddr.P_IP6); err == nil && !manet.IsPublicAddr(a) {
		rank += 2 // private and link-local IPv6 rarely leads anywhere that IPv4 does not
	}
	return rank
}
