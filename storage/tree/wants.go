package tree

import (
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/shoal-os/shoal/storage/block/piece"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/tree/paths"
)

// Want says that the pool is to hold a piece.
type Want struct {
	Piece  piece.Piece
	Copies int  // 0: nothing names it any more
	Pinned bool // this peer keeps it whatever others hold
}

func want(w paths.Want) Want {
	return Want{piece.Piece{ID: w.ID, Size: w.Size}, w.Copies, w.Pinned}
}

// Live returns a function that reports whether some version names a piece: then it must not be collected. It sees each
// change as soon as it is made, so it may be used over a long time.
func (t *Tree) Live() func(chunk.CID) bool {
	return func(id chunk.CID) bool {
		t.mu.RLock()
		defer t.mu.RUnlock()
		return t.core.Live(id)
	}
}

// Want says what is wanted of one piece; Copies is 0 if nothing is. Within a minute after a version went it may say too many copies.
func (t *Tree) Want(id chunk.CID) Want {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return want(t.core.Want(id))
}

// Wants yields all pieces that some version names, those of replaced and removed ones included, in no order, as they
// are at one moment.
func (t *Tree) Wants() iter.Seq[Want] {
	return func(yield func(Want) bool) {
		for _, w := range t.allWants() {
			if !yield(w) {
				return
			}
		}
	}
}

func (t *Tree) allWants() []Want {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.core.Reckon()
	out := make([]Want, 0, t.core.Pieces())
	for w := range t.core.Wants() {
		out = append(out, want(w))
	}
	return out
}

// watchers are those who asked what changes of the wanted pieces. What they were not told yet is a set of pieces in
// the tree, so a slow one sees fewer states in between, never an old one last.
type watchers struct {
	mu   sync.Mutex
	next int
	byID map[int]func([]Want)
	wake chan struct{} // of capacity 1
}

// WatchWants has fn called with the pieces of which something changed, soon after it did: they became wanted, or no
// longer (Copies is 0), in more or, within a minute, fewer copies, pinned or not. Changes in quick succession may be told as one, and
// what was wanted already may be told again. Calls come one at a time, from one goroutine for all watchers; fn may use
// the tree. One call may still be on its way when stop returns. Who calls Wants after WatchWants misses nothing.
func (t *Tree) WatchWants(fn func([]Want)) (stop func()) {
	w := &t.watchers
	w.mu.Lock()
	defer w.mu.Unlock()
	id := w.next
	w.next++
	w.byID[id] = fn
	return func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		delete(w.byID, id)
	}
}

// changed wakes notify.
func (w *watchers) changed() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// reckonEvery is how often it is looked whether a piece is still wanted in as many copies as a version that is gone
// wanted. That takes a look at all versions if there is any such piece, and too many copies for a minute harm nobody.
const reckonEvery = time.Minute

// notify runs the watchers.
func (t *Tree) notify() {
	reckon := time.NewTicker(reckonEvery)
	defer reckon.Stop()
	for {
		due := false
		select {
		case <-t.watchers.wake:
		case <-reckon.C:
			due = true
		case <-t.ctx.Done():
			return
		}
		var wants []Want
		t.mu.Lock()
		if due {
			t.core.Reckon()
		}
		for _, w := range t.core.Changes() {
			wants = append(wants, want(w))
		}
		t.mu.Unlock()
		if len(wants) == 0 {
			continue
		}
		for _, fn := range t.watchers.list() {
			fn(wants)
		}
	}
}

// list returns the watchers in the order in which they came.
func (w *watchers) list() (out []func([]Want)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(w.byID)) {
		out = append(out, w.byID[id])
	}
	return out
}
