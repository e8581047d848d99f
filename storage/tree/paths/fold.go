package paths

import (
	"hash/maphash"
	"slices"
)

// folds finds the names of a folder that some file systems take for the same. It is made when somebody first writes
// into the folder: those who only read need none.
type folds struct {
	seed  maphash.Seed
	first map[uint64]*node
	more  map[uint64][]*node // further nodes of one hash: rare
}

func newFolds(kids []*node) *folds {
	f := &folds{seed: maphash.MakeSeed(), first: make(map[uint64]*node, len(kids)), more: map[uint64][]*node{}}
	for _, n := range kids {
		f.add(n)
	}
	return f
}

func (f *folds) hash(name string) uint64 { return maphash.String(f.seed, Fold(name)) }

// add notes a node. A nil f does nothing, like remove.
func (f *folds) add(n *node) {
	if f == nil {
		return
	}
	h := f.hash(n.name)
	if f.first[h] == nil {
		f.first[h] = n
	} else {
		f.more[h] = append(f.more[h], n)
	}
}

func (f *folds) remove(n *node) {
	if f == nil {
		return
	}
	h := f.hash(n.name)
	rest := f.more[h]
	if f.first[h] == n {
		delete(f.first, h)
		if len(rest) > 0 {
			f.first[h], rest = rest[0], rest[1:]
		}
	} else if i := slices.Index(rest, n); i >= 0 {
		rest = slices.Delete(rest, i, i+1)
	}
	if len(rest) == 0 {
		delete(f.more, h)
	} else {
		f.more[h] = rest
	}
}

// clash returns an existing node whose name is another one but folds to the same.
func (f *folds) clash(name string) *node {
	h, folded := f.hash(name), Fold(name)
	same := func(n *node) bool {
		return n != nil && n.name != name && n.flags&exists != 0 && Fold(n.name) == folded
	}
	if n := f.first[h]; same(n) {
		return n
	}
	if i := slices.IndexFunc(f.more[h], same); i >= 0 {
		return f.more[h][i]
	}
	return nil
}

// Clash looks whether something in the folder dir has a name that differs from name only in case, or in how its
// letters are put together, so that some file systems cannot hold both. It returns that name. It must not be called
// while others read the tree.
func (t *Tree) Clash(dir, name string) (string, bool) {
	n := t.byHash[HashOf(dir)]
	if n == nil || n.dir == nil {
		return "", false
	}
	if n.dir.folds == nil {
		n.dir.folds = newFolds(n.dir.kids)
	}
	if other := n.dir.folds.clash(name); other != nil {
		return other.name, true
	}
	return "", false
}
