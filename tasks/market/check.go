package market

import "fmt"

// Check returns a description of the first broken invariant of the state, for simulations and tests: what is open is in
// nobody's hands, leases and their holders agree, and no task has more attempts than it may.
func (s *Steward) Check() error {
	if !s.leading || s.over {
		return nil
	}
	for t := range s.view.All {
		if err := s.checkTask(t); err != nil {
			return err
		}
	}
	for _, w := range s.order {
		for t, l := range w.held {
			switch {
			case t != l.Task || l.to != w:
				return fmt.Errorf("worker %s holds the lease of task %d as that of %d", w.id, l.Task, t)
			case w.due == 0 || w.due > l.expires:
				return fmt.Errorf("task %d lapses unseen", t)
			}
		}
		if w.slots < 0 || w.ahead < 0 {
			return fmt.Errorf("worker %s has %d and %d slots", w.id, w.slots, w.ahead)
		}
	}
	return nil
}

func (s *Steward) checkTask(t uint32) error {
	leases := 0
	if k := s.tasks[t]; k != nil {
		leases = len(k.leases)
		for _, l := range k.leases {
			if l.to.held[t] != l || s.workers[l.to.id] != l.to {
				return fmt.Errorf("task %d has a lease that its holder does not", t)
			}
		}
	}
	_, pending := s.pending[t]
	held := leases > 0 || pending || s.view.closed.has(t) || t >= s.view.Splits && s.view.closed.next(0, s.view.Splits) < s.view.Splits
	switch {
	case s.taken.has(t) != held:
		return fmt.Errorf("task %d: taken %v, but %d leases, pending %v, closed %v", t, s.taken.has(t), leases, pending, s.view.closed.has(t))
	case leases > 2 || leases > 1 && s.exclusive():
		return fmt.Errorf("task %d has %d leases", t, leases)
	case leases > 0 && s.view.closed.has(t):
		return fmt.Errorf("task %d is closed and leased", t)
	case !s.taken.has(t) && t < s.low:
		return fmt.Errorf("task %d is open below %d", t, s.low)
	}
	return nil
}

// Check returns a description of the first broken invariant of the state, for simulations and tests: nothing runs past
// its lease or beyond what is lent, and the counts are right.
func (w *Worker) Check() error {
	cores, memory := 0, int64(0)
	for _, p := range w.order {
		var n [Done + 1]int
		for t, a := range p.held {
			n[a.phase]++
			switch {
			case a.Task != t || a.of != p:
				return fmt.Errorf("attempt %v is filed under task %d", a.Attempt, t)
			case a.phase == Running && w.now >= a.until:
				return fmt.Errorf("attempt %s at task %d runs past its lease", a.Token, t)
			case p.dueAt == 0 || p.dueAt > a.deadline():
				return fmt.Errorf("attempt %s at task %d is overlooked", a.Token, t)
			}
		}
		if n != p.n {
			return fmt.Errorf("counts %v, should be %v", p.n, n)
		}
		cores += n[Running] * p.ad.Needs.Cores
		memory += int64(n[Running]) * p.ad.Needs.Memory
	}
	if cores > w.cores() || memory > w.lends.Memory {
		return fmt.Errorf("%d cores and %d bytes are in use of %d and %d", cores, memory, w.cores(), w.lends.Memory)
	}
	return nil
}
