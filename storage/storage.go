// Package storage owns what a person does with files on one peer: share them
// in place, get them from others, list and withdraw them. It joins the block
// store, which knows where bytes lie, and the swarm, which moves them.
package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht"
	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/exchange"
)

var (
	// ErrExists reports a destination that holds something else.
	ErrExists = block.ErrExists
	// ErrNotShared reports a root that this peer does not seed.
	ErrNotShared = errors.New("not shared here")
	// ErrSpace reports a disk with too little room.
	ErrSpace = errors.New("not enough space")
	// ErrChanging reports a file that changed while it was being read.
	ErrChanging = errors.New("changed while it was being read")
)

// Finder is how roots are announced and found.
type Finder interface {
	exchange.Finder
	Seed(dht.Key)   // announce, and keep announcing
	Unseed(dht.Key) // stop
}

// Config says where and over what a Storage works.
type Config struct {
	Dir    string        // the store's folder; required
	Host   exchange.Host // required
	Finder Finder        // nil: only the addresses in links are tried
	Log    *slog.Logger  // nil: nothing is logged
	// Up and Down bound bytes a second, LAN and this machine exempt. 0: no bound.
	Up, Down int64
	// SealAll is exchange.Config's.
	SealAll bool
	// Preferred says which peers are served before others; nil: nobody.
	Preferred func(peer.ID) bool
	// Cache is where bytes of opened roots go, and CacheMax how many are kept of
	// those that nobody reads. Zero: "cache" beside Dir, and CacheMaxDefault.
	Cache    string
	CacheMax int64
	// Pieces holds this peer's part of the pool's files, which are served to members
	// only. It is open, and stays open until the Storage is closed. nil: there is none.
	Pieces *piece.Store
	// Member says who is a member. nil: nobody.
	Member func(peer.ID) bool
}

// Storage is one peer's shares and downloads. It is safe for concurrent use.
// Close ends it.
type Storage struct {
	cfg   Config
	log   *slog.Logger
	swarm *exchange.Swarm
	ctx   context.Context
	stop  context.CancelFunc
	tasks sync.WaitGroup

	shelf          // of what everybody may have
	pieces *pieces // of what members may; nil without Config.Pieces

	mu      sync.Mutex
	closed  bool
	limits  limits
	fetched fetched
}

// Open opens the store in cfg.Dir and serves what it holds.
func Open(cfg Config) (*Storage, error) {
	store, err := block.Open(cfg.Dir)
	if err != nil {
		return nil, err
	}
	s := &Storage{cfg: cfg, log: cfg.Log}
	if s.log == nil {
		s.log = slog.New(slog.DiscardHandler)
	}
	if s.cfg.Cache == "" {
		s.cfg.Cache = filepath.Join(filepath.Dir(cfg.Dir), "cache")
	}
	if s.cfg.CacheMax == 0 {
		s.cfg.CacheMax = CacheMaxDefault
	}
	s.shelf = shelf{s: s, store: store, cache: s.cfg.Cache}
	s.sweepCache()
	s.ctx, s.stop = context.WithCancel(context.Background())
	for name, err := range store.Damaged() {
		s.log.Warn("a record of the store is damaged and was left alone", "record", name, "err", err)
	}
	swarmCfg := exchange.Config{
		Host: cfg.Host, Store: store, Log: s.log, Up: cfg.Up, Down: cfg.Down, SealAll: cfg.SealAll, Preferred: cfg.Preferred, Member: cfg.Member,
	}
	if cfg.Pieces != nil {
		if s.pieces, err = openPieces(s); err != nil {
			store.Close()
			return nil, err
		}
		swarmCfg.Private, swarmCfg.Damaged = s.pieces, cfg.Pieces.Damaged
	}
	if cfg.Finder != nil {
		swarmCfg.Finder = cfg.Finder
	}
	s.swarm = exchange.New(swarmCfg)
	for _, r := range store.Roots() {
		s.seed(r.CID())
		switch {
		case !r.NeedsSync():
		case r.Trusted():
			s.syncLater(r)
		default:
			s.tasks.Go(func() { s.recheckComplete(r) })
		}
	}
	for _, r := range store.Roots() {
		if r.Limit().Set() {
			s.watch(r)
		}
	}
	return s, nil
}

// Close stops downloads and serving. Partials stay and can be gone on with. What
// was fetched a moment ago is served on to those who are just being served it,
// for three seconds at most.
func (s *Storage) Close() error {
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
	s.linger()
	s.stop()
	s.swarm.Close()
	s.tasks.Wait()
	s.store.Close()
	if s.pieces != nil {
		s.pieces.store.Close()
	}
	return nil
}

// Damaged returns the store's records that could not be read, by folder name.
func (s *Storage) Damaged() map[string]error { return s.store.Damaged() }

func (s *Storage) announce(c chunk.CID) {
	if s.cfg.Finder != nil {
		s.cfg.Finder.Seed(dht.Key(c.Sum))
	}
}

func (s *Storage) conceal(c chunk.CID) {
	if s.cfg.Finder != nil {
		s.cfg.Finder.Unseed(dht.Key(c.Sum))
	}
}

// State is how a share is doing.
type State string

// The states of a share.
const (
	Seeding State = "seeding" // whole and unchanged
	Changed State = "changed" // a file differs from what was shared: share again
	Missing State = "missing" // the file or folder is gone
	Partly  State = "partial" // a download that is not complete
	Cached  State = "cached"  // parts of it were read, and are kept while there is space
)

// Share is a root that this peer serves.
type Share struct {
	Root     chunk.CID
	Name     string
	Size     int64 // bytes; -1 unknown
	Have     int64 // leaves present
	Leaves   int64
	Files    int
	Path     string
	State    State
	Problem  string // in words, when State is not Seeding
	Added    time.Time
	Uploaded int64 // bytes served since the peer started
	Peers    int   // that are asking for it now
	Skipped  []string
	Web      []string // URLs where its bytes lie too
	Limit    Limit    // when it has been seeded enough
}

// checkedFiles bounds how many files one listing looks at to see whether they
// changed; larger shares are checked as they are served.
const checkedFiles = 50_000

// Shares lists what this peer serves, oldest first.
func (s *Storage) Shares() []Share {
	roots := s.store.Roots()
	out := make([]Share, 0, len(roots))
	left := checkedFiles
	for _, r := range roots {
		if n := r.Info().Files; n <= left {
			left -= n
			if _, err := r.Check(1); err != nil {
				r.Problem("its record is damaged: share or get it again")
			}
		}
		out = append(out, s.describe(r))
	}
	return out
}

func (s *Storage) describe(r *block.Root) Share {
	i := r.Info()
	x := Share{
		Root: i.Root, Name: i.Name, Size: i.Size, Files: i.Files, Path: i.Path, State: Seeding, Problem: i.Problem,
		Have: int64(i.HaveLeaves), Leaves: int64(i.Leaves),
		Added: i.Added, Uploaded: r.Uploaded.Load(), Peers: s.swarm.Serving(i.Root),
		Web: i.Web, Limit: s.limits.progress(r),
	}
	switch {
	case s.cached(i):
		x.State = Cached
		x.Path = i.PartialPath
	case i.State == block.Partial:
		x.State = Partly
		x.Path = i.PartialPath
	case i.Problem != "" && !exists(i.Path):
		x.State = Missing
	case i.Problem != "":
		x.State = Changed
	}
	return x
}

// Unshare stops serving a root. The files stay where they are.
func (s *Storage) Unshare(root chunk.CID) error {
	release := s.fillers.hold(root)
	defer release()
	if r, ok := s.store.Root(root); ok && s.cached(r.Info()) {
		return s.dropCached(root, filepath.Dir(r.Info().Path))
	}
	if err := s.store.Remove(root); errors.Is(err, block.ErrNotFound) {
		return fmt.Errorf("storage: %s: %w", root, ErrNotShared)
	} else if err != nil {
		return err
	}
	s.unseed(root)
	return nil
}

// Progress is where a share or get stands.
type Progress struct {
	Phase       string // "hashing", "finding", "tree", "verifying", "fetching", "writing"
	Done, Total int64  // bytes; Total is -1 while unknown
	Files       int    // looked at so far, while hashing
	Peers       int
	Rate        float64 // bytes/s
	Note        string
}

// syncDelay lets a burst of downloads pass, and a peer that lives for one
// download end, before the disk is made busy.
const syncDelay = 5 * time.Second

// syncLater has finished files written to the disk itself, in the background:
// a reboot then need not read them again. It does not hold Close back.
func (s *Storage) syncLater(r *block.Root) {
	path := filepath.Dir(r.Info().Path)
	go func() {
		select {
		case <-time.After(syncDelay):
		case <-s.ctx.Done():
			return // the next start finds it unsynced, and believed while this boot lasts
		}
		if err := block.SyncDisk(path); err != nil {
			s.log.Debug("sync", "path", path, "err", err)
			return
		}
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.closed {
			if err := r.Synced(); err != nil {
				s.log.Warn("record not updated", "root", r.CID(), "err", err)
			}
		}
	}()
}
