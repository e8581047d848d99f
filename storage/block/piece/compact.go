package piece

import (
	"fmt"

	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// smallPacksMax is how many packs of less than a quarter of the usual size may gather before they are put
	// together; every start may leave one.
	smallPacksMax = 8
	// wasteMin is how many bytes must be won for a pack to be compacted, if it has anything in it.
	wasteMin = 64 << 10
)

// worth says which packs are worth compacting.
type worth func(size, live int64, few bool) bool

// wasteHalf: those that are mostly waste, and small ones once there are many.
func wasteHalf(size, live int64, few bool) bool { return live < size/2 || few }

// wasteAny: whatever wins room.
func wasteAny(size, live int64, _ bool) bool { return live == 0 || size-live >= wasteMin }

// compactOne moves what is in use out of the pack with the most waste among those that are worth it, and deletes the
// pack. It reports whether there was one. The caller holds room.
func (s *Store) compactOne(w worth) (bool, error) {
	p, live, ok := s.worst(w)
	if !ok {
		return false, nil
	}
	if live > 0 {
		if err := s.moveOut(p.Num); err != nil {
			s.mu.Lock()
			s.stuck[p.Num] = true // not again before the next start
			s.mu.Unlock()
			return false, fmt.Errorf("compact pack %d: %w", p.Num, err)
		}
	}
	return true, s.packs.Remove(p.Num)
}

// worst picks the pack to compact.
func (s *Store) worst(w worth) (best pack.Pack, live int64, ok bool) {
	s.appending.Lock() // afterwards every frame of the packs listed is in the index, pending, or waste
	packs := s.packs.Packs()
	s.mu.Lock()
	s.appending.Unlock()
	defer s.mu.Unlock()
	few := 0
	for _, p := range packs {
		if p.Size < packSize(s.cfg.Quota)/4 {
			few++
		}
	}
	room := s.cfg.Quota - s.used()
	for _, p := range packs {
		n := s.live[p.Num]
		small := few > smallPacksMax && p.Size < packSize(s.cfg.Quota)/4
		if s.pending[p.Num] > 0 || s.stuck[p.Num] || n > 0 && n > room || !w(p.Size, n, small) {
			continue
		}
		if !ok || p.Size-n > best.Size-live {
			best, live, ok = p, n, true
		}
	}
	return best, live, ok
}

// moved is a frame that has a copy.
type moved struct {
	id       chunk.CID
	from, to loc
}

// moveOut copies all frames in use to the pack that is written to, as they are, and has the index name the copies.
func (s *Store) moveOut(num uint32) error {
	frames, err := s.packs.Frames(num)
	if err != nil {
		return err
	}
	fails := s.packs.Fails()
	all, err := s.copyOut(num, frames)
	if err == nil {
		err = s.packs.Sync(fails)
	}
	if err != nil {
		for _, m := range all {
			s.drop(m.to)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range all {
		s.settle(m.to)
		if l, _ := s.index.get(m.id); l != m.from {
			s.stale[m.to.at.Pack] = true
			continue
		}
		s.remove(m.id)
		s.insert(m.id, m.to)
	}
	if n := s.live[num]; n != 0 {
		return fmt.Errorf("%d bytes of it are in use still", n)
	}
	return nil
}

// copyOut appends what is in use of frames, as it is. The copies are pending.
func (s *Store) copyOut(num uint32, frames []pack.Frame) (all []moved, err error) {
	var buf []byte
	for _, f := range frames {
		s.mu.Lock()
		l, ok := s.index.get(f.ID)
		s.mu.Unlock()
		if !ok || l.at != (pack.Loc{Pack: num, Off: f.Off}) {
			continue
		}
		if buf, err = s.packs.Raw(f.Head, l.at, buf[:0]); err != nil {
			s.damage(f.ID, l, err)
			return all, err
		}
		to, err := s.append(f.ID, buf, int64(l.size))
		if err != nil {
			return all, err
		}
		all = append(all, moved{f.ID, l, to})
	}
	return all, nil
}
