package main

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"

	p2phost "github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"
)

// amounts are bytes of streams, and how many writes sent them, which is about how many messages.
type amounts struct{ sent, got, writes int64 }

// tally is bytes by protocol.
type tally map[protocol.ID]amounts

func (t tally) minus(o tally) tally {
	out := tally{}
	for id, a := range t {
		out[id] = amounts{a.sent - o[id].sent, a.got - o[id].got, a.writes - o[id].writes}
	}
	return out
}

func (t tally) total() (n int64) {
	for _, a := range t {
		n += a.sent
	}
	return n
}

// protocols are those with bytes, those with most first.
func (t tally) protocols() (ids []protocol.ID) {
	for id, a := range t {
		if a.sent > 0 {
			ids = append(ids, id)
		}
	}
	slices.SortFunc(ids, func(a, b protocol.ID) int { return int(t[b].sent - t[a].sent) })
	return ids
}

// traffic counts the bytes of one protocol, and those of each of its streams that moved most.
type traffic struct {
	sent, got atomic.Int64
	writes    atomic.Int64
	mu        sync.Mutex
	most      amounts // of the stream that sent most
}

// counter is a host that counts the bytes of its streams.
type counter struct {
	p2phost.Host
	mu    sync.Mutex
	bytes map[protocol.ID]*traffic
}

func (c *counter) of(id protocol.ID) *traffic {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.bytes[id] == nil {
		c.bytes[id] = &traffic{}
	}
	return c.bytes[id]
}

func (c *counter) snapshot() tally {
	c.mu.Lock()
	defer c.mu.Unlock()
	out := tally{}
	for id, t := range c.bytes {
		out[id] = amounts{t.sent.Load(), t.got.Load(), t.writes.Load()}
	}
	return out
}

// most is the stream of a protocol that sent most.
func (c *counter) most(id protocol.ID) amounts {
	t := c.of(id)
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.most
}

// SetStreamHandler counts the streams that come in.
func (c *counter) SetStreamHandler(id protocol.ID, h network.StreamHandler) {
	c.Host.SetStreamHandler(id, func(s network.Stream) { h(&counted{Stream: s, to: c.of(id)}) })
}

// SetStreamHandlerMatch counts the streams that come in.
func (c *counter) SetStreamHandlerMatch(id protocol.ID, match func(protocol.ID) bool, h network.StreamHandler) {
	c.Host.SetStreamHandlerMatch(id, match, func(s network.Stream) { h(&counted{Stream: s, to: c.of(id)}) })
}

// NewStream counts the streams that go out.
func (c *counter) NewStream(ctx context.Context, p peer.ID, ids ...protocol.ID) (network.Stream, error) {
	s, err := c.Host.NewStream(ctx, p, ids...)
	if err != nil {
		return nil, err
	}
	return &counted{Stream: s, to: c.of(ids[0])}, nil
}

// counted is a stream whose bytes are counted.
type counted struct {
	network.Stream
	to        *traffic
	sent, got atomic.Int64
}

func (s *counted) Write(p []byte) (int, error) {
	n, err := s.Stream.Write(p)
	s.to.sent.Add(int64(n))
	s.to.writes.Add(1)
	s.note(s.sent.Add(int64(n)))
	return n, err
}

func (s *counted) Read(p []byte) (int, error) {
	n, err := s.Stream.Read(p)
	s.to.got.Add(int64(n))
	s.got.Add(int64(n))
	s.note(s.sent.Load())
	return n, err
}

// note keeps the amounts of the stream that sent most.
func (s *counted) note(sent int64) {
	s.to.mu.Lock()
	defer s.to.mu.Unlock()
	if sent >= s.to.most.sent {
		s.to.most = amounts{sent: sent, got: s.got.Load()}
	}
}
