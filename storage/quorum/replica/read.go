package replica

import (
	"encoding/binary"
	"slices"
	"time"

	"go.etcd.io/raft/v3"
)

// readAgain is how long the leader's answer is waited for before it is asked again.
const readAgain = 500 * time.Millisecond

// reads is what waits to read. Raft's leader is asked for the index that everything acknowledged lies below (Raft thesis, 6.4):
// one question at a time, for all that waited when it was asked.
type reads struct {
	waiting []uint64 // not asked for yet
	asking  []uint64 // waiting for the leader's answer
	ready   []readReady
	ctx     uint64        // the question's number
	asked   time.Duration // when it was sent; 0: not
	sentCtx uint64        // the greatest context of a heartbeat that was sent in this term
}

// readReady is an answer that the machine has not come up to.
type readReady struct {
	index uint64
	ids   []uint64
}

// ownRead is the read that a leader does for itself when it slept. No request has this number.
const ownRead = 0

// woke takes note that the machine slept. The others may have another leader by now; they say so when they are asked.
func (r *Replica) woke() {
	r.rouse(0)
	r.stir()
	if r.leading() && !r.alone() && !r.doubt {
		r.doubt = true
		r.out.Changed = true
		r.reads.waiting = append(r.reads.waiting, ownRead)
	}
}

func (q *reads) empty() bool { return len(q.waiting)+len(q.asking)+len(q.ready) == 0 }

func (q *reads) all() []uint64 {
	out := slices.Concat(q.waiting, q.asking)
	for _, x := range q.ready {
		out = append(out, x.ids...)
	}
	return out
}

// drop takes out one that is given up.
func (q *reads) drop(id uint64) bool {
	n := len(q.all())
	is := func(x uint64) bool { return x == id }
	q.waiting = slices.DeleteFunc(q.waiting, is)
	q.asking = slices.DeleteFunc(q.asking, is)
	for i := range q.ready {
		q.ready[i].ids = slices.DeleteFunc(q.ready[i].ids, is)
	}
	return len(q.all()) < n
}

func (r *Replica) read(id uint64) {
	r.reads.waiting = append(r.reads.waiting, id)
	r.rouse(0)
	r.stir()
}

// askReads asks the leader, or repeats the question when the answer is late.
func (r *Replica) askReads() {
	q := &r.reads
	late := q.asked == 0 || r.now >= q.asked+readAgain
	if r.lead == 0 || !r.inOffice() || len(q.asking) == 0 && len(q.waiting) == 0 || len(q.asking) > 0 && !late {
		return
	}
	q.asking = append(q.asking, q.waiting...)
	q.waiting = nil
	q.ctx = r.rng.Uint64()
	q.asked = max(r.now, 1)
	r.rn.ReadIndex(binary.BigEndian.AppendUint64(nil, q.ctx))
	r.collect()
}

// inOffice is false for a leader that has committed nothing yet: it may not know all that was acknowledged before. Raft waits by
// itself, except where it is the only voter.
func (r *Replica) inOffice() bool { return !r.leading() || r.commit >= r.office }

// readsReady takes the leader's answers.
func (r *Replica) readsReady(states []raft.ReadState) {
	q := &r.reads
	for _, s := range states {
		if len(s.RequestCtx) != 8 || binary.BigEndian.Uint64(s.RequestCtx) != q.ctx || len(q.asking) == 0 {
			continue
		}
		q.ready = append(q.ready, readReady{s.Index, q.asking})
		q.asking, q.ctx = nil, 0
	}
	r.readsApplied()
}

// readsApplied ends the reads that the machine has come up to.
func (r *Replica) readsApplied() {
	q := &r.reads
	q.ready = slices.DeleteFunc(q.ready, func(x readReady) bool {
		if x.index > r.batches.applied {
			return false
		}
		for _, id := range x.ids {
			if id != ownRead {
				r.done(id, OK)
				continue
			}
			r.out.Changed = r.out.Changed || r.doubt
			r.doubt = false
		}
		return true
	})
}
