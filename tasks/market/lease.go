package market

import (
	"cmp"
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/tasks/job"
)

// task is what is known of a task that is open and not plain.
type task struct {
	leases   []*lease // two at most: an attempt and a copy
	failures []peer.ID
	failedAt Moment
	top      job.Token // of an exclusive job: the one attempt that may commit
}

// proposal is the last command that was proposed about a task.
type proposal struct {
	token job.Token
	since Moment
}

// lease is one grant.
type lease struct {
	Lease
	to      *worker
	granted Moment
	expires Moment
	sent    uint64 // Seq of the order that granted it on the present stream
	lost    bool   // of an exclusive job: the stream is gone, only time ends it
	phase   Phase
	ran     time.Duration // when last heard …
	ranAt   Moment        // … which was then
}

// worker is what is known of one who stands by.
type worker struct {
	id      peer.ID
	stream  uint64
	here    bool // the stream is there
	greeted bool // was told that this leader is ready …
	ready   bool // … and has shown that it knows
	claimed bool // has said what it holds
	in      uint64
	full    uint64 // the Full report that this step answers
	out     uint64
	heard   Moment
	offer   Offer
	slots   int // of the offer, not yet used
	ahead   int
	flying  []flight // grants that it had not seen when it made its offer
	held    map[uint32]*lease
	due     Moment // no lease of it expires before
	avoid   map[uint32]Moment
	reply   *Order // what this step has for it
}

// flight is how many grants an order has.
type flight struct {
	seq   uint64
	count int
}

func (s *Steward) join(id peer.ID, stream uint64) {
	if w := s.workers[id]; w != nil && w.here {
		s.leave(w)
	}
	w := s.workers[id]
	if w == nil {
		if len(s.workers) >= workersMax {
			return // its reports find nobody
		}
		w = &worker{id: id, held: map[uint32]*lease{}, avoid: map[uint32]Moment{}}
		s.workers[id] = w
		at, _ := slices.BinarySearchFunc(s.order, id, func(w *worker, id peer.ID) int { return cmp.Compare(w.id, id) })
		s.order = slices.Insert(s.order, at, w)
	}
	w.stream = stream
	w.here, w.greeted, w.ready, w.claimed, w.heard = true, false, false, false, s.now
	w.in, w.full, w.out = 0, 0, 0
	w.offer, w.slots, w.ahead, w.flying = Offer{}, 0, 0, nil
}

// leave ends a worker's stream. What it held is open again at once, but of an exclusive job, where it may still run.
func (s *Steward) leave(w *worker) {
	w.here = false
	for _, l := range w.held {
		if s.exclusive() {
			l.lost = true
		} else {
			s.drop(l)
		}
	}
	if len(w.held) == 0 {
		s.dismiss(w)
	}
}

func (s *Steward) dismiss(w *worker) {
	delete(s.workers, w.id)
	s.order = slices.DeleteFunc(s.order, func(x *worker) bool { return x == w })
}

// task returns what is kept of t, made if need be.
func (s *Steward) task(t uint32) *task {
	k := s.tasks[t]
	if k == nil {
		k = &task{}
		s.tasks[t] = k
	}
	return k
}

// drop ends a lease.
func (s *Steward) drop(l *lease) {
	delete(l.to.held, l.Task)
	k := s.tasks[l.Task]
	k.leases = slices.DeleteFunc(k.leases, func(x *lease) bool { return x == l })
	s.reopen(l.Task)
}

// reopen lets a task be granted again if nothing stands in the way.
func (s *Steward) reopen(t uint32) {
	k := s.tasks[t]
	if s.view.closed.has(t) || k != nil && len(k.leases) > 0 {
		return
	}
	if _, ok := s.pending[t]; ok {
		return
	}
	if s.waits(t) { // it was claimed, or a result for it came, before its time
		s.taken.add(t)
		return
	}
	if k != nil && len(k.failures) == 0 && k.top == (job.Token{}) {
		delete(s.tasks, t)
	}
	s.taken.remove(t)
	s.low = min(s.low, t)
}

func (s *Steward) unpend(t uint32) {
	if _, ok := s.pending[t]; ok {
		delete(s.pending, t)
		s.reopen(t)
	}
}

// waits reports whether t is the reduce and there are tasks to be done before it.
func (s *Steward) waits(t uint32) bool {
	return t >= s.view.Splits && s.view.closed.next(0, s.view.Splits) < s.view.Splits
}

// readyReduce opens the reduce when every other task is done.
func (s *Steward) readyReduce() {
	if t := s.view.Splits; t < s.view.All {
		s.reopen(t)
	}
}

// lapse ends leases whose time is over and proposals that came to nothing.
func (s *Steward) lapse() {
	for _, w := range slices.Clone(s.order) {
		if w.due == 0 || s.now < w.due {
			continue
		}
		w.due = 0
		for _, l := range w.held {
			if s.now >= l.expires {
				s.drop(l)
			} else {
				w.due = earlier(w.due, l.expires)
			}
		}
		if !w.here && len(w.held) == 0 {
			s.dismiss(w)
		}
	}
	// Of an exclusive job a result that is on its way into the log in this term may come at any time: until then, or until
	// this leader's end, nobody else may have the task.
	if s.pendDue == 0 || s.now < s.pendDue || s.exclusive() {
		return
	}
	s.pendDue = 0
	for t, p := range s.pending {
		if until := p.since.Add(proposeWait); s.now >= until {
			s.unpend(t)
		} else {
			s.pendDue = earlier(s.pendDue, until)
		}
	}
}

// refresh gives every lease its whole time again. To wait too long for a lapse is always safe.
func (s *Steward) refresh() {
	for _, w := range s.order {
		for _, l := range w.held {
			l.expires = s.now.Add(LeaseTTL)
		}
	}
}

// pend notes that a command about t was proposed.
func (s *Steward) pend(l Lease) {
	s.pending[l.Task] = proposal{l.Token, s.now}
	s.pendDue = earlier(s.pendDue, s.now.Add(proposeWait))
	s.taken.add(l.Task)
}
