package pool

import (
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/event"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/multiformats/go-multiaddr"

	"github.com/shoal-os/shoal/dht/host"
)

// say makes the host believe that strangers can reach it, or that they cannot.
func (b *box) reachable(yes bool) {
	b.t.Helper()
	emitter, err := b.host.EventBus().Emitter(new(event.EvtHostReachableAddrsChanged))
	if err != nil {
		b.t.Fatal(err)
	}
	defer func() { _ = emitter.Close() }()
	var e event.EvtHostReachableAddrsChanged
	if yes {
		e.Reachable = b.host.Addrs()
	}
	if err := emitter.Emit(e); err != nil {
		b.t.Fatal(err)
	}
}

// A member that strangers can reach relays for members, without limits, and for nobody else.
func TestRelayForMembersOnly(t *testing.T) {
	a, b, c := three(t)
	a.reachable(true)
	wait(t, 5*time.Second, "ben knows that anna relays", func() (ok bool) {
		_ = b.pool.do(t.Context(), func() { ok = b.pool.relaying.offers[a.self.ID] })
		return ok
	})
	var circuits []multiaddr.Multiaddr
	wait(t, 10*time.Second, "ben has a place at the relay", func() bool {
		_ = b.pool.do(t.Context(), func() { b.pool.reserve(); circuits = b.pool.relayed() })
		return len(circuits) > 0
	})
	wait(t, 5*time.Second, "cleo is told of it", func() bool {
		for _, known := range c.host.Peerstore().Addrs(b.self.ID) {
			if known.Equal(circuits[0]) {
				return true
			}
		}
		return false
	})
	through := peer.AddrInfo{ID: b.self.ID, Addrs: circuits}
	// Cleo's pool is closed, so that her bare host reaches ben by the relay or not at all.
	if err := c.pool.Close(); err != nil {
		t.Fatal(err)
	}
	c.host.Peerstore().ClearAddrs(b.self.ID)
	wait(t, 5*time.Second, "cleo has no connection", func() bool {
		_ = c.host.Network().ClosePeer(b.self.ID)
		return len(c.host.Network().ConnsToPeer(b.self.ID)) == 0
	})
	if err := c.host.Connect(context10(t), through); err != nil {
		t.Fatal(err)
	}
	if paths := c.host.Paths(b.self.ID); len(paths) == 0 || paths[len(paths)-1].Transport != host.TransportRelay || paths[len(paths)-1].Limited {
		t.Errorf("paths %+v", paths)
	}
	x := newBox(t, "xena")
	if err := x.host.Connect(context10(t), through); err == nil {
		t.Error("a stranger comes through the relay")
	}
	if err := x.host.Connect(context10(t), peer.AddrInfo{ID: a.self.ID, Addrs: a.host.Addrs()}); err != nil {
		t.Fatal(err)
	}
	if _, _, err := x.host.Reserve(context10(t), a.self.ID); err == nil {
		t.Error("a stranger has a place at the relay")
	}
	a.reachable(false)
	wait(t, 5*time.Second, "the relay ends", func() bool {
		_, _, err := b.host.Reserve(context10(t), a.self.ID)
		return err != nil
	})
}

// TestReservationsAreRenewedInTime, whatever the clocks of the two say.
func TestReservationsAreRenewedInTime(t *testing.T) {
	for left, want := range map[time.Duration]time.Duration{
		time.Hour: 30 * time.Minute, 20 * time.Minute: 10 * time.Minute, time.Second: reserveAgain,
		6 * time.Hour:  30 * time.Minute, // this clock is five hours behind the relay's
		-4 * time.Hour: reserveAgain,     // or ahead
	} {
		if got := renewal(left); got != want {
			t.Errorf("%v: asked for again after %v", left, got)
		}
	}
}
