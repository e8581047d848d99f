package host

import (
	"context"
	"fmt"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/relay"
	ma "github.com/multiformats/go-multiaddr"
)

const (
	// relayReservations bounds the peers that one relay keeps reachable, and relayCircuits the connections to each.
	relayReservations = 256
	relayCircuits     = 64
	// relayBuffer is what one direction of a relayed connection buffers, in bytes.
	relayBuffer = 32 << 10
	// relayAddrs is the most addresses of one relay that a peer names itself by.
	relayAddrs = 2
)

// ServeRelay lets others reach each other through this host (circuit v2,
// https://github.com/libp2p/specs/blob/master/relay/circuit-v2.md), until stop is called: only peers that allow accepts, at
// both ends, and those without libp2p's usual limits of 2 minutes and 128 KiB. allow must be quick and safe for concurrent
// use.
func (h *Host) ServeRelay(allow func(peer.ID) bool) (stop func() error, err error) {
	res := relay.DefaultResources()
	res.Limit = nil
	res.MaxReservations, res.MaxCircuits, res.BufferSize = relayReservations, relayCircuits, relayBuffer
	res.MaxReservationsPerIP, res.MaxReservationsPerASN = relayReservations, relayReservations // an office has one address
	r, err := relay.New(h.Host, relay.WithResources(res), relay.WithACL(relayACL(allow)))
	if err != nil {
		return nil, fmt.Errorf("host: relay: %w", err)
	}
	return r.Close, nil
}

// relayACL has both ends of a circuit accepted by the same rule.
type relayACL func(peer.ID) bool

func (f relayACL) AllowReserve(p peer.ID, _ ma.Multiaddr) bool { return f(p) }
func (f relayACL) AllowConnect(src peer.ID, _ ma.Multiaddr, dst peer.ID) bool {
	return f(src) && f(dst)
}

// Reserve asks a connected peer to keep this host reachable through it. It returns the addresses under which the host can
// then be reached, without its own /p2p/, and until when.
func (h *Host) Reserve(ctx context.Context, p peer.ID) (addrs []ma.Multiaddr, until time.Time, err error) {
	info := h.Peerstore().PeerInfo(p)
	r, err := client.Reserve(ctx, h.Host, info)
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("host: reserve: %w", err)
	}
	circuit, err := ma.NewMultiaddr("/p2p/" + p.String() + "/p2p-circuit")
	if err != nil {
		return nil, time.Time{}, fmt.Errorf("host: reserve: %w", err)
	}
	for _, a := range info.Addrs {
		if !isRelayed(a) && len(addrs) < relayAddrs {
			addrs = append(addrs, a.Encapsulate(circuit))
		}
	}
	return addrs, r.Expiration, nil
}
