package placement

import "time"

// filler has a newcomer take its share. What that is, is settled once, when it begins: if it were judged again whenever
// somebody comes or goes, the share would grow by everybody who is away while it is being taken.
type filler struct {
	on     bool
	marked bool
	missed int           // pieces of the share that are not here yet
	until  time.Duration // Boot until which what cannot be reached, or has no room, is waited for
}

// fill begins, unless it has begun.
func (p *Planner) fill() {
	if !p.filling.on {
		p.filling = filler{on: true, missed: p.filling.missed, until: never}
	}
}

// mark finds out what this peer's share is.
func (p *Planner) mark() {
	if !p.filling.on || p.filling.marked || p.pool.self < 0 || !p.pool.sharing.has(p.pool.self) {
		return
	}
	p.filling.marked, p.filling.until = true, p.now+p.cfg.Patience
	p.pool.all = true
	for k := range p.pieces {
		if i := int32(k); p.pieces[i].wanted > 0 && !p.pieces[i].share && !p.holders(i).has(p.pool.self) && p.mine(i) {
			p.pieces[i].share = true
			p.filling.missed++
		}
	}
}

// mine reports whether this peer is among those that should hold a piece.
func (p *Planner) mine(i int32) bool {
	pc := &p.pieces[i]
	may := append(set(nil), p.pool.sharing...)
	var buf [16]int
	for _, s := range p.pool.field.choose(fold(pc.id.Sum[:]), buf[:0], may, int(pc.wanted)) {
		if s == p.pool.self {
			return true
		}
	}
	return false
}

// unmark takes a piece out of the share: it is here, or no longer live, or was waited for long enough.
func (p *Planner) unmark(i int32) {
	if p.pieces[i].share {
		p.pieces[i].share = false
		p.filling.missed--
	}
}

// filled reports, once, that this peer has its share.
func (p *Planner) filled() bool {
	f := &p.filling
	if p.now >= f.until && f.on {
		f.until = never
		for k := range p.pieces {
			if i := int32(k); p.pieces[i].share && p.pieces[i].due == never && p.flight(i) < 0 {
				p.unmark(i)
			}
		}
	}
	if !f.on || !f.marked || f.missed > 0 {
		return false
	}
	f.on, f.until = false, never
	return true
}
