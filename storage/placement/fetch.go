package placement

import (
	"slices"
	"time"

	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

// triesMax is how often the wait before the next try of a fetch doubles, and wishTries how often a writer's wish is tried.
const (
	triesMax  = 7
	wishTries = 3
)

// flight is a fetch under way. Its lease is renewed as long as bytes arrive.
type flight struct {
	piece   int32
	class   int
	why     Why
	moved   bool          // since the last renewal
	until   time.Duration // Boot when the lease ends
	renewAt time.Duration // Boot when to look at it
}

// taking is another's lease.
type taking struct {
	slot  int
	until time.Duration
}

// retry says when a fetch that failed may be tried again.
type retry struct {
	at    time.Duration
	tries uint8
	hurt  bool // this peer's own copy was damaged
}

// flight finds the fetch of a piece, -1 if there is none.
func (p *Planner) flight(i int32) int {
	return slices.IndexFunc(p.flights, func(f flight) bool { return f.piece == i })
}

// begin fills the free slots from those lined up.
func (p *Planner) begin() {
	for class := range p.ready {
		q := &p.ready[class]
		for q.len() > 0 && p.slotFree(class) {
			if p.brake != Free && Why(q.items[0].rank>>8) > ForPin {
				break
			}
			i := q.take().piece
			if !p.pieces[i].lined {
				continue
			}
			if v := p.judge(i); v.due <= p.now {
				p.start(i, v.why)
			} else {
				p.note(i, v)
			}
		}
	}
}

func (p *Planner) slotFree(class int) bool {
	free := [2]int{p.cfg.Large, p.cfg.Small}[class]
	for _, f := range p.flights {
		if f.class == class {
			free--
		}
	}
	return free > 0
}

func (p *Planner) start(i int32, why Why) {
	pc := &p.pieces[i]
	p.flights = append(p.flights, flight{
		piece: i, class: pc.class(), why: why, until: p.now + p.cfg.Lease, renewAt: p.now + p.cfg.Lease/2,
	})
	p.note(i, nothing)
	p.out.Announce = append(p.out.Announce, Announce{pc.id, p.cfg.Lease})
	p.out.Fetch = append(p.out.Fetch, Fetch{Piece: pc.id, Size: pc.size, From: p.sources(i), Why: why})
}

// renew prolongs the leases of fetches that move, and ends those that do not.
func (p *Planner) renew() {
	for k := 0; k < len(p.flights); k++ {
		f := &p.flights[k]
		switch {
		case p.now < f.renewAt:
		case f.moved:
			f.moved, f.until, f.renewAt = false, p.now+p.cfg.Lease, p.now+p.cfg.Lease/2
			p.out.Announce = append(p.out.Announce, Announce{p.pieces[f.piece].id, p.cfg.Lease})
		case p.now < f.until:
			f.renewAt = f.until
		default:
			i := f.piece
			p.stop(i)
			p.putOff(i)
			k--
		}
	}
}

// stop ends a fetch that the shell has under way.
func (p *Planner) stop(i int32) {
	p.land(i)
	p.out.Stop = append(p.out.Stop, p.pieces[i].id)
	p.out.Announce = append(p.out.Announce, Announce{Piece: p.pieces[i].id})
}

// land forgets a fetch.
func (p *Planner) land(i int32) {
	if k := p.flight(i); k >= 0 {
		p.flights = slices.Delete(p.flights, k, k+1)
	}
}

// putOff has a fetch that failed wait, the longer the more often it did.
func (p *Planner) putOff(i int32) {
	r := p.retries[i]
	r.at = p.now + p.cfg.Lease/4<<min(r.tries, triesMax)
	r.tries = min(r.tries+1, triesMax)
	p.retries[i] = r
	if r.tries >= wishTries {
		delete(p.wishes, i)
	}
	p.pool.all = p.pool.all || p.starved // it may have kept the room from others
	p.sweep = min(p.sweep, p.now+p.cfg.Lease)
	p.look(i)
	p.release(i)
}

func (p *Planner) moving(id chunk.CID) {
	if i, ok := p.index[id]; ok {
		if k := p.flight(i); k >= 0 {
			p.flights[k].moved = true
		}
	}
}

func (p *Planner) ended(id chunk.CID, here bool) {
	i, ok := p.index[id]
	if !ok || p.flight(i) < 0 {
		return
	}
	p.land(i)
	if here && p.pool.self >= 0 {
		p.holders(i).add(p.pool.self)
		p.gained(i, p.pool.self)
		return
	}
	p.out.Announce = append(p.out.Announce, Announce{Piece: id})
	p.putOff(i)
}

// halt ends the fetch of a piece that is no longer live, unless a writer asked for it: its name may be still to come.
func (p *Planner) halt(i int32) {
	if k := p.flight(i); k >= 0 && p.flights[k].why != ForWriter {
		p.stop(i)
	}
}

// reconsider ends a repair that is no longer needed, or that others do who come first.
func (p *Planner) reconsider(i int32) {
	k := p.flight(i)
	if k < 0 || p.flights[k].why != ForRepair && p.flights[k].why != ForUrgency {
		return
	}
	pc, h := &p.pieces[i], p.holders(i)
	need := int(pc.wanted) - h.shared(p.pool.counted)
	if p.urgent(i) {
		need = max(need, 1)
	}
	takers, _ := p.takers(i)
	for _, s := range takers {
		if p.first(i, s) {
			need--
		}
	}
	if need <= 0 {
		p.stop(i)
		p.look(i)
	}
}

// first reports whether another comes before this peer when both are fetching a piece: by rank alone, which does not
// depend on what either knows of who holds what.
func (p *Planner) first(i int32, s int) bool {
	f, self := &p.pool.field, p.pool.self
	may := newSet(len(p.pool.list))
	may.add(s)
	may.add(self)
	f.rate(fold(p.pieces[i].id.Sum[:]), may)
	return f.better(s, self)
}

// taken takes in a lease of another.
func (p *Planner) taken(ev Taking) {
	s, ok := p.pool.slots[ev.Peer]
	i, known := p.index[ev.Piece]
	if !ok || !known || s == p.pool.self {
		return
	}
	p.untake(i, s)
	if ev.For > 0 && p.pool.list[s].takings < takingsMax {
		p.pool.list[s].takings++
		p.takings[i] = append(p.takings[i], taking{s, p.now + min(ev.For, p.cfg.Lease)})
		p.sweep = min(p.sweep, p.now+p.cfg.Lease)
	}
	p.look(i)
	p.reconsider(i)
}

func (p *Planner) untake(i int32, s int) {
	list := p.takings[i]
	k := slices.IndexFunc(list, func(t taking) bool { return t.slot == s })
	if k < 0 {
		return
	}
	p.pool.list[s].takings--
	if len(list) == 1 {
		delete(p.takings, i)
	} else {
		p.takings[i] = slices.Delete(list, k, k+1)
	}
}

// takers returns who else is fetching a piece and does not hold it yet, and when the first of their leases ends. The slice
// is good until the next call.
func (p *Planner) takers(i int32) (slots []int, lapse time.Duration) {
	lapse = never
	slots = p.buf[:0]
	for _, t := range p.takings[i] {
		if t.until > p.now && !p.holders(i).has(t.slot) {
			slots = append(slots, t.slot)
			lapse = min(lapse, t.until)
		}
	}
	p.buf = slots
	return slots, lapse
}

// nudge notes a writer's wish. The writer has the piece.
func (p *Planner) nudge(ev Nudge) {
	if len(p.wishes) >= wishesMax || p.pool.self < 0 || ev.From == p.cfg.Self {
		return
	}
	i := p.entry(ev.Piece)
	if p.holders(i).has(p.pool.self) {
		return
	}
	if p.pieces[i].wanted == 0 {
		p.pieces[i].size = max(ev.Size, 0)
	}
	if s, ok := p.pool.slots[ev.From]; ok {
		p.holders(i).add(s)
	}
	p.wishes[i] = true
	p.look(i)
}

// sweepUp drops what has run out.
func (p *Planner) sweepUp() {
	if p.now < p.sweep {
		return
	}
	for i, list := range p.takings {
		for _, t := range slices.Clone(list) {
			if t.until <= p.now {
				p.untake(i, t.slot)
			}
		}
	}
	for i, r := range p.retries {
		if p.now-r.at > p.cfg.Lease<<triesMax {
			delete(p.retries, i)
		}
	}
	for i, until := range p.trim.promised {
		if until <= p.now {
			delete(p.trim.promised, i)
		}
	}
	p.sweep = never
	if len(p.takings)+len(p.retries)+len(p.trim.promised) > 0 {
		p.sweep = p.now + p.cfg.Lease
	}
}

// sources lists who can be read from, the best first.
func (p *Planner) sources(i int32) (ids []peer.ID) {
	may := append(set(nil), p.holders(i)...)
	for k := range may {
		may[k] &= p.pool.online[k]
	}
	if p.pool.self >= 0 {
		may.clear(p.pool.self)
	}
	f := &p.pool.field
	f.rate(fold(p.pieces[i].id.Sum[:]), may)
	for _, s := range slices.SortedFunc(may.all(), f.order) {
		ids = append(ids, p.pool.list[s].peer.ID)
	}
	return ids
}

// Sources returns the members that hold a piece and are online, the best first, this peer not among them.
func (p *Planner) Sources(id chunk.CID) []peer.ID {
	if i, ok := p.index[id]; ok {
		return p.sources(i)
	}
	return nil
}

// Holders returns all members known to hold a piece, this peer and those that are absent included.
func (p *Planner) Holders(id chunk.CID) (ids []peer.ID) {
	if i, ok := p.index[id]; ok {
		for s := range p.holders(i).all() {
			ids = append(ids, p.pool.list[s].peer.ID)
		}
	}
	return ids
}

// Takings returns what this peer is fetching, for a member that has just connected and missed the announcements.
func (p *Planner) Takings(now Moment) (list []Announce) {
	for _, f := range p.flights {
		if f.until > now.Boot {
			list = append(list, Announce{p.pieces[f.piece].id, f.until - now.Boot})
		}
	}
	return list
}

// Targets returns the members a writer should give a piece to, the best first: those online with room for it, in the order
// that together with this peer and those known to hold it spreads it best. They are as many as there are, so that the
// writer can go on when one refuses. A writer that lends no space does not count as one that holds it.
func (p *Planner) Targets(id chunk.CID, size int64) (ids []peer.ID) {
	may := append(set(nil), p.pool.eligible...)
	var chosen []int
	if self := p.pool.self; self >= 0 {
		may.clear(self)
		if p.pool.field.runners[self].weight > 0 {
			chosen = append(chosen, self)
		}
	}
	if i, ok := p.index[id]; ok {
		for s := range p.holders(i).all() {
			if may.clear(s); s != p.pool.self && p.pool.counted.has(s) {
				chosen = append(chosen, s)
			}
		}
	}
	for s := range may.all() {
		if !roomFor(p.pool.list[s].peer.Free, size) {
			may.clear(s)
		}
	}
	held := len(chosen)
	for _, s := range p.pool.field.choose(fold(id.Sum[:]), chosen, may, MembersMax)[held:] {
		ids = append(ids, p.pool.list[s].peer.ID)
	}
	return ids
}
