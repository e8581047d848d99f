package replica

import (
	"maps"
	"slices"

	"go.etcd.io/raft/v3/raftpb"
)

// parting is about members that were removed, as the leader sees them.
//
// A replica that is removed must stay and vote until a majority of those who remain is sure of it: they may learn late that the
// removal was agreed on, and until then they count it as one of them. A replica goes by the members that it knows to be
// agreed on, and it forgets in a crash what it knew only by heart. So the leader appends an empty entry once it has applied
// the removal. It travels with the leader's word that the removal was agreed on, and both are saved by whoever acknowledges it.
// When that entry is agreed on, a majority of the members that remain knows of the removal and will not forget it.
type parting struct {
	ids   map[uint64]bool // to be told
	entry uint64          // the empty entry; 0: none in this term
	term  uint64          // of it
	upTo  uint64          // what is sure when it is agreed on
}

// part takes note that a member was removed, or that a former one asks.
func (r *Replica) part(id uint64) {
	if id == r.self {
		r.removed = true
		r.out.Changed = true
		r.clock.quiet, r.clock.slow = false, 1
		r.endAll()
		r.deferElection()
		return
	}
	if !r.leading() {
		return
	}
	if r.parting.ids == nil {
		r.parting.ids = make(map[uint64]bool)
	}
	r.parting.ids[id] = true
	r.rouse(0)
	r.stir()
}

// removalPending reports whether the removal of this replica is in its log and not agreed on.
//
// No leader removes itself, it hands over first. But it may find its removal in the log when it takes office, put there by the leader
// before. Then it appends nothing after the entry that begins its term: a removed replica cannot be elected, and if it had
// more in its log than the others it would not vote for them either. In a group of two that would be the end.
func (r *Replica) removalPending() bool {
	for _, e := range r.store.entries {
		if e.GetIndex() <= r.commit || e.GetType() != raftpb.EntryConfChange {
			continue
		}
		if _, op, m, ok := parseConfChange(e.GetData()); ok && op == Remove && m.ID == r.self {
			return true
		}
	}
	return false
}

// dismiss tells those who were removed that they may go, once that is sure.
func (r *Replica) dismiss() {
	p := &r.parting
	if len(p.ids) == 0 {
		return
	}
	if !r.leading() || r.leaving {
		p.ids = nil // they will ask the next leader
		return
	}
	if p.term != r.term || p.upTo < r.lastConf {
		if r.rn.Propose(nil) != nil {
			return
		}
		p.upTo = r.commit
		r.collect()
		p.entry, p.term = r.store.last(), r.term
	}
	if r.commit < p.entry {
		return
	}
	for _, id := range slices.Sorted(maps.Keys(p.ids)) {
		r.sendTo(id, Message{Gone: &Gone{}})
	}
	p.ids = nil
}

// askToLeave asks all members whether this replica, which was removed, may go.
func (r *Replica) askToLeave() {
	r.wakeAll()
	r.clock.slow = min(2*max(r.clock.slow, 1), patienceMax)
	r.deferElection()
}

// wakeAll asks for a sign of life of whoever leads.
func (r *Replica) wakeAll() {
	for _, m := range r.book.Members {
		if m.ID != r.self {
			r.sendTo(m.ID, Message{Wake: &Wake{}})
		}
	}
}
