package piece

import (
	"fmt"
	"sync"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// cache keeps small pieces that were read lately, in packs of its own that are never synced. When room is needed the
// oldest pack goes; what was read since it came is written anew first, if that wins room still: CLOCK, the usual
// approximation of least recently used, by whole packs.
type cache struct {
	log *pack.Log
	max int64 // bytes

	mu   sync.Mutex // guards what is below; nothing else is taken under it
	at   map[chunk.CID]cached
	live map[uint32]int // pieces in each pack
}

type cached struct {
	loc
	used bool // read since it was written
}

const (
	// cachePacks is into how many packs the cache is cut.
	cachePacks   = 16
	cachePackMin = 64 << 10
)

func (c *cache) open(s *Store) (err error) {
	c.max = s.cfg.Quota / cacheShare
	c.at, c.live = map[chunk.CID]cached{}, map[uint32]int{}
	size := min(max(c.max/cachePacks, cachePackMin), packSizeMax)
	c.log, _, err = pack.Open(pack.Config{FS: s.fs, Dir: cacheDir, Size: size, Loose: true}, func(f pack.Frame, at pack.Loc) {
		c.put(f.ID, loc{at, f.Length, f.Extent})
	})
	return err
}

func (c *cache) bytes() int64 { return c.log.Bytes() }

func (c *cache) put(id chunk.CID, l loc) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
	c.at[id] = cached{loc: l}
	c.live[l.at.Pack]++
}

// drop forgets a piece. The caller holds mu.
func (c *cache) drop(id chunk.CID) {
	if old, ok := c.at[id]; ok {
		delete(c.at, id)
		if c.live[old.at.Pack]--; c.live[old.at.Pack] <= 0 {
			delete(c.live, old.at.Pack)
		}
	}
}

func (c *cache) forget(id chunk.CID) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.drop(id)
}

func (c *cache) has(id chunk.CID) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, ok := c.at[id]
	return ok
}

// read appends a cached piece to buf. What is damaged or gone is forgotten.
func (c *cache) read(id chunk.CID, buf []byte) ([]byte, error) {
	c.mu.Lock()
	l, ok := c.at[id]
	if ok && !l.used {
		l.used = true
		c.at[id] = l
	}
	c.mu.Unlock()
	if !ok {
		return buf, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	buf, err := c.log.Read(pack.Head{ID: id, Length: l.data, Extent: l.size}, l.at, buf)
	if err != nil {
		c.forget(id)
		return buf, fmt.Errorf("piece: %s: %w", id, ErrNotFound)
	}
	return buf, nil
}

// oldest returns the oldest pack, ending the one that is written to if there is no other; 0 if there is none.
func (c *cache) oldest() uint32 {
	if len(c.log.Packs()) == 0 && c.log.Seal() != nil {
		return 0
	}
	if packs := c.log.Packs(); len(packs) > 0 {
		return packs[0].Num
	}
	return 0
}

// evict lets go of the oldest pack, and reports whether there was one. The caller holds the store's room.
func (c *cache) evict(s *Store) bool {
	num := c.oldest()
	if num == 0 {
		return false
	}
	var again []chunk.CID
	c.mu.Lock()
	size := int64(0)
	for id, l := range c.at {
		if l.at.Pack != num {
			continue
		}
		if l.used && size+int64(l.data) <= c.max/cachePacks/2 {
			again, size = append(again, id), size+int64(l.data)
			continue
		}
		c.drop(id)
	}
	c.mu.Unlock()
	for _, id := range again {
		data, err := c.read(id, nil)
		if err != nil {
			continue
		}
		if at, err := c.log.Append(pack.Head{ID: id, Length: uint32(len(data)), Extent: uint32(len(data))}, data); err == nil {
			c.put(id, loc{at, uint32(len(data)), uint32(len(data))})
		} else {
			c.forget(id)
		}
	}
	if err := c.log.Remove(num); err != nil {
		s.log.Warn("pool files: the cache could not be cut", "err", err)
	}
	return true
}

// Cache keeps a small piece for as long as there is room to spare; it is not held. The bytes are verified. What does
// not fit is not kept, without an error.
func (s *Store) Cache(id chunk.CID, data []byte) error {
	if err := checkSmall(id, data); err != nil {
		return err
	}
	if s.Has(id) || s.cache.has(id) {
		return nil
	}
	cost := pack.Cost(len(data))
	s.room.Lock()
	defer s.room.Unlock()
	for s.cache.bytes()+cost > s.cache.max || !s.tryReserve(cost) {
		if !s.cache.evict(s) {
			return nil
		}
	}
	defer s.unreserve(cost)
	at, err := s.cache.log.Append(pack.Head{ID: id, Length: uint32(len(data)), Extent: uint32(len(data))}, data)
	if err != nil {
		return fmt.Errorf("piece: cache: %w", err)
	}
	s.cache.put(id, loc{at, uint32(len(data)), uint32(len(data))})
	return nil
}
