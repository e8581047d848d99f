package placement

import (
	"cmp"
	"math"
	"slices"
	"time"

	"github.com/shoal-os/shoal/storage/chunk"
)

const (
	// ProofLife is for how long a promise to keep a copy holds, and so how long a Trim may take.
	ProofLife = 2 * time.Minute

	trimsSmall = 64          // trims of small pieces under way …
	trimsLarge = 2           // … and of large ones, for which much may have to be read
	trimScan   = 4096        // pieces looked at in one step
	trimPause  = time.Second // between such steps
)

// trimmer lets surplus copies go when room is short.
type trimmer struct {
	pending  []letting
	promised map[int32]time.Duration // Boot until which this peer keeps a piece, by its word
	needed   uint64                  // bytes that must be free now …
	until    time.Duration           // … for so long
	cursor   int                     // the piece looked at last
	left     int                     // pieces still to be looked at in this round
	least    int                     // copies of a piece from which on one is let go in this round
	most     int                     // the most copies that a piece with one to let go had in this round
	next     time.Duration           // when to go on
}

// letting is a Trim under way.
type letting struct {
	piece int32
	until time.Duration
}

// forget takes a piece out of what is under way, and reports whether it was there.
func (t *trimmer) forget(i int32) bool {
	k := slices.IndexFunc(t.pending, func(l letting) bool { return l.piece == i })
	if k >= 0 {
		t.pending = slices.Delete(t.pending, k, k+1)
	}
	return k >= 0
}

func (p *Planner) kept(id chunk.CID) {
	if i, ok := p.index[id]; ok {
		p.trim.forget(i)
	}
}

func (p *Planner) need(bytes uint64) {
	p.trim.needed, p.trim.until = bytes, p.now+p.cfg.Lease
	p.trim.next, p.trim.left = p.now, len(p.pieces)
}

// tight is how many bytes are to be freed, and whether somebody waits for them.
func (p *Planner) tight() (bytes uint64, hard bool) {
	if p.pool.self < 0 {
		return 0, false
	}
	me := p.pool.list[p.pool.self].peer
	free := me.Free
	for _, l := range p.trim.pending {
		free += uint64(p.pieces[l.piece].size)
	}
	reserve := p.cfg.Reserve
	if reserve == 0 {
		reserve = me.Space / reserveShare
	}
	hard = p.trim.needed > free && p.now < p.trim.until
	if want := max(p.trim.needed, reserve); hard && want > free {
		return want - free, true
	}
	return max(reserve, free) - free, false
}

// let looks for surplus copies while room is short, a bounded number of pieces at a time.
func (p *Planner) let() {
	t := &p.trim
	t.pending = slices.DeleteFunc(t.pending, func(l letting) bool { return p.now > l.until })
	if p.now < t.next {
		return
	}
	want, hard := p.tight()
	if want == 0 {
		t.next = never
		return
	}
	if held := p.trimHeld(hard); held > p.now {
		t.next = held
		return
	}
	p.round(want, hard)
}

// round goes on with a round through all pieces, by a bounded number of them. It lets go what has as many copies as the
// round before has seen at most; or whatever can be if somebody waits.
func (p *Planner) round(want uint64, hard bool) {
	t := &p.trim
	if t.left <= 0 {
		t.left, t.least, t.most = len(p.pieces), cmp.Or(t.most, math.MaxInt), 0
	}
	if t.next = p.now + trimPause; t.left == 0 {
		t.next = p.now + p.cfg.Lease
	}
	for range min(trimScan, t.left) {
		i := int32((t.cursor + 1) % len(p.pieces))
		if trim, ok := p.offer(i, hard); ok {
			if p.trimming(p.pieces[i].class()) {
				return // until one of those under way is done
			}
			t.pending = append(t.pending, letting{i, trim.Until})
			p.out.Trim = append(p.out.Trim, trim)
			want -= min(want, uint64(trim.Size))
		}
		t.left, t.cursor = t.left-1, int(i)
		if t.left == 0 || want == 0 {
			t.next = p.now + p.cfg.Lease
			return
		}
	}
}

// offer reports whether a piece is to be let go in this round.
func (p *Planner) offer(i int32, hard bool) (Trim, bool) {
	t := &p.trim
	copies := p.holders(i).shared(p.pool.counted)
	if copies <= t.most && copies < t.least && !hard {
		return Trim{}, false
	}
	trim, ok := p.surplus(i, hard)
	if ok {
		t.most = max(t.most, copies)
	}
	return trim, ok && (hard || copies >= t.least)
}

// trimming reports that there are as many trims of a class under way as there may be.
func (p *Planner) trimming(class int) bool {
	left := [2]int{trimsLarge, trimsSmall}[class]
	for _, l := range p.trim.pending {
		if p.pieces[l.piece].class() == class {
			left--
		}
	}
	return left <= 0
}

// trimHeld is until when nothing is let go. What this peer promised before a restart it does not know; it has run out
// by then.
func (p *Planner) trimHeld(hard bool) time.Duration {
	held := max(p.grace, p.begun+ProofLife)
	if p.brake != Free && !hard {
		held = max(held, p.now+p.cfg.Lease)
	}
	return held
}

// surplus reports whether this peer's copy of a piece may be let go: enough others have one that counts and are online to
// prove it, and this peer is not among those that should keep it, unless somebody waits for the room.
func (p *Planner) surplus(i int32, hard bool) (Trim, bool) {
	pc, h, self := &p.pieces[i], p.holders(i), p.pool.self
	if pc.wanted == 0 || pc.pinned || !h.has(self) || p.trim.promised[i] > p.now {
		return Trim{}, false
	}
	wanted := int(pc.wanted)
	if h.shared(p.pool.reach) <= wanted { // this peer is one of them
		return Trim{}, false
	}
	if slices.ContainsFunc(p.trim.pending, func(l letting) bool { return l.piece == i }) {
		return Trim{}, false
	}
	may := append(set(nil), h...)
	for k := range may {
		may[k] &= p.pool.counted[k]
	}
	if keepers := p.pool.field.choose(fold(pc.id.Sum[:]), nil, may, wanted); !hard && slices.Contains(keepers, self) {
		return Trim{}, false
	}
	trim := Trim{Piece: pc.id, Size: pc.size, Need: wanted, Until: p.now + ProofLife}
	for _, id := range p.sources(i) {
		if p.pool.counted.has(p.pool.slots[id]) {
			trim.From = append(trim.From, id)
		}
	}
	return trim, true
}

// Promise reports whether this peer holds a piece and gives its word to keep it for the next ProofLife: the answer to
// another's request for proof. It is refused while this peer is letting the piece go itself, so that of two that rely on
// each other at most one lets go. The shell makes sure beforehand that the bytes are there and right. now is as in Step.
func (p *Planner) Promise(now Moment, id chunk.CID) bool {
	i, ok := p.index[id]
	self := p.pool.self
	if !ok || self < 0 || !p.holders(i).has(self) || !p.pool.counted.has(self) {
		return false
	}
	if slices.ContainsFunc(p.trim.pending, func(l letting) bool { return l.piece == i && now.Boot <= l.until }) {
		return false
	}
	p.trim.promised[i] = now.Boot + ProofLife
	p.sweep = min(p.sweep, now.Boot+p.cfg.Lease)
	return true
}
