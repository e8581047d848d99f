package host

import (
	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	rcmgr "github.com/libp2p/go-libp2p/p2p/host/resource-manager"
	"github.com/libp2p/go-libp2p/x/rate"
)

// An office, a campus or a flat shares one address, and so do many peers of one test machine. libp2p's own limits are
// 8 connections and one new connection in 5 s per IPv4 address, which the ninth colleague runs into.
const (
	// connsPerAddress is how many connections one IPv4 address or one IPv6 /56 (a household) may have.
	connsPerAddress = 512
	// connsPerSite is the same for an IPv6 /48, the usual size of a company.
	connsPerSite = 2048
	// newConnsPerSecond and newConnsBurst bound how fast one address may open connections: each costs a handshake, so
	// about 50 in a second is what one core can answer beside its other work.
	newConnsPerSecond = 32
	newConnsBurst     = 512

	// Inbound connections in all, before scaling with memory. libp2p's base is 64, fewer than one address may have here.
	systemConnsInbound  = 512
	systemConnsOutbound = 512
	systemConns         = 1024
	// Connections that are not yet authenticated, of all sources together.
	transientConns = 256
)

// resourceManager builds libp2p's resource manager: on, scaled to the machine's memory and file descriptors as libp2p
// does it, with room for many peers behind one address. Loopback has no limit per address, as in libp2p.
func resourceManager() (network.ResourceManager, error) {
	scaling := rcmgr.DefaultLimits
	libp2p.SetDefaultServiceLimits(&scaling)
	sys := &scaling.SystemBaseLimit
	sys.ConnsInbound, sys.ConnsOutbound, sys.Conns = systemConnsInbound, systemConnsOutbound, systemConns
	sys.StreamsInbound, sys.StreamsOutbound, sys.Streams = 8*systemConns, 8*systemConns, 16*systemConns
	tr := &scaling.TransientBaseLimit
	tr.ConnsInbound, tr.ConnsOutbound, tr.Conns = transientConns, transientConns, 2*transientConns
	tr.FD = max(tr.FD, transientConns)

	return rcmgr.NewResourceManager(
		rcmgr.NewFixedLimiter(scaling.AutoScale()),
		rcmgr.WithMetricsDisabled(),
		rcmgr.WithLimitPerSubnet(
			[]rcmgr.ConnLimitPerSubnet{{PrefixLength: 32, ConnCount: connsPerAddress}},
			[]rcmgr.ConnLimitPerSubnet{
				{PrefixLength: 56, ConnCount: connsPerAddress},
				{PrefixLength: 48, ConnCount: connsPerSite},
			}),
		rcmgr.WithConnRateLimiters(connRate()),
	)
}

// connRate limits new connections per address and leaves loopback alone.
func connRate() *rate.Limiter {
	perAddress := rate.Limit{RPS: newConnsPerSecond, Burst: newConnsBurst}
	return &rate.Limiter{
		NetworkPrefixLimits: []rate.PrefixLimit{
			{Prefix: loopback4}, // the zero limit is no limit
			{Prefix: loopback6},
		},
		SubnetRateLimiter: rate.SubnetLimiter{
			IPv4SubnetLimits: []rate.SubnetLimit{{PrefixLength: 32, Limit: perAddress}},
			IPv6SubnetLimits: []rate.SubnetLimit{{PrefixLength: 56, Limit: perAddress}},
			GracePeriod:      rateGrace,
		},
	}
}
