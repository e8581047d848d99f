package market

import "time"

// freezeLapsed stops what has no lease any more. It comes first in every Step, so that after a sleep nothing runs on.
func (w *Worker) freezeLapsed() {
	for _, p := range w.order {
		if p.n[Running] == 0 || w.now < p.dueAt {
			continue
		}
		for _, a := range p.sorted(Running) {
			if w.now >= a.until {
				w.freeze(a)
			}
		}
	}
}

func (w *Worker) freeze(a *attempt) {
	w.enter(a, Frozen)
	w.out.Freeze = append(w.out.Freeze, a.Attempt)
}

// expire gives up what has waited too long.
func (w *Worker) expire() {
	for i := 0; i < len(w.order); i++ {
		p := w.order[i]
		if p.dueAt != 0 && w.now >= p.dueAt {
			w.expireOf(p)
		}
		if len(p.held) == 0 && p.stage != standing && w.now >= p.heard.Add(forgetTime) {
			w.forget(p, false)
			i--
		}
	}
}

func (w *Worker) expireOf(p *pursuit) {
	p.dueAt = 0
	for _, a := range p.sorted(anyPhase) {
		switch {
		case w.now < a.deadline() || a.phase == Running:
		case a.phase == Done:
			w.remove(a)
			continue
		case a.yielded:
			w.release(a, Owner)
			continue
		default:
			w.release(a, Busy)
			continue
		}
		p.dueAt = earlier(p.dueAt, a.deadline())
	}
}

// release gives a lease back, and ends what runs of it.
func (w *Worker) release(a *attempt, why Reason) {
	if a.of.stage == standing {
		a.of.released = append(a.of.released, given{a.Lease, why})
	}
	w.kill(a)
}

// giveUp freezes and gives back all work; results stay.
func (w *Worker) giveUp(why Reason) {
	for _, p := range w.order {
		for _, a := range p.sorted(anyPhase) {
			if a.phase == Done {
				continue
			}
			if a.phase == Running {
				w.freeze(a)
			}
			w.release(a, why)
		}
	}
}

// fit freezes the newest attempts when less is lent than they use, and thaws them when there is room again.
func (w *Worker) fit() {
	for over := w.used() - w.cores(); over > 0; {
		a := w.newest()
		if a == nil {
			return
		}
		over -= a.of.ad.Needs.Cores
		a.yielded = true
		w.freeze(a)
	}
	for _, p := range w.order {
		if p.n[Frozen] == 0 {
			continue
		}
		for _, a := range p.sorted(Frozen) {
			if w.now < a.until && w.used()+p.ad.Needs.Cores <= w.cores() {
				a.yielded = false
				w.enter(a, Running)
				w.out.Until = append(w.out.Until, Start{a.Attempt, a.until})
				w.out.Thaw = append(w.out.Thaw, a.Attempt)
			}
		}
	}
}

// newest is the running attempt that began last.
func (w *Worker) newest() (newest *attempt) {
	for _, p := range w.order {
		for _, a := range p.sorted(Running) {
			if newest == nil || a.since >= newest.since {
				newest = a
			}
		}
	}
	return newest
}

// weight is what a job's priority makes of its share.
func (p *pursuit) weight() int { return 1 << (max(-8, min(p.ad.Priority, 8)) + 8) }

// burden is how much of the machine a job has for its weight, given n cores; of two the lighter goes first.
func burden(n, weight int) int { return n << 16 / weight }

// share says how cores are given out: to the submitter who has least for the weight of its jobs, and among these to the
// job that has least. It begins with what runs.
type share struct {
	owner map[string]int
	job   map[*pursuit]int
}

func (w *Worker) share() *share {
	s := &share{map[string]int{}, map[*pursuit]int{}}
	for _, p := range w.order {
		if n := p.n[Running] * p.ad.Needs.Cores; n > 0 {
			s.give(p, n)
		}
	}
	return s
}

func (s *share) give(p *pursuit, cores int) {
	s.owner[string(p.ad.Submitter)] += burden(cores, p.weight())
	s.job[p] += burden(cores, p.weight())
}

// before reports whether p is served before q.
func (s *share) before(p, q *pursuit) bool {
	if a, b := s.owner[string(p.ad.Submitter)], s.owner[string(q.ad.Submitter)]; a != b {
		return a < b
	}
	return s.job[p] < s.job[q]
}

// start begins queued attempts while there is room, by fair shares.
func (w *Worker) start() {
	queued := 0
	for _, p := range w.order {
		queued += p.n[Queued]
	}
	if queued == 0 {
		return
	}
	s := w.share()
	free, memory := w.cores()-w.used(), w.lends.Memory-w.memory()
	for free > 0 {
		var next *pursuit
		for _, p := range w.order {
			if p.startable(w.now) != nil && p.ad.Needs.Cores <= free && p.ad.Needs.Memory <= memory && (next == nil || s.before(p, next)) {
				next = p
			}
		}
		if next == nil {
			return
		}
		a := next.startable(w.now)
		w.enter(a, Running)
		free, memory = free-next.ad.Needs.Cores, memory-next.ad.Needs.Memory
		s.give(next, next.ad.Needs.Cores)
		w.out.Starts = append(w.out.Starts, Start{a.Attempt, a.until})
	}
}

// startable is the oldest queued attempt whose lease has not run out; nil if there is none.
func (p *pursuit) startable(now Moment) *attempt {
	for len(p.line) > 0 && (p.line[0].phase != Queued || p.line[0].gone) {
		p.line = p.line[1:]
	}
	for _, a := range p.line {
		if a.phase == Queued && !a.gone && now < a.until {
			return a
		}
	}
	return nil
}

// offers computes what each standing job is offered: free cores by fair shares to those with open tasks, and to the
// others what is free in any case, so that a task that opens there starts at once. What is promised twice and granted
// twice is given back by expire.
func (w *Worker) offers() map[*pursuit]Offer {
	out := map[*pursuit]Offer{}
	free, memory := w.cores()-w.used(), w.lends.Memory-w.memory()
	done := 0
	var hungry []*pursuit
	for _, p := range w.order {
		done += p.n[Done]
		free -= p.n[Queued] * p.ad.Needs.Cores
		if p.stage == standing {
			out[p] = Offer{Fit: uint16(w.fitness(p)), Prefer: p.look.Prefer}
			if w.unfit(&p.ad.Needs) != "" { // what it needs now is not what it needed, or less is lent
				continue
			}
			if p.open > 0 {
				hungry = append(hungry, p)
			}
		}
	}
	if w.cores() <= 0 || done >= doneMax {
		return out
	}
	slots := w.pour(w.share(), hungry, free, memory)
	if len(hungry) > 1 {
		w.soon(hungry, slots)
	}
	for p, o := range out {
		switch {
		case w.unfit(&p.ad.Needs) != "":
		case p.open == 0:
			o.Slots = p.room(free, memory)
		default:
			o.Slots, o.Ahead = slots[p], w.ahead(p, len(hungry))
		}
		out[p] = o
	}
	return out
}

// pour gives cores out one task at a time to who has least.
func (w *Worker) pour(s *share, hungry []*pursuit, free int, memory int64) map[*pursuit]int {
	slots := map[*pursuit]int{}
	for free > 0 {
		var next *pursuit
		for _, p := range hungry {
			if p.room(free, memory) > 0 && slots[p] < SlotsMax && (next == nil || s.before(p, next)) {
				next = p
			}
		}
		if next == nil {
			break
		}
		slots[next]++
		free, memory = free-next.ad.Needs.Cores, memory-next.ad.Needs.Memory
		s.give(next, next.ad.Needs.Cores)
	}
	return slots
}

// soon offers cores that are not free yet to jobs that have less than their share, if those that have more run small
// tasks: they end in a moment, and without this their own kept ready ones would always be there first.
func (w *Worker) soon(hungry []*pursuit, slots map[*pursuit]int) {
	due := w.pour(&share{map[string]int{}, map[*pursuit]int{}}, hungry, w.cores(), w.lends.Memory)
	quick := 0
	for _, p := range hungry {
		if over := p.n[Running] - due[p]; over > 0 && w.ahead(p, 1)+p.n[Queued] > 0 {
			quick += over * p.ad.Needs.Cores
		}
	}
	for _, p := range hungry {
		for slots[p]+p.n[Running]+p.n[Queued] < due[p] && quick >= p.ad.Needs.Cores {
			slots[p]++
			quick -= p.ad.Needs.Cores
		}
	}
}

// room is how many tasks of p fit.
func (p *pursuit) room(free int, memory int64) int {
	n := min(free/max(1, p.ad.Needs.Cores), SlotsMax, HeldMax-len(p.held))
	if p.ad.Needs.Memory > 0 {
		n = int(min(int64(n), memory/p.ad.Needs.Memory))
	}
	return max(0, n)
}

// ahead is how many tasks of p are kept ready beside those that run: so much that the cores have work while a message
// goes to the steward and back, which matters for small tasks only.
func (w *Worker) ahead(p *pursuit, hungry int) int {
	if p.mean == 0 || p.ad.Exclusive {
		return 0
	}
	n := int(time.Duration(w.cores()/max(1, p.ad.Needs.Cores)) * aheadTime / p.mean / time.Duration(hungry))
	return max(0, min(n, p.ended, aheadMax, HeldMax/2)-p.n[Queued])
}
