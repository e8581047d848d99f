package market

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

const (
	adFirst = time.Second // between the first two announcements; doubles up to …
	adMax   = time.Minute

	lateShare = 4               // a copy is made when all but a quarter of the tasks are done …
	lateTimes = 2               // … and one has run so many times the median …
	lateMin   = 2 * time.Second // … and at least so long
)

// fill grants open tasks to free slots: the fittest worker first, one task in turn to each, so that work is spread; then
// what they would keep ready, as long as there is plenty.
func (s *Steward) fill() {
	s.skipped = false
	if s.over || s.open() == 0 && !s.mayCopy() {
		return
	}
	if !s.authority() || s.exclusive() && s.now < s.grantFrom {
		return
	}
	standing := s.standing()
	s.deal(standing, 1<<30, func(w *worker) *int { return &w.slots })
	if n := s.open(); n > 0 && len(standing) > 0 {
		// Each may hold at most its part of half of what is left: towards the end nobody sits on work that another is free
		// to do (guided self-scheduling, Polychronopoulos and Kuck 1987).
		s.deal(standing, n/(2*len(standing)), func(w *worker) *int { return &w.ahead })
	}
	s.copyLate(standing)
}

// standing returns the workers that may be granted something, fittest first.
func (s *Steward) standing() (out []*worker) {
	for _, w := range s.order {
		if w.here && w.claimed && s.now < w.heard.Add(hearMax) && w.slots+w.ahead > 0 && len(w.held) < HeldMax {
			out = append(out, w)
		}
	}
	slices.SortStableFunc(out, func(a, b *worker) int { return cmp.Compare(b.offer.Fit, a.offer.Fit) })
	return out
}

// deal grants one task in turn to each worker that has a slot of the kind, at most rounds times.
func (s *Steward) deal(standing []*worker, rounds int, slot func(*worker) *int) {
	for range rounds {
		dealt := false
		for _, w := range standing {
			if *slot(w) == 0 || len(w.held) >= HeldMax || w.reply != nil && len(w.reply.Grants) >= GrantsMax {
				continue
			}
			t, ok := s.pick(w)
			if !ok {
				continue
			}
			*slot(w)--
			s.grant(w, t)
			dealt = true
		}
		if !dealt || s.open() == 0 {
			return
		}
	}
}

func (s *Steward) grant(w *worker, t uint32) {
	s.seq++
	l := s.grantTo(w, Lease{t, job.Token{Term: s.term, Seq: s.seq}})
	o := s.reply(w)
	o.Grants = append(o.Grants, l.Lease)
}

// pick finds an open task for w: one whose inputs it has, or the lowest. While a new leader waits for claims it is the
// highest, if many are open.
func (s *Steward) pick(w *worker) (uint32, bool) {
	if s.now < s.grantFrom {
		return s.pickHigh(w)
	}
	for _, p := range w.offer.Prefer {
		end := s.view.All
		if p.First >= end {
			continue
		}
		if n := end - p.First; p.Count < n {
			end = p.First + p.Count
		}
		if t, ok := s.pickIn(w, p.First, end); ok {
			return t, true
		}
	}
	s.low = s.taken.next(s.low, s.view.All)
	return s.pickIn(w, s.low, s.view.All)
}

func (s *Steward) pickIn(w *worker, first, end uint32) (uint32, bool) {
	t := s.taken.next(first, end)
	for range pickTries {
		if t >= end {
			return 0, false
		}
		if s.suits(w, t) {
			return t, true
		}
		s.skipped = true
		t = s.taken.next(t+1, end)
	}
	return 0, false
}

func (s *Steward) pickHigh(w *worker) (uint32, bool) {
	s.skipped = true
	if s.open() <= rejoinSpare {
		return 0, false
	}
	t, ok := s.taken.prev(0, s.view.Splits)
	return t, ok && s.suits(w, t)
}

// suits reports whether w may be granted t now: not what it just could not do, and not what it failed at while another
// could try.
func (s *Steward) suits(w *worker, t uint32) bool {
	if until, ok := w.avoid[t]; ok {
		if s.now < until {
			return false
		}
		delete(w.avoid, t)
	}
	k := s.tasks[t]
	if k == nil || len(k.failures) == 0 {
		return true
	}
	mine := 0
	for _, p := range k.failures {
		if p == w.id {
			mine++
		}
	}
	switch {
	case mine == 0:
		return true
	case s.other(k.failures):
		return s.now >= k.failedAt.Add(avoidTime)
	}
	return s.now >= k.failedAt.Add(min(retryBase<<min(mine-1, 10), retryMax))
}

// other reports whether somebody stands by who has not failed.
func (s *Steward) other(failures []peer.ID) bool {
	for _, w := range s.order {
		if w.here && w.claimed && w.offer.Slots+w.offer.Ahead > 0 && !slices.Contains(failures, w.id) {
			return true
		}
	}
	return false
}

// mayCopy: it is late enough for stragglers to be given a second chance.
func (s *Steward) mayCopy() bool {
	done := s.view.closed.count
	return !s.view.Spec.Exclusive && s.view.All > 1 && len(s.tasks) > 0 && lateShare*done >= (lateShare-1)*int(s.view.Splits) && s.open() == 0
}

// copyLate grants a second attempt, one a task, at what takes unusually long. Both may commit; the first does.
func (s *Steward) copyLate(standing []*worker) {
	if !s.mayCopy() || s.now < s.lateAt || s.now < s.grantFrom {
		return
	}
	s.lateAt = s.now.Add(lookAgain)
	bound := max(lateTimes*s.view.ran.median(), lateMin)
	for _, l := range s.late(bound) {
		for _, w := range standing {
			if w.slots > 0 && w != l.to && s.suits(w, l.Task) && w.held[l.Task] == nil {
				w.slots--
				s.grant(w, l.Task)
				break
			}
		}
	}
}

// late returns the single leases of tasks that have run for longer than bound, the longest first.
func (s *Steward) late(bound time.Duration) (out []*lease) {
	for _, k := range s.tasks {
		if len(k.leases) != 1 {
			continue
		}
		if l := k.leases[0]; l.elapsed(s.now) > bound {
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b *lease) int {
		if c := cmp.Compare(b.elapsed(s.now), a.elapsed(s.now)); c != 0 {
			return c
		}
		return cmp.Compare(a.Task, b.Task)
	})
	return out
}

// elapsed is how long an attempt has been about its task, as far as is known.
func (l *lease) elapsed(now Moment) time.Duration {
	if l.phase == Done {
		return 0 // its result is there
	}
	return l.ran + now.Sub(l.ranAt)
}

// announce advertises open tasks: at once when there are some again, then less and less often.
func (s *Steward) announce() {
	if s.over || s.open() == 0 {
		s.wasDry = true
		return
	}
	if s.wasDry {
		s.wasDry, s.adAt, s.adWait, s.crowd = false, max(s.now, s.adLast.Add(adFirst)), adFirst, 0
	}
	if s.now < s.adAt {
		return
	}
	s.widen()
	s.adSeq++
	s.adLast = s.now
	s.adAt = s.now.Add(s.adWait)
	s.adWait = min(2*s.adWait, adMax)
	spec := s.view.Spec
	limits := spec.Limits()
	kind := spec.Command.Kind
	if spec.Reduce != nil && !s.waits(s.view.Splits) {
		kind = spec.Reduce.Kind
	}
	s.out.Announce = &Ad{
		Job: s.id, Submitter: spec.Submitter, Term: s.term, Seq: s.adSeq, Open: uint32(s.open()), Stewards: s.stewards, Leader: s.self,
		Needs:    Needs{kind, limits.Cores, limits.Memory, spec.Needs},
		Priority: spec.Priority, Exclusive: spec.Exclusive, Crowd: s.crowd,
	}
}
