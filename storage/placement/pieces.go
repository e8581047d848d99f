package placement

import (
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

// piece is what is known of one, beside who holds it. There may be 100,000 of them.
type piece struct {
	id      chunk.CID
	wanted  uint8 // copies; 0: not live, but held by somebody or wished for
	pinned  bool
	lined   bool // it waits for a free slot
	share   bool // part of this peer's share, and missing here: see filler
	queued  bool // in Planner.waiting
	size    int64
	changed time.Duration // Boot when it became live, more copies were wanted, or a copy was lost otherwise than by absence
	due     time.Duration // Boot when it is to be judged again; never: nothing is to be done
}

// class is the kind of slot that fetching it takes: 0 a large piece, 1 a small one.
func (pc *piece) class() int {
	if pc.size > smallSize {
		return 0
	}
	return 1
}

// holders is the set of slots that hold a piece.
func (p *Planner) holders(i int32) set {
	return set(p.bits[int(i)*p.pool.words : (int(i)+1)*p.pool.words])
}

// entry finds or makes the entry of a piece.
func (p *Planner) entry(id chunk.CID) int32 {
	i, ok := p.index[id]
	if ok {
		return i
	}
	if n := len(p.spare); n > 0 {
		i, p.spare = p.spare[n-1], p.spare[:n-1]
	} else {
		i = int32(len(p.pieces))
		p.pieces = append(p.pieces, piece{})
		p.bits = append(p.bits, make([]uint64, p.pool.words)...)
	}
	p.pieces[i] = piece{id: id, due: never, changed: p.now}
	p.index[id] = i
	return i
}

// release forgets a piece that nobody wants or holds.
func (p *Planner) release(i int32) {
	pc := &p.pieces[i]
	if !pc.id.Defined() || pc.wanted > 0 || !p.holders(i).empty() || p.wishes[i] || p.flight(i) >= 0 {
		return
	}
	delete(p.index, pc.id)
	for len(p.takings[i]) > 0 {
		p.untake(i, p.takings[i][0].slot)
	}
	delete(p.retries, i)
	delete(p.trim.promised, i)
	*pc = piece{due: never}
	p.spare = append(p.spare, i)
}

// live takes in which pieces are live.
func (p *Planner) live(ev Pieces) {
	for _, c := range ev.Changed {
		i := p.entry(c.ID)
		pc := &p.pieces[i]
		wanted := uint8(min(max(c.Copies, 1), 255))
		if wanted > pc.wanted {
			pc.changed = p.now
		}
		pc.wanted, pc.size, pc.pinned = wanted, max(c.Size, 0), c.Pinned
		p.look(i)
	}
	for _, id := range ev.Removed {
		if i, ok := p.index[id]; ok {
			p.pieces[i].wanted, p.pieces[i].pinned = 0, false
			p.unmark(i)
			p.look(i)
			p.halt(i)
			p.release(i)
		}
	}
}

// holds takes in what a member holds. What a stranger holds is of no use.
func (p *Planner) holds(ev Holds) {
	s, ok := p.pool.slots[ev.Peer]
	if !ok {
		return
	}
	if !p.pool.list[s].heard {
		p.pool.list[s].heard = true
		p.refresh()
	}
	if ev.Reset {
		p.reset(s, ev.Added)
	}
	for _, id := range ev.Added {
		if _, known := p.index[id]; !known && len(p.index) >= PiecesMax {
			continue
		}
		i := p.entry(id)
		if h := p.holders(i); !h.has(s) {
			h.add(s)
			p.gained(i, s)
		}
	}
	for _, id := range ev.Removed {
		if i, ok := p.index[id]; ok && p.holders(i).has(s) {
			p.lose(i, s)
		}
	}
}

// reset takes away what a member is said to hold beyond a list.
func (p *Planner) reset(s int, keep []chunk.CID) {
	kept := make(map[int32]bool, len(keep))
	for _, id := range keep {
		if i, ok := p.index[id]; ok {
			kept[i] = true
		}
	}
	for k := range p.pieces {
		if i := int32(k); !kept[i] && p.holders(i).has(s) {
			p.lose(i, s)
		}
	}
}

func (p *Planner) gained(i int32, s int) {
	p.untake(i, s)
	if s == p.pool.self {
		p.unmark(i)
		delete(p.wishes, i)
		delete(p.retries, i)
		p.land(i)
	}
	p.look(i)
	p.reconsider(i)
}

// lose notes that a member no longer holds a piece. If this peer lost its own copy without having let it go, it was damaged,
// and is fetched again at once.
func (p *Planner) lose(i int32, s int) {
	p.holders(i).clear(s)
	p.pieces[i].changed = p.now
	if s == p.pool.self && !p.trim.forget(i) && p.pieces[i].wanted > 0 {
		p.retries[i] = retry{at: p.now, hurt: true}
	}
	p.look(i)
	p.release(i)
}
