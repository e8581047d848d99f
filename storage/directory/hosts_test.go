package directory

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p"
	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/dht/wire"
)

// gate is the least that stands in for the pool over real hosts: members' streams only, and no gossip.
type gate struct {
	host.Host
	mu      sync.Mutex
	members map[peer.ID]bool
}

func (g *gate) isMember(p peer.ID) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.members[p]
}

func (g *gate) Wrote(author peer.ID, _ time.Time) error {
	if !g.isMember(author) {
		return errors.New("no member")
	}
	return nil
}

func (g *gate) Handle(id protocol.ID, h network.StreamHandler) {
	g.SetStreamHandler(id, func(s network.Stream) {
		if !g.isMember(s.Conn().RemotePeer()) {
			_ = wire.Reset(s, wire.Errorf(wire.Refused, "no member"))
			return
		}
		h(s)
	})
}

func (g *gate) NewStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	return g.Host.NewStream(ctx, p, id)
}

func (g *gate) Connected() (out []peer.ID) {
	for _, p := range g.Network().Peers() {
		if g.isMember(p) {
			out = append(out, p)
		}
	}
	return out
}

func (g *gate) OnConnected(f func(peer.ID)) (stop func()) {
	n := &network.NotifyBundle{ConnectedF: func(_ network.Network, c network.Conn) {
		if g.isMember(c.RemotePeer()) {
			f(c.RemotePeer())
		}
	}}
	g.Network().Notify(n)
	return func() { g.Network().StopNotify(n) }
}

func (g *gate) Publish(context.Context, []byte) error { return nil }

func (g *gate) Next(ctx context.Context) (peer.ID, []byte, error) {
	<-ctx.Done()
	return "", nil, ctx.Err()
}

func realDirectory(t *testing.T, id ident.Identity, members ...ident.Identity) (*Directory, *gate) {
	t.Helper()
	h, err := libp2p.New(libp2p.Identity(id.Key), libp2p.ListenAddrStrings("/ip4/127.0.0.1/tcp/0"), libp2p.DisableRelay())
	if err != nil {
		t.Fatal(err)
	}
	g := &gate{Host: h, members: map[peer.ID]bool{}}
	for _, m := range members {
		g.members[m.ID] = true
	}
	d, err := Open(Config{
		Dir: t.TempDir(), Self: id, Pool: testPool, Members: g, Streams: g, Presence: g, News: g,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(d.Close(), h.Close()); err != nil {
			t.Error(err)
		}
	})
	return d, g
}

func TestTwoRealHosts(t *testing.T) {
	one, two, stranger := newIdentity(t, 1), newIdentity(t, 2), newIdentity(t, 3)
	a, ga := realDirectory(t, one, one, two)
	b, gb := realDirectory(t, two, one, two)
	_, gs := realDirectory(t, stranger, one, two, stranger)
	same := make(chan struct{})
	var once sync.Once
	for _, d := range []*Directory{a, b} {
		d.Watch("", func(*Record) {
			if a.Digest() == b.Digest() {
				once.Do(func() { close(same) })
			}
		})
	}
	for i, d := range []*Directory{a, b} {
		changes := make([]Change, 400)
		for j := range changes {
			changes[j] = Change{Key: string(rune('a'+i)) + "/" + string(rune('A'+j)), Value: make([]byte, 1000)}
		}
		if err := d.Write(t.Context(), changes...); err != nil {
			t.Fatal(err)
		}
	}
	if err := ga.Connect(t.Context(), peer.AddrInfo{ID: gb.ID(), Addrs: gb.Addrs()}); err != nil {
		t.Fatal(err)
	}
	select {
	case <-same:
	case <-time.After(20 * time.Second):
		t.Fatalf("%d and %d records", a.Len(), b.Len())
	}
	if a.Len() != 800 {
		t.Errorf("%d records", a.Len())
	}
	// A stranger gets nothing but the end of its stream.
	if err := gs.Connect(t.Context(), peer.AddrInfo{ID: ga.ID(), Addrs: ga.Addrs()}); err != nil {
		t.Fatal(err)
	}
	s, err := gs.NewStream(t.Context(), ga.ID(), Protocol)
	if err == nil {
		var p Packet
		_ = wire.WriteMsg(s, &Packet{Hello: &Hello{Digest: make([]byte, 32)}}, packetMax)
		err = wire.ReadMsg(s, &p, packetMax)
	}
	if wire.KindOf(err) != wire.Refused {
		t.Errorf("a stranger: %v", err)
	}
}
