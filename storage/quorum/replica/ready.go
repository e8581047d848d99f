package replica

import (
	"slices"

	"go.etcd.io/raft/v3"
	"go.etcd.io/raft/v3/raftpb"
)

// saves is what was given to the log and is not known to be durable.
type saves struct {
	next    uint64 // the number of the last save
	synced  uint64 // the number of the last one that must be durable
	durable uint64 // up to which they are
	waiting []afterSave
}

// afterSave is what Raft says once a save is durable.
type afterSave struct {
	seq       uint64
	responses []*raftpb.Message
}

// batches is what was given to the machine and is not known to be applied.
type batches struct {
	next, done uint64
	waiting    []afterBatch
	// As the machine has it:
	applied, term, commands uint64
}

type afterBatch struct {
	Batch
	responses []*raftpb.Message
}

// collect takes what Raft has ready until there is nothing more.
func (r *Replica) collect() {
	for {
		r.countPromised()
		if !r.rn.HasReady() {
			break
		}
		rd := r.rn.Ready()
		if len(rd.ReadStates) > 0 {
			r.readsReady(rd.ReadStates)
		}
		var asks []*raftpb.Message
		for _, m := range rd.Messages {
			switch to := m.GetTo(); {
			case to == raft.LocalAppendThread:
				r.save(m)
			case to == raft.LocalApplyThread:
				r.apply(m)
			case r.answered(m):
			case m.GetType() == raftpb.MsgVote:
				asks = append(asks, m)
			default:
				r.send(m)
			}
		}
		// Raft would ask for votes before its own is durable, and lead when the others suffice. One that crashed then and forgot
		// its term would be voted for in it again, and give an index of the log a second meaning in one term.
		if len(asks) > 0 {
			r.after(r.saves.synced, asks)
		}
	}
	r.look()
}

// send passes on a message for another replica.
func (r *Replica) send(m *raftpb.Message) {
	if len(m.GetContext()) == 8 && m.GetType() == raftpb.MsgHeartbeat {
		r.reads.sentCtx = max(r.reads.sentCtx, littleEndian(m.GetContext()))
	}
	r.sendTo(m.GetTo(), Message{Raft: m})
}

func (r *Replica) sendTo(to uint64, m Message) {
	if member, ok := r.book.Get(to); ok {
		m.Peer = member.Peer
	} else if m.Peer = r.presence.met[to]; m.Peer == "" {
		return
	}
	m.From, m.To = r.self, to
	r.out.Send = append(r.out.Send, m)
}

// save hands out what Raft wants to be durable, and keeps what it says then.
func (r *Replica) save(m *raftpb.Message) {
	hard := r.store.hard
	if m.Commit != nil || m.Vote != nil || m.Term != nil {
		hard = Hard{Term: m.GetTerm(), Vote: m.GetVote(), Commit: m.GetCommit()}
	}
	voted := hard.Term != r.store.hard.Term || hard.Vote != r.store.hard.Vote
	whole := !raft.IsEmptySnap(m.GetSnapshot())
	// A commit index alone is not worth a record: any leader will tell it again.
	sync := voted || whole || len(m.GetEntries()) > 0
	r.store.hard = hard
	if whole {
		snap, err := decodeSnapshot(m.GetSnapshot())
		if err != nil {
			panic(err) // it was checked when it came
		}
		r.restore(snap)
	}
	r.store.add(m.GetEntries())
	switch {
	case whole:
		r.checkpoint(true)
	case sync:
		r.issue(Save{Sync: true, Record: moreRecord(hard, m.GetEntries())})
	}
	if len(m.GetResponses()) > 0 {
		r.after(r.saves.synced, m.GetResponses())
	}
}

// issue numbers a save and hands it out.
func (r *Replica) issue(s Save) {
	r.saves.next++
	s.Seq = r.saves.next
	if s.Sync {
		r.saves.synced = s.Seq
	}
	r.out.Saves = append(r.out.Saves, s)
}

// after delivers responses once a save is durable.
func (r *Replica) after(seq uint64, responses []*raftpb.Message) {
	if seq > r.saves.durable {
		r.saves.waiting = append(r.saves.waiting, afterSave{seq, responses})
		return
	}
	r.deliver(responses)
}

func (r *Replica) deliver(responses []*raftpb.Message) {
	for _, m := range responses {
		if m.GetTo() == r.self {
			_ = r.rn.Step(m) // of a replica that is no member any more; there is nothing to tell
		} else {
			r.send(m)
		}
	}
}

// saved takes note that saves are durable.
func (r *Replica) saved(seq uint64) {
	r.saves.durable = max(r.saves.durable, min(seq, r.saves.next))
	for len(r.saves.waiting) > 0 && r.saves.waiting[0].seq <= r.saves.durable {
		w := r.saves.waiting[0]
		r.saves.waiting = r.saves.waiting[1:]
		r.deliver(w.responses)
	}
	if len(r.saves.waiting) == 0 {
		r.saves.waiting = nil
	}
}

// checkpoint hands out a save of everything.
func (r *Replica) checkpoint(sync bool) {
	r.issue(Save{Whole: true, Sync: sync, Record: r.Record()})
}

// restore goes over to a snapshot that another replica sent, whose bytes the shell has.
func (r *Replica) restore(snap Snapshot) {
	r.store.reset(snap)
	r.book = snap.Book
	r.lastConf = snap.Index
	r.out.Changed = true
	r.proposals.seal(snap.Term)
	// What was proposed may be among what the snapshot stands for; nobody can say any more.
	for _, p := range r.proposals.all() {
		if p.term != 0 && p.term <= snap.Term {
			r.endProposal(p, Maybe)
		}
	}
	r.hand(Batch{Restore: true, Fresh: snap.Fresh, Index: snap.Index, Term: snap.Term, Book: snap.Book}, nil)
	if snap.Book.Dissolved {
		r.end()
	}
}

// apply hands committed entries to the machine, and takes those that are meant for the replica itself.
func (r *Replica) apply(m *raftpb.Message) {
	entries := m.GetEntries()
	last := entries[len(entries)-1]
	b := Batch{Index: last.GetIndex(), Term: last.GetTerm()}
	for _, e := range entries {
		r.proposals.seal(e.GetTerm())
		r.applyEntry(&b, e)
	}
	b.Book = r.book
	r.hand(b, m.GetResponses())
}

func (r *Replica) hand(b Batch, responses []*raftpb.Message) {
	r.batches.next++
	b.Seq = r.batches.next
	r.out.Apply = append(r.out.Apply, b)
	r.batches.waiting = append(r.batches.waiting, afterBatch{b, responses})
}

func (r *Replica) applyEntry(b *Batch, e *raftpb.Entry) {
	if e.GetType() == raftpb.EntryConfChange {
		r.applyConfChange(e)
		return
	}
	p, _ := parseEntry(e.GetData())
	if r.book.Dissolved || len(p.commands) == 0 && !p.dissolve {
		return
	}
	book := *r.book
	for _, c := range p.commands {
		book.Commands++
		c.Index, c.Term = book.Commands, e.GetTerm()
		b.Commands = append(b.Commands, c)
		r.proposals.applied(c.ID)
	}
	if p.dissolve {
		book.Dissolved = true
		if r.proposals.applied(p.id) {
			r.done(p.id, OK)
		}
	}
	r.book = &book
	if p.dissolve {
		r.end()
	}
}

func (r *Replica) applyConfChange(e *raftpb.Entry) {
	id, op, m, ok := parseConfChange(e.GetData())
	r.lastConf = e.GetIndex()
	if book, fits := r.book.with(op, m); ok && fits {
		if was, known := r.book.Get(m.ID); known {
			r.presence.meet(m.ID, was.Peer)
		}
		r.book = book
		r.rn.ApplyConfChange(confChange(id, op, m))
		r.out.Changed = true
	} else {
		ok = false
	}
	if r.proposals.applied(id) {
		reason := OK
		if !ok {
			reason = Never
		}
		r.done(id, reason)
	}
	if op == Remove && ok {
		r.part(m.ID)
	}
}

// machineApplied takes note that the machine has applied batches.
func (r *Replica) machineApplied(seq uint64) {
	seq = min(seq, r.batches.next)
	for len(r.batches.waiting) > 0 && r.batches.waiting[0].Seq <= seq {
		b := r.batches.waiting[0]
		r.batches.waiting = r.batches.waiting[1:]
		wasTerm := r.batches.term
		r.batches.done, r.batches.applied, r.batches.term, r.batches.commands = b.Seq, b.Index, b.Term, b.Book.Commands
		if wasTerm != b.Term {
			r.out.Changed = true // a leader may be ready to lead now
		}
		r.deliver(b.responses)
	}
	if len(r.batches.waiting) == 0 {
		r.batches.waiting = nil
	}
	r.readsApplied()
}

// snapshotting is about the machine's snapshots here.
type snapshotting struct {
	asked bool // of the shell, which has not answered
	least int  // the log must be longer than this for the next one, because the last try failed
}

// wantSnapshot asks for a snapshot when the log has grown too long, or when a follower needs a newer one.
func (r *Replica) wantSnapshot() {
	if r.snapshot.asked {
		return
	}
	limit := r.cfg.LogMax
	if r.clock.quiet {
		limit /= quietShare
	}
	limit = max(limit, min(logRatio*r.store.snap.Size, logCap))
	if r.store.wanted || r.store.bytes > max(limit, r.snapshot.least) && r.batches.applied > r.store.snap.Index {
		r.snapshot.asked, r.store.wanted = true, false
		r.out.Snapshot = true
	}
}

func (r *Replica) snapshotted(ev Snapshotted) {
	r.snapshot.asked = false
	if !ev.OK {
		r.snapshot.least = r.store.bytes + r.cfg.LogMax
		return
	}
	r.snapshot.least = 0
	// One of another replica may have come meanwhile.
	if ev.Index <= r.store.snap.Index || ev.Index > r.store.last() {
		return
	}
	trail := r.cfg.LogMax / trailShare
	if r.clock.quiet || r.alone() {
		trail = 0
	}
	r.store.compact(Snapshot{Index: ev.Index, Term: ev.Term, Book: ev.Book, Size: ev.Size}, trail)
	r.checkpoint(true)
}

func (r *Replica) reportSnapshot(ev SnapshotSent) {
	status := raft.SnapshotFinish
	if !ev.OK {
		status = raft.SnapshotFailure
	}
	r.rn.ReportSnapshot(ev.To, status)
}

// sameConf compares who votes and who learns.
func sameConf(a, b *raftpb.ConfState) bool {
	return slices.Equal(a.GetVoters(), b.GetVoters()) && slices.Equal(a.GetLearners(), b.GetLearners()) &&
		len(a.GetVotersOutgoing()) == 0 && len(a.GetLearnersNext()) == 0 && !a.GetAutoLeave()
}

// SnapshotIndex is that of the last snapshot of the machine; 0 when the machine has none.
func (r *Replica) SnapshotIndex() uint64 {
	if r.store.snap.Fresh {
		return 0
	}
	return r.store.snap.Index
}

// Record is a record of all that was handed out to be saved. It may be called after the replica has stopped.
func (r *Replica) Record() []byte { return r.store.state().Record() }
