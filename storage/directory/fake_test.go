package directory

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/crypto"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht/ident"
	"github.com/shoal-os/shoal/storage/folder"
	"github.com/shoal-os/shoal/storage/folder/crash"
)

// newsTopicMax is what the news topic takes.
const newsTopicMax = 64 << 10

var testPool = [32]byte{'t', 'e', 's', 't'}

// newIdentity makes the n-th peer, always the same one.
func newIdentity(t testing.TB, n int) ident.Identity {
	t.Helper()
	var seed [ed25519.SeedSize]byte
	binary.BigEndian.PutUint64(seed[:], uint64(n))
	key, err := crypto.UnmarshalEd25519PrivateKey(ed25519.NewKeyFromSeed(seed[:]))
	if err != nil {
		t.Fatal(err)
	}
	id, err := peer.IDFromPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return ident.Identity{Key: key, ID: id, Name: fmt.Sprint("peer ", n)}
}

// fakePool is a pool in memory: who is a member, which links are up, what gossip loses.
type fakePool struct {
	t  testing.TB
	mu sync.Mutex
	// members maps a peer to when it was evicted; zero: never.
	members map[peer.ID]time.Time
	nodes   map[peer.ID]*fakeNode
	group   map[peer.ID]int // peers of different groups cannot reach each other
	loss    float64         // of news, for each receiver
	rng     *rand.Rand

	newsBytes, newsCount, newsLargest atomic.Int64
}

func newFakePool(t testing.TB) *fakePool {
	return &fakePool{
		t: t, members: map[peer.ID]time.Time{}, nodes: map[peer.ID]*fakeNode{}, group: map[peer.ID]int{},
		rng: rand.New(rand.NewPCG(1, 1)),
	}
}

// fakeNode is one peer's view of the pool, with its directory.
type fakeNode struct {
	*Directory
	pool    *fakePool
	id      ident.Identity
	fs      folder.FS
	skew    atomic.Int64
	inbox   chan fakeNews
	mu      sync.Mutex
	handler network.StreamHandler
	onConn  func(peer.ID)

	sent, received, streams atomic.Int64 // over streams
}

type fakeNews struct {
	from peer.ID
	data []byte
}

// join adds the n-th peer as a member that nobody is connected to yet.
func (p *fakePool) join(n int) *fakeNode {
	p.t.Helper()
	return p.joinWith(n, crash.New(uint64(n)), 0)
}

func (p *fakePool) joinWith(n int, fs folder.FS, skew time.Duration) *fakeNode {
	p.t.Helper()
	x := &fakeNode{pool: p, id: newIdentity(p.t, n), fs: fs, inbox: make(chan fakeNews, 4096)}
	x.skew.Store(int64(skew))
	p.mu.Lock()
	p.members[x.id.ID] = time.Time{}
	p.group[x.id.ID] = -n
	p.nodes[x.id.ID] = x
	p.mu.Unlock()
	x.open()
	return x
}

func (x *fakeNode) open() {
	x.pool.t.Helper()
	d, err := open(x.config(), x.fs)
	if err != nil {
		x.pool.t.Fatal(err)
	}
	x.Directory = d
	x.pool.t.Cleanup(func() { _ = d.Close() })
}

func (x *fakeNode) config() Config {
	start := time.Now()
	return Config{
		Dir: "in memory", Self: x.id, Pool: testPool, Now: x.now, Boot: func() time.Duration { return time.Since(start) },
		Members: x.pool, Streams: x, Presence: x, News: x,
	}
}

func (x *fakeNode) now() time.Time { return now().Add(time.Duration(x.skew.Load())) }

// now is the time that a right clock shows: virtual time begins in 2000, and no clock of shoal's is right there.
func now() time.Time {
	t := time.Now()
	if t.Year() < 2020 {
		t = t.AddDate(30, 0, 0)
	}
	return t
}

// connect puts peers into one group, and tells them of each other.
func (p *fakePool) connect(group int, nodes ...*fakeNode) {
	p.mu.Lock()
	for _, x := range nodes {
		p.group[x.id.ID] = group
	}
	p.mu.Unlock()
	for _, x := range nodes {
		for _, other := range x.Connected() {
			x.told(other)
			p.nodes[other].told(x.id.ID)
		}
	}
}

// lose sets the share of news that is lost.
func (p *fakePool) lose(share float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.loss = share
}

// told passes on that a member is connected.
func (x *fakeNode) told(other peer.ID) {
	x.mu.Lock()
	f := x.onConn
	x.mu.Unlock()
	f(other)
}

func (p *fakePool) linked(a, b peer.ID) bool { return a != b && p.group[a] == p.group[b] }

// Wrote implements Members.
func (p *fakePool) Wrote(author peer.ID, at time.Time) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	until, ok := p.members[author]
	switch {
	case !ok:
		return errors.New("no member")
	case !until.IsZero() && !at.Before(until):
		return errors.New("evicted")
	}
	return nil
}

// Connected implements Presence.
func (x *fakeNode) Connected() (out []peer.ID) {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	for id := range x.pool.nodes {
		if x.pool.linked(x.id.ID, id) {
			out = append(out, id)
		}
	}
	return out
}

// OnConnected implements Presence.
func (x *fakeNode) OnConnected(f func(peer.ID)) func() {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.onConn = f
	return func() {}
}

// Publish implements News: every linked member gets it, in any order, unless it is lost.
func (x *fakeNode) Publish(_ context.Context, data []byte) error {
	p := x.pool
	if len(data) > newsTopicMax {
		p.t.Errorf("a news message of %d bytes", len(data))
	}
	if err := CheckNews(data); err != nil {
		p.t.Errorf("news that the topic refuses: %v", err)
	}
	p.newsCount.Add(1)
	p.newsBytes.Add(int64(len(data)))
	p.newsLargest.Store(max(p.newsLargest.Load(), int64(len(data))))
	p.mu.Lock()
	defer p.mu.Unlock()
	for id, other := range p.nodes {
		if !p.linked(x.id.ID, id) || p.rng.Float64() < p.loss {
			continue
		}
		select {
		case other.inbox <- fakeNews{x.id.ID, data}:
		default:
		}
	}
	return nil
}

// Next implements News.
func (x *fakeNode) Next(ctx context.Context) (peer.ID, []byte, error) {
	select {
	case m := <-x.inbox:
		return m.from, m.data, nil
	case <-ctx.Done():
		return "", nil, ctx.Err()
	}
}

// Handle implements Streams.
func (x *fakeNode) Handle(_ protocol.ID, h network.StreamHandler) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.handler = h
}

// NewStream implements Streams.
func (x *fakeNode) NewStream(_ context.Context, to peer.ID, proto protocol.ID) (network.Stream, error) {
	p := x.pool
	p.mu.Lock()
	other, ok := p.nodes[to], p.linked(x.id.ID, to)
	p.mu.Unlock()
	if !ok || proto != Protocol {
		return nil, errors.New("no route")
	}
	x.streams.Add(1)
	a, b := net.Pipe()
	other.mu.Lock()
	h := other.handler
	other.mu.Unlock()
	go h(&fakeStream{pipe: b, self: other, remote: x.id.ID})
	return &fakeStream{pipe: a, self: x, remote: to}, nil
}

// fakeStream is one end of a pipe that looks like a libp2p stream. Methods that it lacks panic.
type fakeStream struct {
	network.Stream
	pipe   net.Conn
	self   *fakeNode
	remote peer.ID
}

func (s *fakeStream) alive() bool {
	s.self.pool.mu.Lock()
	defer s.self.pool.mu.Unlock()
	return s.self.pool.linked(s.self.id.ID, s.remote)
}

func (s *fakeStream) Read(p []byte) (int, error) {
	n, err := s.pipe.Read(p)
	s.self.received.Add(int64(n))
	if errors.Is(err, io.ErrClosedPipe) {
		err = network.ErrReset
	}
	return n, err
}

func (s *fakeStream) Write(p []byte) (int, error) {
	if !s.alive() {
		_ = s.pipe.Close()
		return 0, network.ErrReset
	}
	s.self.sent.Add(int64(len(p)))
	return s.pipe.Write(p)
}

func (s *fakeStream) Close() error                                 { return s.pipe.Close() }
func (s *fakeStream) Reset() error                                 { return s.pipe.Close() }
func (s *fakeStream) ResetWithError(network.StreamErrorCode) error { return s.pipe.Close() }
func (s *fakeStream) SetDeadline(t time.Time) error                { return s.pipe.SetDeadline(t) }
func (s *fakeStream) SetReadDeadline(t time.Time) error            { return s.pipe.SetReadDeadline(t) }
func (s *fakeStream) SetWriteDeadline(t time.Time) error           { return s.pipe.SetWriteDeadline(t) }

func (s *fakeStream) Conn() network.Conn { return streamConn{remote: s.remote} }

// streamConn gives a stream the one method of a connection that is asked for.
type streamConn struct {
	network.Conn
	remote peer.ID
}

func (c streamConn) RemotePeer() peer.ID { return c.remote }

// equal reports whether all hold the same.
func equal(nodes ...*fakeNode) bool {
	for _, x := range nodes[1:] {
		if x.Digest() != nodes[0].Digest() {
			return false
		}
	}
	return true
}
