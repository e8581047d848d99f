package repair

import (
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// owedMax bounds the pieces that wait for a member to be given to. Those of more are left to the planners of the members
	// that should hold them, which take a shortfall that no absence explains for a writer's business for 15 minutes.
	owedMax = 16_384
	// owedRun is how many of them are given out together.
	owedRun = 1024
	// owedAfter is how long news of members is waited out: when one comes, more follow.
	owedAfter = time.Second
	// owedFor is how long a piece that no name wants (yet) is remembered.
	owedFor = time.Hour
)

// owed is what this peer wrote and could not give to as many members as it should: they were not there, or it had not
// heard of their room. A put within a second of the first join is the usual case.
type owed struct {
	look chan struct{} // capacity 1: there may be somebody to give to

	mu    sync.Mutex
	debts map[chunk.CID]debt
}

type debt struct {
	piece.Piece
	copies int // that there should be, this peer's included
	since  time.Time
}

// owe remembers the items that have fewer copies than they should.
func (s *securing) owe() {
	if s.ctx.Err() != nil {
		return
	}
	o, now := &s.r.owed, time.Now()
	o.mu.Lock()
	defer o.mu.Unlock()
	for i := range s.items {
		it := &s.items[i]
		if it.copies < s.copies && len(o.debts) < owedMax && s.r.store.Has(it.ID) {
			o.debts[it.ID] = debt{it.Piece, s.copies, now}
		}
	}
	if len(o.debts) > 0 && !s.owing {
		signal(o.look)
	}
}

// membersChanged has debts looked at again.
func (o *owed) membersChanged() {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.debts) > 0 {
		signal(o.look)
	}
}

func (o *owed) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.debts)
}

// payDebts gives out what is owed as members with room come to be known.
func (r *Repair) payDebts() {
	for {
		select {
		case <-r.owed.look:
		case <-r.ctx.Done():
			return
		}
		select {
		case <-time.After(owedAfter):
		case <-r.ctx.Done():
			return
		}
		before := r.owed.count()
		for copies, pieces := range r.payable() {
			s := r.newSecuring(pieces, copies, copies)
			s.owing = true
			s.run()
		}
		if r.owed.count() <= before-owedRun {
			signal(r.owed.look) // all could be given; there may be more
		}
	}
}

// payable takes the debts for which there is somebody, by how many copies there should be.
func (r *Repair) payable() map[int][]piece.Piece {
	out := map[int][]piece.Piece{}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.owed.mu.Lock()
	defer r.owed.mu.Unlock()
	n := 0
	for id, d := range r.owed.debts {
		safety := r.planner.Assess(id)
		switch {
		case safety.Copies >= d.copies, !r.store.Has(id), safety.Wanted == 0 && time.Since(d.since) > owedFor:
			delete(r.owed.debts, id)
		case safety.Wanted > 0 && n < owedRun && len(r.planner.Targets(id, d.Size)) > 0:
			delete(r.owed.debts, id) // the securing owes again what it cannot give
			out[d.copies] = append(out[d.copies], d.Piece)
			n++
		}
	}
	return out
}
