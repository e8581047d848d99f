package sched

import (
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
	for p.out < window {
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
	best, rarest := -1, 0
	cells := len(s.avail)
	for k := range cells {
		c := s.start + k
		if c >= cells {
			c -= cells
		}
		if best >= 0 && s.avail[c] >= rarest {
			continue
		}
		if s.offers(p, c) == 0 {
			continue
		}
		if best, rarest = c, s.avail[c]; rarest == 0 {
			break
		}
	}
	if best < 0 {
		return bitfield.Run{}, false
	}
	return s.runFrom(p, best*s.cell, (best+1)*s.cell, budget)
}

// offers is the set of free leaves of a cell that p has, as bits of its word.
func (s *Scheduler) offers(p *peer, cell int) uint64 {
	at := cell * s.cell
	mask := (^uint64(0) >> (64 - s.cell)) << (at & 63)
	return s.free.Word(at>>6) & p.word(at>>6) & mask
}

// runFrom returns the first run in [from, to) that is free and that p has.
func (s *Scheduler) runFrom(p *peer, from, to, budget int) (bitfield.Run, bool) {
	to = min(to, s.cfg.Leaves)
	for i := from; i < to; {
		word := s.free.Word(i>>6) & p.word(i>>6) >> (i & 63) << (i & 63)
		if word == 0 {
			i = (i>>6 + 1) << 6
			continue
		}
		i = i>>6<<6 + bits.TrailingZeros64(word)
		if i >= to {
			break
		}
		r := bitfield.Run{First: i}
		for i < to && s.free.Has(i) && p.has(i) && (r.Count == 0 || budget >= s.cfg.Size(i)) {
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
		if p.has(leaf) && s.twice[leaf] == 0 {
			return k, seconds(float64(bytes) / q.speed(s.now, size))
		}
		bytes -= size
	}
	return -1, 0
}

// stealAt takes the leaf at place k of from's queue if p gains enough by it.
func (s *Scheduler) stealAt(p, from *peer, k int, eta time.Duration) bool {
	leaf := int(from.queue[k])
	size := s.cfg.Size(leaf)
	mine := seconds(float64(p.out+size) / p.speed(s.now, size))
	gain := moveGain
	if k == 0 {
		gain = dupGain
	}
	if float64(eta) < gain*float64(mine) || eta-mine < stealGain {
		return false
	}
	if k == 0 {
		s.twice[leaf] = p.id
	} else {
		from.take(leaf)
		from.out -= size
		from.ended(s.now)
		s.cancel(from.id, leaf)
		s.first[leaf] = p.id
	}
	if len(p.queue) == 0 {
		p.began(s.now)
	}
	p.queue = append(p.queue, int32(leaf))
	p.out += size
	p.asked.Set(leaf)
	s.request(p.id, bitfield.Run{First: leaf, Count: 1})
	return true
}

// stealUrgent takes over the leaf a sequential reader waits for when a slow
// peer sits on it.
func (s *Scheduler) stealUrgent(p *peer) bool {
	s.skipDone()
	if s.head >= s.cfg.Leaves {
		return false
	}
	q := s.peer(s.first[s.head])
	if q == nil || q == p || s.twice[s.head] != 0 || !p.has(s.head) {
		return false
	}
	bytes := 0
	for k, l := range q.queue {
		bytes += s.cfg.Size(int(l))
		if int(l) == s.head {
			return s.stealAt(p, q, k, seconds(float64(bytes)/q.speed(s.now, s.cfg.Size(s.head))))
		}
	}
	return false
}

func seconds(s float64) time.Duration {
	return time.Duration(min(s, 1e6) * float64(time.Second))
}
