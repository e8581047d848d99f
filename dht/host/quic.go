package host

import (
	"context"
	"errors"

	"github.com/libp2p/go-libp2p/core/connmgr"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/pnet"
	"github.com/libp2p/go-libp2p/core/transport"
	libp2pquic "github.com/libp2p/go-libp2p/p2p/transport/quic"
	"github.com/libp2p/go-libp2p/p2p/transport/quicreuse"
	ma "github.com/multiformats/go-multiaddr"
)

// errHaveQUIC refuses a second QUIC connection while a TCP one is being looked for.
var errHaveQUIC = errors.New("host: the peer is reachable by QUIC already")

// Why a direct dial is made although the peer is connected; libp2p carries the text to the transports. preferTCPReason
// wants TCP and nothing else, directReason anything but a relay.
const (
	preferTCPReason = "shoal: prefer tcp"
	directReason    = "shoal: no relay"
)

// secondClass is the QUIC transport with one difference: its connections are of second choice. libp2p's swarm puts a
// new stream on the connection that already has the most, whatever its transport, and will not dial a peer that it is
// connected to. Only one thing makes it prefer one of two connections, or look for a better one: that the transport of
// the lesser calls itself a proxy. So connections (not the transport itself, which must stay dialable like any other)
// say that they come of a proxy. The swarm asks for nothing else with that flag; hole punching and identify look at
// addresses and at Stat().Limited. TestStreamsMoveToTCP guards it.
type secondClass struct {
	transport.Transport
}

// newQUIC makes libp2p's QUIC transport, wrapped. libp2p finds the arguments by their types.
func newQUIC(key crypto.PrivKey, cm *quicreuse.ConnManager, psk pnet.PSK, gater connmgr.ConnectionGater,
	limits network.ResourceManager) (transport.Transport, error) {
	t, err := libp2pquic.NewTransport(key, cm, psk, gater, limits)
	if err != nil {
		return nil, err
	}
	return secondClass{t}, nil
}

// Dial dials as the inner transport does, except that it declines when the caller is looking for TCP: libp2p offers
// such a dial every address of the peer.
func (t secondClass) Dial(ctx context.Context, addr ma.Multiaddr, p peer.ID) (transport.CapableConn, error) {
	if wanted, reason := network.GetForceDirectDial(ctx); wanted && reason == preferTCPReason {
		return nil, errHaveQUIC
	}
	c, err := t.Transport.Dial(ctx, addr, p)
	if err != nil {
		return nil, err
	}
	return secondClassConn{c}, nil
}

// Listen listens as the inner transport does.
func (t secondClass) Listen(addr ma.Multiaddr) (transport.Listener, error) {
	l, err := t.Transport.Listen(addr)
	if err != nil {
		return nil, err
	}
	return secondClassListener{l}, nil
}

type secondClassListener struct {
	transport.Listener
}

func (l secondClassListener) Accept() (transport.CapableConn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return secondClassConn{c}, nil
}

type secondClassConn struct {
	transport.CapableConn
}

func (c secondClassConn) Transport() transport.Transport {
	return asProxy{c.CapableConn.Transport()}
}

// asProxy is a transport as a connection of second choice names it.
type asProxy struct {
	transport.Transport
}

func (asProxy) Proxy() bool { return true }
