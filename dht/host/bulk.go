package host

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	ma "github.com/multiformats/go-multiaddr"
	manet "github.com/multiformats/go-multiaddr/net"
)

const (
	// preferTCPWait bounds how long a bulk stream waits for a TCP connection while QUIC would do.
	preferTCPWait = 2 * time.Second
	// preferTCPAgain is how long a peer whose TCP did not answer is left alone.
	preferTCPAgain = 5 * time.Minute
	// preferTCPPeers bounds how many such peers are remembered.
	preferTCPPeers = 1024
)

// NewBulkStream opens a stream for many bytes, connecting if need be. It runs over a TCP connection when there is one
// or PreferTCP can get one, else over QUIC. It never uses a limited (relayed) connection: those carry 128 KiB.
//
// The stream's protocol is the first of protos that the peer speaks.
func (h *Host) NewBulkStream(ctx context.Context, p peer.ID, protos ...protocol.ID) (network.Stream, error) {
	if err := h.PreferTCP(ctx, p); err != nil {
		return nil, err
	}
	s, err := h.NewStream(ctx, p, protos...)
	if err != nil {
		return nil, fmt.Errorf("host: open bulk stream: %w", err)
	}
	return s, nil
}

// PreferTCP sees to it that the peer is connected, over TCP where that is possible: when there is only a QUIC (or
// relayed) connection and TCP addresses are known, it tries those for up to two seconds. New streams then use the TCP
// connection by themselves, see secondClass. A peer whose TCP does not answer is not tried again for five minutes.
//
// The error is nil when the peer is connected in any way that can carry bulk streams or be upgraded to one.
func (h *Host) PreferTCP(ctx context.Context, p peer.ID) error {
	if h.Network().Connectedness(p) == network.NotConnected {
		if err := h.Connect(ctx, peer.AddrInfo{ID: p}); err != nil {
			return fmt.Errorf("host: connect: %w", err)
		}
	}
	if h.hasTCP(p) || !h.knowsTCP(p) || !h.direct.mayTry(p, time.Now()) {
		return nil
	}
	reason := directReason
	if h.hasDirect(p) {
		reason = preferTCPReason
	}
	dialCtx, cancel := context.WithTimeout(network.WithForceDirectDial(ctx, reason), preferTCPWait)
	defer cancel()
	if _, err := h.Network().DialPeer(dialCtx, p); err != nil && ctx.Err() == nil {
		h.direct.failed(p, time.Now())
	}
	return ctx.Err()
}

// hasTCP reports whether a direct TCP connection to the peer is open.
func (h *Host) hasTCP(p peer.ID) bool {
	for _, c := range h.Network().ConnsToPeer(p) {
		if !c.IsClosed() && isDirectTCP(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

// hasDirect reports whether a direct connection to the peer is open, of any transport.
func (h *Host) hasDirect(p peer.ID) bool {
	for _, c := range h.Network().ConnsToPeer(p) {
		if !c.IsClosed() && !isRelayed(c.RemoteMultiaddr()) {
			return true
		}
	}
	return false
}

// knowsTCP reports whether there is a TCP address of the peer that this host may dial.
func (h *Host) knowsTCP(p peer.ID) bool {
	for _, a := range h.Peerstore().Addrs(p) {
		if isDirectTCP(a) && (!h.confined || manet.IsIPLoopback(a)) {
			return true
		}
	}
	return false
}

func isDirectTCP(a ma.Multiaddr) bool { return hasProtocol(a, ma.P_TCP) && !isRelayed(a) }

// directMemory remembers which peers' TCP did not answer, and until when to leave it at that.
type directMemory struct {
	mu    sync.Mutex
	until map[peer.ID]time.Time
}

func (m *directMemory) mayTry(p peer.ID, now time.Time) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return !now.Before(m.until[p])
}

func (m *directMemory) failed(p peer.ID, now time.Time) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.until == nil {
		m.until = make(map[peer.ID]time.Time)
	}
	if len(m.until) >= preferTCPPeers {
		for q, t := range m.until {
			if !now.Before(t) {
				delete(m.until, q)
			}
		}
	}
	if len(m.until) >= preferTCPPeers {
		clear(m.until) // forgetting costs a few needless dials, growing costs memory for ever
	}
	m.until[p] = now.Add(preferTCPAgain)
}
