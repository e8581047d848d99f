package repair

import (
	"context"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree"
)

const (
	// hedgeAfter is how long a member may say nothing before the pieces that lack copies are given to another as well.
	hedgeAfter = 5 * time.Second
	// backgroundMax bounds the writes whose last copies are still being made after they were acknowledged. Those of
	// more are left to the planners of the members that should hold them.
	backgroundMax = 16
	// candidatesMax bounds the members that are tried for one piece, beyond those that should hold it.
	candidatesMax = 8
)

// Secure gives pieces that are here to the members that should hold them, in parallel, and returns when each has ack
// durable copies, this peer's own counted, or when no more can be had: then Secured says how many the worst has, which
// is 1 for a peer alone. Copies that sleeping members are known to hold count. The rest of the copies is made behind the
// caller's back. progress, which may be nil, hears how many of the pieces have enough.
//
// The error is that of ctx, or nil.
func (r *Repair) Secure(ctx context.Context, pieces []piece.Piece, copies, ack int, progress func(done, total int)) (tree.Secured, error) {
	s := r.newSecuring(pieces, max(copies, ack), ack)
	if r.cfg.Lends().Space == 0 { // then what is here is here for the moment only
		s.passing = 1
		s.copies, s.ack = s.copies+1, s.ack+1
	}
	if progress != nil {
		s.progress = progress
	}
	if !r.start(s.run) {
		return tree.Secured{}, ErrClosed
	}
	select {
	case <-s.acked:
		return tree.Secured{Copies: max(s.least-s.passing, min(s.least, 1))}, nil
	case <-ctx.Done():
		s.cancel()
		return tree.Secured{}, ctx.Err()
	case <-r.ctx.Done():
		return tree.Secured{}, ErrClosed
	}
}

// securing is one run of Secure. Its goroutine owns all but the lanes' own fields.
type securing struct {
	r           *Repair
	copies, ack int
	owing       bool // it gives out what another could not; see owed
	passing     int  // copies that will not stay: this peer's, if it lends nothing
	progress    func(done, total int)
	ctx         context.Context
	cancel      context.CancelFunc

	items   []item
	lanes   map[peer.ID]*lane
	results chan result
	open    int // items that lack acknowledged copies and may get them
	pending int // attempts under way
	acked   chan struct{}
	over    bool // acked is closed
	least   int  // copies of the worst, once acked is closed
}

// item is one piece to be secured.
type item struct {
	piece.Piece
	copies  int       // durable ones
	pending int       // attempts under way
	left    []peer.ID // candidates not tried yet, the best first
	settled bool      // it has enough, or cannot get it
}

// result is what became of some attempts with one member.
type result struct {
	lane   *lane
	items  []int
	stored []bool
}

func (r *Repair) newSecuring(pieces []piece.Piece, copies, ack int) *securing {
	s := &securing{
		r: r, copies: copies, ack: ack, progress: func(int, int) {},
		lanes: map[peer.ID]*lane{}, results: make(chan result), acked: make(chan struct{}),
	}
	s.ctx, s.cancel = context.WithCancel(r.ctx)
	seen := make(map[chunk.CID]bool, len(pieces))
	for _, p := range pieces {
		if !seen[p.ID] {
			seen[p.ID] = true
			s.items = append(s.items, item{Piece: p})
		}
	}
	return s
}

// run gives the pieces out and counts what comes back, until every attempt ended.
func (s *securing) run() {
	defer s.cancel()
	s.start()
	quiet := time.NewTicker(hedgeAfter)
	defer quiet.Stop()
	var leave func()
	for s.pending > 0 {
		if s.over && leave == nil {
			if leave = s.r.background(); leave == nil {
				s.cancel() // there is too much of that already
				leave = func() {}
			}
			defer leave()
		}
		select {
		case res := <-s.results:
			s.take(res)
		case now := <-quiet.C:
			s.hedge(now)
		}
	}
	s.check()
	s.owe()
}

// background takes a place among the writes that go on after they were acknowledged, or returns nil.
func (r *Repair) background() (leave func()) {
	if r.slots.background.Add(1) > backgroundMax {
		r.slots.background.Add(-1)
		return nil
	}
	return func() { r.slots.background.Add(-1) }
}

// start counts the copies that there are and makes the first attempts.
func (s *securing) start() {
	online := s.r.online()
	s.open = len(s.items)
	for i := range s.items {
		it := &s.items[i]
		here := s.r.store.Has(it.ID)
		if here {
			it.copies++
		}
		claimed := s.candidates(it, online)
		for _, p := range claimed {
			s.attempt(i, p, true)
		}
		for here && it.copies+it.pending < s.copies && len(it.left) > 0 {
			s.next(i)
		}
		if !here {
			it.left = nil // nothing can be given; what others have is all
		}
		s.settle(it)
	}
	s.check()
}

// candidates finds who may hold a piece. Those who sleep and hold it count at once; those who are there and say that they
// do are returned, to be asked.
func (s *securing) candidates(it *item, online map[peer.ID]bool) (claimed []peer.ID) {
	r := s.r
	r.mu.Lock()
	holders, targets := r.planner.Holders(it.ID), r.planner.Targets(it.ID, it.Size)
	r.mu.Unlock()
	known := map[peer.ID]bool{r.cfg.Self: true}
	for _, p := range holders {
		switch {
		case p == r.cfg.Self:
		case online[p]:
			claimed = append(claimed, p)
		default:
			it.copies++
		}
		known[p] = true
	}
	for _, p := range targets {
		if !known[p] && len(it.left) < s.copies+candidatesMax {
			it.left = append(it.left, p)
		}
	}
	return claimed
}

// online is who is there.
func (r *Repair) online() map[peer.ID]bool {
	out := map[peer.ID]bool{}
	for _, m := range r.cfg.Members.Members() {
		if m.State == roster.Online {
			out[m.ID] = true
		}
	}
	return out
}

// next tries the next candidate of an item.
func (s *securing) next(i int) {
	it := &s.items[i]
	p := it.left[0]
	it.left = it.left[1:]
	s.attempt(i, p, false)
}

// attempt gives an item to a member, or asks whether it has it.
func (s *securing) attempt(i int, p peer.ID, claimed bool) {
	l := s.lanes[p]
	if l == nil {
		l = newLane(s, p)
		s.lanes[p] = l
	}
	s.items[i].pending++
	s.pending++
	l.add(i, claimed)
}

// take counts what became of attempts, and makes others for those that failed.
func (s *securing) take(res result) {
	res.lane.heard = time.Now()
	for n, i := range res.items {
		it := &s.items[i]
		it.pending--
		s.pending--
		if res.stored[n] {
			it.copies++
		}
		for s.ctx.Err() == nil && it.copies+it.pending < s.copies && len(it.left) > 0 {
			s.next(i)
		}
		s.settle(it)
	}
	s.check()
}

// hedge gives items that lack copies to others where the members that they wait for say nothing.
func (s *securing) hedge(now time.Time) {
	if s.over {
		return
	}
	for _, l := range s.lanes {
		if now.Sub(l.heard) < hedgeAfter {
			continue
		}
		l.heard = now
		for _, i := range l.waiting() {
			if it := &s.items[i]; it.copies < s.ack && len(it.left) > 0 {
				s.next(i)
			}
		}
	}
}

// settle notes when an item has what it needs, or cannot get it.
func (s *securing) settle(it *item) {
	if !it.settled && (it.copies >= s.ack || it.pending == 0 && len(it.left) == 0) {
		it.settled = true
		s.open--
	}
}

// check tells the caller how far it is.
func (s *securing) check() {
	if s.over {
		return
	}
	s.progress(len(s.items)-s.open, len(s.items))
	if s.open > 0 && s.pending > 0 {
		return
	}
	s.least = s.copies
	for i := range s.items {
		s.least = min(s.least, s.items[i].copies)
	}
	s.over = true
	close(s.acked)
}
