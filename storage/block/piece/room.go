package piece

import (
	"fmt"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	packSizeMax = 32 << 20
	packSizeMin = 1 << 20
	// cacheShare is the part of the quota that the cache may take.
	cacheShare = 4

	blockSize = 4096 // what file systems give room in
	// recordCost is what the record of a partial takes: its folder and four files.
	recordCost = 6 * blockSize
	// storeCost is what the store takes when it is empty: folders, the file of changes.
	storeCost = 8 * blockSize
)

// packSize is how large a pack grows: small enough that compacting one needs little room.
func packSize(quota int64) int64 { return min(max(quota/64, packSizeMin), packSizeMax) }

// headroom is the part of the quota that only compaction and marks use, so that what is waste can be won back when
// all else is full.
func headroom(quota int64) int64 { return min(packSize(quota), quota/8) }

func roundUp(n int64) int64 { return (n + blockSize - 1) / blockSize * blockSize }

// costOf is what a piece takes on disk.
func costOf(id chunk.CID, l loc) int64 {
	if id.IsRaw() {
		return pack.Cost(int(l.data))
	}
	return pack.Cost(int(l.data)) + roundUp(int64(l.size))
}

// insert puts a piece that is durable into the index. The caller holds mu, and syncs the marks after; the piece is not in it.
func (s *Store) insert(id chunk.CID, l loc) {
	s.left(id) // or it would be set aside at the next start
	s.index.put(id, l)
	s.charge(id, l)
}

// charge counts a piece of the index. The caller holds mu, or is alone.
func (s *Store) charge(id chunk.CID, l loc) {
	s.live[l.at.Pack] += pack.Cost(int(l.data))
	if !id.IsRaw() {
		s.sums.large += roundUp(int64(l.size))
	}
	s.count(id, l, 1)
}

// remove takes a piece out of the index. Its frame is waste from then on. The caller holds mu.
func (s *Store) remove(id chunk.CID) {
	l, ok := s.index.get(id)
	if !ok {
		return
	}
	s.count(id, l, -1)
	if !id.IsRaw() {
		s.sums.large -= roundUp(int64(l.size))
	}
	if s.live[l.at.Pack] -= pack.Cost(int(l.data)); s.live[l.at.Pack] == 0 {
		delete(s.live, l.at.Pack)
	}
	s.index.remove(id)
}

// count adds a piece to the sums of its state, or takes it off. The caller holds mu.
func (s *Store) count(id chunk.CID, l loc, sign int) {
	n := int64(sign) * costOf(id, l)
	switch a, away := s.aside[id]; {
	case !away:
		s.sums.held += n
		s.sums.pieces += sign
	case a.why == damaged:
		s.sums.damaged += n
	default:
		s.sums.quarantined += n
	}
}

// setAside changes a piece's state; the zero value holds it again. The caller holds mu, and queues the mark.
func (s *Store) setAside(id chunk.CID, a aside) {
	l, _ := s.index.get(id)
	was, gone := s.aside[id]
	s.count(id, l, -1)
	if a.why == "" {
		delete(s.aside, id)
		s.marks.add(line("back %s", id))
	} else {
		s.aside[id] = a
		s.marks.add(asideLine(id, a))
	}
	s.count(id, l, 1)
	if p := (Piece{id, int64(l.size)}); !gone && a.why != "" {
		s.changed(p, false)
	} else if gone && was.why != "" && a.why == "" {
		s.changed(p, true)
	}
}

// used is what the store takes on disk or has promised to. The caller holds mu.
func (s *Store) used() int64 {
	return storeCost + s.packs.Bytes() + s.cache.bytes() + roundUp(s.marks.size.Load()) +
		s.sums.large + s.sums.partial + s.sums.reserved
}

// reserve promises n bytes, making room if need be. Unreserve gives them back, or what they became is counted instead.
func (s *Store) reserve(n int64) error {
	if s.tryReserve(n) {
		return nil
	}
	s.room.Lock()
	defer s.room.Unlock()
	for !s.tryReserve(n) {
		if s.cache.evict(s) {
			continue
		}
		won, err := s.compactOne(wasteAny)
		if err != nil {
			s.log.Warn("pool files: a pack could not be compacted", "err", err)
		}
		if err != nil || !won {
			return fmt.Errorf("piece: %d bytes: %w", n, ErrQuota)
		}
	}
	return nil
}

func (s *Store) tryReserve(n int64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.used()+n > s.cfg.Quota-headroom(s.cfg.Quota) {
		return false
	}
	s.sums.reserved += n
	return true
}

func (s *Store) unreserve(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sums.reserved -= n
}

// Usage says what the room is used for.
func (s *Store) Usage() Usage {
	s.mu.Lock()
	defer s.mu.Unlock()
	u := Usage{
		Quota: s.cfg.Quota, Held: s.sums.held, Cached: s.cache.bytes(), Quarantined: s.sums.quarantined,
		Damaged: s.sums.damaged, Reserved: s.sums.reserved + s.sums.partial, Pieces: s.sums.pieces,
	}
	u.Waste = max(0, s.packs.Bytes()+s.sums.large-u.Held-u.Quarantined-u.Damaged)
	u.Free = max(0, s.cfg.Quota-headroom(s.cfg.Quota)-s.used())
	if s.cfg.fs == nil {
		if free, err := block.FreeSpace(s.dir); err == nil {
			u.Free = min(u.Free, free)
		}
	}
	return u
}
