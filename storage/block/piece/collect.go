package piece

import (
	"fmt"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Collected says what Collect or Purge did.
type Collected struct {
	Quarantined int   // pieces set aside now
	Restored    int   // taken back, since something names them again
	Dropped     int   // unfinished pieces that nothing names, deleted
	Purged      int   // pieces deleted
	Freed       int64 // bytes that left the disk
}

// Collect sets aside what live does not name, unless it is locked by a batch or a fetch, pinned, or came less than a
// minute ago; takes back what an earlier Collect set aside and live names again; and purges what is due. live is
// called without any lock of the store, once for each piece, while batches go on: what they add or find here meanwhile
// is left alone.
func (s *Store) Collect(live func(chunk.CID) bool) (Collected, error) {
	s.gc.Lock()
	defer s.gc.Unlock()
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return Collected{}, fmt.Errorf("piece: collect: %w", ErrClosed)
	}
	s.touched = map[chunk.CID]bool{}
	all := s.candidates()
	s.mu.Unlock()
	var dead, back []chunk.CID
	for _, x := range all {
		switch named := live(x.id); {
		case named && x.why == collected:
			back = append(back, x.id)
		case !named && x.why != collected && x.why != trimmed:
			dead = append(dead, x.id)
		}
	}
	return s.collect(dead, back)
}

// candidate is a piece for Collect to ask about.
type candidate struct {
	id  chunk.CID
	why reason
}

// candidates lists what Collect may do something about. The caller holds mu.
func (s *Store) candidates() []candidate {
	all := make([]candidate, 0, s.index.count+len(s.partial))
	for id := range s.index.all() {
		all = append(all, candidate{id, s.aside[id].why})
	}
	for id := range s.partial {
		all = append(all, candidate{id, ""})
	}
	return all
}

// collect does what Collect found to be due. The caller holds gc.
func (s *Store) collect(dead, back []chunk.CID) (Collected, error) {
	var c Collected
	now := s.now()
	s.mu.Lock()
	aside, drop := dead[:0], []chunk.CID(nil)
	for _, id := range dead {
		if s.touched[id] || s.locks[id] > 0 || now.Sub(s.young[id]) < youth {
			continue
		}
		if s.index.has(id) {
			aside = append(aside, id)
		} else if s.partial[id] > 0 && len(s.pins[id]) == 0 {
			drop = append(drop, id)
		}
	}
	before := len(s.aside)
	views := s.putAside(aside, collected)
	c.Quarantined = len(s.aside) - before
	s.touched = nil
	s.mu.Unlock()
	withdraw(views)
	for _, id := range back {
		if s.Restore(id) {
			c.Restored++
		}
	}
	for _, id := range drop {
		if err := s.dropUnlocked(id); err != nil {
			s.log.Warn("pool files: an unfinished piece could not be removed", "piece", id, "err", err)
			continue
		}
		c.Dropped++
	}
	if err := s.marks.sync(); err != nil {
		return c, err
	}
	purged, err := s.purge(false)
	c.Purged, c.Freed = purged.Purged, purged.Freed
	return c, err
}

// dropUnlocked is dropPartial, unless a fetch of the piece has begun.
func (s *Store) dropUnlocked(id chunk.CID) error {
	s.naming.Lock() // BeginLarge takes it
	defer s.naming.Unlock()
	s.mu.Lock()
	busy := s.locks[id] > 0
	s.mu.Unlock()
	if busy {
		return nil
	}
	return s.dropPartial(id)
}
