package host

import (
	"cmp"
	"slices"
	"strconv"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

// The dial order. libp2p's own dials QUIC first, and TCP 30 ms (private) or 250 ms (public) after it. shoal turns that
// round, because its connections carry files: over loopback on two cores a bare stream of TCP with TLS moves
// 820–910 MB/s and one of QUIC 260–350, as user-space QUIC pays a system call and a decryption for each small packet.
// QUIC stays for what it is better at: getting through NATs, and networks that block TCP.
const (
	// quicDelay is how long after the first TCP dial QUIC is tried, on every class of address. It is the connection
	// attempt delay of happy eyeballs (RFC 8305): long beside a TCP and TLS handshake on a LAN (under 10 ms), and short
	// enough not to be felt where TCP is blocked. A TCP dial that fails outright starts the next one at once.
	quicDelay = 250 * time.Millisecond

	// Steps between addresses of the same transport and class: first one, then the best of the other IP version, then
	// the rest.
	stepPrivate = 30 * time.Millisecond
	stepPublic  = 250 * time.Millisecond

	// relayDelay keeps relays behind direct addresses; libp2p's value.
	relayDelay = 500 * time.Millisecond
	// otherDelay is for addresses of no class known here.
	otherDelay = time.Second
)

// rankTCPFirst is the swarm's dial ranker. Private and public addresses are dialled side by side; relays follow.
func rankTCPFirst(addrs []ma.Multiaddr) []network.AddrDelay {
	var private, public, relayed, other []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case isRelayed(a):
			relayed = append(relayed, a)
		case manet.IsPrivateAddr(a) || manet.IsIPLoopback(a):
			private = append(private, a)
		case hasIP(a):
			public = append(public, a)
		default:
			other = append(other, a)
		}
	}
	ranked := make([]network.AddrDelay, 0, len(addrs))
	ranked = append(ranked, rankClass(private, stepPrivate, 0)...)
	ranked = append(ranked, rankClass(public, stepPublic, 0)...)
	offset := time.Duration(0)
	if len(ranked) > 0 {
		offset = relayDelay
	}
	ranked = append(ranked, rankClass(relayed, stepPublic, offset)...)
	for _, a := range other {
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: offset + otherDelay})
	}
	return ranked
}

// rankClass ranks addresses of one class: TCP from offset on, QUIC quicDelay later, or at once when there is no TCP.
func rankClass(addrs []ma.Multiaddr, step, offset time.Duration) []network.AddrDelay {
	var tcp, quic, other []ma.Multiaddr
	for _, a := range addrs {
		switch {
		case hasProtocol(a, ma.P_QUIC_V1):
			quic = append(quic, a)
		case hasProtocol(a, ma.P_TCP):
			tcp = append(tcp, a)
		default:
			other = append(other, a)
		}
	}
	ranked := stagger(tcp, step, offset)
	if len(tcp) > 0 {
		offset += quicDelay
	}
	ranked = append(ranked, stagger(quic, step, offset)...)
	for _, a := range other {
		ranked = append(ranked, network.AddrDelay{Addr: a, Delay: offset + otherDelay})
	}
	return ranked
}

// stagger orders addresses of one transport as happy eyeballs does: the best IPv6 first, the best IPv4 a step later,
// the rest together after that. Low ports go first, as they are likelier to be the listening ones.
func stagger(addrs []ma.Multiaddr, step, offset time.Duration) []network.AddrDelay {
	sorted := slices.Clone(addrs)
	slices.SortStableFunc(sorted, func(a, b ma.Multiaddr) int {
		return cmp.Or(cmp.Compare(ipVersion(b), ipVersion(a)), cmp.Compare(port(a), port(b)))
	})
	if len(sorted) > 2 && ipVersion(sorted[0]) == 6 {
		if i := slices.IndexFunc(sorted, func(a ma.Multiaddr) bool { return ipVersion(a) == 4 }); i > 1 {
			best := sorted[i]
			sorted = slices.Insert(slices.Delete(sorted, i, i+1), 1, best)
		}
	}
	ranked := make([]network.AddrDelay, len(sorted))
	for i, a := range sorted {
		ranked[i] = network.AddrDelay{Addr: a, Delay: offset + time.Duration(min(i, 2))*step}
	}
	return ranked
}

func hasProtocol(a ma.Multiaddr, code int) bool {
	_, err := a.ValueForProtocol(code)
	return err == nil
}

func hasIP(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_IP4) || hasProtocol(a, ma.P_IP6) }

func ipVersion(a ma.Multiaddr) int {
	if hasProtocol(a, ma.P_IP6) {
		return 6
	}
	return 4
}

// port returns the TCP or UDP port, or one past the greatest when there is none.
func port(a ma.Multiaddr) int {
	for _, code := range []int{ma.P_TCP, ma.P_UDP} {
		if s, err := a.ValueForProtocol(code); err == nil {
			if n, err := strconv.Atoi(s); err == nil {
				return n
			}
		}
	}
	return 1 << 16
}
