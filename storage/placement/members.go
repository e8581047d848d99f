package placement

import (
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/dht/roster"
)

// slot is a member, or empty.
type slot struct {
	peer   Peer
	used   bool
	online bool
	heard  bool          // something is known of what it holds
	gone   time.Duration // Boot when it was last heard of; counts while it is not online
	lost   time.Duration // Boot from which its copies do not count

	takings int // pieces it is taking
}

// pool is what is known of the members. A member keeps its slot as long as it is one.
type pool struct {
	slots map[peer.ID]int
	list  []slot
	field field
	self  int // -1 until this peer is among the members
	words int // of a set of slots

	online   set           // may be read from
	counted  set           // their copies count
	reach    set           // both
	eligible set           // may be given a copy now: online, lending, staying
	sharing  set           // should hold their share: counted, lending, staying
	lending  set           // make up the pool for the brakes
	unheard  int           // members counted and not online of which nobody said yet what they hold
	crossing time.Duration // when the copies of the next one cease to count

	touched set  // whose standing changed in this step
	all     bool // everything is to be looked at anew
}

func (p *Planner) members(now Moment, list []Peer) {
	present := make(map[peer.ID]bool, len(list))
	for _, m := range list {
		present[m.ID] = true
	}
	for i := range p.pool.list {
		if s := &p.pool.list[i]; s.used && !present[s.peer.ID] {
			p.dismiss(i)
		}
	}
	for _, m := range list {
		if i, ok := p.slot(m.ID); ok {
			p.describe(now, i, m)
		}
	}
	p.refresh()
}

// slot finds or makes the slot of a member. It fails when there are too many.
func (p *Planner) slot(id peer.ID) (int, bool) {
	if i, ok := p.pool.slots[id]; ok {
		return i, true
	}
	i := 0
	for i < len(p.pool.list) && p.pool.list[i].used {
		i++
	}
	if i == MembersMax {
		return 0, false
	}
	if i == len(p.pool.list) {
		p.pool.list = append(p.pool.list, slot{})
		p.pool.field.runners = append(p.pool.field.runners, runner{})
		p.widen(setWords(len(p.pool.list)))
	}
	p.pool.list[i].used = true
	p.pool.slots[id] = i
	if id == p.cfg.Self {
		p.pool.self = i
	}
	return i, true
}

// widen gives all sets of members so many words.
func (p *Planner) widen(words int) {
	if words == p.pool.words {
		return
	}
	bits := make([]uint64, len(p.pieces)*words)
	for i := range p.pieces {
		copy(bits[i*words:], p.bits[i*p.pool.words:(i+1)*p.pool.words])
	}
	p.bits, p.pool.words = bits, words
	for _, s := range []*set{&p.pool.online, &p.pool.counted, &p.pool.reach, &p.pool.eligible, &p.pool.sharing, &p.pool.lending, &p.pool.touched} {
		*s = append(*s, make(set, words-len(*s))...)
	}
}

// dismiss forgets a member and all that it held.
func (p *Planner) dismiss(i int) {
	for k := range p.takings {
		p.untake(k, i)
	}
	delete(p.pool.slots, p.pool.list[i].peer.ID)
	p.pool.list[i] = slot{}
	if i == p.pool.self {
		p.pool.self = -1
	}
	p.pool.all = true
	for k := range p.pieces {
		if h := p.holders(int32(k)); h.has(i) {
			h.clear(i)
			p.pieces[k].changed = p.now
			p.release(int32(k))
		}
	}
}

// describe brings a slot up to what is said of its member.
func (p *Planner) describe(now Moment, i int, m Peer) {
	s := &p.pool.list[i]
	was := s.peer
	fresh := was.ID == ""
	if m.ID == p.cfg.Self {
		m.State = roster.Online
	}
	if fresh || was.Member != m.Member {
		p.pool.field.set(i, m.Member)
		p.pool.all = p.pool.all || i == p.pool.self
	}
	if was.Draining != m.Draining || was.Untrusted != m.Untrusted {
		p.pool.touched.add(i)
	}
	state, seen := m.State, m.Seen
	m.State, m.Seen = was.State, was.Seen
	s.peer = m
	if fresh {
		s.left(now, seen, p.cfg.Patience)
	}
	if i == p.pool.self {
		p.roomChanged(was.Free)
	}
	p.appear(now, i, state, seen)
}

func (p *Planner) presence(now Moment, ev Presence) {
	i, ok := p.pool.slots[ev.Peer]
	if !ok || i == p.pool.self {
		return
	}
	p.appear(now, i, ev.State, ev.Seen)
	p.refresh()
}

// appear notes the state of a member.
func (p *Planner) appear(now Moment, i int, state State, seen time.Time) {
	s := &p.pool.list[i]
	was, departs := s.online, state == roster.Departed && s.peer.State != roster.Departed
	s.peer.State, s.online = state, state == roster.Online
	switch {
	case s.online:
		return
	case was && seen.IsZero():
		s.left(now, now.Wall, p.cfg.Patience)
	case was || seen.After(s.peer.Seen):
		s.left(now, seen, p.cfg.Patience)
	}
	if departs {
		s.lost = min(s.lost, now.Boot)
	}
}

// left notes when a member was last heard of; one that never was is given all of the patience from now. The absence is
// counted on the boot clock from here on: if the wall clock leaps later, nobody becomes absent by that.
func (s *slot) left(now Moment, seen time.Time, patience time.Duration) {
	if seen.After(now.Wall) {
		seen = now.Wall
	}
	s.gone, s.peer.Seen = now.Boot, seen
	if !seen.IsZero() {
		s.gone -= now.Wall.Sub(seen)
	}
	s.lost = s.gone + patience
}

// hearsay takes in when others last saw whom this peer does not see. A time that is later by little only is the same one,
// told twice and rounded: taken over, it would grow each time it goes round.
func (p *Planner) hearsay(now Moment, seen []LastSeen) {
	news := false
	for _, l := range seen {
		i, ok := p.pool.slots[l.Peer]
		if !ok || p.pool.list[i].online {
			continue
		}
		if s := &p.pool.list[i]; l.At.Sub(s.peer.Seen) > min(hearsayStep, p.cfg.Patience/64) {
			p.appear(now, i, s.peer.State, l.At)
			news = true
		}
	}
	if news {
		p.refresh()
	}
}

func (p *Planner) room(ev Room) {
	i, ok := p.pool.slots[ev.Peer]
	if !ok {
		return
	}
	s := &p.pool.list[i]
	was := s.peer.Free
	s.peer.Free = ev.Free
	if i == p.pool.self {
		p.roomChanged(was)
	}
}

// roomChanged looks again at what did not fit, or for what can be let go.
func (p *Planner) roomChanged(was uint64) {
	if p.pool.list[p.pool.self].peer.Free > was && p.starved {
		p.pool.all = true
	}
	if bytes, _ := p.tight(); bytes > 0 && p.trim.next == never {
		p.trim.next = p.now
	}
}

// refresh computes the sets of members anew, and when time will next change them.
func (p *Planner) refresh() {
	l := &p.pool
	was := l.unheard
	l.crossing, l.unheard = never, 0
	for i := range l.list {
		s := &l.list[i]
		departed := s.peer.State == roster.Departed
		online := s.used && s.online && !s.peer.Untrusted
		counted := s.used && !s.peer.Untrusted && !s.peer.Draining && !departed && (s.online || p.now < s.lost)
		lends := counted && l.field.runners[i].weight > 0
		if online != l.online.has(i) || counted != l.counted.has(i) {
			l.touched.add(i)
		}
		l.online.put(i, online)
		l.counted.put(i, counted)
		l.reach.put(i, online && counted)
		l.sharing.put(i, lends)
		l.eligible.put(i, lends && online)
		l.lending.put(i, s.used && !departed && s.peer.Space > 0)
		if counted && !s.online {
			l.crossing = min(l.crossing, s.lost)
		}
		if counted && !s.online && !s.heard {
			l.unheard++
		}
	}
	l.all = l.all || l.unheard < was
}

// LastSeen returns when this peer last heard of each member that is not departed, for their Hearsay. In the first minute
// after waking it leaves out those that seem online: they may have died while this machine slept, and would count as alive
// for another 72 hours everywhere, by the word of each that wakes.
func (p *Planner) LastSeen(now Moment) []LastSeen {
	seen := make([]LastSeen, 0, len(p.pool.slots))
	for i := range p.pool.list {
		s := &p.pool.list[i]
		switch {
		case !s.used || s.peer.State == roster.Departed || !s.online && s.peer.Seen.IsZero():
		case !s.online:
			seen = append(seen, LastSeen{s.peer.ID, now.Wall.Add(s.gone - now.Boot)})
		case now.Boot-p.woke >= freshAfter:
			seen = append(seen, LastSeen{s.peer.ID, now.Wall})
		}
	}
	return seen
}
