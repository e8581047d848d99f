package sched

import "github.com/shoal-os/shoal/storage/chunk/bitfield"

// want adds leaves to what is to be fetched. The caller leaves out those that
// are verified already.
func (s *Scheduler) want(r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		if s.need.Set(i) && s.first[i] == 0 {
			s.free.Set(i)
		}
	}
}

// unwant takes leaves off what is to be fetched. Those that were asked for are
// cancelled; those that have arrived are verified all the same.
func (s *Scheduler) unwant(r bitfield.Run) {
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		if !s.need.Has(i) || s.here.Has(i) {
			continue // done, or on its way to be verified, be it asked of another too
		}
		s.need.Clear(i)
		s.free.Clear(i)
		s.recall(i)
	}
}

// recall cancels a leaf with everybody who was asked for it.
func (s *Scheduler) recall(leaf int) {
	for _, id := range [2]Peer{s.first[leaf], s.twice[leaf]} {
		if p := s.peer(id); p != nil {
			s.recant(p, leaf)
		}
	}
	s.first[leaf], s.twice[leaf] = 0, 0
}
