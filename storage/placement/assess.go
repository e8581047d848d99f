package placement

import (
	"github.com/libp2p/go-libp2p/core/peer"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Safety is how safe one or several pieces are: of several, the worst of each.
type Safety struct {
	Copies   int  // on members that are there or away, not absent
	Wanted   int  // the most that any of the pieces wants
	Online   int  // of Copies, on members online now
	Survives int  // departures it survives: Copies-1, at least 0
	Asleep   bool // a piece has copies, absent ones included, but none online
	Lost     bool // of a piece no copy is known, not even on an absent member
}

// Assess says how safe pieces are together: a file is as safe as its worst piece. Without pieces Copies, Online and Survives
// are 0 and nothing is lost.
func (p *Planner) Assess(ids ...chunk.CID) (all Safety) {
	for k, id := range ids {
		s := Safety{Lost: true}
		if i, ok := p.index[id]; ok {
			s = p.safety(i)
		}
		all.Wanted = max(all.Wanted, s.Wanted)
		all.Asleep, all.Lost = all.Asleep || s.Asleep, all.Lost || s.Lost
		if k == 0 {
			all.Copies, all.Online, all.Survives = s.Copies, s.Online, s.Survives
		}
		all.Copies, all.Online, all.Survives = min(all.Copies, s.Copies), min(all.Online, s.Online), min(all.Survives, s.Survives)
	}
	return all
}

func (p *Planner) safety(i int32) Safety {
	h := p.holders(i)
	s := Safety{Copies: h.shared(p.pool.counted), Wanted: int(p.pieces[i].wanted), Online: h.shared(p.pool.reach)}
	s.Survives = max(0, s.Copies-1)
	s.Asleep, s.Lost = !h.empty() && s.Online == 0, h.empty()
	return s
}

// Loss is what the removal of a member would mean.
type Loss struct {
	Lost       []chunk.CID // live pieces of which it alone has a copy that counts
	LostBytes  int64
	Moved      int // pieces that others would copy
	MovedBytes int64
	NoRoom     int64 // bytes that should be copied beside those, but no member has room for them
	Asleep     int64 // bytes of which no copy would be online, though there are some
}

// WhatIf says what the removal of a member would lose and move. Room is taken as it is known now, and filled up piece by
// piece. A member that is not known changes nothing.
func (p *Planner) WhatIf(remove peer.ID) (loss Loss) {
	s, ok := p.pool.slots[remove]
	if !ok {
		return loss
	}
	free := make([]uint64, len(p.pool.list))
	for i := range free {
		free[i] = p.pool.list[i].peer.Free
	}
	counts := p.pool.counted.has(s)
	for k := range p.pieces {
		i := int32(k)
		pc, h := &p.pieces[i], p.holders(i)
		if pc.wanted == 0 || !h.has(s) || !counts {
			continue
		}
		copies := h.shared(p.pool.counted) - 1
		if online := h.shared(p.pool.reach); copies > 0 && (online == 0 || online == 1 && p.pool.reach.has(s)) {
			loss.Asleep += pc.size
		}
		switch {
		case copies == 0:
			loss.Lost = append(loss.Lost, pc.id)
			loss.LostBytes += pc.size
		case copies >= int(pc.wanted):
		case p.takeIn(i, s, free):
			loss.Moved++
			loss.MovedBytes += pc.size
		default:
			loss.NoRoom += pc.size
		}
	}
	return loss
}

// takeIn finds the member that would get a copy of a piece if another were gone, and takes the room from free.
func (p *Planner) takeIn(i int32, gone int, free []uint64) bool {
	var chosen []int
	may := append(set(nil), p.pool.sharing...)
	may.clear(gone)
	for s := range p.holders(i).all() {
		if may.clear(s); s != gone && p.pool.counted.has(s) {
			chosen = append(chosen, s)
		}
	}
	size := p.pieces[i].size
	for s := range may.all() {
		if !roomFor(free[s], size) {
			may.clear(s)
		}
	}
	held := len(chosen)
	got := p.pool.field.choose(fold(p.pieces[i].id.Sum[:]), chosen, may, 1)[held:]
	for _, s := range got {
		free[s] -= uint64(size)
	}
	return len(got) > 0
}

// Totals counts the live pieces by how safe they are. Each is in one class, the first that fits.
type Totals struct {
	Lost   Class // no copy is known
	Asleep Class // no copy is online, but on members that are away or absent there is one
	One    Class // one copy counts, of more that are wanted
	Short  Class // fewer copies count than are wanted
	Full   Class // all copies that are wanted

	Thin Class // of all these: of several copies one is online, the others are on members that are away

	Missing  int64 // bytes of copies still to be made
	Fetching int   // pieces being fetched by this peer
	Waiting  int   // pieces that this peer would fetch now if a slot were free and no brake on
}

// Class is a number of pieces, and the bytes of one copy of each.
type Class struct {
	Pieces   int
	Bytes    int64
	Survives int // departures that each of them survives; the least, where they differ
}

func (c *Class) add(size int64, survives int) {
	if c.Pieces == 0 || survives < c.Survives {
		c.Survives = survives
	}
	c.Pieces++
	c.Bytes += size
}

// Totals counts. It looks at every piece.
func (p *Planner) Totals() (t Totals) {
	t.Fetching = len(p.flights)
	for i := range p.pieces {
		pc := &p.pieces[i]
		if pc.lined {
			t.Waiting++
		}
		if pc.wanted == 0 {
			continue
		}
		s := p.safety(int32(i))
		switch {
		case s.Lost:
			t.Lost.add(pc.size, s.Survives)
		case s.Asleep:
			t.Asleep.add(pc.size, s.Survives)
		case s.Copies == 1 && s.Wanted > 1:
			t.One.add(pc.size, s.Survives)
		case s.Copies < s.Wanted:
			t.Short.add(pc.size, s.Survives)
		default:
			t.Full.add(pc.size, s.Survives)
		}
		if s.Online == 1 && s.Copies > 1 {
			t.Thin.add(pc.size, s.Survives)
		}
		t.Missing += pc.size * int64(max(0, s.Wanted-s.Copies))
	}
	return t
}
