package storage

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"

	"github.com/shoal-os/shoal/storage/block"
	"github.com/shoal-os/shoal/storage/chunk"
	"github.com/shoal-os/shoal/storage/chunk/bitfield"
	"github.com/shoal-os/shoal/storage/exchange"
	"github.com/shoal-os/shoal/storage/exchange/sched"
)

// aheadLeaves bounds the leaves of a reader's window: those of small files come
// many to the 8 MiB.
const aheadLeaves = 1024

// leaves reads a content's leaves, verified, waiting for those that are not
// here. It is for one goroutine.
type leaves struct {
	c    *Content
	ctx  context.Context
	need *exchange.Reader

	ahead bitfield.Run // what was last asked for
	files map[*block.Root]*block.Reader
	at    int // the leaf in data; -1 for none
	data  []byte
}

func (c *Content) newLeaves(ctx context.Context) *leaves {
	return &leaves{c: c, ctx: ctx, need: c.fill.s.swarm.NewReader(c.fill.root, c.fill.on.private), at: -1}
}

// Close ends what was asked for and closes the files.
func (l *leaves) Close() {
	l.need.Close()
	for _, f := range l.files {
		f.Close()
	}
	l.files = nil
}

// read returns the bytes of leaf i, valid until the next call. Leaves before end
// will be read next, if any.
func (l *leaves) read(i, end int) ([]byte, error) {
	if l.at == i {
		return l.data, nil
	}
	for {
		if err := l.await(i, end); err != nil {
			return nil, err
		}
		again, err := l.load(i)
		if err != nil {
			l.at = -1
			return nil, err
		}
		if !again {
			l.at = i
			return l.data, nil
		}
	}
}

// await returns when leaf i is here.
func (l *leaves) await(i, end int) error {
	f := l.c.fill
	_, failed, _ := f.state()
	for {
		news, fails, why := f.state()
		var changed [2]<-chan struct{}
		here := false
		for k, r := range f.roots() {
			changed[k] = r.Changed()
			here = here || r.Has(i)
		}
		l.look(i, end, !here)
		if here {
			return l.ctx.Err()
		}
		if fails > failed {
			return why
		}
		f.want()
		select {
		case <-changed[0]:
		case <-changed[1]:
		case <-news:
		case <-l.c.closing:
			return ErrClosed
		case <-l.ctx.Done():
			return l.ctx.Err()
		}
	}
}

// look has what is ahead of leaf i fetched, unless all of it is here. To keep
// its cost from every leaf, it looks again only in the middle of what it saw.
func (l *leaves) look(i, end int, waiting bool) {
	inside := i >= l.ahead.First && i < l.ahead.First+(l.ahead.Count+1)/2
	if inside && !waiting {
		l.need.Need(l.ahead, false)
		return
	}
	tree := l.c.tree
	run, bytes, missing := bitfield.Run{First: i}, 0, waiting
	roots := l.c.fill.roots()
	for k := i; k < min(end, i+aheadLeaves) && bytes < sched.ReadAhead; k++ {
		bytes += max(0, int(tree.Leaves[k].Size))
		run.Count++
		missing = missing || !held(roots, k)
	}
	l.ahead = run
	if !missing {
		run = bitfield.Run{}
	}
	l.need.Need(run, waiting)
	if missing {
		l.c.fill.want()
	}
}

func held(roots []*block.Root, leaf int) bool {
	for _, r := range roots {
		if r.Has(leaf) {
			return true
		}
	}
	return false
}

// load reads leaf i from where it lies. again says that what lay there was not
// the leaf, and that it is being fetched anew.
func (l *leaves) load(i int) (again bool, err error) {
	for _, r := range l.c.fill.roots() {
		if !r.Has(i) {
			continue
		}
		var bad error
		if l.data, bad = l.readFrom(r, i); bad == nil {
			if sha256.Sum256(l.data) == l.c.tree.Leaves[i].CID.Sum {
				return false, nil
			}
			bad = block.ErrChanged
		}
		if l.c.fill.on.mends(r) {
			continue
		}
		if r.Info().State != block.Partial {
			// Files of the user's own are not repaired behind his back.
			err = errors.Join(err, fmt.Errorf("storage: %s: %w", l.pathOf(i), bad))
			continue
		}
		if bad := r.Unmark(i); bad != nil {
			return false, bad
		}
	}
	return err == nil, err
}

func (l *leaves) pathOf(leaf int) string {
	if p := l.c.tree.Entries[l.c.tree.Leaves[leaf].Entry].Path; p != "" {
		return p
	}
	return l.c.fill.name
}

// readFrom reads leaf i with a reader of the root that is kept for the next.
func (l *leaves) readFrom(r *block.Root, i int) ([]byte, error) {
	f := l.files[r]
	if f == nil {
		for old, f := range l.files { // of a record that was replaced, most likely
			f.Close()
			delete(l.files, old)
		}
		var err error
		if f, err = r.NewReader(); err != nil {
			return l.data, err
		}
		if l.files == nil {
			l.files = map[*block.Root]*block.Reader{}
		}
		l.files[r] = f
	}
	return f.ReadLeaf(i, l.data[:0])
}

// leafAt is the index of the leaf of entry e that holds a byte of its file.
func leafAt(tree *chunk.Tree, e *chunk.Entry, offset int64) int {
	low, high := e.First, e.First+e.Count
	for low+1 < high {
		mid := (low + high) / 2
		if tree.Leaves[mid].Offset <= offset {
			low = mid
		} else {
			high = mid
		}
	}
	return low
}
