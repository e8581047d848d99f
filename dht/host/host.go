// Package host owns the libp2p host of a peer: the one list of libp2p options in shoal, which transports there are
// and in what order they are dialled, the limits that hold against strangers, where the peer listens, and how it
// finds others on its local network.
//
// It knows no shoal protocol, keeps no list of peers and stores nothing but its last port. Whoever needs streams gets
// them from Host.NewStream or, for many bytes, Host.NewBulkStream.
package host

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/connmgr"
	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	basicconnmgr "github.com/libp2p/go-libp2p/p2p/net/connmgr"
	"github.com/libp2p/go-libp2p/p2p/net/swarm"
	"github.com/libp2p/go-libp2p/p2p/protocol/ping"
	"github.com/libp2p/go-libp2p/p2p/security/noise"
	libp2ptls "github.com/libp2p/go-libp2p/p2p/security/tls"
	"github.com/libp2p/go-libp2p/p2p/transport/tcp"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/ident"
)

const (
	connsDefault = 192 // Config.MaxConns when it is zero
	connsMin     = 16  // fewer could not hold a routing table

	// graceConns is how long a new connection is safe from trimming.
	graceConns = 20 * time.Second
	// dialTimeout bounds one dial of one address on the open internet.
	dialTimeout = 10 * time.Second
	// dialTimeoutLocal is the same on private networks and loopback, where libp2p gives five seconds. That is too little for
	// the handshake with a machine that is busy, as one is that fifty others connect to. TCP itself gives up after five
	// seconds as before, so that an address where nobody is costs no more.
	dialTimeoutLocal = 10 * time.Second
	// pingTimeout bounds Host.Ping when its context has no sooner deadline.
	pingTimeout = 10 * time.Second

	agentDefault = "shoal"
)

// Config says what a host is. The zero value of each field but Identity is a working default.
type Config struct {
	// Identity is who the host is. Required.
	Identity ident.Identity
	// Listen holds multiaddrs to listen on, of TCP (/ip4/…/tcp/PORT) and QUIC (/ip4/…/udp/PORT/quic-v1); port 0 lets
	// the system choose. Each must succeed. Empty: all interfaces, IPv4 and IPv6, TCP and QUIC, as far as the machine
	// has them. When all are loopback addresses the host is confined: it never sends a packet off the machine.
	Listen []string
	// PortFile, when not empty, is where the chosen port is remembered, so that port 0 means "the port of last time, if
	// it is free". The addresses in a link then outlive a restart.
	PortFile string
	// LAN turns local discovery on (multicast DNS). It stays off on a confined host.
	LAN bool
	// Found, when set, is told of peers that local discovery found. It must not block, and may be called from several
	// goroutines. More can be added with Host.OnFound.
	Found func(peer.AddrInfo)
	// UPnP lets the host ask the router for a port mapping.
	UPnP bool
	// Agent is what the host calls itself to others, for example "shoal/0.1.0". Empty: "shoal".
	Agent string
	// MaxConns is where idle connections begin to be closed. 0: 192; at least 16. The low water is five sixths of it.
	MaxConns int
	// Gater, when set, may refuse connections. It is asked after the confinement of a loopback host.
	Gater connmgr.ConnectionGater
}

// Host is a running libp2p host with shoal's choices. All methods are safe for concurrent use. Close ends it.
type Host struct {
	p2phost.Host

	confined bool
	ping     *ping.PingService
	lan      *discovery
	direct   directMemory

	closeOnce sync.Once
	closeErr  error
}

// New starts a host that listens and answers. It fails when an address of cfg.Listen cannot be listened on, or none of
// the defaults can.
func New(cfg Config) (*Host, error) {
	if cfg.Identity.Key == nil {
		return nil, errors.New("host: no identity was given")
	}
	listen, err := planListen(cfg.Listen, cfg.PortFile)
	if err != nil {
		return nil, err
	}
	opts, err := options(cfg, listen)
	if err != nil {
		return nil, err
	}
	inner, err := libp2p.New(opts...)
	if err != nil {
		return nil, fmt.Errorf("host: start: %w", err)
	}
	h := &Host{Host: inner, confined: listen.confined, ping: ping.NewPingService(inner)}
	if err := listen.check(inner.Network()); err != nil {
		return nil, errors.Join(err, inner.Close())
	}
	listen.remember(inner.Network())
	h.lan = newDiscovery(inner, cfg.LAN && !listen.confined, cfg.Found)
	return h, nil
}

// options is the list of libp2p options. Transports are TCP and QUIC only: what browsers need (WebSocket, WebTransport,
// WebRTC) adds weight and attack surface to a program that is no browser. TLS comes before Noise: over loopback it moves
// 820–910 MB/s where Noise moves 620. Metrics are off because they would register with a process-wide registry.
func options(cfg Config, listen listenPlan) ([]libp2p.Option, error) {
	limits, err := resourceManager()
	if err != nil {
		return nil, fmt.Errorf("host: resource limits: %w", err)
	}
	high := connsDefault
	if cfg.MaxConns > 0 {
		high = max(cfg.MaxConns, connsMin)
	}
	conns, err := basicconnmgr.NewConnManager(high*5/6, high, basicconnmgr.WithGracePeriod(graceConns))
	if err != nil {
		return nil, errors.Join(fmt.Errorf("host: connection limits: %w", err), limits.Close())
	}
	agent := cfg.Agent
	if agent == "" {
		agent = agentDefault
	}
	opts := []libp2p.Option{
		libp2p.Identity(cfg.Identity.Key),
		libp2p.ListenAddrs(listen.addrs...),
		libp2p.Transport(tcp.NewTCPTransport),
		libp2p.Transport(newQUIC),
		libp2p.Security(libp2ptls.ID, libp2ptls.New),
		libp2p.Security(noise.ID, noise.New),
		libp2p.SwarmOpts(swarm.WithDialRanker(rankTCPFirst), swarm.WithDialTimeoutLocal(dialTimeoutLocal)),
		libp2p.WithDialTimeout(dialTimeout),
		libp2p.ResourceManager(limits),
		libp2p.ConnectionManager(conns),
		libp2p.UserAgent(agent),
		libp2p.EnableRelay(),
		libp2p.EnableHolePunching(),
		libp2p.EnableAutoNATv2(),
		libp2p.Ping(false), // New starts one itself, to hold on to its client side
		libp2p.DisableMetrics(),
	}
	if gater := newGater(listen.confined, cfg.Gater); gater != nil {
		opts = append(opts, libp2p.ConnectionGater(gater))
	}
	if cfg.UPnP && !listen.confined {
		opts = append(opts, libp2p.NATPortMap())
	}
	return opts, nil
}

// Confined reports whether the host listens on loopback only, and so never talks to another machine.
func (h *Host) Confined() bool { return h.confined }

// OnFound adds a listener for peers that local discovery finds, and tells it at once of those found lately. f must not
// block.
func (h *Host) OnFound(f func(peer.AddrInfo)) { h.lan.subscribe(f) }

// LANError says why local discovery does not run although it was asked for, or nil. Containers and guest networks often
// have no multicast; that is no reason not to start.
func (h *Host) LANError() error { return h.lan.err }

// LAN reports whether local discovery runs.
func (h *Host) LAN() bool { return h.lan.running() }

// ShareAddrs returns the addresses under which others may reach this host, each ending in /p2p/ID, as a link carries
// them: those of the interfaces it listens on, mapped and observed ones, relayed ones.
func (h *Host) ShareAddrs() []multiaddr.Multiaddr {
	addrs, err := peer.AddrInfoToP2pAddrs(&peer.AddrInfo{ID: h.ID(), Addrs: withoutVirtual(h.Addrs(), net.Interfaces)})
	if err != nil {
		return nil // the id is our own and valid, so there is nothing a caller could do
	}
	return addrs
}

// Ping measures one round trip to a peer, connecting to it if need be.
func (h *Host) Ping(ctx context.Context, p peer.ID) (time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, pingTimeout)
	defer cancel()
	if _, err := h.Network().DialPeer(ctx, p); err != nil {
		return 0, fmt.Errorf("host: ping: %w", err)
	}
	ctx = network.WithAllowLimitedConn(ctx, "ping")
	select {
	case res, ok := <-h.ping.Ping(ctx, p):
		if !ok {
			return 0, fmt.Errorf("host: ping: %w", ctx.Err())
		}
		if res.Error != nil {
			return 0, fmt.Errorf("host: ping: %w", res.Error)
		}
		return res.RTT, nil
	case <-ctx.Done():
		return 0, fmt.Errorf("host: ping: %w", ctx.Err())
	}
}

// Close ends discovery, all connections and all listeners. It may be called more than once.
func (h *Host) Close() error {
	h.closeOnce.Do(func() {
		h.closeErr = errors.Join(h.lan.close(), h.Host.Close())
	})
	return h.closeErr
}
