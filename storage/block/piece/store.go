package piece

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"log/slog"
	"path/filepath"
	"sync"
	"time"
	"weak"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/folder"
)

// Config is where and how much a store may hold.
type Config struct {
	// Dir is the store's folder, made (0700) if need be.
	Dir string
	// Quota is how many bytes on disk the store takes at most, whatever they are for. A small part of it is kept free
	// for compaction. 0: nothing can be added.
	Quota int64
	Log   *slog.Logger     // nil: slog.Default
	Now   func() time.Time // nil: time.Now

	fs folder.FS // nil: Dir; tests let one lose its power
}

// Store is what this peer holds. It is safe for concurrent use.
type Store struct {
	cfg   Config
	log   *slog.Logger
	fs    folder.FS
	dir   string
	packs *pack.Log
	roots *block.Store // of partials; it asks this store for the rest
	marks *marks
	cache cache

	gc        sync.Mutex   // held by Collect and Purge
	room      sync.Mutex   // held while room is made; taken after gc
	naming    sync.Mutex   // held from where a large piece gets its name until the index has it
	appending sync.RWMutex // read while a frame is appended and counted in pending; taken before mu

	mu       sync.Mutex
	index    *table // all that is on disk for good: held or set aside
	aside    map[chunk.CID]aside
	leaving  map[chunk.CID]aside // taken out of the index by the Purge that is under way; their marks still hold
	pins     map[chunk.CID][]string
	locks    map[chunk.CID]int                      // by batches and fetches
	young    map[chunk.CID]time.Time                // when it came, for youth
	youngMax int                                    // entries of young after which the old ones go
	touched  map[chunk.CID]bool                     // locked since Collect began; nil when none runs
	partial  map[chunk.CID]int64                    // bytes promised to what is fetched, or lies there unfinished
	views    map[chunk.CID]weak.Pointer[block.Root] // of large pieces that somebody reads
	live     map[uint32]int64                       // bytes of frames that the index has, by pack
	pending  map[uint32]int                         // frames of batches that are not committed, by pack
	stuck    map[uint32]bool                        // packs that cannot be compacted
	stale    map[uint32]bool                        // packs whose index names frames that were never committed, or are purged
	sums     sums
	changes  changes
	temps    uint64 // names given to temporary files
	closed   bool
}

// sums count what takes room, in bytes on disk.
type sums struct {
	held, quarantined, damaged int64 // of pieces, frames and files together
	pieces                     int   // held
	large                      int64 // of files in the large folder that the index has
	partial                    int64 // the sum of Store.partial
	reserved                   int64 // promised to what is being added
}

const (
	// youngMin is how many pieces may be remembered as young though they are not any more.
	youngMin = 1024

	packsDir = "packs"
	cacheDir = "cache"
	largeDir = "large"

	recordsDir = "records"
)

func (s *Store) now() time.Time {
	if s.cfg.Now != nil {
		return s.cfg.Now()
	}
	return time.Now()
}

// Open reads the store in cfg.Dir. What a crash left unfinished is cleaned up; what is damaged is told in the log, held no
// longer, and kept.
func Open(cfg Config) (*Store, error) {
	s := &Store{
		cfg: cfg, log: cmp.Or(cfg.Log, slog.Default()), fs: cfg.fs,
		index: newTable(), aside: map[chunk.CID]aside{}, leaving: map[chunk.CID]aside{}, pins: map[chunk.CID][]string{},
		locks: map[chunk.CID]int{}, young: map[chunk.CID]time.Time{}, partial: map[chunk.CID]int64{},
		views: map[chunk.CID]weak.Pointer[block.Root]{}, live: map[uint32]int64{}, pending: map[uint32]int{}, stuck: map[uint32]bool{}, stale: map[uint32]bool{},
	}
	if err := s.open(); err != nil {
		s.shut()
		return nil, fmt.Errorf("piece: open store: %w", err)
	}
	return s, nil
}

func (s *Store) open() (err error) {
	if s.dir, err = filepath.Abs(s.cfg.Dir); err != nil {
		return err
	}
	if s.fs == nil {
		if s.fs, err = folder.Dir(s.dir, packsDir, cacheDir, largeDir, marksDir); err != nil {
			return err
		}
	}
	whole, err := s.load()
	if err != nil {
		return err
	}
	for s.used() > s.cfg.Quota && s.cache.evict(s) { // it may have been lowered
	}
	return s.openChanges(whole)
}

// Close makes everything durable and ends the store. Batches must be closed before.
func (s *Store) Close() error {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return nil
	}
	s.closed = true
	s.mu.Unlock()
	err := s.shut()
	if err == nil {
		err = s.saveChanges()
	}
	if err != nil {
		return fmt.Errorf("piece: close store: %w", err)
	}
	return nil
}

func (s *Store) shut() error {
	var err error
	if s.packs != nil {
		err = errors.Join(s.packs.Seal(), s.keepStale(), s.packs.Close())
	}
	if s.cache.log != nil {
		err = errors.Join(err, s.cache.log.Close())
	}
	if s.marks != nil {
		err = errors.Join(err, s.marks.close())
	}
	if s.roots != nil {
		s.roots.Close()
	}
	return err
}

// holds returns where a piece that is held lies. The caller holds mu.
func (s *Store) holds(id chunk.CID) (loc, bool) {
	l, ok := s.index.get(id)
	if ok && len(s.aside) > 0 {
		if _, away := s.aside[id]; away {
			return loc{}, false
		}
	}
	return l, ok
}

// Has reports whether a piece is held.
func (s *Store) Has(id chunk.CID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	_, ok := s.holds(id)
	return ok
}

// Get returns a piece that is held.
func (s *Store) Get(id chunk.CID) (Piece, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	l, ok := s.holds(id)
	return Piece{id, int64(l.size)}, ok
}

// All yields the pieces that are held, in no order: those of the moment when it is begun.
func (s *Store) All() iter.Seq[Piece] {
	return func(yield func(Piece) bool) {
		s.mu.Lock()
		all := make([]Piece, 0, s.sums.pieces)
		for id, l := range s.index.all() {
			if _, away := s.aside[id]; !away {
				all = append(all, Piece{id, int64(l.size)})
			}
		}
		s.mu.Unlock()
		for _, p := range all {
			if !yield(p) {
				return
			}
		}
	}
}

// Pin keeps a piece from Collect and Quarantine under a name, of at most 256 bytes, until Unpin. It need not be here
// yet. It is durable when Pin returns; doing it again changes nothing.
func (s *Store) Pin(id chunk.CID, name string) error { return s.pin(id, name, true) }

// Unpin ends Pin. It is no error if there is no such pin.
func (s *Store) Unpin(id chunk.CID, name string) error { return s.pin(id, name, false) }

func (s *Store) pin(id chunk.CID, name string, on bool) error {
	if len(name) > pinNameMax {
		return fmt.Errorf("piece: the name of a pin has %d bytes, more than %d", len(name), pinNameMax)
	}
	s.mu.Lock()
	if s.setPin(id, name, on) {
		verb := "unpin"
		if on {
			verb = "pin"
			s.touch(id)
		}
		s.marks.add(pinLine(verb, id, name))
	}
	s.mu.Unlock()
	return s.marks.sync()
}

// setPin adds or removes a pin and reports whether that changed anything.
func (s *Store) setPin(id chunk.CID, name string, on bool) bool {
	names := s.pins[id]
	for i, n := range names {
		if n != name {
			continue
		}
		if !on {
			s.pins[id] = append(names[:i:i], names[i+1:]...)
			if len(names) == 1 {
				delete(s.pins, id)
			}
		}
		return !on
	}
	if on {
		s.pins[id] = append(names, name)
	}
	return on
}

// Pinned reports whether a piece is pinned under any name.
func (s *Store) Pinned(id chunk.CID) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.pins[id]) > 0
}

// Spare reports whether a piece is held, durably, and keeps it from a Collect that is under way or begins within a minute:
// for who is about to rely on it, and Has would say nothing of the next moment.
func (s *Store) Spare(id chunk.CID) bool {
	s.mu.Lock()
	_, ok := s.holds(id)
	if ok {
		s.touch(id)
		s.makeYoung(id)
	}
	s.mu.Unlock()
	return ok && s.marks.sync() == nil
}

// lock keeps a piece from Collect, Quarantine and Purge. The caller holds mu.
func (s *Store) lock(id chunk.CID) {
	s.locks[id]++
	s.touch(id)
}

// touch tells a Collect that is under way to leave a piece alone. The caller holds mu.
func (s *Store) touch(id chunk.CID) {
	if s.touched != nil {
		s.touched[id] = true
	}
}

// unlock ends lock. The piece is young from now. The caller holds mu.
func (s *Store) unlock(id chunk.CID) {
	if s.locks[id]--; s.locks[id] <= 0 {
		delete(s.locks, id)
	}
	s.makeYoung(id)
}

// makeYoung keeps a piece from Collect for youth. The caller holds mu.
func (s *Store) makeYoung(id chunk.CID) {
	now := s.now()
	if s.young[id] = now; len(s.young) > s.youngMax {
		young := map[chunk.CID]time.Time{}
		for id, t := range s.young {
			if now.Sub(t) < youth {
				young[id] = t
			}
		}
		s.young, s.youngMax = young, max(youngMin, 2*len(young))
	}
}
