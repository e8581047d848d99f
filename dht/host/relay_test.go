package host

import (
	"testing"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/p2p/protocol/circuitv2/client"
	ma "github.com/multiformats/go-multiaddr"
)

// startRelay runs a bare libp2p relay on loopback, and returns its address with /p2p/.
func startRelay(t *testing.T) (peer.AddrInfo, ma.Multiaddr) {
	t.Helper()
	relay, err := libp2p.New(libp2p.ListenAddrStrings(tcpAny), libp2p.EnableRelayService(), libp2p.ForceReachabilityPublic(),
		libp2p.DisableMetrics())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = relay.Close() })
	at := peer.AddrInfo{ID: relay.ID(), Addrs: relay.Addrs()}
	addrs, err := peer.AddrInfoToP2pAddrs(&at)
	if err != nil || len(addrs) == 0 {
		t.Fatal(addrs, err)
	}
	return at, addrs[0]
}

// Two peers that met through a relay show it, and bulk streams leave it for a direct connection as soon as one can be had.
func TestBulkStreamsLeaveTheRelay(t *testing.T) {
	relay, relayAddr := startRelay(t)
	a, b := start(t, tcpAny, quicAny), start(t, tcpAny, quicAny)
	for _, h := range []*Host{a, b} {
		if err := h.Connect(context10(t), relay); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := client.Reserve(context10(t), b, relay); err != nil {
		t.Fatal(err)
	}
	circuit := relayAddr.Encapsulate(ma.StringCast("/p2p-circuit"))
	ctx := network.WithAllowLimitedConn(context10(t), "test")
	if err := a.Connect(ctx, peer.AddrInfo{ID: b.ID(), Addrs: []ma.Multiaddr{circuit}}); err != nil {
		t.Fatal(err)
	}
	paths := a.Paths(b.ID())
	if len(paths) != 1 || paths[0].Transport != TransportRelay || !paths[0].Limited {
		t.Fatalf("paths %+v", paths)
	}
	// A stream waits for identify, which tells where b can be reached directly.
	ping, err := a.NewStream(ctx, b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	sayHello(t, ping)
	s, err := a.NewBulkStream(context10(t), b.ID(), echo)
	if err != nil {
		t.Fatal(err)
	}
	if !isDirectTCP(s.Conn().RemoteMultiaddr()) {
		t.Errorf("the bulk stream runs over %s", s.Conn().RemoteMultiaddr())
	}
	sayHello(t, s)
	if got, want := transports(a, b), TransportTLS+" "+TransportRelay; got != want {
		t.Errorf("transports %q, want %q", got, want)
	}
}
