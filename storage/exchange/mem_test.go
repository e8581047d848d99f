package exchange

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"testing"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/peerstore"
	"github.com/libp2p/go-libp2p/core/protocol"
	"github.com/multiformats/go-multiaddr"
)

// memNet connects hosts in memory, so that a test may run on virtual time.
type memNet struct {
	mu    sync.Mutex
	hosts map[peer.ID]*memHost
}

func newMemNet() *memNet { return &memNet{hosts: map[peer.ID]*memHost{}} }

// memHost is as much of a host as a swarm uses.
type memHost struct {
	host.Host
	net     *memNet
	id      peer.ID
	handler network.StreamHandler // guarded by net.mu
	dead    bool                  // whoever dials it waits in vain
	alone   bool                  // connected to nobody before it dials
	addrs   map[peer.ID]bool      // whose addresses it knows; guarded by net.mu
}

func (n *memNet) host(name string) *memHost {
	h := &memHost{net: n, id: peer.ID(name)}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.hosts[h.id] = h
	return h
}

func (h *memHost) ID() peer.ID                                  { return h.id }
func (h *memHost) Connect(context.Context, peer.AddrInfo) error { return nil }
func (h *memHost) Network() network.Network                     { return memNetwork{alone: h.alone} }
func (h *memHost) Peerstore() peerstore.Peerstore               { return memPeerstore{of: h} }
func (h *memHost) RemoveStreamHandler(protocol.ID)              { h.SetStreamHandler("", nil) }

func (h *memHost) SetStreamHandler(_ protocol.ID, f network.StreamHandler) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	h.handler = f
}

func (h *memHost) NewBulkStream(ctx context.Context, p peer.ID, _ ...protocol.ID) (network.Stream, error) {
	h.net.mu.Lock()
	other := h.net.hosts[p]
	var serve network.StreamHandler
	if other != nil {
		serve = other.handler
	}
	h.net.mu.Unlock()
	if other != nil && other.dead {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	if serve == nil {
		return nil, fmt.Errorf("nobody answers at %q", p)
	}
	mine, theirs := memStreams(h.id, p)
	go serve(theirs)
	return mine, nil
}

type memNetwork struct {
	network.Network
	alone bool
}

func (n memNetwork) Connectedness(peer.ID) network.Connectedness {
	if n.alone {
		return network.NotConnected
	}
	return network.Connected
}

type memPeerstore struct {
	peerstore.Peerstore
	of *memHost
}

func (p memPeerstore) Addrs(id peer.ID) []multiaddr.Multiaddr {
	p.of.net.mu.Lock()
	defer p.of.net.mu.Unlock()
	if !p.of.addrs[id] {
		return nil
	}
	return []multiaddr.Multiaddr{multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")}
}

// learn has a host know a peer's addresses.
func (h *memHost) learn(id peer.ID) {
	h.net.mu.Lock()
	defer h.net.mu.Unlock()
	if h.addrs == nil {
		h.addrs = map[peer.ID]bool{}
	}
	h.addrs[id] = true
}

type memConn struct {
	network.Conn
	remote peer.ID
}

func (c memConn) RemotePeer() peer.ID { return c.remote }

func (c memConn) LocalMultiaddr() multiaddr.Multiaddr { return multiaddr.StringCast("/memory/1") }

func (c memConn) RemoteMultiaddr() multiaddr.Multiaddr {
	return multiaddr.StringCast("/ip4/127.0.0.1/tcp/1")
}

// memWindow is how much of a stream may be under way, as with yamux.
const memWindow = 256 << 10

// memPipe is one direction of a stream.
type memPipe struct {
	mu      sync.Mutex
	cond    *sync.Cond
	buf     []byte
	ended   bool  // no more will be written
	failed  error // reset
	readBy  time.Time
	writeBy time.Time
}

func newMemPipe() *memPipe {
	p := &memPipe{}
	p.cond = sync.NewCond(&p.mu)
	return p
}

func past(t time.Time) bool { return !t.IsZero() && !time.Now().Before(t) }

func (p *memPipe) read(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		switch {
		case p.failed != nil:
			return 0, p.failed
		case len(p.buf) > 0:
			n := copy(b, p.buf)
			p.buf = p.buf[n:]
			p.cond.Broadcast()
			return n, nil
		case p.ended:
			return 0, io.EOF
		case past(p.readBy):
			return 0, os.ErrDeadlineExceeded
		}
		p.cond.Wait()
	}
}

func (p *memPipe) write(b []byte) (n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for n < len(b) {
		switch {
		case p.failed != nil:
			return n, p.failed
		case p.ended:
			return n, io.ErrClosedPipe
		case past(p.writeBy):
			return n, os.ErrDeadlineExceeded
		}
		if k := min(len(b)-n, memWindow-len(p.buf)); k > 0 {
			p.buf = append(p.buf, b[n:n+k]...)
			n += k
			p.cond.Broadcast()
			continue
		}
		p.cond.Wait()
	}
	return n, nil
}

// set changes the pipe's state by f and wakes whoever waits for it.
func (p *memPipe) set(f func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f()
	p.cond.Broadcast()
}

// memStream is one end of a stream.
type memStream struct {
	network.Stream
	conn    memConn
	in, out *memPipe
	mu      sync.Mutex
	timers  []*time.Timer
}

func memStreams(a, b peer.ID) (*memStream, *memStream) {
	x, y := newMemPipe(), newMemPipe()
	return &memStream{conn: memConn{remote: b}, in: x, out: y}, &memStream{conn: memConn{remote: a}, in: y, out: x}
}

func (s *memStream) Conn() network.Conn          { return s.conn }
func (s *memStream) Read(b []byte) (int, error)  { return s.in.read(b) }
func (s *memStream) Write(b []byte) (int, error) { return s.out.write(b) }

func (s *memStream) CloseWrite() error {
	s.out.set(func() { s.out.ended = true })
	return nil
}

func (s *memStream) CloseRead() error {
	s.in.set(func() {
		if s.in.failed == nil {
			s.in.failed = network.ErrReset
		}
	})
	return nil
}

func (s *memStream) Close() error {
	_ = s.CloseWrite()
	return s.CloseRead()
}

func (s *memStream) Reset() error { return s.ResetWithError(0) }

func (s *memStream) ResetWithError(code network.StreamErrorCode) error {
	s.mu.Lock()
	for _, t := range s.timers {
		t.Stop()
	}
	s.timers = nil
	s.mu.Unlock()
	s.in.set(func() { s.in.failed = network.ErrReset })
	s.out.set(func() {
		if s.out.failed == nil {
			s.out.failed = &network.StreamError{ErrorCode: code, Remote: true}
		}
	})
	return nil
}

func (s *memStream) wakeAt(t time.Time, p *memPipe) {
	if t.IsZero() {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timers = append(s.timers, time.AfterFunc(time.Until(t), func() { p.set(func() {}) }))
}

func (s *memStream) SetReadDeadline(t time.Time) error {
	s.in.set(func() { s.in.readBy = t })
	s.wakeAt(t, s.in)
	return nil
}

func (s *memStream) SetWriteDeadline(t time.Time) error {
	s.out.set(func() { s.out.writeBy = t })
	s.wakeAt(t, s.out)
	return nil
}

func (s *memStream) SetDeadline(t time.Time) error {
	_ = s.SetReadDeadline(t)
	return s.SetWriteDeadline(t)
}

// memNode is a node on n.
func (n *memNet) node(t testing.TB, name string, change ...func(*Config)) *node {
	t.Helper()
	return startNode(t, n.host(name), change...)
}
