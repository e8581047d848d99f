package sched

import (
	"math"
	"math/bits"
	"time"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

func (s *Scheduler) fillAll() {
	for _, p := range s.peers {
		if p != nil {
			s.fill(p)
		}
	}
}

// fill asks p for as much as its window allows: what nobody was asked for
// first, then what slower peers hold up.
func (s *Scheduler) fill(p *peer) {
	window := p.window()
	// Asking in larger pieces, when a quarter is open, keeps requests few.
	if len(p.queue) > 0 && window-p.out < window/4 {
		return
	}
	for p.out < window && len(p.queue) < queueMax {
		if s.cfg.Sequential && s.stealUrgent(p) {
			continue
		}
		if run, ok := s.pick(p, window-p.out); ok {
			s.ask(p, run)
		} else if !s.steal(p) {
			return
		}
	}
}

// ask gives a run of free leaves to p.
func (s *Scheduler) ask(p *peer, r bitfield.Run) {
	if len(p.queue) == 0 {
		p.began(s.now)
	}
	for i := r.First; i < r.First+r.Count; i++ {
		s.free.Clear(i)
		s.first[i] = p.id
		p.queue = append(p.queue, int32(i))
		p.out += s.cfg.Size(i)
		p.asked.Set(i)
	}
	s.request(p.id, r)
}

func (s *Scheduler) request(id Peer, r bitfield.Run) {
	if k := len(s.out.Asks) - 1; k >= 0 && s.out.Asks[k].Peer == id {
		if last := &s.out.Asks[k].Run; last.First+last.Count == r.First {
			last.Count += r.Count
			return
		}
	}
	s.out.Asks = append(s.out.Asks, Ask{id, r})
}

// pick chooses a run of free leaves that p has, of at most budget bytes but at
// least one leaf.
func (s *Scheduler) pick(p *peer, budget int) (bitfield.Run, bool) {
	if s.free.Count() == 0 {
		return bitfield.Run{}, false
	}
	if s.cfg.Sequential {
		return s.pickInOrder(p, budget)
	}
	s.spared = nil
	if !p.fellow {
		s.spared = s.fromFellows()
	}
	best, least := -1, 0
	cells, start := len(s.avail), s.start
	if len(s.heard) > 0 {
		start = 0
	}
	for k := range cells {
		c := start + k
		if c >= cells {
			c -= cells
		}
		cost := s.cost(p, c)
		// A cell that falls to a fellow is taken from the far end: it comes from the near one.
		ours := cost == 0 || cost > math.MaxUint8
		if best >= 0 && (cost > least || cost == least && ours) {
			continue
		}
		if s.offers(p, c) == 0 {
			continue
		}
		if best, least = c, cost; cost == 0 {
			break
		}
	}
	if best < 0 {
		return bitfield.Run{}, false
	}
	return s.runFrom(p, best*s.cell, (best+1)*s.cell, budget)
}

// cost orders the cells to ask of p: the rarest first. Among those that no
// fellow has, a seed is first asked for the ones that fall to us, so that
// fellows who began together fetch different parts and then exchange them.
func (s *Scheduler) cost(p *peer, cell int) int {
	if p.fellow || s.avail[cell] > 0 {
		return s.avail[cell] << 8
	}
	if s.ranks == nil {
		s.rank()
	}
	return int(s.ranks[cell])
}

// rank makes ranks: by rendezvous hashing, how many fellows come before us in
// each cell. All fellows find the same order without a word about it. Those of
// whom we only heard count too: by the time they serve us it would be late, and
// if they never come their cells are merely asked for last.
func (s *Scheduler) rank() {
	s.ranks = make([]uint8, len(s.avail))
	for c := range s.ranks {
		mine := mix(s.cfg.Self, uint64(c))
		for name := range s.heard {
			if mix(name, uint64(c)) > mine {
				s.ranks[c]++
			}
		}
	}
}

// mix hashes two numbers into one (the finaliser of splitmix64).
func mix(a, b uint64) uint64 {
	x := a ^ b*0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// fromFellows returns the free leaves that fellow downloaders can send within
// spareTime, of those they have or have asked a seed for; nil for none. Seeds are not asked for those: a seed's upload is
// what a young swarm is short of, and nobody waits longer for it than that.
// Each leaf is put down, in order, to the fellow that would be done first.
func (s *Scheduler) fromFellows() *bitfield.Bitfield {
	if s.now.Sub(s.spareAt) < spareFresh {
		return s.spare
	}
	s.spare, s.spareAt = nil, s.now
	fellows := s.fellows()
	if len(fellows) == 0 {
		return nil
	}
	spare := bitfield.New(s.cfg.Leaves)
	for w := range spare.Words() {
		word := s.free.Word(w)
		if word == 0 {
			continue
		}
		var any uint64
		busy := true
		for _, f := range fellows {
			any |= f.have.Word(w) | f.believed.word(w)
			busy = busy && f.until > spareTime.Seconds()
		}
		if busy {
			break
		}
		for word &= any; word != 0; word &= word - 1 {
			i := w<<6 + bits.TrailingZeros64(word)
			if f := soonest(fellows, i); f != nil {
				f.until += float64(s.cfg.Size(i)) / f.speed
				spare.Set(i)
			}
		}
	}
	s.spare = spare
	return spare
}

// fellow is a fellow downloader with what it sends a second and, in seconds,
// how long it is busy with what is put down to it.
type fellow struct {
	*peer
	speed, until float64
	believed     *promises // nil for none
}

// soonest is who of those that have leaf i is done first; nil if nobody is
// within spareTime.
func soonest(fellows []fellow, i int) *fellow {
	var best *fellow
	for k := range fellows {
		f := &fellows[k]
		if (f.have.Has(i) || f.believed.has(i)) && f.until <= spareTime.Seconds() && (best == nil || f.until < best.until) {
			best = f
		}
	}
	return best
}

// fellows lists the fellow downloaders that serve us. One who has sent nothing
// yet is taken to be as fast as the fastest, until its silence tells otherwise.
func (s *Scheduler) fellows() (out []fellow) {
	var best float64
	for _, p := range s.peers {
		if p != nil {
			best = max(best, p.rate)
		}
	}
	for _, p := range s.peers {
		if p == nil || !p.fellow || p.choked || p.snubbed {
			continue
		}
		speed := p.speed(s.now, windowMin)
		if p.rate == 0 {
			speed = min(max(speed, best), float64(windowMin)/max(p.silence(s.now).Seconds(), 1e-3))
		}
		out = append(out, fellow{peer: p, speed: speed, until: float64(p.out) / speed, believed: p.soon.believed(s.now)})
	}
	return out
}

// offers is the set of free leaves of a cell that p has, as bits of its word.
func (s *Scheduler) offers(p *peer, cell int) uint64 {
	at := cell * s.cell
	mask := (^uint64(0) >> (64 - s.cell)) << (at & 63)
	return s.askable(p, at>>6) & mask
}

// askable is the set of free leaves, as bits of word w, that p has and is to
// be asked for.
func (s *Scheduler) askable(p *peer, w int) uint64 {
	word := s.free.Word(w) & p.word(w)
	if s.spared != nil {
		word &^= s.spared.Word(w)
	}
	return word
}

// runFrom returns the first run in [from, to) that is free and that p has.
func (s *Scheduler) runFrom(p *peer, from, to, budget int) (bitfield.Run, bool) {
	to = min(to, s.cfg.Leaves)
	for i := from; i < to; {
		word := s.askable(p, i>>6) >> (i & 63) << (i & 63)
		if word == 0 {
			i = (i>>6 + 1) << 6
			continue
		}
		i = i>>6<<6 + bits.TrailingZeros64(word)
		if i >= to {
			break
		}
		r := bitfield.Run{First: i}
		for i < to && s.free.Has(i) && p.has(i) && (r.Count == 0 || budget >= s.cfg.Size(i)) && len(p.queue)+r.Count < queueMax {
			budget -= s.cfg.Size(i)
			r.Count++
			i++
		}
		return r, true
	}
	return bitfield.Run{}, false
}

// pickInOrder takes the lowest free leaves from the reader's place on, then
// those before it, never further than ReadAhead past what is missing.
func (s *Scheduler) pickInOrder(p *peer, budget int) (bitfield.Run, bool) {
	s.spared = nil
	s.skipDone()
	ahead, to := 0, s.head
	for to < s.cfg.Leaves && ahead < ReadAhead {
		ahead += s.cfg.Size(to)
		to++
	}
	return s.runFrom(p, s.head, to, budget)
}

// skipDone moves the reader's place past leaves that are not missing; at the
// end it starts over for what a seek skipped.
func (s *Scheduler) skipDone() {
	for range 2 {
		for s.head < s.cfg.Leaves && !s.need.Has(s.head) {
			s.head++
		}
		if s.head < s.cfg.Leaves {
			return
		}
		s.head = 0
	}
}

// steal gives p one leaf that a slower peer holds up: taken over if it is
// still waiting there, asked for twice if it is being sent. It reports whether
// it found one.
func (s *Scheduler) steal(p *peer) bool {
	if s.free.Count() != 0 {
		return false // p merely lacks what is free, or it is too far ahead
	}
	var from *peer
	var worst time.Duration
	at := -1
	for _, q := range s.peers {
		if q == nil || q == p || len(q.queue) == 0 {
			continue
		}
		if k, eta := s.lastFor(q, p); k >= 0 && eta > worst {
			from, at, worst = q, k, eta
		}
	}
	if from == nil {
		return false
	}
	return s.stealAt(p, from, at, worst)
}

// lastFor is the place in q's queue of the last leaf that p could send too,
// and when q may be expected to have sent it.
func (s *Scheduler) lastFor(q, p *peer) (at int, eta time.Duration) {
	bytes := q.out
	for k := len(q.queue) - 1; k >= 0; k-- {
		leaf := int(q.queue[k])
		size := s.cfg.Size(leaf)
		if p.has(leaf) && s.twice[leaf] == 0 && !s.here.Has(leaf) {
			return k, seconds(float64(bytes) / q.speed(s.now, size))
		}
		bytes -= size
	}
	return -1, 0
}

// stealAt takes the leaf at place k of from's queue if p gains enough by it.
func (s *Scheduler) stealAt(p, from *peer, k int, eta time.Duration) bool {
	leaf := int(from.queue[k])
	if k == 0 { // being sent
		return s.gains(p, leaf, dupGain, eta) && s.askToo(p, leaf)
	}
	if !s.gains(p, leaf, moveGain, eta) {
		return false
	}
	s.recant(from, leaf)
	s.first[leaf] = p.id
	s.enqueue(p, leaf)
	return true
}

// recant takes a leaf back that p was asked for, if it was. Who holds the leaf instead, if anybody, is the caller's to say.
func (s *Scheduler) recant(p *peer, leaf int) {
	if p.take(leaf) {
		p.out -= s.cfg.Size(leaf)
		p.ended(s.now)
		s.cancel(p.id, leaf)
	}
}

// stealUrgent asks p too for the leaf a sequential reader has been waiting for,
// when a slow peer sits on it.
func (s *Scheduler) stealUrgent(p *peer) bool {
	s.skipDone()
	if s.head >= s.cfg.Leaves {
		return false
	}
	if s.head != s.awaited {
		s.awaited, s.awaitedAt = s.head, s.now
	}
	q := s.peer(s.first[s.head])
	if q == nil || q == p || s.twice[s.head] != 0 || !p.has(s.head) || s.here.Has(s.head) || s.now.Sub(s.awaitedAt) < headPatience {
		return false
	}
	bytes := 0
	for _, l := range q.queue {
		bytes += s.cfg.Size(int(l))
		if int(l) == s.head {
			break
		}
	}
	return s.gains(p, s.head, dupGain, seconds(float64(bytes)/q.speed(s.now, s.cfg.Size(s.head)))) && s.askToo(p, s.head)
}

// gains reports whether p would send a leaf sooner by the factor than eta.
func (s *Scheduler) gains(p *peer, leaf int, factor float64, eta time.Duration) bool {
	size := s.cfg.Size(leaf)
	mine := seconds(float64(p.out+size) / p.speed(s.now, size))
	return float64(eta) >= factor*float64(mine) && eta-mine >= stealGain
}

// askToo asks p for a leaf that another is asked for already.
func (s *Scheduler) askToo(p *peer, leaf int) bool {
	s.twice[leaf] = p.id
	s.enqueue(p, leaf)
	return true
}

// enqueue requests one leaf of p.
func (s *Scheduler) enqueue(p *peer, leaf int) {
	if len(p.queue) == 0 {
		p.began(s.now)
	}
	p.queue = append(p.queue, int32(leaf))
	p.out += s.cfg.Size(leaf)
	p.asked.Set(leaf)
	s.request(p.id, bitfield.Run{First: leaf, Count: 1})
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e6) * float64(time.Second))
}
