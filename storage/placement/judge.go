package placement

import (
	"time"
)

// ranksMax is how many ranks wait longer and longer; whoever comes after those waits as long as the last.
const ranksMax = 32

// verdict is what this peer should do about a piece.
type verdict struct {
	why    Why
	due    time.Duration // Boot; never: nothing
	copies int           // that count now
	queued bool          // others have the first turn
}

var nothing = verdict{due: never}

// judge finds out whether and when this peer should fetch a piece. Before it is due by all rules that are the same for
// everybody, its rank is not worked out.
func (p *Planner) judge(i int32) verdict {
	pc, h, self := &p.pieces[i], p.holders(i), p.pool.self
	if p.content(i) || p.flight(i) >= 0 {
		return nothing
	}
	if !p.fits(i) {
		p.starved = true
		return nothing
	}
	if !h.meets(p.pool.online) {
		return nothing
	}
	copies := h.shared(p.pool.counted)
	v := verdict{due: p.now, copies: copies}
	switch {
	case p.wishes[i]:
		v.why = ForWriter
	case pc.pinned, copies < int(pc.wanted) && p.retries[i].hurt:
		v.why = ForPin
	case !p.pool.eligible.has(self):
		return nothing
	default:
		v = p.missing(i, copies)
		if pc.share && copies >= int(pc.wanted) && v.due > p.now {
			v.why, v.due = ForShare, p.now
		}
	}
	v.due = max(v.due, p.retries[i].at)
	return v
}

// content reports that a piece wants nothing of this peer, as nearly all do nearly always.
func (p *Planner) content(i int32) bool {
	pc, h := &p.pieces[i], p.holders(i)
	switch {
	case p.pool.self < 0 || h.has(p.pool.self):
		return true
	case p.wishes[i]:
		return false
	case pc.wanted == 0:
		return true
	case pc.pinned, pc.share:
		return false
	}
	return h.shared(p.pool.counted) >= int(pc.wanted) && !p.urgent(i)
}

// missing judges a piece by the copies it lacks: one that can be reached beside the only one, or one that counts. Sleeping
// members whose inventory is still to come may have it: a newcomer would otherwise copy all that they hold.
func (p *Planner) missing(i int32, copies int) verdict {
	pc := &p.pieces[i]
	short := int(pc.wanted) - copies - p.pool.unheard
	urgent := p.urgent(i)
	switch {
	case !urgent && short <= 0:
		return verdict{due: never, copies: copies}
	case p.brake != Free: // when it is due, and whose turn it is, will be seen when the brake is let go
		return verdict{why: ForRepair, due: p.now, copies: copies}
	}
	v := nothing
	takers, lapse := p.takers(i)
	if urgent {
		v = p.turn(i, ForUrgency, p.urgentFrom(i), 1, takers, lapse)
	}
	if short > 0 {
		if r := p.turn(i, ForRepair, p.repairFrom(i), short, takers, lapse); r.due < v.due {
			v = r
		}
	}
	v.copies = copies
	return v
}

// urgent reports whether no two copies of a piece of which there should be several can be reached.
func (p *Planner) urgent(i int32) bool {
	return p.pieces[i].wanted > 1 && p.cfg.Urgent >= 0 && p.holders(i).shared(p.pool.reach) <= 1
}

// urgentFrom is when a second reachable copy is made. While repair stood still, the time did not run.
func (p *Planner) urgentFrom(i int32) time.Duration {
	from := max(p.pieces[i].changed, p.lifted)
	for s := range p.holders(i).all() {
		if m := &p.pool.list[s]; !m.online && p.pool.counted.has(s) {
			from = max(from, m.gone)
		}
	}
	return from + p.cfg.Urgent + p.jitter(i, p.cfg.Urgent/4)
}

// repairFrom is when copies that no longer count are replaced: as soon as patience has run out, but for jitter. What no
// absence explains is left for a while to whoever is still at it.
func (p *Planner) repairFrom(i int32) time.Duration {
	from := p.pieces[i].changed + p.cfg.settle
	jitter := p.jitter(i, p.cfg.Jitter)
	for s := range p.holders(i).all() {
		if m := &p.pool.list[s]; !p.pool.counted.has(s) && !m.online {
			from = max(from, m.lost+jitter)
		}
	}
	return from
}

// jitter is the same on every peer, so that it does not change whose turn it is.
func (p *Planner) jitter(i int32, most time.Duration) time.Duration {
	if most <= 0 {
		return 0
	}
	return time.Duration(fold(p.pieces[i].id.Sum[:]) % uint64(most))
}

// turn says when it is this peer's turn to make one of so many copies. All peers that may make one stand in the order in
// which they would be chosen; those who are needed begin at once, each next one a lease later if nobody has begun by then.
func (p *Planner) turn(i int32, why Why, from time.Duration, need int, takers []int, lapse time.Duration) verdict {
	need -= len(takers)
	switch {
	case need <= 0:
		return verdict{why: why, due: lapse}
	case from > p.now:
		return verdict{why: why, due: from}
	}
	behind := p.rank(i, takers) - need
	if behind < 0 {
		return verdict{why: why, due: p.now}
	}
	due := from + time.Duration(behind+1)*p.cfg.Lease
	return verdict{why: why, due: max(due, p.now), queued: due > p.now}
}

// rank is how many would be chosen for a piece before this peer, to go with those that hold it or are taking it.
func (p *Planner) rank(i int32, takers []int) int {
	pc, h := &p.pieces[i], p.holders(i)
	var buf [16]int
	chosen := buf[:0]
	may := append(set(nil), p.pool.eligible...)
	for s := range h.all() {
		if may.clear(s); p.pool.counted.has(s) {
			chosen = append(chosen, s)
		}
	}
	for _, s := range takers {
		may.clear(s)
		chosen = append(chosen, s)
	}
	for s := range may.all() {
		if s != p.pool.self && !roomFor(p.pool.list[s].peer.Free, pc.size) {
			may.clear(s)
		}
	}
	f := &p.pool.field
	f.rate(fold(pc.id.Sum[:]), may)
	for n := range ranksMax {
		s := f.next(chosen, may)
		if s == p.pool.self || s < 0 {
			return n
		}
		may.clear(s)
		chosen = append(chosen, s)
	}
	return ranksMax
}

// roomFor reports whether so many free bytes are enough for a piece: records and frames take some too.
func roomFor(free uint64, size int64) bool { return free >= uint64(size)+uint64(size)/64 }

// fits reports whether this peer has room for a piece beside what is on its way.
func (p *Planner) fits(i int32) bool {
	size := p.pieces[i].size
	for _, f := range p.flights {
		size += p.pieces[f.piece].size
	}
	return roomFor(p.pool.list[p.pool.self].peer.Free, size)
}

// look judges a piece and notes when to do so again, or lines it up.
func (p *Planner) look(i int32) {
	pc := &p.pieces[i]
	if pc.lined && p.brake != Free && !p.wishes[i] && !pc.pinned && !p.retries[i].hurt && !p.content(i) {
		return // it stays in line
	}
	p.note(i, p.judge(i))
}

func (p *Planner) note(i int32, v verdict) {
	pc := &p.pieces[i]
	if v.queued && !pc.queued {
		pc.queued = true
		p.waiting = append(p.waiting, i)
	}
	if pc.lined && v.due <= p.now {
		if v.why <= ForPin { // it may pass those that the brake holds
			p.line(i, v)
		}
		return
	}
	pc.lined = false
	if v.due != pc.due {
		if pc.due = v.due; v.due != never {
			p.open.put(item{at: v.due, piece: i})
		}
	}
}

// scan looks at the pieces that a change among the members may have opened or closed, and at those of which others had
// the first turn.
func (p *Planner) scan() {
	l := &p.pool
	if !l.all && l.touched.empty() {
		return
	}
	if l.all {
		p.starved = false
	}
	waiting := p.waiting
	p.waiting = nil
	for _, i := range waiting {
		p.pieces[i].queued = false
	}
	for k := range p.pieces {
		if p.pieces[k].id.Defined() && (l.all || p.holders(int32(k)).meets(l.touched)) {
			p.look(int32(k))
		}
	}
	if !l.all {
		for _, i := range waiting {
			p.look(i)
		}
	}
	l.all = false
	clear(l.touched)
	for _, f := range p.flights {
		p.reconsider(f.piece)
	}
	p.open.trim(len(p.pieces), func(it item) bool { return p.meant(it) && !p.pieces[it.piece].lined })
	for c := range p.ready {
		p.ready[c].trim(len(p.pieces), func(it item) bool { return p.meant(it) && p.pieces[it.piece].lined })
	}
}

// meant reports whether an item still stands for when its piece is due.
func (p *Planner) meant(it item) bool { return p.pieces[it.piece].due == it.at }

// mature moves what is due to where it waits for a free slot.
func (p *Planner) mature() {
	for p.open.first() <= p.now {
		it := p.open.take()
		if !p.meant(it) || p.pieces[it.piece].lined {
			continue
		}
		if v := p.judge(it.piece); v.due <= p.now {
			p.line(it.piece, v)
		} else {
			p.note(it.piece, v)
		}
	}
}

// line lines a piece up: by what it is for, then by how few copies there are, then by when it was due.
func (p *Planner) line(i int32, v verdict) {
	pc := &p.pieces[i]
	pc.lined = true
	p.ready[pc.class()].put(item{rank: uint16(v.why)<<8 | uint16(min(v.copies, 255)), at: pc.due, piece: i})
}
