package storage

import (
	"context"
	"iter"
	"sync"

	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/storage/exchange"
)

// gate lets so many bytes of what a peer serves out, then holds the rest back.
type gate struct {
	exchange.Host

	mu     sync.Mutex
	left   int
	isOpen bool
	opened chan struct{} // closed by open
	full   chan struct{} // closed when the bytes are out
}

// gated makes a config's host hold back what it serves after n bytes.
func gated(n int) (*gate, func(*Config)) {
	g := &gate{left: n, opened: make(chan struct{}), full: make(chan struct{})}
	return g, func(c *Config) {
		g.Host = c.Host
		c.Host = g
	}
}

func (g *gate) SetStreamHandler(p protocol.ID, f network.StreamHandler) {
	g.Host.SetStreamHandler(p, func(st network.Stream) { f(&gatedStream{st, g}) })
}

// open lets everything out. It may be called again.
func (g *gate) open() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.isOpen {
		g.isOpen = true
		close(g.opened)
	}
}

// take asks for n bytes to pass and returns how many may now.
func (g *gate) take(n int) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.isOpen {
		return n
	}
	n = min(n, g.left)
	if g.left > 0 && g.left == n {
		close(g.full)
	}
	g.left -= n
	return n
}

type gatedStream struct {
	network.Stream
	g *gate
}

func (s *gatedStream) Write(b []byte) (n int, err error) {
	for n < len(b) {
		k := s.g.take(len(b) - n)
		if k == 0 {
			<-s.g.opened
			continue
		}
		k, err = s.Stream.Write(b[n : n+k])
		if n += k; err != nil {
			return n, err
		}
	}
	return n, nil
}

// lateFinder knows providers once it is told of them.
type lateFinder struct {
	mu    sync.Mutex
	found []peer.AddrInfo
	news  chan struct{}
}

func newFinder() *lateFinder { return &lateFinder{news: make(chan struct{})} }

func (f *lateFinder) tell(p *testPeer) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.found = append(f.found, peer.AddrInfo{ID: p.host.ID(), Addrs: p.host.Addrs()})
	close(f.news)
	f.news = make(chan struct{})
}

func (f *lateFinder) Seed(dht.Key)   {}
func (f *lateFinder) Unseed(dht.Key) {}

func (f *lateFinder) FindProviders(ctx context.Context, _ dht.Key) iter.Seq2[peer.AddrInfo, error] {
	return func(yield func(peer.AddrInfo, error) bool) {
		for told := 0; ; {
			f.mu.Lock()
			found, news := f.found[told:], f.news
			f.mu.Unlock()
			for _, p := range found {
				if told++; !yield(p, nil) {
					return
				}
			}
			select {
			case <-news:
			case <-ctx.Done():
				return
			}
		}
	}
}
