// Package exchange owns /shoal/chunk/1: it fetches the leaves of a root from
// every peer that has some, and serves to others what this peer holds.
//
// The side that opens a stream asks; the other serves. Two peers that both
// miss leaves open a stream each way. What to ask of whom is decided by
// package sched; this package moves the bytes, verifies them off the network
// goroutine and writes them where they belong. It finds nobody by itself: a
// Finder and the addresses of a link say where to look. See DESIGN.md.
package exchange

import (
	"context"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/libp2p/go-libp2p/core/host"
	"github.com/libp2p/go-libp2p/core/network"
	"github.com/libp2p/go-libp2p/core/peer"
	"github.com/libp2p/go-libp2p/core/protocol"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Protocol is the stream protocol's id.
const Protocol protocol.ID = "/shoal/chunk/1"

// Host is what the swarm needs of a libp2p host: streams for bulk bytes over
// the connection that carries them best.
type Host interface {
	host.Host
	NewBulkStream(ctx context.Context, p peer.ID, protos ...protocol.ID) (network.Stream, error)
}

// Finder looks up who provides a root. The sequence may be repeated; an error
// ends it.
type Finder interface {
	FindProviders(ctx context.Context, k dht.Key) iter.Seq2[peer.AddrInfo, error]
}

// Config says how a swarm behaves. Zero values are working defaults.
type Config struct {
	Host   Host         // required
	Store  *block.Store // required
	Finder Finder       // nil: only a link's addresses are tried
	Log    *slog.Logger // nil: nothing is logged
	// Up and Down bound the bytes a second served and fetched, leaves only, to
	// and from peers that are not on this machine or its LAN. 0: no bound.
	Up, Down int64
	// Preferred says which peers are served before others (the pool's
	// members). nil: nobody.
	Preferred func(peer.ID) bool
	// Private holds roots that only members are served; to others they are as good
	// as unknown. nil: there are none.
	Private Private
	// Member says who may know of private roots. nil: nobody.
	Member func(peer.ID) bool
	// Damaged is told of a private root with a leaf that is not what it should be,
	// which was not served. nil: nobody is told.
	Damaged func(chunk.CID)
	// SealAll has lanes between processes of this machine sealed, too.
	SealAll bool
}

// Swarm serves this peer's roots and fetches others. It is safe for concurrent
// use. Close ends it.
type Swarm struct {
	cfg   Config
	log   *slog.Logger
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup
	up    *uploads
	down  limiter
	// repair bounds the jobs that nobody waits for, wherever their bytes come from.
	repair limiter

	mu      sync.Mutex
	jobs    map[circle]*job
	readers map[circle]map[*Reader]bool
	turns   uint64 // see Reader.since

	lanes atomic.Int64 // that were taken up, by either side
}

// New starts serving what the store holds.
func New(cfg Config) *Swarm {
	s := &Swarm{cfg: cfg, log: cfg.Log, jobs: map[circle]*job{}}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	s.ctx, s.stop = context.WithCancel(context.Background())
	s.down, s.repair = newLimiter(cfg.Down), newLimiter(0)
	s.up = newUploads(cfg)
	s.tasks.Go(func() { s.up.run(s.ctx) })
	cfg.Host.SetStreamHandler(Protocol, s.handle)
	return s
}

// Close stops serving and fetching and waits for both to end.
func (s *Swarm) Close() {
	s.cfg.Host.RemoveStreamHandler(Protocol)
	s.mu.Lock()
	s.stop() // under the lock, so that nobody who saw the swarm open adds to tasks once it is waited for
	s.mu.Unlock()
	s.tasks.Wait()
}

// SetRepairRate bounds the bytes a second of all jobs with Repair together, the
// LAN's too. 0: no bound.
func (s *Swarm) SetRepairRate(bytesPerSecond int64) { s.repair.set(bytesPerSecond) }

// Serving counts the peers that ask for a root now, without those that are
// served it from Config.Private.
func (s *Swarm) Serving(root chunk.CID) int { return len(s.up.askers(root, false)) }

// Gives reports whether anybody was sent some of a root within the last while,
// and asks for more still.
func (s *Swarm) Gives(root chunk.CID, last time.Duration) bool { return s.up.gives(root, last) }

// handle serves one stream, on a goroutine that libp2p started for it.
func (s *Swarm) handle(st network.Stream) {
	s.mu.Lock()
	if s.ctx.Err() != nil {
		s.mu.Unlock()
		_ = st.Reset()
		return
	}
	s.tasks.Add(1)
	s.mu.Unlock()
	defer s.tasks.Done()
	s.serve(st)
}

// job returns the running download of a root in a circle, or nil.
func (s *Swarm) job(c circle) *job {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.jobs[c]
}

// dialTimeout bounds connecting to one peer and opening a stream.
const dialTimeout = 10 * time.Second
