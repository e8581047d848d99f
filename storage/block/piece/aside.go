package piece

import (
	"errors"
	"fmt"
	"slices"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/block/pack"
	"github.com/shoal-os/shoal/storage/chunk"
)

// Quarantine sets pieces aside: they are neither held nor served, and Purge deletes them once QuarantineTime has passed.
// Add, AddSmall, BeginLarge and Restore take them back before. What is not held, or locked by a batch or a fetch, or
// pinned, is left as it is, without an error. It is durable when Quarantine returns.
func (s *Store) Quarantine(ids ...chunk.CID) error {
	s.mu.Lock()
	views := s.putAside(ids, trimmed)
	s.mu.Unlock()
	withdraw(views)
	return s.marks.sync()
}

// putAside sets aside those of the pieces that may be. The caller holds mu, and withdraws the views after.
func (s *Store) putAside(ids []chunk.CID, why reason) (views []*block.Root) {
	now := s.now().Unix()
	for _, id := range ids {
		if !s.index.has(id) || s.locks[id] > 0 || len(s.pins[id]) > 0 {
			continue
		}
		if a := s.aside[id]; a.why != "" && (a.why != damaged || why != collected) {
			continue
		}
		s.setAside(id, aside{why, now})
		if v := s.views[id].Value(); v != nil {
			views = append(views, v)
		}
		delete(s.views, id)
	}
	return views
}

// withdraw ends the serving of roots. The caller does not hold mu: a root asks the store for its node.
func withdraw(views []*block.Root) {
	for _, v := range views {
		v.Withdraw()
	}
}

// Restore takes a piece back that was set aside and reports whether it is held now, durably, as it is if it never was aside.
// It costs no bytes of the network: ask before fetching.
func (s *Store) Restore(id chunk.CID) bool {
	s.mu.Lock()
	ok := s.index.has(id)
	a, away := s.aside[id]
	if !ok || a.why == damaged {
		s.mu.Unlock()
		return false
	}
	if away {
		s.setAside(id, aside{})
		s.touch(id)
		s.makeYoung(id)
	}
	s.mu.Unlock()
	// Also if it is not away: another Restore may be waiting for the disk, or have failed.
	if s.marks.sync() != nil {
		return false
	}
	if !id.IsRaw() {
		return true
	}
	_, err := s.readFrame(id, nil)
	return err == nil
}

// Purge deletes what has been set aside for QuarantineTime, or all that is aside, and compacts packs that are mostly
// waste. What is damaged, locked or pinned stays. ErrClosed after Close.
func (s *Store) Purge(all bool) (Collected, error) {
	s.gc.Lock()
	defer s.gc.Unlock()
	return s.purge(all)
}

// purge is Purge. The caller holds gc.
func (s *Store) purge(all bool) (Collected, error) {
	var c Collected
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return c, fmt.Errorf("piece: purge: %w", ErrClosed)
	}
	before := s.used()
	files, packs, err := s.takeOut(all)
	c.Purged = len(s.leaving)
	s.mu.Unlock()
	for _, name := range files {
		err = errors.Join(err, s.fs.Remove(name))
	}
	err = errors.Join(err, s.tidyPacks(packs))
	// The marks go last: until the bytes are gone they keep a crash from bringing the pieces back.
	s.mu.Lock()
	for id := range s.leaving {
		s.left(id)
	}
	c.Freed = max(0, before-s.used())
	s.mu.Unlock()
	if err = errors.Join(err, s.marks.sync()); err != nil {
		return c, fmt.Errorf("piece: purge: %w", err)
	}
	return c, nil
}

// takeOut moves what is due from the index to leaving. files are to be deleted; packs have waste. The caller holds mu.
func (s *Store) takeOut(all bool) (files []string, packs map[uint32]bool, err error) {
	due := s.now().Add(-QuarantineTime).Unix()
	packs = map[uint32]bool{}
	for id, a := range s.aside {
		if a.why == damaged || s.locks[id] > 0 || len(s.pins[id]) > 0 || !all && a.since > due {
			continue
		}
		if !id.IsRaw() {
			// Renamed under the lock: the name is free for a piece that comes again at once.
			s.temps++
			temp := fmt.Sprintf("%s/%s%d", largeDir, tempPrefix, s.temps)
			if renameErr := s.fs.Rename(largeName(id), temp); renameErr != nil && !isGone(renameErr) {
				err = errors.Join(err, renameErr)
				continue
			}
			files = append(files, temp)
		}
		l, _ := s.index.get(id)
		packs[l.at.Pack] = true
		s.remove(id)
		delete(s.aside, id)
		s.leaving[id] = a
	}
	return files, packs, err
}

// left takes back the mark of a piece that Purge took out: its bytes are gone, or it has come again. The caller holds mu.
func (s *Store) left(id chunk.CID) {
	if _, ok := s.leaving[id]; ok {
		delete(s.leaving, id)
		s.marks.add(line("back %s", id))
	}
}

// tidyPacks sees to it that what was taken out of packs does not come back, and compacts those worth it.
func (s *Store) tidyPacks(packs map[uint32]bool) error {
	s.room.Lock()
	defer s.room.Unlock()
	var err error
	if packs[s.packs.Active()] {
		err = s.packs.Seal()
	}
	for {
		won, compactErr := s.compactOne(wasteHalf)
		if err = errors.Join(err, compactErr); !won || compactErr != nil {
			break
		}
	}
	for num := range packs {
		err = errors.Join(err, s.keepLive(num))
	}
	return errors.Join(err, s.keepStale(), s.fs.Sync(packsDir))
}

// keepStale does keepLive for the packs that need it.
func (s *Store) keepStale() error {
	s.mu.Lock()
	var nums []uint32
	for num := range s.stale {
		nums = append(nums, num)
	}
	s.mu.Unlock()
	var err error
	for _, num := range nums {
		err = errors.Join(err, s.keepLive(num))
	}
	return err
}

// keepLive writes a pack's index anew, without what the store does not have. While the pack is written to, or has frames
// of a batch, that is put off.
func (s *Store) keepLive(num uint32) error {
	s.appending.Lock() // as in worst: a frame that is not counted as pending yet would be taken for waste, and lost with the index
	active := s.packs.Active() == num
	there := slices.ContainsFunc(s.packs.Packs(), func(p pack.Pack) bool { return p.Num == num })
	s.mu.Lock()
	s.appending.Unlock()
	if wait := active || s.pending[num] > 0; wait || !there {
		if s.stale[num] = true; !wait {
			delete(s.stale, num)
		}
		s.mu.Unlock()
		return nil
	}
	delete(s.stale, num)
	s.mu.Unlock()
	frames, err := s.packs.Frames(num)
	if err != nil {
		return err
	}
	s.mu.Lock()
	frames = slices.DeleteFunc(frames, func(f pack.Frame) bool {
		l, _ := s.index.get(f.ID)
		return l.at != pack.Loc{Pack: num, Off: f.Off}
	})
	s.mu.Unlock()
	return s.packs.Keep(num, frames)
}
