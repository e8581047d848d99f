package replica

import (
	"cmp"
	"fmt"
	"slices"
	"time"
)

const (
	asksMax   = 32      // asks that the leader has not confirmed
	asksBytes = 2 << 20 // and their bytes
	// askAgain is how long an ask waits for its confirmation before it is sent again, and retryAfter how long a leader waits
	// when Raft takes no more for the moment.
	askAgain   = 500 * time.Millisecond
	retryAfter = 20 * time.Millisecond
)

// proposal is a command, or a wish, on its way into the log.
//
// It is tried in one term at a time: by the leader itself or by asking it, in both cases such that the entry can only be
// appended in that term. Terms never fall in a log; so when an entry of a later term is applied and the proposal was not,
// it never will be, and is tried again. This is why it is applied at most once, whatever is lost or repeated.
type proposal struct {
	id    uint64
	kind  entryKind
	data  []byte
	conf  bool   // a change of members: the leader's alone, and tried once
	order uint64 // as they came
	term  uint64 // in which it is tried; 0: it is not
	gone  bool   // it ended while it waited in the queue
}

type proposals struct {
	pending map[uint64]*proposal
	queue   []*proposal // those that are not tried, in order
	sealed  uint64      // the greatest term of an entry that was applied
	oldest  uint64      // no proposal that is tried has a lower term
	order   uint64
	retry   time.Duration // when Raft may take more; 0: it does

	// Of this replica as a follower, in this term.
	session uint64
	asked   uint64 // the number of the last ask
	asks    []*Ask
	bytes   int
	again   time.Duration // when they are sent again

	// Of this replica as the leader of this term: the sessions of each follower.
	askers map[uint64]map[uint64]*asker
}

// asker is one session of a follower.
type asker struct {
	last uint64          // the number of the last ask that was appended
	held map[uint64]*Ask // those that came before their turn
}

func (p *proposals) init(session uint64) {
	p.session, p.pending = session, make(map[uint64]*proposal)
}

// all lists what is pending in the order in which it came.
func (p *proposals) all() []*proposal {
	out := make([]*proposal, 0, len(p.pending))
	for _, x := range p.pending {
		out = append(out, x)
	}
	slices.SortFunc(out, func(a, b *proposal) int { return cmp.Compare(a.order, b.order) })
	return out
}

// newTerm forgets what was only of use in the term before.
func (p *proposals) newTerm() {
	p.asked, p.asks, p.bytes, p.askers = 0, nil, 0, nil
}

// applied ends a proposal that was, and reports whether it was this replica's.
func (p *proposals) applied(id uint64) bool {
	x := p.pending[id]
	if x != nil {
		x.gone = true
		delete(p.pending, id)
	}
	return x != nil
}

// seal takes note that an entry of a term is applied.
func (p *proposals) seal(term uint64) { p.sealed = max(p.sealed, term) }

// propose takes a new proposal.
func (r *Replica) propose(x *proposal) {
	p := &r.proposals
	if p.pending[x.id] != nil {
		panic("replica: two proposals of one id")
	}
	p.order++
	x.order = p.order
	p.pending[x.id] = x
	p.queue = append(p.queue, x)
	r.rouse(0)
	r.stir()
}

func (r *Replica) endProposal(x *proposal, why Reason) {
	if why == Ended && x.term != 0 {
		why = Maybe
	}
	r.proposals.applied(x.id)
	r.done(x.id, why)
}

// cancel gives up a request.
func (r *Replica) cancel(id uint64) {
	if x := r.proposals.pending[id]; x != nil {
		why := Never
		if x.term != 0 {
			why = Maybe
		}
		r.endProposal(x, why)
		return
	}
	if r.reads.drop(id) {
		r.done(id, Never)
	}
}

// reseal puts those back into the queue whose term has passed without them.
func (r *Replica) reseal() {
	p := &r.proposals
	if p.oldest >= p.sealed || len(p.pending) == 0 {
		return
	}
	p.oldest = p.sealed
	var back []*proposal
	for _, x := range p.all() {
		switch {
		case x.term == 0 || x.term >= p.sealed:
		case x.conf:
			r.endProposal(x, Never)
		default:
			x.term = 0
			back = append(back, x)
		}
	}
	p.queue = append(back, p.queue...)
}

// flush brings the queue on its way: into the log, or to the leader.
func (r *Replica) flush() {
	r.reseal()
	p := &r.proposals
	if p.retry > r.now {
		return
	}
	p.retry = 0
	for len(p.queue) > 0 && r.lead != 0 && !r.transferring {
		entry, n := p.pack()
		if entry == nil { // all of them have ended
			p.queue = p.queue[n:]
			continue
		}
		if !r.dispatch(entry) {
			break
		}
		for _, x := range p.queue[:n] {
			x.term = r.term
		}
		p.queue = p.queue[n:]
	}
	if len(p.queue) == 0 {
		p.queue = nil
	} else if r.leading() {
		p.retry = r.now + retryAfter
	}
	r.askAgain()
}

// pack makes one entry of the first proposals of the queue, and says how many they are.
func (p *proposals) pack() (entry []byte, n int) {
	for _, x := range p.queue {
		switch {
		case x.gone:
		case x.kind == entryDissolve && len(entry) > 0:
			return entry, n
		case x.kind == entryDissolve:
			return dissolveData(x.id), n + 1
		case len(entry) > 0 && len(entry)+len(x.data) > batchMax:
			return entry, n
		default:
			entry = appendCommand(entry, x.id, x.data)
		}
		n++
	}
	return entry, n
}

// dispatch appends an entry as the leader, or asks the leader to.
func (r *Replica) dispatch(entry []byte) bool {
	if r.leading() {
		return !r.leaving && r.rn.Propose(entry) == nil
	}
	p := &r.proposals
	if len(p.asks) >= asksMax || p.bytes > asksBytes {
		return false
	}
	p.asked++
	ask := &Ask{Term: r.term, Session: p.session, Seq: p.asked, Entry: entry}
	p.asks = append(p.asks, ask)
	p.bytes += len(entry)
	p.again = r.now + askAgain
	r.sendTo(r.lead, Message{Ask: ask})
	return true
}

// askAgain repeats what the leader has not confirmed in time.
func (r *Replica) askAgain() {
	p := &r.proposals
	if len(p.asks) == 0 || r.lead == 0 || r.leading() || r.now < p.again {
		return
	}
	p.again = r.now + askAgain
	for _, ask := range p.asks {
		r.sendTo(r.lead, Message{Ask: ask})
	}
}

// told takes the leader's confirmation.
func (p *proposals) told(t *Told, term uint64, now time.Duration) {
	if t.Term != term || t.Session != p.session {
		return
	}
	for len(p.asks) > 0 && p.asks[0].Seq <= t.Seq {
		p.bytes -= len(p.asks[0].Entry)
		p.asks = p.asks[1:]
		p.again = now + askAgain
	}
}

// hearAsk appends what a follower asks for, each ask once and in order.
func (r *Replica) hearAsk(from uint64, a *Ask) {
	if !r.leading() || r.leaving || a.Term != r.term || a.Seq == 0 {
		return // the asker will see the new term, or ask again
	}
	if _, ok := parseEntry(a.Entry); !ok || len(a.Entry) == 0 {
		return
	}
	s := r.proposals.asker(from, a.Session)
	if s == nil {
		return
	}
	if a.Seq > s.last && a.Seq <= s.last+asksMax {
		s.held[a.Seq] = a
	}
	for next := s.held[s.last+1]; next != nil && r.rn.Propose(next.Entry) == nil; next = s.held[s.last+1] {
		s.last++
		delete(s.held, s.last)
		r.stir()
	}
	r.sendTo(from, Message{Told: &Told{Term: a.Term, Session: a.Session, Seq: s.last}})
}

// asker finds or makes the place of a session; nil when there are too many.
func (p *proposals) asker(from, session uint64) *asker {
	if p.askers == nil {
		p.askers = make(map[uint64]map[uint64]*asker)
	}
	sessions := p.askers[from]
	switch {
	case sessions != nil:
	case len(p.askers) >= MembersMax:
		return nil
	default:
		sessions = make(map[uint64]*asker)
		p.askers[from] = sessions
	}
	s := sessions[session]
	if s == nil && len(sessions) < sessionsMax {
		s = &asker{held: make(map[uint64]*Ask)}
		sessions[session] = s
	}
	return s
}

// change proposes a change of the members.
func (r *Replica) change(ev Change) {
	switch {
	case !r.leading():
		r.done(ev.ID, NotLeader)
		return
	case r.applied < r.confAfter || r.transferring || r.leaving:
		r.done(ev.ID, Busy)
		return
	case ev.Op == Remove && ev.Member.ID == r.self: // see leaving
		r.done(ev.ID, Never)
		return
	}
	if m, ok := r.book.Get(ev.Member.ID); ok {
		ev.Member.Peer = m.Peer
	}
	if _, ok := r.book.with(ev.Op, ev.Member); !ok {
		r.done(ev.ID, Never)
		return
	}
	if r.rn.ProposeConfChange(confChange(ev.ID, ev.Op, ev.Member)) != nil {
		r.done(ev.ID, Busy)
		return
	}
	p := &r.proposals
	p.order++
	p.pending[ev.ID] = &proposal{id: ev.ID, conf: true, order: p.order, term: r.term}
	r.collect()
	r.confAfter = r.store.last()
	r.rouse(0)
	r.stir()
}

func sprint(v ...any) string                 { return fmt.Sprint(v...) }
func sprintf(format string, v ...any) string { return fmt.Sprintf(format, v...) }
