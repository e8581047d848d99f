package paths

import (
	"strings"

	"github.com/shoal-os/shoal/storage/chunk"
)

// Tree is what all versions together make.
type Tree struct {
	root     *node
	byHash   map[Hash]*node
	versions int
	ledger   ledger
}

// New returns a tree without versions: an empty root folder.
func New() *Tree {
	t := &Tree{root: &node{flags: exists}, byHash: map[Hash]*node{}, ledger: newLedger()}
	t.byHash[HashOf(Root)] = t.root
	return t
}

// Put takes in a version of a path. Both must have passed Check. A version that is there already may have got another
// time, for its author's clock was wrong; nothing else of it can change.
func (t *Tree) Put(path string, v *Version) {
	n := t.ensure(path)
	if old := n.find(v.ID); old != nil {
		if old.time == v.Time {
			return
		}
		n.take(old)
		old.time = v.Time
		n.insert(old)
		t.settle(n)
		return
	}
	k := keep(v)
	n.insert(k)
	t.versions++
	t.ledger.add(k)
	t.settle(n)
}

// Drop forgets a version: its record is gone.
func (t *Tree) Drop(path Hash, id ID) {
	n := t.byHash[path]
	if n == nil {
		return
	}
	k := n.find(id)
	if k == nil {
		return
	}
	n.take(k)
	t.versions--
	t.ledger.remove(k)
	t.settle(n)
	t.prune(n)
}

// Has reports whether a version is in the tree.
func (t *Tree) Has(path Hash, id ID) bool {
	n := t.byHash[path]
	return n != nil && n.find(id) != nil
}

// Versions is how many versions there are.
func (t *Tree) Versions() int { return t.versions }

// ensure returns the node of a path, and makes it and those above it if need be.
func (t *Tree) ensure(path string) *node {
	if n := t.byHash[HashOf(path)]; n != nil {
		return n
	}
	dir, name := Split(path)
	parent := t.ensure(dir)
	n := &node{name: strings.Clone(name), parent: parent}
	if parent.dir == nil {
		parent.dir = &folder{sorted: true}
	}
	parent.dir.add(n)
	parent.dir.folds.add(n)
	t.byHash[HashOf(path)] = n
	return n
}

// prune takes out a node that nothing speaks of any more, and those above it that were there for it alone.
func (t *Tree) prune(n *node) {
	for n.parent != nil && n.first == nil && n.marks == 0 && (n.dir == nil || len(n.dir.kids) == 0) {
		delete(t.byHash, HashOf(n.path()))
		up := n.parent
		up.dir.remove(n)
		up.dir.folds.remove(n)
		if len(up.dir.kids) == 0 {
			up.dir = nil
		}
		n.parent = nil
		n = up
	}
}

// settle decides anew what a path shows, after its versions or what is inside it changed.
func (t *Tree) settle(n *node) {
	for n != nil {
		was, had := n.flags&exists != 0, n.flags&clashes != 0
		n.decide()
		t.ledger.pin(n)
		up := n.parent
		if up == nil {
			return
		}
		if has := n.flags&clashes != 0; has != had {
			up.dir.setApart(n, has)
		}
		is := n.flags&exists != 0
		if is == was {
			return
		}
		wasFolder := up.dir.live > 0
		if is {
			up.dir.live++
		} else {
			up.dir.live--
		}
		if wasFolder == (up.dir.live > 0) {
			return // what is above does not change for it
		}
		n = up
	}
}

func (f *folder) setApart(n *node, apart bool) {
	if !apart {
		delete(f.apart, n)
		return
	}
	if f.apart == nil {
		f.apart = map[*node]struct{}{}
	}
	f.apart[n] = struct{}{}
}

// decide finds the heads, what of them is shown under the path's own name, and what beside it.
//
// A folder keeps the name before any file, because the paths of what is inside need it; else the latest head does.
// Heads that say the same are one: two peers that put the same file did not disagree.
func (n *node) decide() {
	n.flags &^= exists | clashes
	n.top = nil
	n.findHeads()
	for k := n.first; k != nil; k = k.next {
		if k.flags&head == 0 || k.kind == Removed {
			continue
		}
		if n.top == nil || k.kind == Folder && n.top.kind != Folder {
			n.top = k
		}
	}
	inside := n.liveInside() > 0 || n.parent == nil
	if inside && n.top != nil && n.top.kind != Folder {
		n.top = nil
	}
	if inside || n.top != nil {
		n.flags |= exists
	}
	n.putBeside()
}

// says is what a version of a file says: see Version.Same.
type says struct {
	root chunk.CID
	size int64
}

// putBeside marks the file heads that are to stand beside the path: those that the path does not show, and of several
// that say the same the latest.
func (n *node) putBeside() {
	if n.first != nil && n.first.next == nil && n.first == n.top { // as nearly always
		n.first.flags &^= beside
		return
	}
	shown := map[says]bool{}
	if n.top != nil && n.top.kind == File {
		shown[says{n.top.root, n.top.size}] = true
	}
	for k := n.first; k != nil; k = k.next {
		k.flags &^= beside
		if k.flags&head == 0 || k.kind != File || shown[says{k.root, k.size}] {
			continue
		}
		shown[says{k.root, k.size}] = true
		k.flags |= beside
		n.flags |= clashes
	}
}

// findHeads marks the versions that no other replaces.
func (n *node) findHeads() {
	if n.first == nil {
		return
	}
	if n.first.next == nil { // as nearly always
		n.first.flags |= head
		return
	}
	replaced := map[ID]bool{}
	for k := n.first; k != nil; k = k.next {
		if k.rest == nil {
			continue
		}
		for _, id := range k.rest.replaces {
			if id != k.id {
				replaced[id] = true
			}
		}
	}
	heads := 0
	for k := n.first; k != nil; k = k.next {
		k.flags &^= head
		if !replaced[k.id] {
			k.flags |= head
			heads++
		}
	}
	if heads == 0 {
		// They replace each other in a circle. Ids are hashes, so nobody can make one; should it happen all the same,
		// then everything is shown rather than nothing.
		for k := n.first; k != nil; k = k.next {
			k.flags |= head
		}
	}
}
