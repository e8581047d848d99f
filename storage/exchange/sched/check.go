package sched

import "fmt"

// Check returns a description of the first broken invariant of the state, for
// simulations and tests: what is free is needed and asked of nobody, a leaf is
// in exactly the queues of those it is held by, at most two of them, and the
// outstanding bytes add up and keep to the largest window.
func (s *Scheduler) Check() error {
	queued := map[int32][]Peer{}
	for _, p := range s.peers {
		if p == nil {
			continue
		}
		sum, last := 0, 0
		for _, l := range p.queue {
			queued[l] = append(queued[l], p.id)
			last = s.cfg.Size(int(l))
			sum += last
			if !p.has(int(l)) {
				return fmt.Errorf("peer %d was asked for leaf %d, which it lacks", p.id, l)
			}
		}
		if sum != p.out {
			return fmt.Errorf("peer %d has %d bytes outstanding, counted %d", p.id, sum, p.out)
		}
		if len(p.queue) > 1 && sum-last > windowMax {
			return fmt.Errorf("peer %d has %d bytes outstanding", p.id, sum)
		}
	}
	for i := range s.cfg.Leaves {
		if err := s.checkLeaf(i, queued[int32(i)]); err != nil {
			return err
		}
	}
	return nil
}

func (s *Scheduler) checkLeaf(i int, in []Peer) error {
	held := 0
	for _, id := range [2]Peer{s.first[i], s.twice[i]} {
		if id != 0 {
			held++
		}
	}
	switch {
	case len(in) != held:
		return fmt.Errorf("leaf %d is in %d queues and held by %d", i, len(in), held)
	case s.twice[i] != 0 && s.first[i] == 0:
		return fmt.Errorf("leaf %d has a second holder and no first", i)
	case s.free.Has(i) && !s.need.Has(i):
		return fmt.Errorf("leaf %d is free and not needed", i)
	case s.free.Has(i) && s.here.Has(i):
		return fmt.Errorf("leaf %d is free and here", i)
	case s.free.Has(i) && held > 0:
		return fmt.Errorf("leaf %d is free and asked of %d", i, s.first[i])
	}
	return nil
}
