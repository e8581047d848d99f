package web

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// openMax is how many roots are open at a time.
	openMax = 16
	// idleMax is how long one stays open that nobody reads: a player asks again
	// and again, and each opening costs a search for peers.
	idleMax = time.Minute
)

var (
	errBusy   = errors.New("too many roots are being read at the same time")
	errClosed = errors.New("closing")
)

// pool keeps roots open between requests.
type pool struct {
	source Source
	ctx    context.Context
	stop   context.CancelFunc

	mu     sync.Mutex
	open   map[chunk.CID]*held
	turn   uint64
	closed bool
	wait   sync.WaitGroup
}

// held is one open root, or one that is being opened.
type held struct {
	pool    *pool
	root    chunk.CID
	ready   chan struct{} // closed when content or err is there
	content *storage.Content
	err     error
	cancel  context.CancelFunc // of the opening

	// Guarded by pool.mu.
	users int
	used  uint64 // the turn of the last use
	timer *time.Timer
}

func newPool(source Source) *pool {
	p := &pool{source: source, open: map[chunk.CID]*held{}}
	p.ctx, p.stop = context.WithCancel(context.Background())
	return p
}

// get returns the open root of a link. Call release when done with it.
func (p *pool) get(ctx context.Context, link chunk.Link) (c *storage.Content, release func(), err error) {
	h, err := p.use(link)
	if err != nil {
		return nil, nil, err
	}
	select {
	case <-h.ready:
	case <-ctx.Done():
		h.release()
		return nil, nil, ctx.Err()
	}
	if h.err != nil {
		h.release()
		return nil, nil, h.err
	}
	return h.content, sync.OnceFunc(h.release), nil
}

// use finds or begins to open a root, and counts one user more.
func (p *pool) use(link chunk.Link) (*held, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil, errClosed
	}
	h := p.open[link.Root]
	if h == nil {
		if len(p.open) >= openMax && !p.evict() {
			return nil, errBusy
		}
		h = &held{pool: p, root: link.Root, ready: make(chan struct{})}
		p.open[link.Root] = h
		var ctx context.Context
		ctx, h.cancel = context.WithCancel(p.ctx)
		p.wait.Go(func() {
			defer close(h.ready)
			h.content, h.err = p.source.Open(ctx, link, storage.OpenOptions{})
		})
	}
	h.users++
	p.turn++
	h.used = p.turn
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	return h, nil
}

// evict closes the root that was used longest ago and that nobody reads now.
// The caller holds mu.
func (p *pool) evict() bool {
	var oldest *held
	for _, h := range p.open {
		if h.users == 0 && (oldest == nil || h.used < oldest.used) {
			oldest = h
		}
	}
	if oldest == nil {
		return false
	}
	p.drop(oldest)
	return true
}

// drop forgets a root and closes it. The caller holds mu.
func (p *pool) drop(h *held) {
	delete(p.open, h.root)
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
	h.cancel()
	p.wait.Go(func() {
		<-h.ready
		if h.content != nil {
			h.content.Close()
		}
	})
}

// release takes one user off. A root that failed to open, or whose opening
// nobody waits for any more, is forgotten; others stay open for a while.
func (h *held) release() {
	p := h.pool
	p.mu.Lock()
	defer p.mu.Unlock()
	h.users--
	if h.users > 0 || p.open[h.root] != h {
		return
	}
	select {
	case <-h.ready:
	default:
		p.drop(h)
		return
	}
	if h.err != nil {
		p.drop(h)
		return
	}
	h.timer = time.AfterFunc(idleMax, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if h.users == 0 && p.open[h.root] == h {
			p.drop(h)
		}
	})
}

// all returns the roots that are open, each with one user more: release them.
func (p *pool) all() (out []*held) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, h := range p.open {
		select {
		case <-h.ready:
			if h.err == nil {
				h.users++
				out = append(out, h)
			}
		default:
		}
	}
	return out
}

// close closes every root, whoever reads it.
func (p *pool) close() {
	p.mu.Lock()
	p.closed = true
	p.stop()
	for _, h := range p.open {
		p.drop(h)
	}
	p.mu.Unlock()
	p.wait.Wait()
}
