package quorum

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/storage/folder/crash"
)

// fakePool is a pool in memory: which links are up, how slow the disks are.
type fakePool struct {
	t     testing.TB
	mu    sync.Mutex
	rng   *rand.Rand
	nodes []*fakeNode
	pipes map[*fakeStream]bool
	slow  time.Duration // at most, for a sync
}

// fakeNode is one peer with its engine, which dies and comes back.
type fakeNode struct {
	*Engine
	pool    *fakePool
	id      peer.ID
	fs      *crash.FS
	group   int // of a partition; -1: down
	handler network.StreamHandler
	notify  func(peer.ID, bool)
}

func newFakePool(t testing.TB, seed uint64, n int) *fakePool {
	p := &fakePool{t: t, rng: rand.New(rand.NewPCG(seed, 2)), pipes: map[*fakeStream]bool{}}
	for i := range n {
		_, id := newKey(t, i+1)
		x := &fakeNode{pool: p, id: id, fs: crash.New(seed + uint64(i))}
		p.nodes = append(p.nodes, x)
		x.start()
	}
	return p
}

func (p *fakePool) chance(d time.Duration) time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return time.Duration(p.rng.Int64N(int64(d) + 1))
}

func (p *fakePool) close() {
	for _, x := range p.nodes {
		if x.Engine != nil {
			_ = x.Engine.Close()
		}
	}
}

func (p *fakePool) ids(nodes ...int) (out []peer.ID) {
	for _, n := range nodes {
		out = append(out, p.nodes[n].id)
	}
	return out
}

// start opens a node's engine on what its disk holds.
func (x *fakeNode) start() {
	x.pool.t.Helper()
	e, err := Open(Config{
		FS: slowFS{x.fs, x.pool}, Self: x.id, Streams: x, Presence: x, Log: slog.New(slog.NewTextHandler(io.Discard, nil)),
	})
	if err != nil {
		x.pool.t.Fatal(err)
	}
	e.Register("table", newTable)
	p := x.pool
	p.mu.Lock()
	x.Engine, x.group = e, 0
	p.mu.Unlock()
	p.tell()
}

// kill takes a node's power.
func (x *fakeNode) kill() {
	p := x.pool
	x.fs.CrashAt(1)
	p.mu.Lock()
	e := x.Engine
	x.Engine, x.group = nil, -1
	p.mu.Unlock()
	p.breakPipes()
	_ = e.halt()
	x.fs = x.fs.Reboot()
	p.tell()
}

// part puts nodes into different partitions, or all of them together.
func (p *fakePool) part(groups ...int) {
	p.mu.Lock()
	for i, g := range groups {
		if p.nodes[i].group >= 0 {
			p.nodes[i].group = g
		}
	}
	p.mu.Unlock()
	p.breakPipes()
	p.tell()
}

func (p *fakePool) linked(a, b *fakeNode) bool {
	return a != b && a.group >= 0 && a.group == b.group
}

func (p *fakePool) breakPipes() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for s := range p.pipes {
		if !p.linked(s.self, s.other) {
			_ = s.pipe.Close()
			delete(p.pipes, s)
		}
	}
}

// tell says to all who can reach whom.
func (p *fakePool) tell() {
	type word struct {
		f  func(peer.ID, bool)
		id peer.ID
		up bool
	}
	var words []word
	p.mu.Lock()
	for _, a := range p.nodes {
		for _, b := range p.nodes {
			if a != b && a.Engine != nil && a.notify != nil {
				words = append(words, word{a.notify, b.id, p.linked(a, b)})
			}
		}
	}
	p.mu.Unlock()
	for _, w := range words {
		w.f(w.id, w.up)
	}
}

func (p *fakePool) byID(id peer.ID) *fakeNode {
	for _, x := range p.nodes {
		if x.id == id {
			return x
		}
	}
	return nil
}

// Present implements Presence.
func (x *fakeNode) Present(id peer.ID) bool {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	return x.pool.linked(x, x.pool.byID(id))
}

// OnPresence implements Presence.
func (x *fakeNode) OnPresence(f func(peer.ID, bool)) func() {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	x.notify = f
	return func() {}
}

// Handle implements Streams.
func (x *fakeNode) Handle(_ protocol.ID, h network.StreamHandler) {
	x.pool.mu.Lock()
	defer x.pool.mu.Unlock()
	x.handler = h
}

// NewStream implements Streams.
func (x *fakeNode) NewStream(_ context.Context, to peer.ID, proto protocol.ID) (network.Stream, error) {
	p := x.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	other := p.byID(to)
	if other == nil || !p.linked(x, other) || proto != Protocol {
		return nil, errors.New("no route")
	}
	a, b := net.Pipe()
	mine, theirs := &fakeStream{pipe: a, self: x, other: other}, &fakeStream{pipe: b, self: other, other: x}
	p.pipes[mine], p.pipes[theirs] = true, true
	go other.handler(theirs)
	return mine, nil
}

// fakeStream is one end of a pipe that looks like a libp2p stream. Methods that it lacks panic.
type fakeStream struct {
	network.Stream
	pipe        net.Conn
	self, other *fakeNode
}

func (s *fakeStream) Read(p []byte) (int, error) {
	n, err := s.pipe.Read(p)
	if errors.Is(err, io.ErrClosedPipe) {
		err = network.ErrReset
	}
	return n, err
}

func (s *fakeStream) Write(p []byte) (int, error)                  { return s.pipe.Write(p) }
func (s *fakeStream) Close() error                                 { return s.pipe.Close() }
func (s *fakeStream) Reset() error                                 { return s.pipe.Close() }
func (s *fakeStream) ResetWithError(network.StreamErrorCode) error { return s.pipe.Close() }
func (s *fakeStream) SetDeadline(t time.Time) error                { return s.pipe.SetDeadline(t) }
func (s *fakeStream) SetReadDeadline(t time.Time) error            { return s.pipe.SetReadDeadline(t) }
func (s *fakeStream) SetWriteDeadline(t time.Time) error           { return s.pipe.SetWriteDeadline(t) }
func (s *fakeStream) Conn() network.Conn                           { return streamConn{remote: s.other.id} }

// streamConn gives a stream the one method of a connection that is asked for.
type streamConn struct {
	network.Conn
	remote peer.ID
}

func (c streamConn) RemotePeer() peer.ID { return c.remote }

// disk is an empty one.
func (p *fakePool) disk() *crash.FS { return crash.New(p.rng.Uint64()) }

// live returns a running node's part in a group.
func (p *fakePool) live(n int, id GroupID) (*Group, bool) {
	p.mu.Lock()
	e := p.nodes[n].Engine
	p.mu.Unlock()
	if e == nil {
		return nil, false
	}
	return e.Group(id)
}

// leader waits until some running node leads.
func (p *fakePool) leader(ctx context.Context, id GroupID) (int, *Group, error) {
	for {
		for n := range p.nodes {
			if g, ok := p.live(n, id); ok && g.Status().Leading {
				return n, g, nil
			}
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return 0, nil, fmt.Errorf("no leader: %w", ctx.Err())
		}
	}
}
