package market

import (
	"slices"
	"time"

	"github.com/shoal-os/shoal/tasks/job"
)

// report works off what a worker says.
func (s *Steward) report(w *worker, r *Report) {
	if r.Seq <= w.in {
		return // a double, or overtaken: what it says is old
	}
	w.in, w.heard = r.Seq, s.now
	if !s.leading {
		s.refer(w)
		return
	}
	w.ready = w.ready || r.Term == s.term
	if s.over || !w.ready {
		s.reply(w) // which says so, or welcomes
	}
	if r.Full {
		s.renew(w, r)
	}
	for i := range r.Commits {
		s.commit(w, &r.Commits[i])
	}
	for i := range r.Failures {
		s.failure(w, &r.Failures[i])
	}
	for _, l := range r.Released {
		s.release(w, l, r.Why)
	}
	if r.Offer != nil {
		s.offered(w, r)
	}
}

// renew compares what a worker holds with what it was granted: the first goes on, is adopted or revoked, and a lease
// that it does not know of is over.
func (s *Steward) renew(w *worker, r *Report) {
	if len(r.Held) > 0 && (r.Term != s.term || !w.greeted) {
		return // said to another leader, or before this one could know
	}
	if len(r.Held) > 0 && !s.authority() {
		return // not answered, so not renewed; the worker will ask again
	}
	w.claimed, w.full = true, r.Seq
	listed := map[uint32]bool{}
	for _, h := range r.Held[:min(len(r.Held), HeldMax)] {
		l := w.held[h.Task]
		if l == nil || l.Token != h.Token {
			if l = s.adopt(w, h); l == nil {
				o := s.reply(w)
				o.Revoked = append(o.Revoked, h.Lease)
				continue
			}
		}
		listed[h.Task] = true
		l.expires, l.lost = s.now.Add(LeaseTTL), false
		l.phase, l.ran, l.ranAt = h.Phase, h.Ran, s.now
		w.due = earlier(w.due, l.expires)
	}
	for _, l := range w.held {
		if !listed[l.Task] && !l.lost && l.sent <= r.Ack {
			s.drop(l)
		}
	}
	s.reply(w) // the answer itself is the renewal
}

// adopt makes a lease of what a worker says it holds though this leader did not grant it, or lost it from sight.
func (s *Steward) adopt(w *worker, h Held) *lease {
	if h.Task >= s.view.All || s.view.closed.has(h.Task) && s.guards&(OpenGuard|TokenGuard) != 0 || s.waits(h.Task) || s.over || h.Token.Seq == 0 || w.held[h.Task] != nil ||
		h.Token.Term > s.term || h.Token.Term == s.term && h.Token.Seq > s.seq {
		return nil
	}
	k := s.tasks[h.Task]
	leased := k != nil && len(k.leases) > 0
	switch {
	case s.exclusive():
		// One attempt is current. An earlier leader's is, if its lease had not run out when that leader could act no more.
		current := k != nil && k.top == h.Token
		if (k == nil || k.top == job.Token{}) && h.Live && h.Token.Term < s.term {
			current = true
		}
		if leased || !current {
			return nil
		}
	case leased && (len(k.leases) > 1 || h.Phase == Queued || h.Ran <= k.leases[0].elapsed(s.now)):
		return nil // another has it, and has come further; else both go on, and the first to end wins
	}
	return s.grantTo(w, h.Lease)
}

// grantTo makes a lease.
func (s *Steward) grantTo(w *worker, name Lease) *lease {
	l := &lease{Lease: name, to: w, granted: s.now, expires: s.now.Add(LeaseTTL), phase: Queued, ranAt: s.now}
	k := s.task(name.Task)
	k.leases = append(k.leases, l)
	if s.exclusive() {
		k.top = name.Token
	}
	w.held[name.Task] = l
	w.due = earlier(w.due, l.expires)
	s.taken.add(name.Task)
	return l
}

// commit proposes a result, if the attempt may give one.
func (s *Steward) commit(w *worker, c *Commit) {
	switch {
	case c.Task >= s.view.All || s.waits(c.Task) || !s.good(c.Result):
		s.tell(w, c.Lease, Stale)
		s.spare(w, c.Task, avoidTime)
		s.end(w, c.Lease)
	case s.view.closed.has(c.Task) && s.guards&OpenGuard != 0:
		s.tell(w, c.Lease, s.won.status(c.Lease))
		s.end(w, c.Lease)
	case s.over:
		s.tell(w, c.Lease, Canceled)
		s.end(w, c.Lease)
	case !s.salvages() && !s.current(c.Lease):
		s.tell(w, c.Lease, Stale)
		s.end(w, c.Lease)
	case s.proposed(c.Lease):
	default:
		out := Command{Kind: Finish, Lease: c.Lease, By: w.id, Ran: max(0, c.Ran), Data: c.Result}
		if !s.salvages() {
			out.Checked = s.term
		}
		s.propose(out)
	}
}

// good reports whether a result can be believed to be one: forged or empty ones are not put into the log.
func (s *Steward) good(raw []byte) bool {
	r, err := job.DecodeResult(raw)
	return err == nil && len(raw) > 0 && r.Reason == "" && (r.Exit == 0 || s.view.Spec.AnyExit)
}

// current reports whether a lease is of an exclusive job's one attempt that may commit.
func (s *Steward) current(l Lease) bool {
	k := s.tasks[l.Task]
	return k != nil && k.top == l.Token
}

// proposed reports whether the very same command is on its way.
func (s *Steward) proposed(l Lease) bool {
	p, ok := s.pending[l.Task]
	return ok && p.token == l.Token
}

func (s *Steward) propose(c Command) {
	s.out.Propose = append(s.out.Propose, c)
	s.pend(c.Lease)
}

// failure proposes an attempt that counts against its task.
func (s *Steward) failure(w *worker, f *Failure) {
	switch {
	case f.Task >= s.view.All || s.waits(f.Task) || len(f.Result) > FailureMax || s.view.closed.has(f.Task) || s.over:
		s.tell(w, f.Lease, Closed)
	case s.proposed(f.Lease):
		return
	default:
		if _, err := job.DecodeResult(f.Result); err != nil {
			s.tell(w, f.Lease, Stale)
			s.spare(w, f.Task, avoidTime)
			break
		}
		s.propose(Command{Kind: Fail, Lease: f.Lease, By: w.id, Data: f.Result})
	}
	s.end(w, f.Lease)
}

// release takes back a lease that its holder gives up.
func (s *Steward) release(w *worker, l Lease, why Reason) {
	if l.Task >= s.view.All {
		return
	}
	switch why {
	case Busy:
		s.spare(w, l.Task, busyTime)
	case Inputs, Runner:
		s.spare(w, l.Task, avoidTime)
	}
	s.end(w, l)
}

// end drops a lease if its holder is who says so.
func (s *Steward) end(w *worker, name Lease) {
	if l := w.held[name.Task]; l != nil && l.Token == name.Token {
		s.drop(l)
	}
}

// spare keeps a task from a worker for a while.
func (s *Steward) spare(w *worker, t uint32, d time.Duration) {
	if len(w.avoid) >= avoidMax {
		clear(w.avoid)
	}
	w.avoid[t] = s.now.Add(d)
}

func (s *Steward) tell(w *worker, l Lease, status Status) {
	o := s.reply(w)
	o.Verdicts = append(o.Verdicts, Verdict{l, status})
}

// offered takes a new offer, less what was granted since the worker could have known.
func (s *Steward) offered(w *worker, r *Report) {
	w.offer = *r.Offer
	w.offer.Prefer = w.offer.Prefer[:min(len(w.offer.Prefer), PreferMax)]
	w.slots = min(max(0, w.offer.Slots), SlotsMax)
	w.ahead = min(max(0, w.offer.Ahead), SlotsMax)
	for len(w.flying) > 0 && w.flying[0].seq <= r.Ack {
		w.flying = w.flying[1:]
	}
	for _, f := range w.flying {
		slots := min(w.slots, f.count)
		w.slots -= slots
		w.ahead = max(0, w.ahead-(f.count-slots))
	}
}

// applied takes in what the log did.
func (s *Steward) applied(a Applied) {
	s.view.Index = a.Index
	for i := range a.Outcomes {
		s.outcome(&a.Outcomes[i])
	}
	if !s.over && s.view.closed.count == int(s.view.All) {
		s.finish()
	}
}

func (s *Steward) outcome(o *Outcome) {
	if o.Kind == Cancel {
		if o.Status == Canceled {
			s.finish()
		}
		return
	}
	if o.Kind == Submit || o.Task >= s.view.All {
		return
	}
	if p, ok := s.pending[o.Task]; ok && p.token == o.Token {
		delete(s.pending, o.Task)
	}
	w := s.workers[o.By]
	if w != nil && w.here {
		s.tell(w, o.Lease, o.Status)
	}
	if w != nil {
		s.end(w, o.Lease)
	}
	switch o.Status {
	case Committed:
		if !s.view.closed.has(o.Task) {
			s.view.ran.add(o.Ran)
			s.won.add(o.Lease)
			s.closeTask(o.Task)
		}
	case Poisoned:
		s.view.poisoned = true
		s.closeTask(o.Task)
		if s.view.Splits < s.view.All {
			s.closeTask(s.view.Splits)
		}
	case Counted:
		k := s.task(o.Task)
		k.failures = append(k.failures, o.By)
		k.failedAt = s.now
		s.reopen(o.Task)
	default:
		s.reopen(o.Task)
	}
}

// closeTask ends a task, and what still runs of it.
func (s *Steward) closeTask(t uint32) {
	if !s.view.closed.add(t) {
		return
	}
	if k := s.tasks[t]; k != nil {
		for _, l := range slices.Clone(k.leases) {
			o := s.reply(l.to)
			o.Revoked = append(o.Revoked, l.Lease)
			s.drop(l)
		}
		delete(s.tasks, t)
	}
	s.taken.add(t)
	s.readyReduce()
}

// finish ends the job: everybody is told, and may forget it.
func (s *Steward) finish() {
	s.over = true
	for _, w := range s.order {
		for _, l := range w.held {
			o := s.reply(w)
			o.Revoked = append(o.Revoked, l.Lease)
		}
		slices.SortFunc(s.reply(w).Revoked, func(a, b Lease) int { return int(int64(a.Task) - int64(b.Task)) })
		w.held, w.due = map[uint32]*lease{}, 0
	}
	clear(s.tasks)
}

// winners remembers the last commits, so that one whose verdict was lost can be told again.
type winners struct {
	list []Lease
	at   int
	by   map[uint32]job.Token
}

// winnersMax is how many commits are remembered.
const winnersMax = 4096

func (n *winners) add(l Lease) {
	if n.by == nil {
		n.by = map[uint32]job.Token{}
	}
	if len(n.list) < winnersMax {
		n.list = append(n.list, l)
	} else {
		delete(n.by, n.list[n.at].Task)
		n.list[n.at] = l
		n.at = (n.at + 1) % winnersMax
	}
	n.by[l.Task] = l.Token
}

// status answers a commit for a task that is closed.
func (n *winners) status(l Lease) Status {
	if t, ok := n.by[l.Task]; ok && t == l.Token {
		return Committed
	}
	return Closed
}
