package gossip

import (
	"context"
	"errors"
	"reflect"
	"sync"

	"github.com/libp2p/go-libp2p/core/event"
	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// GossipSub takes a libp2p host and talks to everyone on it that speaks its protocol, strangers included, and registers
// its own stream handlers. mesh is a host that shows it members only, and passes its streams through the gate. It learns
// of a peer when Add says so, and not when a connection opens: the connection over which somebody joins was there before
// the membership.

// eventsMax bounds the peers added that GossipSub has not looked at yet. Its reader does nothing but note them.
const eventsMax = 256

type mesh struct {
	p2phost.Host
	gate Gate
	net  meshNetwork
	bus  *meshBus
}

func newMesh(h p2phost.Host, gate Gate) *mesh {
	m := &mesh{Host: h, gate: gate, bus: &meshBus{out: make(chan any, eventsMax), done: make(chan struct{})}}
	m.net = meshNetwork{Network: h.Network(), ready: make(map[peer.ID]bool), mu: new(sync.RWMutex)}
	return m
}

// Network shows members only.
func (m *mesh) Network() network.Network { return m.net }

// EventBus tells of members only.
func (m *mesh) EventBus() event.Bus { return m.bus }

// SetStreamHandler registers behind the gate.
func (m *mesh) SetStreamHandler(id protocol.ID, h network.StreamHandler) { m.gate.Handle(id, h) }

// NewStream opens through the gate.
func (m *mesh) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	if !m.net.has(p) || len(ids) == 0 {
		return nil, errors.New("gossip: the peer takes no part")
	}
	return m.gate.NewStream(ctx, p, ids[0])
}

// add has GossipSub open its stream to a peer that is connected.
func (m *mesh) add(p peer.ID, id protocol.ID) {
	m.net.mu.Lock()
	m.net.ready[p] = true
	m.net.mu.Unlock()
	select {
	case m.bus.out <- event.EvtPeerIdentificationCompleted{Peer: p, Protocols: []protocol.ID{id}}:
	case <-m.bus.done:
	}
}

func (m *mesh) remove(p peer.ID) {
	m.net.mu.Lock()
	delete(m.net.ready, p)
	m.net.mu.Unlock()
}

// meshNetwork is the network as GossipSub sees it.
type meshNetwork struct {
	network.Network
	mu    *sync.RWMutex
	ready map[peer.ID]bool
}

func (n meshNetwork) has(p peer.ID) bool {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.ready[p]
}

// Connectedness is that of the real network for members, and none for all others.
func (n meshNetwork) Connectedness(p peer.ID) network.Connectedness {
	if !n.has(p) {
		return network.NotConnected
	}
	return n.Network.Connectedness(p)
}

// Peers returns none: each is added by name.
func (n meshNetwork) Peers() []peer.ID { return nil }

// meshBus hands GossipSub's two subscribers (one for peers, one for its address book) the events of add. The second gets
// none: the address book is the host's.
type meshBus struct {
	out  chan any
	done chan struct{}
	once sync.Once
	mu   sync.Mutex
	used bool
}

// Subscribe gives the first subscriber for protocol updates the events, and all others silence.
func (b *meshBus) Subscribe(types any, _ ...event.SubscriptionOpt) (event.Subscription, error) {
	wants := false
	if list, ok := types.([]any); ok {
		for _, t := range list {
			_, is := t.(*event.EvtPeerProtocolsUpdated)
			wants = wants || is
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if wants && !b.used {
		b.used = true
		return meshSubscription{b.out}, nil
	}
	return meshSubscription{nil}, nil
}

// Emitter is never asked for by GossipSub.
func (b *meshBus) Emitter(any, ...event.EmitterOpt) (event.Emitter, error) {
	return nil, errors.New("gossip: there is no emitter")
}

// GetAllEventTypes returns none.
func (b *meshBus) GetAllEventTypes() []reflect.Type { return nil }

func (b *meshBus) close() { b.once.Do(func() { close(b.done) }) }

type meshSubscription struct{ out chan any }

func (s meshSubscription) Close() error    { return nil }
func (s meshSubscription) Out() <-chan any { return s.out }
func (s meshSubscription) Name() string    { return "gossip" }
