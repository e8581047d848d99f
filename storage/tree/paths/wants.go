package paths

import (
	"iter"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Want says that the pool must hold a piece.
type Want struct {
	Piece
	Copies int  // wanted; 0: nothing names the piece any more
	Pinned bool // this peer keeps it whatever others hold
}

// ledger counts what versions say of each piece.
type ledger struct {
	claims  map[chunk.CID]claim
	touched map[chunk.CID]struct{} // changed since they were last told
	unsure  map[chunk.CID]struct{} // whose claim has to be made up anew
	marks   int                    // pins in the whole tree
}

// claim is kept small: there is one for each piece. Sizes are at most PieceMax, so 32 bits hold them.
type claim struct {
	refs   uint32
	pins   uint32
	size   uint32
	copies uint8
	mixed  bool // versions that name it want different things of it
}

func newLedger() ledger {
	return ledger{
		claims: map[chunk.CID]claim{}, touched: map[chunk.CID]struct{}{}, unsure: map[chunk.CID]struct{}{},
	}
}

// add counts a version.
func (l *ledger) add(k *version) {
	for p := range k.pieces() {
		was, known := l.claims[p.ID]
		c := was
		c.refs++
		c.mixed = known && (was.mixed || was.copies != k.copies || was.size != uint32(p.Size))
		// Who forges a size or wants more copies makes the pool plan for more, never for less.
		c.copies, c.size = max(c.copies, k.copies), max(c.size, uint32(p.Size))
		l.claims[p.ID] = c
		if c.copies != was.copies || c.size != was.size {
			l.touched[p.ID] = struct{}{}
		}
	}
}

// remove takes a version that was added out again.
func (l *ledger) remove(k *version) {
	for p := range k.pieces() {
		c := l.claims[p.ID]
		if c.refs--; c.refs == 0 {
			delete(l.claims, p.ID)
			delete(l.unsure, p.ID)
			l.touched[p.ID] = struct{}{}
			continue
		}
		if k.flags&isPinned != 0 {
			c.pins--
		}
		if c.mixed {
			l.unsure[p.ID] = struct{}{}
		}
		l.claims[p.ID] = c
		l.touched[p.ID] = struct{}{}
	}
	k.flags &^= isPinned
}

// pin brings what is counted as pinned in line with the pins on a path and above it.
func (l *ledger) pin(n *node) {
	if l.marks == 0 {
		return
	}
	l.pinAs(n, n.isPinned())
}

func (l *ledger) pinAs(n *node, pinned bool) {
	for k := n.first; k != nil; k = k.next {
		want := pinned && k.kind == File && k.flags&head != 0
		if want == (k.flags&isPinned != 0) {
			continue
		}
		k.flags ^= isPinned
		for p := range k.pieces() {
			c := l.claims[p.ID]
			if want {
				c.pins++
			} else {
				c.pins--
			}
			l.claims[p.ID] = c
			l.touched[p.ID] = struct{}{}
		}
	}
}

// isPinned reports whether there is a pin on the path or above it.
func (n *node) isPinned() bool {
	for ; n != nil; n = n.parent {
		if n.marks > 0 {
			return true
		}
	}
	return false
}

// pieces is Version.EachPiece.
func (k *version) pieces() iter.Seq[Piece] {
	v := k.open()
	return v.EachPiece()
}

// Pin has this peer keep all that is under a path, now or later. Each call needs an Unpin.
func (t *Tree) Pin(path string) {
	n := t.ensure(path)
	n.marks++
	t.ledger.marks++
	t.repin(n, true)
}

// Unpin undoes one Pin.
func (t *Tree) Unpin(path string) {
	n := t.byHash[HashOf(path)]
	if n == nil || n.marks == 0 {
		return
	}
	n.marks--
	t.repin(n, n.isPinned())
	t.ledger.marks--
	t.prune(n)
}

// repin goes through all that is under n. pinned says whether a pin on n or above it covers that.
func (t *Tree) repin(n *node, pinned bool) {
	pinned = pinned || n.marks > 0
	t.ledger.pinAs(n, pinned)
	if n.dir != nil {
		for _, m := range n.dir.kids {
			t.repin(m, pinned)
		}
	}
}

// Live reports whether a version names a piece, a replaced or removed one included.
func (t *Tree) Live(id chunk.CID) bool {
	_, ok := t.ledger.claims[id]
	return ok
}

// Want returns what is wanted of a piece; its Copies are 0 if nothing names it.
func (t *Tree) Want(id chunk.CID) Want {
	c := t.ledger.claims[id]
	return Want{Piece{id, int64(c.size)}, int(c.copies), c.pins > 0}
}

// Wants yields all pieces that a version names, in no order.
func (t *Tree) Wants() iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for id := range t.ledger.claims {
			if !yield(t.Want(id)) {
				return
			}
		}
	}
}

// Changes returns what is wanted of the pieces for which that may have changed since it was last called.
func (t *Tree) Changes() []Want {
	if len(t.ledger.touched) == 0 {
		return nil
	}
	out := make([]Want, 0, len(t.ledger.touched))
	for id := range t.ledger.touched {
		out = append(out, t.Want(id))
	}
	t.Told()
	return out
}

// Told takes note that whoever asks for Changes knows all that is wanted now.
func (t *Tree) Told() { t.ledger.touched = map[chunk.CID]struct{}{} }

// Reckon makes up anew what is wanted of pieces of which versions that are gone wanted more than others: until then
// that stays. It goes through all versions once, if there is any such piece; they are rare.
func (t *Tree) Reckon() {
	l := &t.ledger
	if len(l.unsure) == 0 {
		return
	}
	fresh := make(map[chunk.CID]claim, len(l.unsure))
	for _, n := range t.byHash {
		for k := n.first; k != nil; k = k.next {
			for p := range k.pieces() {
				if _, ok := l.unsure[p.ID]; !ok {
					continue
				}
				c, known := fresh[p.ID]
				c.mixed = known && (c.mixed || c.copies != k.copies || c.size != uint32(p.Size))
				c.copies, c.size = max(c.copies, k.copies), max(c.size, uint32(p.Size))
				fresh[p.ID] = c
			}
		}
	}
	for id, c := range fresh {
		c.refs, c.pins = l.claims[id].refs, l.claims[id].pins
		if c != l.claims[id] {
			l.claims[id] = c
			l.touched[id] = struct{}{}
		}
	}
	clear(l.unsure)
}

// Pieces is how many Wants yields.
func (t *Tree) Pieces() int { return len(t.ledger.claims) }
