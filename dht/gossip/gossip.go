package gossip

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"sync"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// Protocol is the id under which members gossip. It is GossipSub 1.2 with a name of its own: the general one would have
// every libp2p program try.
const Protocol protocol.ID = "/shoal/gossip/1"

const (
	// MessageMax bounds one message, in bytes as encoded by its topic.
	MessageMax = 64 << 10
	// rpcMax bounds one frame between two members, which carries messages and control data.
	rpcMax = 4 * MessageMax
	// topicsMax bounds the topics that a member may name to this one.
	topicsMax = 16

	// Messages wait at most so many: to one member, for validation, for the reader of a topic. What does not fit is lost,
	// as libp2p's own 32 would lose it much sooner.
	outboundQueue = 256
	validateQueue = 256
	readerQueue   = 4096

	rateDefault  = 50  // messages a second and sender on one topic
	burstDefault = 500 // messages at once
)

// Gate is what gossip needs of the pool. Its streams are to members only, in both directions.
type Gate interface {
	// Handle registers a handler that sees members' streams only.
	Handle(protocol.ID, network.StreamHandler)
	// NewStream opens a stream to a member and confirms that the member let it in.
	NewStream(context.Context, peer.ID, protocol.ID) (network.Stream, error)
	// IsMember reports whether a peer is a member in force. It is asked for each message.
	IsMember(peer.ID) bool
}

// Gossip is one peer's part in its pool's gossip. All methods are safe for concurrent use. Close ends it.
type Gossip struct {
	self   peer.ID
	gate   Gate
	mesh   *mesh
	pubsub *pubsub.PubSub
	cancel context.CancelFunc

	mu     sync.Mutex
	topics map[string]*senders
	closed bool
}

// New takes part. allow says which topics there are; a member that names another is not listened to for it.
func New(h p2phost.Host, gate Gate, allow func(topic string) bool) (*Gossip, error) {
	ctx, cancel := context.WithCancel(context.Background())
	g := &Gossip{self: h.ID(), gate: gate, mesh: newMesh(h, gate), cancel: cancel, topics: make(map[string]*senders)}
	ps, err := pubsub.NewGossipSub(ctx, g.mesh, g.options(allow)...)
	if err != nil {
		cancel()
		return nil, fmt.Errorf("gossip: start: %w", err)
	}
	g.pubsub = ps
	return g, nil
}

func (g *Gossip) options(allow func(string) bool) []pubsub.Option {
	features := func(f pubsub.GossipSubFeature, _ protocol.ID) bool {
		return f == pubsub.GossipSubFeatureMesh || f == pubsub.GossipSubFeatureIdontwant
	}
	return []pubsub.Option{
		pubsub.WithGossipSubProtocols([]protocol.ID{Protocol}, features),
		pubsub.WithMessageSignaturePolicy(pubsub.StrictSign),
		// Own messages go to all members at once. Through the mesh alone, those sent in the second before it is knit (after
		// joining, after waking up) are lost: a member grafted meanwhile is no longer told what it missed.
		pubsub.WithFloodPublish(true),
		pubsub.WithMaxMessageSize(rpcMax),
		pubsub.WithPeerOutboundQueueSize(outboundQueue),
		pubsub.WithValidateQueueSize(validateQueue),
		pubsub.WithPeerFilter(func(p peer.ID, _ string) bool { return g.gate.IsMember(p) }),
		pubsub.WithBlacklist(outsiders{g.gate}),
		pubsub.WithSubscriptionFilter(pubsub.WrapLimitSubscriptionFilter(topicFilter(allow), topicsMax)),
	}
}

// outsiders is a blacklist of everybody who is no member, so that an evicted peer's frames are dropped from the moment on.
type outsiders struct{ gate Gate }

func (o outsiders) Add(peer.ID) bool        { return true }
func (o outsiders) Contains(p peer.ID) bool { return !o.gate.IsMember(p) }

// Add lets a member take part that is connected and has let this peer in. Adding twice is adding once.
func (g *Gossip) Add(p peer.ID) { g.mesh.add(p, Protocol) }

// Remove ends a peer's part: it was evicted, left, or its link went down.
func (g *Gossip) Remove(p peer.ID) {
	g.mesh.remove(p)
	if g.gate.IsMember(p) {
		return // its stream's end says the rest, and its window keeps old messages out when it comes back
	}
	g.pubsub.BlacklistPeer(p)
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, s := range g.topics {
		s.forget(p)
	}
}

// Close ends all topics.
func (g *Gossip) Close() error {
	g.mu.Lock()
	g.closed = true
	var leave []func()
	for _, s := range g.topics {
		leave = append(leave, s.leave)
	}
	g.mu.Unlock()
	for _, f := range leave {
		f() // pubsub itself leaves those who wait for a message waiting
	}
	g.mesh.bus.close()
	g.cancel()
	return nil
}

// Limits bounds a topic. Zero fields are defaults.
type Limits struct {
	Size  int     // bytes of one message; at most and by default MessageMax
	Rate  float64 // messages a second that one sender may publish; 50
	Burst float64 // messages that it may publish at once; 500
}

func (l Limits) withDefaults() Limits {
	if l.Size <= 0 || l.Size > MessageMax {
		l.Size = MessageMax
	}
	if l.Rate <= 0 {
		l.Rate = rateDefault
	}
	if l.Burst <= 0 {
		l.Burst = burstDefault
	}
	return l
}

// Codec says how a topic's messages look. Both functions must be safe for concurrent use.
type Codec[T any] struct {
	Encode func(T) ([]byte, error)
	// Decode refuses whatever is malformed, or not for this sender to say. A refused message is not passed on.
	Decode func(from peer.ID, data []byte) (T, error)
}

// Bytes is the codec of a topic that carries bytes as they are. check may be nil.
func Bytes(check func(from peer.ID, data []byte) error) Codec[[]byte] {
	return Codec[[]byte]{
		Encode: func(b []byte) ([]byte, error) { return b, nil },
		Decode: func(from peer.ID, b []byte) ([]byte, error) {
			if check != nil {
				if err := check(from, b); err != nil {
					return nil, err
				}
			}
			return b, nil
		},
	}
}

// Message is one message of a topic.
type Message[T any] struct {
	From  peer.ID // the member that signed it; not the one that passed it on
	Value T
}

// Topic is one named stream of messages. All methods are safe for concurrent use.
type Topic[T any] struct {
	gossip *Gossip
	name   string
	codec  Codec[T]
	limits Limits
	topic  *pubsub.Topic
	sub    *pubsub.Subscription
}

// ErrClosed is what a topic's methods return once it or its gossip was closed.
var ErrClosed = errors.New("gossip: closed")

// Join takes part in a topic. One topic may be joined once at a time.
func Join[T any](g *Gossip, name string, codec Codec[T], limits Limits) (*Topic[T], error) {
	t := &Topic[T]{gossip: g, name: name, codec: codec, limits: limits.withDefaults()}
	s := &senders{byID: make(map[peer.ID]*sender)}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return nil, ErrClosed
	}
	if _, ok := g.topics[name]; ok {
		return nil, fmt.Errorf("gossip: join %s: it is joined already", name)
	}
	// Validation runs on the goroutine that reads from the network: a decoder is quick, and order is kept.
	err := g.pubsub.RegisterTopicValidator(name, t.validator(s), pubsub.WithValidatorInline(true))
	if err == nil {
		t.topic, err = g.pubsub.Join(name)
	}
	if err == nil {
		t.sub, err = t.topic.Subscribe(pubsub.WithBufferSize(readerQueue))
	}
	if err != nil {
		return nil, fmt.Errorf("gossip: join %s: %w", name, err)
	}
	s.leave = t.sub.Cancel
	g.topics[name] = s
	return t, nil
}

// validator checks a message, cheapest first. Reject means that the sender is at fault, Ignore that it may not be.
func (t *Topic[T]) validator(s *senders) pubsub.ValidatorEx {
	return func(_ context.Context, _ peer.ID, m *pubsub.Message) pubsub.ValidationResult {
		from, local := m.GetFrom(), m.GetFrom() == t.gossip.self
		if len(m.Data) > t.limits.Size || len(m.Seqno) != 8 {
			return pubsub.ValidationReject
		}
		if !t.gossip.gate.IsMember(from) {
			return pubsub.ValidationIgnore // whoever passed it on may not know yet
		}
		if !local && !s.take(from, binary.BigEndian.Uint64(m.Seqno), time.Now(), t.limits) {
			return pubsub.ValidationIgnore
		}
		v, err := t.codec.Decode(from, m.Data)
		if err != nil {
			return pubsub.ValidationReject
		}
		m.ValidatorData = v
		return pubsub.ValidationAccept
	}
}

// Publish tells all members. It returns once the message is on its way, not when it arrived; it does not come back to
// this peer's own Next. It fails when the message passes the topic's limit or its own decoder refuses it.
func (t *Topic[T]) Publish(ctx context.Context, v T) error {
	data, err := t.codec.Encode(v)
	if err != nil {
		return fmt.Errorf("gossip: publish: %w", err)
	}
	if len(data) > t.limits.Size {
		return fmt.Errorf("gossip: publish: message of %d bytes, the limit is %d", len(data), t.limits.Size)
	}
	if err := t.topic.Publish(ctx, data); err != nil {
		if ctx.Err() == nil && (errors.Is(err, context.Canceled) || errors.Is(err, pubsub.ErrTopicClosed)) {
			return ErrClosed
		}
		return fmt.Errorf("gossip: publish: %w", err)
	}
	return nil
}

// Next waits for the next message of another member. It returns ErrClosed once the topic is closed, or ctx's error.
func (t *Topic[T]) Next(ctx context.Context) (Message[T], error) {
	for {
		m, err := t.sub.Next(ctx)
		switch {
		case errors.Is(err, pubsub.ErrSubscriptionCancelled):
			return Message[T]{}, ErrClosed
		case err != nil:
			return Message[T]{}, err
		}
		if v, ok := m.ValidatorData.(T); ok && m.GetFrom() != t.gossip.self {
			return Message[T]{From: m.GetFrom(), Value: v}, nil
		}
	}
}

// Peers returns how many members are known to listen to the topic.
func (t *Topic[T]) Peers() int { return len(t.topic.ListPeers()) }

// Close leaves the topic.
func (t *Topic[T]) Close() error {
	t.sub.Cancel()
	t.gossip.mu.Lock()
	delete(t.gossip.topics, t.name)
	t.gossip.mu.Unlock()
	return errors.Join(t.gossip.pubsub.UnregisterTopicValidator(t.name), t.topic.Close())
}

// topicFilter lets the pool's own topics pass.
type topicFilter func(topic string) bool

// CanSubscribe reports whether a topic is one of the pool's.
func (f topicFilter) CanSubscribe(topic string) bool { return f(topic) }

// FilterIncomingSubscriptions drops all others from what a member says it listens to.
func (f topicFilter) FilterIncomingSubscriptions(_ peer.ID, subs []*pb.RPC_SubOpts) ([]*pb.RPC_SubOpts, error) {
	return pubsub.FilterSubscriptions(subs, f), nil
}
