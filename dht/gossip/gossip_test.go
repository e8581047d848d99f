package gossip

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	pubsub "github.com/libp2p/go-libp2p-pubsub"
	pb "github.com/libp2p/go-libp2p-pubsub/pb"
	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
	"google.golang.org/protobuf/proto"

	"github.com/shoal-os/shoal/dht/host"
	"github.com/shoal-os/shoal/dht/ident"
)

const topic = "/shoal/test/news"

// club is a gate without a handshake: who is in, is in.
type club struct {
	h  *host.Host
	mu *sync.Mutex
	in map[peer.ID]bool
}

func (c club) IsMember(p peer.ID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.in[p]
}

func (c club) set(p peer.ID, in bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.in[p] = in
}

func (c club) Handle(id protocol.ID, f network.StreamHandler) {
	c.h.SetStreamHandler(id, func(s network.Stream) {
		if !c.IsMember(s.Conn().RemotePeer()) {
			_ = s.Reset()
			return
		}
		f(s)
	})
}

func (c club) NewStream(ctx context.Context, p peer.ID, id protocol.ID) (network.Stream, error) {
	if !c.IsMember(p) {
		return nil, errors.New("no member")
	}
	return c.h.NewStream(ctx, p, id)
}

// node is one member.
type node struct {
	club
	*Gossip
	key crypto.PrivKey
}

func start(t *testing.T, members *club) *node {
	t.Helper()
	key, _, err := crypto.GenerateEd25519Key(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	h, err := host.New(host.Config{Identity: ident.Identity{Key: key, ID: id, Name: "x"}, Listen: []string{"/ip4/127.0.0.1/tcp/0"}})
	if err != nil {
		t.Fatal(err)
	}
	own := *members
	own.h = h
	own.set(id, true)
	g, err := New(h, own, func(name string) bool { return strings.HasPrefix(name, "/shoal/test/") })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = g.Close(), h.Close() })
	return &node{own, g, key}
}

func newClub() *club { return &club{mu: new(sync.Mutex), in: make(map[peer.ID]bool)} }

func link(t *testing.T, a, b *node) {
	t.Helper()
	if err := a.h.Connect(t.Context(), peer.AddrInfo{ID: b.h.ID(), Addrs: b.h.Addrs()}); err != nil {
		t.Fatal(err)
	}
	a.Add(b.h.ID())
	b.Add(a.h.ID())
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}

func join(t *testing.T, n *node, check func(peer.ID, []byte) error, l Limits) *Topic[[]byte] {
	t.Helper()
	tp, err := Join(n.Gossip, topic, Bytes(check), l)
	if err != nil {
		t.Fatal(err)
	}
	return tp
}

func next(t *testing.T, tp *Topic[[]byte]) string {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	m, err := tp.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return string(m.Value)
}

func pair(t *testing.T) (a, b *node, ta, tb *Topic[[]byte]) {
	members := newClub()
	a, b = start(t, members), start(t, members)
	refuse := func(_ peer.ID, data []byte) error {
		if string(data) == "bad" {
			return errors.New("bad")
		}
		return nil
	}
	ta, tb = join(t, a, refuse, Limits{}), join(t, b, refuse, Limits{})
	link(t, a, b)
	until(t, "each knows that the other listens", func() bool { return ta.Peers() == 1 && tb.Peers() == 1 })
	return a, b, ta, tb
}

func TestPublish(t *testing.T) {
	_, _, ta, tb := pair(t)
	ctx := t.Context()
	if err := ta.Publish(ctx, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if got := next(t, tb); got != "hello" {
		t.Error(got)
	}
	if err := ta.Publish(ctx, []byte("hello")); err != nil { // the same words again are another message
		t.Fatal(err)
	}
	if got := next(t, tb); got != "hello" {
		t.Error(got)
	}
	if err := ta.Publish(ctx, []byte("bad")); err == nil {
		t.Error("published what its own check refuses")
	}
	if err := ta.Publish(ctx, make([]byte, MessageMax+1)); err == nil {
		t.Error("published beyond the limit")
	}
	if err := ta.Publish(ctx, make([]byte, MessageMax)); err != nil {
		t.Error(err)
	}
	if got := next(t, tb); len(got) != MessageMax {
		t.Errorf("%d bytes", len(got))
	}
}

func TestJoinIsOnce(t *testing.T) {
	a, _, ta, _ := pair(t)
	if _, err := Join(a.Gossip, topic, Bytes(nil), Limits{}); err == nil {
		t.Error("joined twice")
	}
	if _, err := Join(a.Gossip, "/other", Bytes(nil), Limits{}); err == nil {
		t.Error("joined a topic that is not allowed")
	}
	if err := ta.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := ta.Next(t.Context()); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
	join(t, a, nil, Limits{})
	if err := a.Gossip.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Join(a.Gossip, "/shoal/test/jobs", Bytes(nil), Limits{}); !errors.Is(err, ErrClosed) {
		t.Error(err)
	}
}

// A peer that is connected and no member takes no part; one that was thrown out no more; one that came in does.
func TestMembersOnly(t *testing.T) {
	members := newClub()
	a, b := start(t, members), start(t, members)
	members.set(b.h.ID(), false)
	ta, tb := join(t, a, nil, Limits{}), join(t, b, nil, Limits{})
	link(t, a, b)
	if ta.Peers() != 0 || tb.Peers() != 0 {
		t.Error("an outsider listens")
	}
	members.set(b.h.ID(), true)
	link(t, a, b)
	until(t, "the new member listens", func() bool { return ta.Peers() == 1 && tb.Peers() == 1 })
	members.set(b.h.ID(), false)
	a.Remove(b.h.ID())
	until(t, "the evicted does not listen", func() bool { return ta.Peers() == 0 })
}

// sign makes a message as a member would that writes what it likes.
func sign(t *testing.T, by *node, from peer.ID, seq uint64, data string) *pb.Message {
	t.Helper()
	m := &pb.Message{From: []byte(from), Data: []byte(data), Topic: proto.String(topic)}
	m.Seqno = []byte{byte(seq >> 56), byte(seq >> 48), byte(seq >> 40), byte(seq >> 32), byte(seq >> 24), byte(seq >> 16), byte(seq >> 8), byte(seq)}
	raw, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	if m.Signature, err = by.key.Sign(append([]byte(pubsub.SignPrefix), raw...)); err != nil {
		t.Fatal(err)
	}
	return m
}

// TestValidator tries what no honest member sends.
func TestValidator(t *testing.T) {
	_, b, ta, _ := pair(t)
	s := &senders{byID: make(map[peer.ID]*sender)}
	validate := ta.validator(s)
	try := func(m *pb.Message) pubsub.ValidationResult {
		return validate(t.Context(), b.h.ID(), &pubsub.Message{Message: m, ReceivedFrom: b.h.ID()})
	}
	now := uint64(time.Now().UnixNano())
	outsider := newClub()
	stranger := start(t, outsider)
	for _, c := range []struct {
		name string
		m    *pb.Message
		want pubsub.ValidationResult
	}{
		{"good", sign(t, b, b.h.ID(), now, "x"), pubsub.ValidationAccept},
		{"repeated", sign(t, b, b.h.ID(), now, "x"), pubsub.ValidationIgnore},
		{"old", sign(t, b, b.h.ID(), now-2*windowSize, "x"), pubsub.ValidationIgnore},
		{"overtaken", sign(t, b, b.h.ID(), now-3, "x"), pubsub.ValidationAccept},
		{"malformed", sign(t, b, b.h.ID(), now+1, "bad"), pubsub.ValidationReject},
		{"too large", sign(t, b, b.h.ID(), now+2, strings.Repeat("x", MessageMax+1)), pubsub.ValidationReject},
		{"of a stranger", sign(t, stranger, stranger.h.ID(), now, "x"), pubsub.ValidationIgnore},
	} {
		if got := try(c.m); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
	passed := 0
	began := time.Now()
	for i := range uint64(2 * burstDefault) {
		if try(sign(t, b, b.h.ID(), now+10+i, "x")) == pubsub.ValidationAccept {
			passed++
		}
	}
	if most := burstDefault + int(time.Since(began).Seconds()*rateDefault) + 1; passed > most || passed < burstDefault-10 {
		t.Errorf("%d of %d passed, the allowance is %d", passed, 2*burstDefault, most)
	}
}

// A member that signs in another's name is refused before the validator sees it; here over a real stream.
func TestSigningForAnother(t *testing.T) {
	members := newClub()
	a, b, c := start(t, members), start(t, members), start(t, members)
	ta := join(t, a, nil, Limits{})
	link(t, a, b)
	link(t, a, c)
	forged := sign(t, b, c.h.ID(), uint64(time.Now().UnixNano()), "in cleo's name")
	true1 := sign(t, b, b.h.ID(), uint64(time.Now().UnixNano()), "in my own")
	raw, err := proto.Marshal(&pb.RPC{Publish: []*pb.Message{forged, true1}})
	if err != nil {
		t.Fatal(err)
	}
	var frame []byte
	for n := len(raw); ; n >>= 7 {
		if n < 0x80 {
			frame = append(frame, byte(n))
			break
		}
		frame = append(frame, byte(n)|0x80)
	}
	frame = append(frame, raw...)
	// pubsub keeps one stream from each peer and resets the older one: b's own, opened at the same time, may take the place
	// of ours before it is read. Then it is sent again.
	var heard string
	until(t, "a hears b", func() bool {
		s, err := b.h.NewStream(t.Context(), a.h.ID(), Protocol)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(frame); err != nil {
			return false
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		m, err := ta.Next(ctx)
		if err == nil {
			heard = string(m.Value)
		}
		return err == nil
	})
	if heard != "in my own" {
		t.Errorf("heard %q", heard)
	}
}

// Whoever waits for a message is told that there will be none.
func TestTopicsEndWithTheirGossip(t *testing.T) {
	a := start(t, newClub())
	tp := join(t, a, nil, Limits{})
	ended := make(chan error, 1)
	go func() {
		_, err := tp.Next(t.Context())
		ended <- err
	}()
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if !errors.Is(err, ErrClosed) {
			t.Errorf("waiting: %v", err)
		}
	case <-time.After(10 * time.Second):
		t.Error("still waiting")
	}
	if err := tp.Publish(t.Context(), []byte("x")); !errors.Is(err, ErrClosed) {
		t.Errorf("publish: %v", err)
	}
}
