package keep

import (
	"iter"
	"sync"

	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree"
)

// Names says which pieces are wanted; *tree.Tree is one, *Keeper another.
type Names interface {
	Want(chunk.CID) tree.Want
	Wants() iter.Seq[tree.Want]
	WatchWants(f func([]tree.Want)) (stop func())
	Live() func(chunk.CID) bool
}

// Both wants what either of two wants: of a piece that both name, the more.
type Both struct{ a, b Names }

// Union joins two.
func Union(a, b Names) *Both { return &Both{a, b} }

// Want says what is wanted of one piece.
func (u *Both) Want(id chunk.CID) tree.Want { return more(u.a.Want(id), u.b.Want(id)) }

func more(a, b tree.Want) tree.Want {
	a.Piece.ID = b.Piece.ID
	a.Piece.Size = max(a.Piece.Size, b.Piece.Size)
	a.Copies = max(a.Copies, b.Copies)
	a.Pinned = a.Pinned || b.Pinned
	return a
}

// Wants yields each piece that either wants.
func (u *Both) Wants() iter.Seq[tree.Want] {
	return func(yield func(tree.Want) bool) {
		for w := range u.a.Wants() {
			if !yield(more(w, u.b.Want(w.Piece.ID))) {
				return
			}
		}
		for w := range u.b.Wants() {
			if o := u.a.Want(w.Piece.ID); o.Copies == 0 && !o.Pinned && !yield(w) {
				return
			}
		}
	}
}

// WatchWants has f called with what changed, one call at a time, and the last about a piece with what holds then.
func (u *Both) WatchWants(f func([]tree.Want)) (stop func()) {
	var mu sync.Mutex
	tell := func(list []tree.Want) {
		mu.Lock() // over the look as well: who looks later tells later
		defer mu.Unlock()
		out := make([]tree.Want, len(list))
		for i, w := range list {
			out[i] = u.Want(w.Piece.ID)
			out[i].Piece.Size = max(out[i].Piece.Size, w.Piece.Size)
		}
		f(out)
	}
	stopA, stopB := u.a.WatchWants(tell), u.b.WatchWants(tell)
	return func() { stopA(); stopB() }
}

// Live returns a function that reports whether a piece must not be collected.
func (u *Both) Live() func(chunk.CID) bool {
	a, b := u.a.Live(), u.b.Live()
	return func(id chunk.CID) bool { return a(id) || b(id) }
}
