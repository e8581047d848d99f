package sched

import (
	"time"

	"github.com/shoal-os/shoal/storage/chunk/bitfield"
)

// promises are the leaves that a fellow has asked a seed for. A seed need not
// send us those, too: the fellow will pass them on. They are kept in two
// generations, so that those that come to nothing lapse.
type promises struct {
	young, old  *bitfield.Bitfield // nil: none
	since       time.Time          // when young was begun
	began       time.Time          // when the first of them was made
	kept, again int                // leaves of them that it has got, in young's time and in old's
}

// word is the set of promised leaves, as bits of word w.
func (s *promises) word(w int) (set uint64) {
	if s != nil && s.young != nil {
		set = s.young.Word(w)
	}
	if s != nil && s.old != nil {
		set |= s.old.Word(w)
	}
	return set
}

func (s *promises) has(leaf int) bool { return s.word(leaf>>6)>>(leaf&63)&1 != 0 }

// keep takes a leaf off, since the fellow has it.
func (s *promises) keep(leaf int) {
	if s.has(leaf) {
		s.kept++
		s.young.Clear(leaf)
		if s.old != nil {
			s.old.Clear(leaf)
		}
	}
}

// believed returns the promises if they will be kept soon, to judge by how fast
// the fellow has kept those before; else nil. It also has old ones lapse.
func (s *promises) believed(now time.Time) *promises {
	if s.young == nil {
		return nil
	}
	open := s.young.Count()
	if s.old != nil {
		open += s.old.Count()
	}
	if now.Sub(s.since) >= soonTime {
		s.turn(now, open)
	}
	span := now.Sub(s.since) + soonTime
	if now.Sub(s.began) < soonGrace || float64(open)*span.Seconds() <= float64(s.kept+s.again)*soonTime.Seconds() {
		return s
	}
	return nil
}

// turn makes the young ones the old.
func (s *promises) turn(now time.Time, open int) {
	if open == 0 {
		*s = promises{}
		return
	}
	s.old, s.again = s.young, s.kept
	s.young, s.kept, s.since = bitfield.New(s.old.Len()), 0, now
}

// soon notes what a fellow has asked a seed for.
func (s *Scheduler) soon(p *peer, r bitfield.Run) {
	if !p.fellow {
		return
	}
	if p.soon.young == nil {
		p.soon.young, p.soon.since, p.soon.began = bitfield.New(s.cfg.Leaves), s.now, s.now
	}
	for i := r.First; i < r.First+r.Count && i < s.cfg.Leaves; i++ {
		if p.have.Has(i) {
			continue
		}
		p.soon.young.Set(i)
		if s.comesFirst(p, i) {
			s.yield(p, i)
		}
		if s.spare != nil { // it is not made anew for every word
			s.spare.Set(i)
		}
	}
}

// comesFirst reports whether a leaf that a fellow and we have both asked a seed for falls to him. He finds the same.
func (s *Scheduler) comesFirst(p *peer, leaf int) bool {
	cell := uint64(leaf / s.cell)
	return mix(p.name, cell) > mix(s.cfg.Self, cell)
}

// yield takes a leaf back that a seed was asked for and has not begun to send, since a fellow has it, or will have it, and can
// pass it on soon. What was asked for before anybody knew of the other is shared out so after all.
func (s *Scheduler) yield(p *peer, leaf int) {
	q := s.peer(s.first[leaf])
	if q == nil || q.fellow || s.cfg.Sequential || s.twice[leaf] != 0 || s.here.Has(leaf) || len(q.queue) == 0 || int(q.queue[0]) == leaf {
		return
	}
	if p.choked || p.snubbed || float64(p.out) > p.speed(s.now, windowMin)*spareTime.Seconds() {
		return
	}
	s.recant(q, leaf)
	s.unhold(leaf, q.id)
	if s.spare == nil {
		s.spare, s.spareAt = bitfield.New(s.cfg.Leaves), s.now
	}
	s.spare.Set(leaf)
}
